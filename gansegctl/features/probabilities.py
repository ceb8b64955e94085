"""Probabilities of classes → what is written of them: labels, confidence, entropy."""

from __future__ import annotations

import torch
from torch import Tensor


def decide(p: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Probabilities with classes along `dim` → labels uint8, the likeliest class, and its `confidence` uint8."""
    top, label = p.max(dim=dim)
    return label.to(torch.uint8), confidence(top)


def confidence(top: Tensor) -> Tensor:
    """The highest probability, 0 … 1 → uint8 in steps of 1/255; 255 = sure."""
    return (top * 255).round().to(torch.uint8)


def entropy(p: Tensor, log_p: Tensor, dim: int = 1) -> Tensor:
    """H(p) = −Σ p log p in nats, of probabilities with classes along `dim` and their logarithms."""
    return -(p * log_p).sum(dim=dim)
