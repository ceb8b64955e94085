"""Pairs that stay on disk: what a student's training indexes as tensors, read from shards sample by sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gansegctl.errors import DatasetError, UsageError
from gansegctl.labels import IGNORE
from gansegctl.store.dataset import ShardDataset, iter_shards

IN_MEMORY = 2 * 2**30
"""Bytes of images and masks up to which a dataset is read whole: random access is quickest there."""


class ShardColumn:
    """One field of a dataset, [N, …] without being there: `column[indices]` reads those samples into a tensor.

    confidence_floor: mask values whose confidence lies below it come back as IGNORE (of `mask` only).
    """

    def __init__(self, folder: Path, field: str, indices: list[int] | None = None, confidence_floor: int = 0) -> None:
        self.field, self.floor = field, confidence_floor
        fields = (field, "confidence") if confidence_floor else (field,)
        self.rows = ShardDataset(folder, fields, indices=indices)
        if not len(self.rows):
            raise UsageError(f"got no pairs in {folder}", wanted="at least one")
        first = self.rows[0][field]
        self.shape, self.dtype = torch.Size((len(self.rows), *first.shape)), first.dtype
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        if isinstance(indices, slice):
            indices = torch.arange(len(self))[indices]
        samples = [self.rows[int(i)] for i in indices]
        values = torch.stack([s[self.field] for s in samples])
        if self.floor:
            sure = torch.stack([s["confidence"] for s in samples]) >= self.floor
            values = values.masked_fill(~sure, IGNORE)
        return values


class SoftTargets:
    """Stored probabilities uint8 [N,K,H,W] as targets: `targets[indices]` is float32 [n,K,H,W], softened, of sum 1.

    p^(1/temperature), normalised, is what the softmax of logits / temperature gives (Hinton et al. 2015, section 2).
    confidence_floor: pixels whose confidence [N,H,W] lies below it are all-zero and weigh nothing.
    """

    ndim = 4

    def __init__(
        self,
        probabilities: Tensor | ShardColumn,
        temperature: float = 1.0,
        confidence: Tensor | ShardColumn | None = None,
        confidence_floor: int = 0,
    ) -> None:
        self.probabilities, self.temperature = probabilities, temperature
        self.confidence, self.floor = confidence, confidence_floor
        self.shape = probabilities.shape

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        p = (self.probabilities[indices].float() / 255).pow(1 / self.temperature)
        p = p / p.sum(dim=1, keepdim=True).clamp(min=1e-6)
        if self.confidence is not None:
            p = p * (self.confidence[indices] >= self.floor)[:, None]
        return p


def bytes_of_pairs(dataset: ShardDataset) -> int:
    """Bytes that images, masks and confidences take in memory."""
    return len(dataset) * dataset.resolution**2 * (dataset.channels + 2)


def kept_samples(folder: Path, drop_uncertain: float) -> list[int] | None:
    """Places of the samples to train on when the share with the highest scores is left out; None for all.

    A score is high where the segmenter was unsure of the whole image. Errors: UsageError for a share out of range or
    one that leaves nothing; DatasetError for a dataset without scores.
    """
    if not 0 <= drop_uncertain < 1:
        raise UsageError(f"got --drop-uncertain {drop_uncertain}", wanted="a share from 0 to below 1")
    if not drop_uncertain:
        return None
    parts: list[np.ndarray] = []
    for _, arrays in iter_shards(folder, wanted=("score",)):
        if arrays.score is None:
            raise DatasetError(f"got {folder} without scores", wanted="pairs that `gansegctl annotate` made")
        parts.append(arrays.score)
    scores = np.concatenate(parts)
    keep = len(scores) - round(len(scores) * drop_uncertain)
    if not keep:
        raise UsageError(f"got --drop-uncertain {drop_uncertain} of {len(scores)}", wanted="a share that leaves some")
    return sorted(np.argsort(scores, kind="stable")[:keep].tolist())
