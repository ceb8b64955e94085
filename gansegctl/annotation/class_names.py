"""The classes as files name them, matched to those of the dataset by name and never by order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gansegctl.errors import UsageError, did_you_mean
from gansegctl.labels import IGNORE, LabelMap

IGNORED_NAMES = ("__ignore__", "ignore")
"""Labels that mean "nothing learns from these pixels", unless a class is called so."""


@dataclass(frozen=True)
class FolderLabels:
    """The classes as a folder declares them: mask value ids[i], shown in colours[i], means class targets[i]."""

    ids: tuple[int, ...]
    colours: tuple[tuple[int, int, int], ...]
    targets: tuple[int, ...]
    names: tuple[str, ...]

    def lookup(self) -> np.ndarray:
        """int16 [256]: folder value → class id, 255 → 255, −1 for undeclared values."""
        table = np.full(256, -1, np.int16)
        table[IGNORE] = IGNORE
        table[list(self.ids)] = self.targets
        return table


def class_of(name: str, labels: LabelMap, where: str) -> int:
    """The class id of a label, 255 for those that mean "ignored". where: file and shape, named in the UsageError."""
    if name in labels.names:
        return labels.names.index(name)
    if name in IGNORED_NAMES:
        return IGNORE
    raise UsageError(
        f"got the label {name!r} in {where}",
        wanted="a class of this dataset: " + ", ".join(labels.names),
        remedy=did_you_mean(name, labels.names) + "; rename the label in the tool, or add the class with --classes",
    )


def declared_classes(path: Path) -> LabelMap:
    """The classes of a labels.json, in the order of their ids. UsageError for a file that cannot be read."""
    rows = _rows(path)
    return LabelMap(tuple(r["name"] for r in rows), tuple(tuple(r["colour"]) for r in rows))


def folder_labels(path: Path, labels: LabelMap) -> FolderLabels:
    """Read a labels.json, matched to `labels` by name; `labels` itself when there is no such file.

    Errors: UsageError for a file that cannot be read, a class that `labels` lacks, an id, a name or a colour twice.
    """
    rows = _rows(path) if path.is_file() else labels.to_json()
    for row in rows:
        if row["name"] not in labels.names:
            raise UsageError(
                f"got class {row['name']!r} in {path}",
                wanted="a class of this dataset: " + ", ".join(labels.names),
                remedy=did_you_mean(row["name"], labels.names),
            )
        if not 0 <= row["id"] < IGNORE or len(row["colour"]) != 3 or not all(0 <= v <= 255 for v in row["colour"]):
            raise UsageError(f"got {row} in {path}", wanted="an id from 0 to 254 and three values from 0 to 255")
    for key in ("id", "name"):
        values = [row[key] for row in rows]
        if len(set(values)) != len(values):
            raise UsageError(f"got one {key} twice in {path}", wanted=f"every {key} once")
    return FolderLabels(
        tuple(r["id"] for r in rows),
        tuple(tuple(r["colour"]) for r in rows),
        tuple(labels.index(r["name"]) for r in rows),
        tuple(r["name"] for r in rows),
    )


def _rows(path: Path) -> list[dict]:
    try:
        rows = sorted(json.loads(path.read_text(encoding="utf-8-sig")), key=lambda row: row["id"])
        return [{"id": int(r["id"]), "name": str(r["name"]), "colour": [int(v) for v in r["colour"]]} for r in rows]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise UsageError(
            f"got {path}: {e!r}",
            wanted='[{"id": 0, "name": "background", "colour": [0, 0, 0]}, …]',
            remedy="delete it to use the dataset's classes",
        ) from None
