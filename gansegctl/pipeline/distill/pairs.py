"""Image/mask pairs that a student learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansegctl.config import DistillSettings
from gansegctl.errors import DatasetError, UsageError
from gansegctl.io.digest import file_digest
from gansegctl.labels import LabelMap
from gansegctl.pipeline.distill.columns import IN_MEMORY, ShardColumn, SoftTargets, bytes_of_pairs, kept_samples
from gansegctl.pipeline.inputs.images import check_split
from gansegctl.pipeline.inputs.labelled_sets import annotated_images, classes_of, load_labelled
from gansegctl.store.dataset import ShardDataset
from gansegctl.store.manifest import NAME, Manifest, settings_digest
from gansegctl.students.pairs import Pairs
from gansegctl.students.training import check_share

SOFT_WANTED = "a dataset with the probabilities of every class"


@dataclass(frozen=True)
class Annotated:
    """Real annotated images to learn from beside a dataset's pairs: what `annotate --real` takes as exemplars.

    split: of an HDF5 file. share: of every step.
    """

    source: Path
    split: int | None = None
    share: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.share)

    def load(self, labels: LabelMap, shape: tuple[int, ...]) -> Pairs:
        """Pairs whose images are [H,W,c] of `shape`: the centred square, resized. Errors: UsageError for images
        that cannot be so, and for an HDF5 file of other classes."""
        height, width, channels = shape
        if height != width:
            raise UsageError(f"got --real beside images of {height}x{width}", wanted="square ones")
        if self.source.is_file() and (named := classes_of(self.source)) and named != labels.names:
            raise UsageError(f"got {self.source} of the classes {', '.join(named)}", wanted=", ".join(labels.names))
        found = annotated_images(self.source, labels, height, channels, self.split)
        image, mask = (np.stack([getattr(p, name) for p in found]) for name in ("image", "mask"))
        return Pairs(torch.from_numpy(image), torch.from_numpy(mask))

    def made_of(self) -> dict[str, Any]:
        """The identity of the images: every file's content, and the choice. UsageError where there is none."""
        if not self.source.exists():
            raise UsageError(
                f"got --real {self.source}: no such file or folder", wanted="a folder of pairs, or an HDF5 file"
            )
        root = self.source if self.source.is_dir() else self.source.parent
        files = sorted(self.source.rglob("*")) if self.source.is_dir() else [self.source]
        content = {p.relative_to(root).as_posix(): file_digest(p) for p in files if p.is_file()}
        return {"real": settings_digest(content), "real_split": self.split, "real_share": self.share}


def load_pairs(
    dataset: Path,
    limit: int | None = None,
    drop_uncertain: float = 0.0,
    ignore_below: int = 0,
    in_memory: int = IN_MEMORY,
    split: int | None = None,
    temperature: float | None = None,
) -> tuple[Pairs, LabelMap]:
    """A dataset of ours, or any labelled set that `eval` takes as truth.

    limit: only the first so many. drop_uncertain: share of samples left out, those with the highest scores.
    ignore_below: pixels of less confidence (0-255) are not learned from. split: of an HDF5 file, wanted where it has
    several. temperature: soft targets, the dataset's probabilities softened by it; None for its masks. A dataset of
    more than `in_memory` bytes stays on disk and is read batch by batch. Errors: UsageError for filters on a set
    without scores and confidence, for soft targets of one without probabilities, for a split of a folder, and for none
    of a file that has several.
    """
    if not (dataset / NAME).is_file():
        if drop_uncertain or ignore_below:
            raise UsageError(f"got filters for {dataset}", wanted="a dataset with scores and confidence")
        if temperature is not None:
            raise UsageError(f"got --soft for {dataset}", wanted=SOFT_WANTED, remedy="leave --soft out")
        check_split(dataset, split, "pass --split {}")
        found = load_labelled(dataset, split=split)
        return Pairs(torch.from_numpy(found.image[:limit]), torch.from_numpy(found.mask[:limit])), found.labels
    if split is not None:
        raise UsageError(f"got --split {split} for the dataset {dataset}", wanted="an HDF5 file with `split`")
    indices = kept_samples(dataset, drop_uncertain)
    whole = ShardDataset(dataset)
    if limit:
        indices = (indices if indices is not None else list(range(len(whole))))[:limit]
    if whole.labels is None:
        raise DatasetError(f"got {dataset} without classes", wanted="pairs", remedy="run `gansegctl annotate` on it")
    image = ShardColumn(dataset, "image", indices)
    mask = ShardColumn(dataset, "mask", indices, ignore_below)
    held = bytes_of_pairs(whole)
    if temperature is None:
        return Pairs(*_in_memory([image, mask], held, whole, in_memory)), whole.labels
    columns = [image, _probabilities(dataset, indices)]
    if ignore_below:
        columns.append(ShardColumn(dataset, "confidence", indices))
    held += len(whole) * columns[1].shape[1:].numel()
    images, probabilities, *confidence = _in_memory(columns, held, whole, in_memory)
    soft = SoftTargets(probabilities, temperature, confidence[0] if confidence else None, ignore_below)
    return Pairs(images, soft), whole.labels


def _in_memory(
    columns: list[ShardColumn], held: int, whole: ShardDataset, in_memory: int
) -> list[Tensor] | list[ShardColumn]:
    """The columns, read whole where the pairs take at most `in_memory` bytes. held: bytes of all of the dataset's."""
    if held * len(columns[0]) // max(len(whole), 1) > in_memory:
        return columns
    return [column[:] for column in columns]


def _probabilities(dataset: Path, indices: list[int] | None) -> ShardColumn:
    try:
        return ShardColumn(dataset, "probabilities", indices)
    except DatasetError as e:
        remedy = "run `gansegctl annotate` or `gansegctl generate --segmenter` with --probabilities"
        raise UsageError(f"got --soft for {dataset}: {e.got}", wanted=SOFT_WANTED, remedy=remedy) from e


def source_of(dataset: Path, settings: DistillSettings, limit: int | None, split: int | None) -> dict[str, Any]:
    """The identity of a student's pairs: the dataset's digest, else files and sizes; and the choice."""
    if (dataset / NAME).is_file():
        digest = Manifest.read(dataset).digest
    else:
        files = sorted(dataset.rglob("*")) if dataset.is_dir() else [dataset]
        digest = settings_digest({p.name: p.stat().st_size for p in files if p.is_file()})
    chosen = {"limit": limit, "split": split, "drop": settings.drop_uncertain, "ignore": settings.ignore_below}
    if settings.soft:
        chosen["soft"] = settings.temperature
    return {"digest": digest} | chosen
