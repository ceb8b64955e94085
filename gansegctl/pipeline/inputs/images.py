"""Real images into memory: from a folder of image files, an HDF5 file with an `image` dataset, or a dataset."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gansegctl.errors import GansegError, UsageError
from gansegctl.io.image import read_image
from gansegctl.store.export.card import SHEET
from gansegctl.store.manifest import NAME

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
OURS = (".mask.png", ".overlay.png", ".mask-grey.png", ".confidence.png", ".reconstruction.png")
"""Files that the commands write beside images: never read as an image."""


def load_images(source: Path, resolution: int | None = None, channels: int = 3, split: int | None = None) -> np.ndarray:
    """source → uint8 [N,H,W,c]. Files of other sizes are centre-cropped to a square and resized to `resolution`.

    split: only the images of an HDF5 file whose `split` has this value. Errors: UsageError for a missing source, no
    images in it, arrays of another size than `resolution`, or a split of something that has none.
    """
    check_source(source, split, "a folder of images or an HDF5 file")
    if source.is_file():
        (images,) = read_hdf5(source, split)
    elif shards := sorted(source.glob("shard-*.h5")):
        images = np.concatenate([read_hdf5(shard)[0] for shard in shards])
    else:
        return _from_files(source, resolution, channels)
    if resolution and images.shape[1:3] != (resolution, resolution):
        raise UsageError(f"got images {images.shape[1]}x{images.shape[2]} in {source}", wanted=f"{resolution} px")
    if images.shape[3] != channels:
        raise UsageError(f"got images with {images.shape[3]} channels in {source}", wanted=f"{channels} channels")
    return images


def splits_of(source: Path) -> list[int]:
    """The values that occur in an HDF5 file's `split`, rising; none for a folder or a file without one."""
    import h5py

    if not source.is_file() or not h5py.is_hdf5(source):
        return []
    try:
        with h5py.File(source, "r", locking=False) as f:
            return np.unique(f["split"][:]).tolist() if "split" in f else []
    except OSError:  # the reader of the images says what is wrong
        return []


def check_source(source: Path, split: int | None, wanted: str, flag: str = "--split") -> None:
    """UsageError for a source that does not exist, and for a split of a folder: only HDF5 files have splits.

    wanted: what the source can be. flag: the option that chose the split.
    """
    if not source.exists():
        raise UsageError(f"got {source}: no such file or folder", wanted=wanted)
    if split is not None and source.is_dir():
        raise UsageError(f"got {flag} {split} for the folder {source}", wanted="an HDF5 file with `split`")


def check_split(source: Path, split: int | None, remedy: str) -> None:
    """For whatever learns: UsageError where `source` has several splits and none was chosen.

    Taking all of them would learn from the images that a score is to be measured on. remedy: how to choose, with {}
    for a value.
    """
    if split is None and len(found := splits_of(source)) > 1:
        raise UsageError(
            f"got {source} with the splits {', '.join(map(str, found))} and none chosen",
            wanted="one of them to learn from",
            remedy=remedy.format(found[0]),
        )


def image_files(folder: Path) -> list[Path]:
    """Every image below a folder, sorted by path; masks, overlays and sheets of ours beside them are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.endswith(OURS))
    # A dataset's contact sheet lies beside its manifest; anybody's own image of that name does not.
    return sorted(p for p in found if p.name != SHEET or not (p.parent / NAME).exists())


def is_grey(file: Path) -> bool:
    """Whether an image file says of itself that it has no colours; False for one that cannot be opened."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
    except Exception:  # a decoder may fail in ways of its own; reading the file says how
        return False


def named_images(paths: Sequence[Path]) -> dict[str, Path]:
    """Files and folders → name (without its suffix; below a folder with the folders in between) to file, in order.

    A missing image file stays in the list: reading it fails, as for one that is damaged. Errors: UsageError for a
    missing folder, no image at all, or two of one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists() and path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"got {path}, which is not there", wanted="an image file or a folder")
        root = path if path.is_dir() else path.parent
        for file in image_files(path) if path.is_dir() else [path]:
            name = file.relative_to(root).with_suffix("").as_posix()
            if name in found:
                raise UsageError(
                    f"got two images named {name}: {found[name]} and {file}",
                    wanted="every name once",
                    remedy="do them apart, each with its own -o",
                )
            found[name] = file
    if not found:
        raise UsageError("got no images", wanted="image files, or folders with some ending in " + ", ".join(SUFFIXES))
    return found


@dataclass(frozen=True)
class Outcome:
    """The result of a stage that works on image files one by one.

    images: files handed in. skipped: those done by an earlier run. refused: file → reason why it was left out.
    """

    images: int
    skipped: int
    refused: dict[str, str]


def read_or_refuse(file: Path, channels: int, refused: dict[str, str]) -> np.ndarray | None:
    """The image uint8 [H,W,c]; None for a file that cannot be read, whose reason is added to `refused`."""
    try:
        return read_image(file, channels)
    except GansegError as e:
        refused[str(file)] = e.got.removeprefix(f"got {file}").lstrip(":, ") or e.got
    except Exception as e:  # a decoder may fail in ways of its own: one file must not end the others
        refused[str(file)] = f"{type(e).__name__}: {e}"
    return None


def raise_refused(outcome: Outcome) -> None:
    """GansegError (exit status 1) that lists every refused file with its reason, if there is any."""
    if refused := outcome.refused:
        lines = "".join(f"\n  {file}: {reason}" for file, reason in refused.items())
        raise GansegError(
            f"got {len(refused)} of {outcome.images} images that were refused; all others are done{lines}",
            wanted="images that can be read",
            remedy="repair or remove them, and run the same command again: it does only what is missing",
        )


def square_of(image: np.ndarray, resolution: int, smooth: bool = True) -> np.ndarray:
    """uint8 [H,W,c] or [H,W] → its centred square at `resolution`; smooth: Lanczos, else nearest (masks)."""
    from PIL import Image

    h, w = image.shape[:2]
    if (h, w) == (resolution, resolution):
        return image
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    square = image[top : top + side, left : left + side]
    grey = square[..., 0] if square.ndim == 3 and square.shape[2] == 1 else square
    how = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    resized = np.array(Image.fromarray(np.ascontiguousarray(grey)).resize((resolution, resolution), how))
    return resized.reshape(resolution, resolution, *image.shape[2:])


def read_hdf5(file: Path, split: int | None = None, more: Sequence[str] = ()) -> list[np.ndarray]:
    """The dataset `image` of an HDF5 file as uint8 [N,H,W,c], then the datasets `more` as they are.

    split: only the rows whose `split` has this value. UsageError for a file that cannot be read, lacks one of them, has
    images of another type, or none.
    """
    import h5py

    names = ("image", *more)
    try:
        with h5py.File(file, "r", locking=False) as f:
            rows = slice(None) if split is None else np.flatnonzero(f["split"][:] == split)
            image, *others = (f[name][:][rows] for name in names)
    except (OSError, KeyError) as e:
        wanted = "an HDF5 file with " + " and ".join(f"a dataset `{name}`" for name in names)
        raise UsageError(f"got {file}: {e}", wanted=wanted) from e
    if not len(image) and split is not None:
        known = ", ".join(map(str, splits_of(file)))
        raise UsageError(f"got no images in {file} with split {split}", wanted=f"one of {known}")
    if not len(image):
        raise UsageError(f"got no images in {file}", wanted="one or more")
    image = image[..., None] if image.ndim == 3 else image
    if image.ndim != 4 or image.dtype != np.uint8:
        raise UsageError(f"got image {image.shape} {image.dtype} in {file}", wanted="uint8 [N,H,W] or [N,H,W,c]")
    return [image, *others]


def _from_files(folder: Path, resolution: int | None, channels: int) -> np.ndarray:
    files = image_files(folder)
    if not files:
        raise UsageError(f"got no images in {folder}", wanted="files ending in " + ", ".join(SUFFIXES))
    rows: list[np.ndarray] = []
    for file in files:
        image = read_image(file, channels)  # [H, W, c]
        h, w = image.shape[:2]
        if resolution:
            image = square_of(image, resolution)
        if rows and image.shape != rows[0].shape:
            raise UsageError(
                f"got {file}: {w}x{h} pixels", wanted="one size, as in the others", remedy="pass --resolution"
            )
        rows.append(image)
    return np.stack(rows)
