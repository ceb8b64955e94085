"""PNG files opened with care: what the file is by its first bytes, its size before a pixel of it is unpacked."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from gansegctl.errors import UsageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LIMIT = 256 * 2**20
"""Bytes of the largest file that is read."""

_OTHERS = (
    (b"\xff\xd8\xff", "a JPEG, whose compression mixes the colours of neighbouring classes"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"RIFF", "a WebP"),
    (b"8BPS", "a Photoshop document"),
    (b"gimp xcf", "a GIMP document"),
    (b"PK\x03\x04", "a zip archive or a Krita document"),
    (b"<svg", "an SVG drawing"),
)
_MODES = {0: "grey", 2: "rgb", 3: "palette", 4: "grey", 6: "rgb"}


def png_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) by the header; None for data that does not begin as a PNG file does."""
    if len(data) < 26 or not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def form_of(path: Path) -> str:
    """ "palette", "grey" or "rgb" by the header of a PNG file; "png" for anything else."""
    try:
        with open(path, "rb") as f:
            head = f.read(26)
    except OSError:
        return "png"
    return _MODES.get(head[25], "png") if png_size(head) else "png"


def read_bytes(path: Path) -> bytes:
    """A whole file. UsageError for one that is missing, unreadable or larger than `LIMIT`."""
    try:
        with open(path, "rb") as f:
            data = f.read(LIMIT + 1)
    except OSError as e:
        raise UsageError(f"got {path}: {e.strerror or e}", wanted="a file that can be read") from None
    if len(data) > LIMIT:
        raise UsageError(f"got {path}, of over {LIMIT >> 20} MiB", wanted="the masks of a few images")
    return data


def open_png(path: Path | str, size: tuple[int, int], data: bytes | None = None) -> Image.Image:
    """A PNG file of exactly `size` (height, width), unpacked. data: its bytes, where `path` is but its name.

    Errors: UsageError for no PNG, one that is damaged, and another size (found out before unpacking).
    """
    data = read_bytes(Path(path)) if data is None else data
    found = png_size(data)
    if found is None:
        what = next((text for start, text in _OTHERS if data.startswith(start)), "no PNG file")
        if not data:
            what = "an empty file"
        raise UsageError(f"got {path}: {what}", wanted="a whole PNG file", remedy="export the mask as PNG")
    if found != size:
        raise UsageError(
            f"got {path}: {found[1]}x{found[0]} pixels (width x height)",
            wanted=f"{size[1]}x{size[0]}, the size of its image",
            remedy="paint on the image itself, and export without scaling or cropping",
        )
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            return image.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise UsageError(
            f"got {path}, a damaged PNG: {e}", wanted="a whole PNG file", remedy="export the mask again"
        ) from None


def opaque(path: Path | str, image: Image.Image) -> np.ndarray:
    """uint8 [H,W,3] of an image with alpha. UsageError when any pixel is less than opaque."""
    pixels = np.asarray(image.convert("RGBA"))
    clear = int((pixels[..., 3] < 255).sum())
    if clear:
        raise UsageError(
            f"got {path} with {clear} transparent pixels",
            wanted="opaque pixels",
            remedy="flatten the layers and save without an alpha channel",
        )
    return pixels[..., :3]
