"""Random heads and points, and what a pyramid computes held against hypercolumns at the points, before any speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.bench.common import TOLERANCE, check_equal, check_labels, disagreement
from gansegctl.features.pyramid import FeaturePyramid

_TIE = 1e-4  # probabilities this near to each other may change places by rounding

Head = list[tuple[Tensor, Tensor]]
"""Layers (weight, bias) of a perceptron on single pixels."""


def random_head(widths: Sequence[int], stream: torch.Generator, device: str) -> Head:
    """Layers (weight, bias) of these widths that keep the scale of their input."""
    layers = []
    for c_in, c_out in pairwise(widths):
        weight = torch.randn(c_out, c_in, generator=stream) * (2 / c_in) ** 0.5
        layers.append((weight.to(device), (0.1 * torch.randn(c_out, generator=stream)).to(device)))
    return layers


def random_points(p: FeaturePyramid, count: int) -> Tensor:
    """int64 [count,3] of (sample, row, column), the same on every call."""
    stream = torch.Generator().manual_seed(2)
    columns = [torch.randint(limit, (count,), generator=stream) for limit in (p.batch, *p.size)]
    return torch.stack(columns, dim=1).to(p.levels[0].device)


def check_heads(p: FeaturePyramid, heads: Sequence[Head], points: Tensor) -> None:
    """GansegError unless `classify` gives at the points what the heads give on the points' own hypercolumns."""
    x = p.at(points)

    def logits(head: Head) -> Tensor:
        y = x @ head[0][0].T + head[0][1]
        for weight, bias in head[1:]:
            y = F.relu(y) @ weight.T + bias
        return y

    mean = vote(logits, heads)
    labels, confidence, _ = p.classify(heads)
    n, row, column = points.unbind(dim=1)
    best = mean.topk(2, dim=1).values
    sure = best[:, 0] - best[:, 1] > _TIE
    check_labels("labels at sampled pixels", labels[n, row, column][sure], mean.argmax(dim=1)[sure])
    off = float((confidence[n, row, column] / 255 - best[:, 0]).abs().max())
    if off > 0.5 / 255 + TOLERANCE:
        raise disagreement("confidences at sampled pixels", f"{off:.4f} apart", "the rounding to 1/255 alone")


def check_conv(p: FeaturePyramid, weight: Tensor, points: Tensor) -> None:
    """GansegError unless `conv` (3×3) gives at the points the sum of nine products with their neighbours."""
    h, w = p.size
    inner = points[(points[:, 1] > 0) & (points[:, 1] < h - 1) & (points[:, 2] > 0) & (points[:, 2] < w - 1)][:256]
    wanted = torch.zeros(len(inner), len(weight), device=weight.device)
    for i in range(3):
        for j in range(3):
            moved = inner + torch.tensor([0, i - 1, j - 1], device=inner.device)
            wanted += p.at(moved) @ weight[:, :, i, j].T
    check_equal("3×3 convolutions", picked(p.conv(weight), inner), wanted)


def vote(logits: Callable[[Head], Tensor], heads: Sequence[Head]) -> Tensor:
    """The mean over the heads of their probabilities, softmax over dimension 1; one head's are held at a time."""
    mean = logits(heads[0]).softmax(dim=1) / len(heads)
    for head in heads[1:]:
        mean = mean + logits(head).softmax(dim=1) / len(heads)
    return mean


def picked(maps: Tensor, points: Tensor) -> Tensor:
    """maps [N,C,H,W] at points [P,3] of (sample, row, column) → [P,C]."""
    n, row, column = points.unbind(dim=1)
    return maps[n, :, row, column]
