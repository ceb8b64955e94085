"""Images of every form as uint8 arrays, and their files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gansegctl.errors import GansegError, UsageError
from gansegctl.io.atomic import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

NORMALISATION = "x / 127.5 - 1"
"""The formula of `normalised`, in words that a file can carry."""


def normalised(pixels: Tensor) -> Tensor:
    """uint8 of any shape → float32 of that shape in [-1, 1], the range in which networks read and draw images."""
    return pixels.float() / 127.5 - 1


def from_uint8(images: Tensor) -> Tensor:
    """uint8 [N, H, W, c] → float32 [N, c, H, W] in [-1, 1], in memory still channels-last. `to_uint8` leads back."""
    return normalised(images.permute(0, 3, 1, 2))


def to_uint8(image: Tensor | np.ndarray) -> np.ndarray:
    """Float [N, c, H, W] in [-1, 1] (a tensor on any device, or numpy) → uint8 [N, H, W, c].

    Rounds as the official StyleGAN scripts do: clamp(x · 127.5 + 128, 0, 255), cut to an integer.
    Error: GansegError for an image with NaN in it.
    """
    if isinstance(image, np.ndarray):
        values = np.asarray(image, np.float32).transpose(0, 2, 3, 1) * np.float32(127.5) + np.float32(128)
        broken, pixels = bool(np.isnan(values).any()), np.clip(np.nan_to_num(values), 0, 255).astype(np.uint8)
    else:  # round where it lies and move a quarter of the bytes
        scaled = image.detach().float().permute(0, 2, 3, 1) * 127.5 + 128
        broken, pixels = bool(scaled.isnan().any()), scaled.clamp(0, 255).byte().cpu().numpy()
    if broken:
        raise GansegError(
            "got a generated image with NaN in it",
            wanted="finite values",
            remedy="try float32 (--device cpu), or check the checkpoint with `gansegctl inspect`",
        )
    return np.ascontiguousarray(pixels)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W], [H, W, 1] or [H, W, 3] → [H, W, 3]. Error: UsageError for anything else."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or image.dtype != np.uint8:
        raise UsageError(
            f"got an image {image.dtype} {list(image.shape)}", wanted="uint8 [H, W], [H, W, 1] or [H, W, 3]"
        )
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def indexed(mask: np.ndarray, palette: Sequence[int]) -> Image.Image:
    """A mask uint8 [H, W] as an image with a palette: 768 values, as `LabelMap.flat_palette` gives them."""
    image = Image.fromarray(mask)
    image.putpalette(palette)
    return image


def save_png(path: Path | str, image: np.ndarray | Image.Image) -> None:
    """Write a PNG whole or not at all (a temporary file beside it, then a rename): uint8 [H, W(, c)] or a PIL image."""
    path = Path(path)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    write_bytes(path, stream.getvalue(), sync=False)


def read_image(path: Path | str, channels: int = 3) -> np.ndarray:
    """An image file → uint8 [H, W, channels] (3 or 1), turned as its EXIF orientation says; 16-bit grey is cut to 8.

    What is transparent lies on white. Errors: UsageError for files that are missing, no image, cut short, animated or
    of several pages, or of 32-bit values without a known range.
    """
    wanted = "an image file such as PNG, JPEG, BMP or TIFF"
    if channels not in (1, 3):
        raise UsageError(f"got {channels} channels", wanted="1 (grey) or 3 (RGB)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice its limit is an error, below
            with Image.open(path) as file:
                image: Image.Image = file
                # MPO is what telephones write as .jpg: further frames are previews of the first.
                frames = 1 if file.format == "MPO" else getattr(file, "n_frames", 1)
                if frames == 1:
                    image = ImageOps.exif_transpose(file)
                    image.load()
    except FileNotFoundError:
        raise UsageError(f"got {path}, which does not exist", wanted=wanted) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"got {path}: {error}", wanted=wanted) from None
    if frames > 1:
        raise UsageError(f"got {path} with {frames} frames or pages", wanted="one image a file", remedy="split it")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UsageError(
            f"got {path} with 32-bit pixels, whose range is unknown",
            wanted="8 or 16 bits a channel",
            remedy="scale the values to 0-255 and save as 8-bit PNG",
        )
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, (255, 255, 255, 255)), clear)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels))
