"""The stage `distill`: a dataset of pairs → a student that needs no generator (auto-shot)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gansegctl.config import DistillSettings
from gansegctl.contracts import Progress
from gansegctl.errors import DatasetError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.streaming import IN_MEMORY, ShardColumn, bytes_of_pairs, kept_samples
from gansegctl.pipeline.truth import load_truth
from gansegctl.store.dataset import ShardDataset
from gansegctl.store.manifest import NAME
from gansegctl.students.augment import PRESETS
from gansegctl.students.student import Student
from gansegctl.students.training import Pairs, StudentSettings, StudentTraining


def load_pairs(
    dataset: Path,
    limit: int | None = None,
    drop_uncertain: float = 0.0,
    ignore_below: int = 0,
    in_memory: int = IN_MEMORY,
) -> tuple[Pairs, LabelMap]:
    """A dataset of ours, or any labelled set that `eval` takes as truth.

    limit: only the first so many. drop_uncertain: share of samples left out, those with the highest scores.
    ignore_below: pixels of less confidence (0-255) are not learned from. A dataset of more than `in_memory` bytes stays
    on disk and is read batch by batch. Errors: UsageError for filters on a set without scores and confidence.
    """
    if not (dataset / NAME).is_file():
        if drop_uncertain or ignore_below:
            raise UsageError(f"got filters for {dataset}", wanted="a dataset with scores and confidence")
        truth = load_truth(dataset)
        return Pairs(torch.from_numpy(truth.image[:limit]), torch.from_numpy(truth.mask[:limit])), truth.labels
    indices = kept_samples(dataset, drop_uncertain)
    whole = ShardDataset(dataset)
    if limit:
        indices = (indices if indices is not None else list(range(len(whole))))[:limit]
    image = ShardColumn(dataset, "image", indices)
    mask = ShardColumn(dataset, "mask", indices, ignore_below)
    try:
        confidence = ShardColumn(dataset, "confidence", indices)
    except DatasetError:  # renderings: their masks are exact
        confidence = None
    columns = [image, mask, confidence]
    if bytes_of_pairs(whole) * len(image) // max(len(whole), 1) <= in_memory:
        columns = [None if c is None else c[:] for c in columns]
    return Pairs(*columns), whole.labels


def distill(
    dataset: Path, out: Path, settings: DistillSettings, device: str = "cpu", limit: int | None = None
) -> Iterator[Progress]:
    """Train a student on the pairs and write it; `out`.ckpt beside it makes an interrupted run go on."""
    if out.suffix != ".safetensors":
        raise UsageError(f"got -o {out}", wanted="a name ending in .safetensors")
    pairs, labels = load_pairs(dataset, limit, settings.drop_uncertain, settings.ignore_below)
    out.parent.mkdir(parents=True, exist_ok=True)
    training = StudentTraining(
        pairs,
        labels,
        StudentSettings(
            arch=settings.arch,
            epochs=settings.epochs,
            steps=settings.steps,
            batch_size=settings.batch_size,
            lr=settings.lr,
            precision=settings.precision,
            seed=settings.seed,
            augment=PRESETS[settings.augment],
        ),
        device,
    )
    checkpoint = out.with_suffix(".ckpt")
    yield from training.run(checkpoint)
    training.student.facts["dataset"] = dataset.resolve().name
    training.student.save(out)
    checkpoint.unlink(missing_ok=True)


def predict_masks(student: Student, images: np.ndarray) -> np.ndarray:
    """uint8 [N,H,W,c] → labels uint8 [N,H,W]."""
    return student.predict(torch.from_numpy(np.ascontiguousarray(images))).labels.cpu().numpy()
