"""Real pictures into memory: from a folder of image files, an HDF5 file with an `image` dataset, or a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gansegctl.errors import UsageError
from gansegctl.pictures import read_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def load_pictures(source: Path, resolution: int | None = None, channels: int = 3) -> np.ndarray:
    """source → uint8 [N,H,W,c]. Files of other sizes are centre-cropped to a square and resized to `resolution`.

    Errors: UsageError for a missing source, no pictures in it, or arrays of another size than `resolution`.
    """
    if not source.exists():
        raise UsageError(f"got {source}: no such file or folder", wanted="a folder of pictures or an HDF5 file")
    if source.is_file():
        pictures = _from_hdf5([source])
    elif shards := sorted(source.glob("shard-*.h5")):
        pictures = _from_hdf5(shards)
    else:
        return _from_files(source, resolution, channels)
    if resolution and pictures.shape[1:3] != (resolution, resolution):
        raise UsageError(f"got pictures {pictures.shape[1]}x{pictures.shape[2]} in {source}", wanted=f"{resolution} px")
    if pictures.shape[3] != channels:
        raise UsageError(f"got pictures with {pictures.shape[3]} channels in {source}", wanted=f"{channels} channels")
    return pictures


def image_files(folder: Path) -> list[Path]:
    """Every picture below a folder, sorted by path; masks and overlays of ours beside them are left out."""
    ours = (".mask.png", ".overlay.png")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.endswith(ours))


def _from_hdf5(files: list[Path]) -> np.ndarray:
    import h5py

    parts = []
    for file in files:
        try:
            with h5py.File(file, "r", locking=False) as f:
                parts.append(f["image"][:])
        except (OSError, KeyError) as e:
            raise UsageError(f"got {file}: {e}", wanted="an HDF5 file with a dataset `image`") from e
    pictures = np.concatenate(parts)
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    if pictures.ndim != 4 or pictures.dtype != np.uint8:
        raise UsageError(
            f"got image {pictures.shape} {pictures.dtype} in {files[0]}", wanted="uint8 [N,H,W] or [N,H,W,c]"
        )
    return pictures


def _from_files(folder: Path, resolution: int | None, channels: int) -> np.ndarray:
    from PIL import Image

    files = image_files(folder)
    if not files:
        raise UsageError(f"got no pictures in {folder}", wanted="files ending in " + ", ".join(SUFFIXES))
    rows = []
    for file in files:
        picture = read_image(file, channels)  # [H, W, c]
        h, w = picture.shape[:2]
        if resolution and (h, w) != (resolution, resolution):
            side = min(h, w)
            top, left = (h - side) // 2, (w - side) // 2
            square = Image.fromarray(picture[top : top + side, left : left + side].squeeze())
            square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
            picture = np.asarray(square).reshape(resolution, resolution, channels)
        if rows and picture.shape != rows[0].shape:
            raise UsageError(
                f"got {file}: {w}x{h} pixels", wanted="one size, as in the others", remedy="pass --resolution"
            )
        rows.append(picture)
    return np.stack(rows)
