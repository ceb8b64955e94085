"""Whether an annotation was painted on the very image that the latent makes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from gansegctl.annotation.canvas import Size, check_size
from gansegctl.annotation.safe_png import png_size
from gansegctl.errors import UsageError

FAR = 24
"""Grey levels by which one image differs nowhere to speak of, whatever the device, precision or JPEG it came by."""
SHARE = 0.01
"""Of the pixels may differ by more: samples of one generator differ in far more, drawings of one sample in none."""


def same_image(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether uint8 [H,W(,c)] and uint8 [H,W(,c)] show one image, rounding and compression apart."""
    a, b = _rgb(a), _rgb(b)
    if a.shape != b.shape:
        return False
    return float((np.abs(a - b).max(axis=2) > FAR).mean()) <= SHARE


def check_belongs(found: np.ndarray, made: np.ndarray, where: str, seed: int) -> None:
    """UsageError unless the image in an annotation is the one made of the seed's latent."""
    if same_image(found, made):
        return
    far = float((np.abs(_rgb(found) - _rgb(made)).max(axis=2) > FAR).mean())
    raise UsageError(
        f"got {where}, painted on another image than seed {seed} makes ({100 * far:.0f} % of the pixels differ)",
        wanted="the image of the bundle, made by this dataset's generator with its truncation and noise",
        remedy="annotate the PNG that `gansegctl annotate` wrote for this dataset, or name the dataset it was from",
    )


def decode_image(data: bytes, size: Size, where: str) -> np.ndarray:
    """A PNG or JPEG inside an annotation → uint8 [H,W] or [H,W,3]. UsageError for anything else, or another size."""
    try:
        if (header := png_size(data)) is not None:
            check_size(header, size, where)
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as image:
            check_size((image.height, image.width), size, where)
            image.load()
            return np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise UsageError(
            f"got {where} with an image that cannot be read: {e}",
            wanted="a PNG or JPEG",
            remedy="save the annotation without the image (labelme: File → Save With Image Data off)",
        ) from None


def read_image(path: Path, size: Size, where: str) -> np.ndarray | None:
    """The image in a file; None when there is none."""
    return decode_image(path.read_bytes(), size, where) if path.is_file() else None


def _rgb(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image).astype(np.int16)
    if image.ndim == 2:
        image = image[..., None]
    return np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else image[..., :3]
