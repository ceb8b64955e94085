"""Palette PNG: the index is the class id, as in the blank masks of the bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gansegctl.annotation.class_names import FolderLabels
from gansegctl.annotation.formats.grey import by_value
from gansegctl.annotation.formats.rgb import by_colour
from gansegctl.annotation.safe_png import opaque
from gansegctl.labels import IGNORE


def read(path: Path | str, image: Image.Image, declared: FolderLabels) -> np.ndarray:
    """Class ids uint8 [H,W]. A palette that an editor has sorted anew (every colour in use is that of a class, but
    stands at another index) is read by colour. UsageError for values that no class has.
    """
    if image.mode == "PA":
        return by_colour(path, opaque(path, image), declared)
    index = np.asarray(image)
    colours = colours_of(image)[index]
    if _resorted(index, colours, declared):
        return by_colour(path, colours, declared)
    return by_value(path, index, declared)


def colours_of(image: Image.Image) -> np.ndarray:
    """The palette, uint8 [256,3]; entries that the file leaves out are mid-grey."""
    flat = np.full(768, 128, np.uint8)
    stored = image.getpalette("RGB") or []
    flat[: len(stored)] = stored
    return flat.reshape(256, 3)


def _resorted(index: np.ndarray, colours: np.ndarray, declared: FolderLabels) -> bool:
    place = dict(zip(declared.colours, declared.ids, strict=True))
    values, first = np.unique(index, return_index=True)
    shown = [tuple(c) for c in colours.reshape(-1, 3)[first].tolist()]
    used = [(v, place.get(c)) for v, c in zip(values.tolist(), shown, strict=True) if v != IGNORE]
    return all(p is not None for _, p in used) and any(p != v for v, p in used)
