"""A run folder belongs to its record: begin it, go on with it, or refuse and name what differs.

A record holds all that the results in the folder depend on, as JSON values: settings, and digests of inputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gansegctl.errors import GansegError, UsageError
from gansegctl.io.atomic import clean_parts, create_text, explained, sync_folder

Record = Mapping[str, Any]
ABSENT = "nothing"
REMEDY = "use those, or choose another -o"


def begin(
    folder: Path,
    record: Record,
    name: str = "settings.json",
    *,
    notes: Record | None = None,
    alone: bool = False,
    indent: int | None = 1,
    error: type[GansegError] = UsageError,
    remedy: str = REMEDY,
) -> bool:
    """Begin `folder`, or go on with it; True where it was begun before with the same record.

    name: the file in the folder that keeps the record. notes: values kept beside the record and never compared. alone:
    the folder is the run's alone: other files in it are refused, and what killed processes left is removed. indent: of
    the file's JSON, None for one line. Errors: `error`, naming all that differs, for another record or one that cannot
    be read; UsageError for other files; GansegError for a folder that cannot be written.
    """
    notes = notes or {}
    text = json.dumps({**record, **notes}, indent=indent, ensure_ascii=False) + "\n"
    if claim(folder, name, text, alone):
        return False
    before = read_record(folder / name, error)
    require_same({k: v for k, v in before.items() if k not in notes}, record, folder, error, remedy)
    if alone:
        clean_parts(folder)
    return True


def claim(folder: Path, name: str, text: str, alone: bool = True) -> bool:
    """Make `folder` and in it `name` with this text; False where `name` is there already, whoever was quicker.

    Errors: UsageError for other files in a folder that must be the run's alone, GansegError for one that cannot be
    written.
    """
    path = folder / name
    others = _others(folder)
    if path.is_file():  # asked after the listing: another process may just have begun it
        return False
    if alone:
        _refuse(folder, others, f"one with {name} to go on with")
        clean_parts(folder)
    try:
        create_text(path, text, sync=True)
        sync_folder(folder)
    except FileExistsError:
        return False
    except OSError as e:
        raise explained(e, path, len(text.encode())) from e
    return True


def require_empty(folder: Path, besides: Collection[str] = ()) -> None:
    """Make `folder`, or UsageError where it holds anything but `besides`; GansegError where it cannot be made."""
    _refuse(folder, [other for other in _others(folder) if other not in besides], "one to go on with")


def read_record(path: Path, error: type[GansegError] = UsageError) -> dict[str, Any]:
    """The table in a record's file. `error` for a file that cannot be read or holds something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise error(f"got {path}: {e}", wanted="the record of a run", remedy="choose another -o") from e
    if not isinstance(record, dict):
        raise error(f"got {path}: no table", wanted="the record of a run", remedy="choose another -o")
    return record


def require_same(
    before: Record, now: Record, place: Path | str, error: type[GansegError] = UsageError, remedy: str = REMEDY
) -> None:
    """`error`, naming every key that differs with its old and its new value, unless both records are the same."""
    if found := differences(before, now):
        raise error(
            f"got {place}, begun with other settings or inputs: {'; '.join(map(str, found))}",
            wanted="the same, to go on",
            remedy=remedy,
        )


class Difference(NamedTuple):
    """One value of a record: its dotted key, and as JSON what it was and what it is now; ABSENT where it is not."""

    key: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} there, {_shown(self.now)} asked for"


def differences(before: Record, now: Record) -> list[Difference]:
    """All values that differ, compared as JSON: a tuple and the list that it is stored as are the same."""
    old, new = _flat(before), _flat(now)
    both = ((key, old.get(key, ABSENT), new.get(key, ABSENT)) for key in new | old)
    return [Difference(key, was, to) for key, was, to in both if was != to]


def _flat(table: Record, prefix: str = "") -> dict[str, str]:
    """Each leaf under its dotted path, as JSON."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return flat


def _shown(value: str) -> str:
    """A digest by its first 12 digits, anything else whole."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", value)


def _others(folder: Path) -> list[str]:
    """Make `folder`; the names in it, without files that are being written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return sorted(p.name for p in folder.iterdir() if ".part." not in p.name)
    except OSError as e:
        raise explained(e, folder, 0) from e


def _refuse(folder: Path, others: list[str], or_else: str) -> None:
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UsageError(
            f"got {folder}, which holds {others[0]}{more}",
            wanted=f"a new or empty folder, or {or_else}",
            remedy="choose another -o",
        )
