"""The rows of benchmarks/real/bench.py: a file that several processes fill, and failures kept as rows of their own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gansegctl.errors import GansegError
from gansegctl.io.atomic import clean_parts, write_text

ROWS = "rows.json"
TOLD = 600  # characters of a failure that are kept


class Rows:
    """FOLDER/rows.json: `head` says what all its rows were measured with. `row(key)` says whether one is there.

    retry: drop the rows of what failed, so that it is measured again.
    """

    def __init__(self, folder: Path, head: dict[str, Any], retry: bool = False) -> None:
        self.folder, self.head, self.path = folder, head, folder / ROWS
        folder.mkdir(parents=True, exist_ok=True)
        clean_parts(folder)
        with self._alone():
            self.rows = [r for r in self._on_disk() if not (retry and "failed" in r)]
            self._write()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While this lasts, no other process writes rows."""
        with (self.folder / "rows.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _on_disk(self) -> list[dict]:
        return json.loads(self.path.read_text())["rows"] if self.path.exists() else []

    def row(self, **key) -> dict | None:
        return next((r for r in self.rows if all(r.get(k) == v for k, v in key.items())), None)

    def keep(self, row: dict) -> None:
        """Add a row to those that this and other processes have measured."""
        with self._alone():
            self.rows = [r for r in self._on_disk() if key_of(r) != key_of(row)] + [row]
            self._write()
        print(json.dumps({k: v for k, v in row.items() if k not in ("iou", "dice")}), flush=True)

    def _write(self) -> None:
        write_text(self.path, json.dumps({"head": self.head, "rows": self.rows}, indent=1) + "\n")

    def attempt(self, measure: Callable[[], Any], **key) -> None:
        """Make the row with this key, if it is not there. One that fails is kept with why, and the others go on."""
        self.rows = self._on_disk()
        if self.row(**key) is not None:
            return
        try:
            measure()
        except GansegError as e:
            self.keep(key | {"failed": cut(str(e))})
        except Exception:  # a bug in one method, or no memory: the others have nothing to do with it
            lines = traceback.format_exc().strip().splitlines()
            self.keep(key | {"failed": cut("\n".join(reversed(lines[-6:])))})


def cut(text: str) -> str:
    return text if len(text) <= TOLD else text[:TOLD] + " …"


def key_of(row: dict) -> str:
    """Which row it is, as "shots, method linear, source real, shots 5, draw 0"."""
    key = [row["kind"]] + [f"{k} {row[k]}" for k in ("method", "source", "shots", "count", "draw") if k in row]
    return ", ".join(key)
