"""Labelled sets from wherever they lie: a dataset of ours, an HDF5 file, or a folder of images with masks beside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from gansegctl.annotation.class_names import declared_classes
from gansegctl.annotation.mask_png import folder_labels, is_blank, read_mask
from gansegctl.errors import DatasetError, UsageError
from gansegctl.io.image import read_image
from gansegctl.labels import LabelMap
from gansegctl.pipeline.inputs.images import check_split, classes_of, image_files, is_grey, splits_of, square_of
from gansegctl.store.dataset import iter_shards
from gansegctl.store.manifest import NAME, Manifest


@dataclass
class LabelledSet:
    """image uint8 [N,H,W,c], mask uint8 [N,H,W], their classes; confidence uint8 [N,H,W], score [N]."""

    image: np.ndarray
    mask: np.ndarray
    labels: LabelMap
    confidence: np.ndarray | None = None
    generated: bool = False
    score: np.ndarray | None = None


def load_truth(
    source: Path, labels: LabelMap | None = None, split: int | None = None, channels: int | None = None
) -> LabelledSet:
    """Read a labelled set.

    A folder with manifest.json is a dataset. An HDF5 file has `image`, `mask` and the attribute `classes` (JSON list),
    and may have `split`: only the images with this value, or all. Any other folder holds NAME.png with NAME.mask.png
    beside it, and labels.json. channels: of the images of such a folder, 1 or 3; None = 1 where every file is grey,
    else 3. Errors: UsageError or DatasetError for what is missing.
    """
    if not source.exists():
        raise UsageError(
            f"got {source}: no such file or folder", wanted="a dataset, an HDF5 file, or a folder of pairs"
        )
    if source.is_file():
        return _from_hdf5(source, labels, split)
    if split is not None:
        raise UsageError(f"got --split {split} for the folder {source}", wanted="an HDF5 file with `split`")
    if (source / NAME).is_file():
        return _from_dataset(source)
    return _from_folder(source, labels, channels)


def _from_dataset(folder: Path) -> LabelledSet:
    manifest = Manifest.read(folder)
    if manifest.stage != "pairs" or manifest.labels is None:
        raise DatasetError(f"got {folder} without masks", wanted="pairs", remedy="run `gansegctl annotate` on it first")
    shards = [arrays for _, arrays in iter_shards(folder, wanted=("mask", "confidence", "score"))]
    confidence = scores = None
    if all(s.confidence is not None for s in shards):
        confidence = np.concatenate([s.confidence for s in shards])
    if all(s.score is not None for s in shards):
        scores = np.concatenate([s.score for s in shards])
    image, mask = (np.concatenate([getattr(s, name) for s in shards]) for name in ("image", "mask"))
    generated = manifest.generator.get("family") != "rules"
    return LabelledSet(image, mask, manifest.labels, confidence, generated, scores)


def _from_hdf5(file: Path, labels: LabelMap | None, split: int | None) -> LabelledSet:
    try:
        with h5py.File(file, "r", locking=False) as f:
            keep = slice(None) if split is None else np.flatnonzero(f["split"][:] == split)
            image, mask = f["image"][:][keep], f["mask"][:][keep]
    except (OSError, KeyError) as e:
        raise UsageError(f"got {file}: {e}", wanted="an HDF5 file with `image` and `mask`") from e
    if not len(image) and split is not None:
        known = ", ".join(map(str, splits_of(file)))
        raise UsageError(f"got no images in {file} with split {split}", wanted=f"one of {known}")
    if labels is None:
        if not (named := classes_of(file)):
            raise UsageError(f"got {file} without class names", wanted="the attribute `classes`, a JSON list")
        labels = LabelMap(named)
    image = image[..., None] if image.ndim == 3 else image
    return LabelledSet(image, mask, labels)


def _from_folder(folder: Path, labels: LabelMap | None, channels: int | None) -> LabelledSet:
    from PIL import Image

    names = folder / "labels.json"
    if labels is None:
        if not names.is_file():
            raise UsageError(
                f"got {folder} without labels.json",
                wanted="NAME.png with NAME.mask.png beside it, and the classes in labels.json",
                remedy='write [{"id": 0, "name": "background", "colour": [0, 0, 0]}, …] into it; see docs/datasets.md',
            )
        labels = declared_classes(names)
    pairs = [(f, m) for f in image_files(folder) if (m := f.with_name(f.stem + ".mask.png")).is_file()]
    channels = channels or (1 if all(is_grey(f) for f, _ in pairs) else 3)
    images, masks = [], []
    for file, beside in pairs:
        images.append(read_image(file, channels))
        with Image.open(beside) as opened:
            masks.append(np.array(opened))
        if masks[-1].ndim != 2 or masks[-1].shape != images[-1].shape[:2]:
            raise UsageError(f"got {beside} of {masks[-1].shape}", wanted=f"an indexed mask of {images[-1].shape[:2]}")
    if not images:
        raise UsageError(f"got {folder} without pairs", wanted="NAME.png with NAME.mask.png beside it")
    sizes = {i.shape for i in images}
    if len(sizes) > 1:
        raise UsageError(f"got images of {len(sizes)} sizes in {folder}", wanted="one size")
    return LabelledSet(np.stack(images), np.stack(masks).astype(np.uint8), labels)


@dataclass
class AnnotatedImage:
    """A real image uint8 [S,S,c] and its mask uint8 [S,S], both the centred square at the generator's size."""

    name: str
    image: np.ndarray
    mask: np.ndarray


def annotated_images(
    source: Path, labels: LabelMap, resolution: int, channels: int, split: int | None = None
) -> list[AnnotatedImage]:
    """Pairs: NAME.png (.jpg …) with NAME.mask.png beside it, painted in any way that `--masks` takes; or an HDF5 file.

    Of a folder no more than two images are held in their own size. Errors: UsageError for a source without pairs,
    masks that cannot be read (it names the file), or a file of several splits of which none was chosen.
    """
    if not source.exists():
        raise UsageError(f"got {source}: no such file or folder", wanted="a folder of pairs, or an HDF5 file")
    if split is not None and source.is_dir():
        raise UsageError(f"got --real-split {split} for the folder {source}", wanted="an HDF5 file with `split`")
    check_split(source, split, "pass --real-split {}")
    rows = _rows_of_file(source, labels, channels, split) if source.is_file() else _rows_of(source, labels, channels)
    count, found = 0, []
    for name, image, mask in rows:
        count, mask = count + 1, square_of(mask, resolution, smooth=False)
        if not is_blank(mask):
            found.append(AnnotatedImage(name, square_of(image, resolution), mask))
    if not count:
        raise UsageError(f"got {source} without pairs", wanted="NAME.png with NAME.mask.png beside it")
    if not found:
        raise UsageError(f"got {source} with blank masks only", wanted="painted masks")
    return found


Row = tuple[str, np.ndarray, np.ndarray]
"""Name, image uint8 [H,W,c], mask uint8 [H,W]."""


def _rows_of(folder: Path, labels: LabelMap, channels: int) -> Iterator[Row]:
    declared = folder_labels(folder / "labels.json", labels)
    for file in image_files(folder):
        beside = file.with_name(file.stem + ".mask.png")
        if beside.is_file():
            image = read_image(file, channels)
            name = file.relative_to(folder).with_suffix("").as_posix().replace("/", "-")
            yield name, image, read_mask(beside, image.shape[:2], declared)


def _rows_of_file(file: Path, labels: LabelMap, channels: int, split: int | None) -> Iterator[Row]:
    truth = load_truth(file, labels, split)
    if truth.image.shape[3] != channels:
        raise UsageError(f"got {file} with {truth.image.shape[3]} channels", wanted=f"{channels}")
    for i, (image, mask) in enumerate(zip(truth.image, truth.mask, strict=True)):
        yield f"{i:06d}", image, mask
