"""Real pictures into memory: from a folder of image files, an HDF5 file with an `image` dataset, or a dataset."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gansegctl.errors import GansegError, UsageError
from gansegctl.io.image import read_image
from gansegctl.store.export.card import SHEET
from gansegctl.store.manifest import NAME

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
OURS = (".mask.png", ".overlay.png", ".mask-grey.png", ".confidence.png", ".reconstruction.png")
"""What the commands write beside or after pictures: never read as a picture."""


def load_pictures(
    source: Path, resolution: int | None = None, channels: int = 3, split: int | None = None
) -> np.ndarray:
    """source → uint8 [N,H,W,c]. Files of other sizes are centre-cropped to a square and resized to `resolution`.

    split: only the pictures of an HDF5 file whose `split` has this value. Errors: UsageError for a missing source, no
    pictures in it, arrays of another size than `resolution`, or a split of something that has none.
    """
    if not source.exists():
        raise UsageError(f"got {source}: no such file or folder", wanted="a folder of pictures or an HDF5 file")
    if source.is_file():
        pictures = _from_hdf5([source], split)
    elif split is not None:
        raise UsageError(f"got --split {split} for the folder {source}", wanted="an HDF5 file with `split`")
    elif shards := sorted(source.glob("shard-*.h5")):
        pictures = _from_hdf5(shards)
    else:
        return _from_files(source, resolution, channels)
    if resolution and pictures.shape[1:3] != (resolution, resolution):
        raise UsageError(f"got pictures {pictures.shape[1]}x{pictures.shape[2]} in {source}", wanted=f"{resolution} px")
    if pictures.shape[3] != channels:
        raise UsageError(f"got pictures with {pictures.shape[3]} channels in {source}", wanted=f"{channels} channels")
    return pictures


def splits_of(source: Path) -> list[int]:
    """The values that occur in an HDF5 file's `split`, rising; none for a folder or a file without one."""
    import h5py

    if not source.is_file() or not h5py.is_hdf5(source):
        return []
    try:
        with h5py.File(source, "r", locking=False) as f:
            return np.unique(f["split"][:]).tolist() if "split" in f else []
    except OSError:  # whoever reads the pictures says what is wrong with it
        return []


def classes_of(file: Path) -> tuple[str, ...]:
    """Class names of an HDF5 file, whose attribute `classes` is a JSON list; none where it has none.

    UsageError where the file cannot be read, or the attribute is something else.
    """
    import h5py

    try:
        with h5py.File(file, "r", locking=False) as f:
            named = f.attrs.get("classes", "[]")
    except OSError as e:
        raise UsageError(f"got {file}: {e}", wanted="an HDF5 file with `image` and `mask`") from e
    try:
        names = json.loads(named)
    except (TypeError, ValueError):
        names = None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise UsageError(f"got {file} with the attribute classes = {named!r}", wanted='a JSON list, ["background", …]')
    return tuple(names)


def check_split(source: Path, split: int | None, remedy: str) -> None:
    """For whatever learns: UsageError where `source` has several splits and none was chosen.

    Taking all of them would learn from the pictures that a score is to be measured on. remedy: how to choose, with {}
    for a value.
    """
    if split is None and len(found := splits_of(source)) > 1:
        raise UsageError(
            f"got {source} with the splits {', '.join(map(str, found))} and none chosen",
            wanted="one of them to learn from",
            remedy=remedy.format(found[0]),
        )


def image_files(folder: Path) -> list[Path]:
    """Every picture below a folder, sorted by path; masks, overlays and sheets of ours beside them are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.endswith(OURS))
    # A dataset's contact sheet lies beside its manifest; anybody's own picture of that name does not.
    return sorted(p for p in found if p.name != SHEET or not (p.parent / NAME).exists())


def is_grey(file: Path) -> bool:
    """Whether a picture file says of itself that it has no colours; False for one that cannot be opened."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                return picture.mode in ("1", "L", "LA") or picture.mode.startswith("I;16")
    except Exception:  # a decoder may fail in ways of its own; reading the file says how
        return False


def named_pictures(paths: Sequence[Path]) -> dict[str, Path]:
    """Files and folders → name (without its suffix; below a folder with the folders in between) to file, in order.

    A picture that is not there is left to who reads it, as one that cannot be read. Errors: UsageError for what looks
    like a folder and is not there, no picture at all, or two of one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists() and path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"got {path}, which is not there", wanted="a picture file or a folder")
        root = path if path.is_dir() else path.parent
        for file in image_files(path) if path.is_dir() else [path]:
            name = file.relative_to(root).with_suffix("").as_posix()
            if name in found:
                raise UsageError(
                    f"got two pictures named {name}: {found[name]} and {file}",
                    wanted="every name once",
                    remedy="do them apart, each with its own -o",
                )
            found[name] = file
    if not found:
        raise UsageError(
            "got no pictures", wanted="picture files, or folders with some ending in " + ", ".join(SUFFIXES)
        )
    return found


def read_or_refuse(file: Path, channels: int, refused: dict[str, str]) -> list[np.ndarray]:
    """The picture uint8 [H,W,c] in a list; for a file that cannot be read an empty one, and why in `refused`."""
    try:
        return [read_image(file, channels)]
    except GansegError as e:
        refused[str(file)] = e.got.removeprefix(f"got {file}").lstrip(":, ") or e.got
    except Exception as e:  # a decoder may fail in ways of its own: one file must not end the others
        refused[str(file)] = f"{type(e).__name__}: {e}"
    return []


def raise_refused(refused: Mapping[str, str], total: int) -> None:
    """GansegError (exit status 1) that lists every refused file with its reason, if there is any."""
    if refused:
        lines = "".join(f"\n  {file}: {reason}" for file, reason in refused.items())
        raise GansegError(
            f"got {len(refused)} of {total} pictures that were refused; all others are done{lines}",
            wanted="pictures that can be read",
            remedy="mend or remove them, and run the same command again: it does only what is missing",
        )


def square_of(picture: np.ndarray, resolution: int, smooth: bool = True) -> np.ndarray:
    """uint8 [H,W,c] or [H,W] → its centred square at `resolution`; smooth: Lanczos, else nearest (masks)."""
    from PIL import Image

    h, w = picture.shape[:2]
    if (h, w) == (resolution, resolution):
        return picture
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    square = picture[top : top + side, left : left + side]
    grey = square[..., 0] if square.ndim == 3 and square.shape[2] == 1 else square
    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    resized = np.array(Image.fromarray(np.ascontiguousarray(grey)).resize((resolution, resolution), how))
    return resized.reshape(resolution, resolution, *picture.shape[2:])


def _from_hdf5(files: list[Path], split: int | None = None) -> np.ndarray:
    import h5py

    parts = []
    for file in files:
        try:
            with h5py.File(file, "r", locking=False) as f:
                parts.append(f["image"][:] if split is None else f["image"][:][f["split"][:] == split])
        except (OSError, KeyError) as e:
            raise UsageError(f"got {file}: {e}", wanted="an HDF5 file with a dataset `image`") from e
    pictures = np.concatenate(parts)
    if not len(pictures):
        raise UsageError(f"got no pictures in {files[0]} with split {split}", wanted="a split that has some")
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    if pictures.ndim != 4 or pictures.dtype != np.uint8:
        raise UsageError(
            f"got image {pictures.shape} {pictures.dtype} in {files[0]}", wanted="uint8 [N,H,W] or [N,H,W,c]"
        )
    return pictures


def _from_files(folder: Path, resolution: int | None, channels: int) -> np.ndarray:
    files = image_files(folder)
    if not files:
        raise UsageError(f"got no pictures in {folder}", wanted="files ending in " + ", ".join(SUFFIXES))
    rows = []
    for file in files:
        picture = read_image(file, channels)  # [H, W, c]
        h, w = picture.shape[:2]
        if resolution:
            picture = square_of(picture, resolution)
        if rows and picture.shape != rows[0].shape:
            raise UsageError(
                f"got {file}: {w}x{h} pixels", wanted="one size, as in the others", remedy="pass --resolution"
            )
        rows.append(picture)
    return np.stack(rows)
