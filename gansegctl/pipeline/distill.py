"""The stage `distill`: a dataset of pairs → a student that needs no generator (auto-shot)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gansegctl.config import DistillSettings
from gansegctl.contracts import Progress
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.truth import load_truth
from gansegctl.students.augment import PRESETS
from gansegctl.students.student import Student
from gansegctl.students.training import Pairs, StudentSettings, StudentTraining


def load_pairs(dataset: Path) -> tuple[Pairs, LabelMap]:
    """A dataset of ours, or any labelled set that `eval` takes as truth, in memory."""
    truth = load_truth(dataset)
    confidence = None if truth.confidence is None else torch.from_numpy(truth.confidence)
    return Pairs(torch.from_numpy(truth.image), torch.from_numpy(truth.mask), confidence), truth.labels


def distill(
    dataset: Path, out: Path, settings: DistillSettings, device: str = "cpu", limit: int | None = None
) -> Iterator[Progress]:
    """Train a student on the pairs and write it; `out`.ckpt beside it makes an interrupted run go on."""
    if out.suffix != ".safetensors":
        raise UsageError(f"got -o {out}", wanted="a name ending in .safetensors")
    pairs, labels = load_pairs(dataset)
    if limit:
        pairs = Pairs(
            pairs.image[:limit], pairs.target[:limit], None if pairs.confidence is None else pairs.confidence[:limit]
        )
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
