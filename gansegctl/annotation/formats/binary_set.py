"""A set of masks, one PNG a class: exemplar-SEED.LABEL.png, painted where its pixels are not 0 (not black)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from gansegctl.annotation.canvas import Canvas, Drawing, Item, Loader, Size
from gansegctl.annotation.class_names import class_of
from gansegctl.annotation.safe_png import open_png
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

NAME = "binary-set"
RESERVED = ("mask", "overlay")
"""exemplar-SEED.mask.png is a mask of all classes, exemplar-SEED.overlay.png a preview."""

_FILE = re.compile(r"(exemplar-\d+)\.(.+)\.png", re.IGNORECASE)


def label_of(path: Path) -> tuple[str, str] | None:
    """(exemplar-SEED, LABEL) of such a file's name; None for other names."""
    found = _FILE.fullmatch(path.name)
    return (found[1], found[2]) if found and found[2].lower() not in RESERVED else None


def items(paths: list[Path]) -> list[Item]:
    """The sets among these files."""
    sets: dict[str, list[tuple[str, Path]]] = {}
    for path in paths:
        named = label_of(path)
        if named:
            sets.setdefault(named[0], []).append((named[1], path))
    return [Item(stem + ".png", found[0][1], NAME, _loader(stem, found)) for stem, found in sets.items()]


def _loader(stem: str, files: list[tuple[str, Path]]) -> Loader:
    def load(labels: LabelMap, size: Size) -> Drawing:
        ordered = sorted((class_of(label, labels, path.name), label, path) for label, path in files)
        canvas = Canvas(f"{files[0][1].parent / stem}.*.png", size, labels)
        for _, label, path in ordered:  # files have no order of drawing: the later class in the list lies on top
            canvas.paint(_region(path, size), label, path.name)
        return canvas.finish()

    return load


def _region(path: Path, size: Size) -> np.ndarray:
    image = open_png(path, size)
    if image.mode in ("LA", "RGBA", "PA"):
        bands = np.asarray(image.convert("RGBA"))
        alpha = bands[..., 3]
        values = np.where((alpha < 255).any(), alpha, bands[..., :3].max(axis=2))  # a painted layer, or flattened
    elif image.mode in ("RGB", "P"):
        values = np.asarray(image.convert("RGB")).max(axis=2)
    else:
        values = np.asarray(image).astype(np.int64)
    found = np.unique(values)
    if len(found) > 2:
        raise UsageError(
            f"got {path} with {len(found)} values",
            wanted="two: 0 outside the class, another inside",
            remedy="paint with the pencil, anti-aliasing off; a mask of all classes is called exemplar-SEED.mask.png",
        )
    return values > 0 if len(found) == 1 else values == found[-1]
