"""An append-only journal on disk: every record is safe before it is answered; what a crash tore off is dropped."""

from __future__ import annotations

import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

from gansegctl.errors import GansegError, UsageError
from gansegctl.io.atomic import sync_folder


class Journal:
    """One JSON object a line, its CRC-32 before it. `records` are those found on opening, in order.

    A last line that is not whole (the process or the machine stopped in the middle of it) was never confirmed to
    anybody and is cut off. Errors: UsageError when another process has the journal open; GansegError for a damaged
    line before the last, and for a disk that takes no more.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        self._file = self.path.open("a+b")
        try:
            self._lock()
            self.records = self._read()
        except BaseException:
            self._file.close()
            raise
        if new:
            sync_folder(self.path.parent)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and wait until it is on disk. On failure the journal is as before."""
        body = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(b"%08x %s\n" % (zlib.crc32(body), body))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            self._cut(end)
            raise GansegError(
                f"got {self.path}: {e}", wanted="a stroke on disk", remedy="free space; the page sends it again"
            ) from e

    def close(self) -> None:
        """Let others open it."""
        self._file.close()

    def _cut(self, end: int) -> None:
        try:
            self._file.truncate(end)
        except OSError:  # then the next opening cuts it off
            return

    def _lock(self) -> None:
        if sys.platform == "win32":  # there two sessions on one folder are not noticed
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"got {self.path}, which another process has open",
                wanted="one `annotate --ui` a dataset",
                remedy="use the page that is open, or end that process",
            ) from None

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        data = self._file.read()
        records, place = [], 0
        while place < len(data):
            end = data.find(b"\n", place)
            if end < 0:  # torn off while it was written
                self._file.truncate(place)
                break
            record = _parse(data[place:end])
            if record is None:
                raise GansegError(
                    f"got {self.path}, damaged at byte {place}",
                    wanted="the lines that were written",
                    remedy="restore it from a backup, or delete that line: the strokes after it stay",
                )
            records.append(record)
            place = end + 1
        return records


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        if int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        record = json.loads(line[9:])
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
