"""Images with masks, wherever they lie: a dataset of ours, an HDF5 file, or a folder of images with masks beside.

Every command reads them here: `eval` and `distill` whole sets, `annotate --real` and `distill --real` squares of the
generator's size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gansegctl.annotation.class_names import declared_classes, folder_labels
from gansegctl.annotation.mask_png import is_blank, read_mask
from gansegctl.errors import DatasetError, UsageError
from gansegctl.io.image import read_image
from gansegctl.labels import LabelMap
from gansegctl.pipeline.inputs.images import check_source, check_split, image_files, is_grey, read_hdf5, square_of
from gansegctl.store.dataset import iter_shards
from gansegctl.store.manifest import NAME, Manifest

PAIRS = "NAME.png with NAME.mask.png beside it"
Pair = tuple[str, np.ndarray, np.ndarray]
"""Name, image uint8 [H,W,c], mask uint8 [H,W]."""


@dataclass
class LabelledSet:
    """image uint8 [N,H,W,c], mask uint8 [N,H,W], their classes; confidence uint8 [N,H,W], score [N]."""

    image: np.ndarray
    mask: np.ndarray
    labels: LabelMap
    confidence: np.ndarray | None = None
    score: np.ndarray | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """A real image uint8 [S,S,c] and its mask uint8 [S,S], both the centred square at the generator's size."""

    name: str
    image: np.ndarray
    mask: np.ndarray


def load_labelled(
    source: Path, labels: LabelMap | None = None, split: int | None = None, channels: int | None = None
) -> LabelledSet:
    """Read a whole labelled set.

    A folder with manifest.json is a dataset. An HDF5 file has `image`, `mask` and the attribute `classes` (JSON list),
    and may have `split`: only the images with this value, or all. Any other folder holds NAME.png with NAME.mask.png
    beside it, and labels.json. channels: of the images of such a folder, 1 or 3; None = 1 where every file is grey,
    else 3. Errors: UsageError or DatasetError for what is missing.
    """
    check_source(source, split, "a dataset, an HDF5 file, or a folder of pairs")
    if source.is_file():
        return _from_hdf5(source, labels, split)
    return _from_dataset(source) if (source / NAME).is_file() else _from_folder(source, labels, channels)


def annotated_images(
    source: Path, labels: LabelMap, resolution: int, channels: int, split: int | None = None
) -> list[AnnotatedImage]:
    """The annotated images of a folder of pairs or an HDF5 file, as squares of `resolution`; blank masks are left out.

    Of a folder no more than two images are held in their own size. Errors: UsageError for a source without pairs,
    masks that cannot be read (it names the file), or a file of several splits of which none was chosen.
    """
    check_source(source, split, "a folder of pairs, or an HDF5 file", "--real-split")
    check_split(source, split, "pass --real-split {}")
    pairs = _pairs_of_file(source, labels, channels, split) if source.is_file() else _pairs(source, labels, channels)
    found = []
    for name, image, mask in pairs:
        mask = square_of(mask, resolution, smooth=False)
        if not is_blank(mask):
            found.append(AnnotatedImage(name, square_of(image, resolution), mask))
    if not found:
        raise UsageError(f"got {source} with blank masks only", wanted="painted masks")
    return found


def classes_of(file: Path) -> tuple[str, ...]:
    """Class names of an HDF5 file, whose attribute `classes` is a JSON list; none where it has none.

    UsageError where the file cannot be read, or the attribute is something else.
    """
    import h5py

    try:
        with h5py.File(file, "r", locking=False) as f:
            stored = f.attrs.get("classes", "[]")
    except OSError as e:
        raise UsageError(f"got {file}: {e}", wanted="an HDF5 file with `image` and `mask`") from e
    try:
        names = json.loads(stored)
    except (TypeError, ValueError):
        names = None
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise UsageError(f"got {file} with the attribute classes = {stored!r}", wanted='a JSON list, ["background", …]')
    return tuple(names)


def _from_dataset(folder: Path) -> LabelledSet:
    manifest = Manifest.read(folder)
    if manifest.stage != "pairs" or manifest.labels is None:
        raise DatasetError(f"got {folder} without masks", wanted="pairs", remedy="run `gansegctl annotate` on it first")
    shards = [arrays for _, arrays in iter_shards(folder, wanted=("mask", "confidence", "score"))]

    def column(name: str) -> np.ndarray | None:
        found = [array for s in shards if (array := getattr(s, name)) is not None]
        return np.concatenate(found) if len(found) == len(shards) else None

    image, mask = column("image"), column("mask")
    if image is None or mask is None:
        raise DatasetError(f"got {folder} with a shard without masks", wanted="pairs", remedy="see `gansegctl verify`")
    return LabelledSet(image, mask, manifest.labels, column("confidence"), column("score"))


def _from_hdf5(file: Path, labels: LabelMap | None, split: int | None) -> LabelledSet:
    image, mask = read_hdf5(file, split, ("mask",))
    if labels is None:
        if not (names := classes_of(file)):
            raise UsageError(f"got {file} without class names", wanted="the attribute `classes`, a JSON list")
        labels = LabelMap(names)
    return LabelledSet(image, mask, labels)


def _from_folder(folder: Path, labels: LabelMap | None, channels: int | None) -> LabelledSet:
    if labels is None:
        file = folder / "labels.json"
        if not file.is_file():
            raise UsageError(
                f"got {folder} without labels.json",
                wanted=f"{PAIRS}, and the classes in labels.json",
                remedy='write [{"id": 0, "name": "background", "colour": [0, 0, 0]}, …] into it; see docs/datasets.md',
            )
        labels = declared_classes(file)
    channels = channels or (1 if all(is_grey(image) for image, _ in _paired_files(folder)) else 3)
    pairs = list(_pairs(folder, labels, channels))
    sizes = {image.shape for _, image, _ in pairs}
    if len(sizes) > 1:
        raise UsageError(f"got images of {len(sizes)} sizes in {folder}", wanted="one size")
    return LabelledSet(np.stack([image for _, image, _ in pairs]), np.stack([mask for *_, mask in pairs]), labels)


def _paired_files(folder: Path) -> list[tuple[Path, Path]]:
    """Images below a folder and the masks beside them, by path. UsageError for none."""
    found = [(f, mask) for f in image_files(folder) if (mask := f.with_name(f.stem + ".mask.png")).is_file()]
    if not found:
        raise UsageError(f"got {folder} without pairs", wanted=PAIRS)
    return found


def _pairs(folder: Path, labels: LabelMap, channels: int) -> Iterator[Pair]:
    """Each pair of a folder when it is asked for, the mask painted in any way that `--masks` takes."""
    declared = folder_labels(folder / "labels.json", labels)
    for file, beside in _paired_files(folder):
        image = read_image(file, channels)
        name = file.relative_to(folder).with_suffix("").as_posix().replace("/", "-")
        yield name, image, read_mask(beside, image.shape[:2], declared)


def _pairs_of_file(file: Path, labels: LabelMap, channels: int, split: int | None) -> Iterator[Pair]:
    found = _from_hdf5(file, labels, split)
    if found.image.shape[3] != channels:
        raise UsageError(f"got {file} with {found.image.shape[3]} channels", wanted=f"{channels}")
    for i, (image, mask) in enumerate(zip(found.image, found.mask, strict=True)):
        yield f"{i:06d}", image, mask
