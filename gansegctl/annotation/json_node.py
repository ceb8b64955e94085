"""JSON that may be wrong in any way: each value knows its file and its place in it, and says both when it complains."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gansegctl.annotation.safe_png import read_bytes
from gansegctl.errors import UsageError, did_you_mean

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class Node:
    """A JSON value, the file it is from, and where in it: `node["shapes"][0]["label"].text()`."""

    def __init__(self, value: Any, file: Path | str, place: str = "") -> None:
        self.value, self.file, self.place = value, file, place

    @property
    def where(self) -> str:
        """File and place, as messages name them."""
        return f"{self.file}: {self.place or 'the whole'}"

    def wrong(self, what: str, wanted: str, remedy: str = "export the annotation again") -> UsageError:
        """The error to raise: this value is `what`."""
        return UsageError(f"got {self.where} {what}", wanted=wanted, remedy=remedy)

    def has(self, key: str) -> bool:
        """Whether an object has the key, with a value other than null."""
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def __getitem__(self, key: str | int) -> Node:
        if isinstance(key, int):
            return Node(self.value[key], self.file, f"{self.place}[{key}]")
        table = self.table()
        place = f"{self.place}.{key}" if self.place else key
        if key not in table:
            raise self.wrong(f"without {key!r}", f"an object with {key!r}", did_you_mean(key, [str(k) for k in table]))
        return Node(table[key], self.file, place)

    def table(self) -> dict[str, Any]:
        """An object's members. UsageError for anything else."""
        return self._as(dict, "an object")

    def items(self) -> Iterator[Node]:
        """The members of a list. UsageError for anything else, at once."""
        value = self._as(list, "a list")
        return (Node(v, self.file, f"{self.place}[{i}]") for i, v in enumerate(value))

    def text(self) -> str:
        """A text. UsageError for anything else."""
        return self._as(str, "a text")

    def integer(self) -> int:
        """A whole number. UsageError for anything else."""
        value = self.number()
        if value != int(value):
            raise self.wrong(f"is {value}", "a whole number")
        return int(value)

    def number(self) -> float:
        """A finite number of at most 1e15. UsageError for anything else."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.wrong(f"is {self._kind()}", "a number")
        if not math.isfinite(self.value) or abs(self.value) > 1e15:
            raise self.wrong(f"is {str(self.value)[:20]}", "a number within reason")
        return self.value

    def point(self) -> tuple[float, float]:
        """[x, y]."""
        pair = list(self.items())
        if len(pair) != 2:
            raise self.wrong(f"has {len(pair)} numbers", "[x, y]")
        return pair[0].number(), pair[1].number()

    def _as(self, kind: type, wanted: str) -> Any:
        if not isinstance(self.value, kind):
            raise self.wrong(f"is {self._kind()}", wanted)
        return self.value

    def _kind(self) -> str:
        return _KINDS.get(type(self.value), type(self.value).__name__)


def read_json(path: Path) -> Node:
    """A JSON file. UsageError for one that is missing, huge, empty, no UTF-8, no JSON, or too deep."""
    data = read_bytes(path)
    if not data.strip():
        raise UsageError(f"got {path}: an empty file", wanted="JSON", remedy="export the annotation again")
    try:
        return Node(json.loads(data.decode("utf-8-sig"), parse_constant=_no_number), path)
    except UnicodeDecodeError as e:
        raise UsageError(
            f"got {path}: no UTF-8 text (byte {e.start})", wanted="JSON in UTF-8", remedy="save it as UTF-8"
        ) from None
    except json.JSONDecodeError as e:
        cut = " (the file ends too early)" if e.pos >= len(data.rstrip()) - 1 else ""
        raise UsageError(
            f"got {path}: no JSON, line {e.lineno} column {e.colno}: {e.msg}{cut}",
            wanted="a whole JSON file",
            remedy="export the annotation again",
        ) from None
    except RecursionError:
        raise UsageError(f"got {path}: JSON nested too deep", wanted="an annotation file") from None
    except ValueError as e:
        raise UsageError(f"got {path}: {str(e)[:80]}", wanted="JSON with numbers within reason") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name}, which JSON does not have")
