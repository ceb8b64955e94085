"""One painted mask PNG, from any of the forms in which editors save it, to class ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gansegctl.annotation.class_names import FolderLabels
from gansegctl.annotation.formats import grey, palette, rgb
from gansegctl.annotation.safe_png import open_png


def is_blank(mask: np.ndarray) -> bool:
    """Whether one value covers the whole image: nobody has painted it."""
    return bool((mask == mask.flat[0]).all())


def read_mask(path: Path, size: tuple[int, int], declared: FolderLabels) -> np.ndarray:
    """A mask PNG → class ids uint8 [H,W], 255 = ignored. Indexed: by index; grey: by value; RGB: by exact colour.

    Errors: UsageError naming the file.
    """
    image = open_png(path, size)
    form = {"P": palette, "PA": palette, "RGB": rgb, "RGBA": rgb}.get(image.mode, grey)
    return form.read(path, image, declared)
