"""Grey PNG: the value is the class id; also 1 and 16 bits, and grey with an opaque alpha channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gansegctl.annotation.class_names import FolderLabels
from gansegctl.annotation.safe_png import opaque
from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE


def read(path: Path | str, image: Image.Image, declared: FolderLabels) -> np.ndarray:
    """Class ids uint8 [H,W]. UsageError for values that no class has."""
    if image.mode == "LA":
        return by_value(path, opaque(path, image)[..., 0], declared)
    return by_value(path, np.asarray(image).astype(np.int64), declared)


def by_value(path: Path | str, values: np.ndarray, declared: FolderLabels) -> np.ndarray:
    """Values [H,W] → class ids uint8 [H,W]. UsageError naming the undeclared values and their pixels."""
    table = declared.lookup()
    inside = (values >= 0) & (values <= 255)
    mask = np.where(inside, table[np.clip(values, 0, 255)], -1)
    if (mask < 0).any():
        wrong, counts = np.unique(values[mask < 0], return_counts=True)
        listed = ", ".join(f"{v} ({n} pixels)" for v, n in list(zip(wrong.tolist(), counts.tolist(), strict=True))[:5])
        raise UsageError(
            f"got {path} with {len(wrong)} undeclared values: {listed}",
            wanted="class ids: " + ", ".join(f"{i} {n}" for i, n in zip(declared.ids, declared.names, strict=True)),
            remedy=f"paint with declared classes, or {IGNORE} for pixels to ignore",
        )
    return mask.astype(np.uint8)
