"""Random streams: everything random in sample s is a function of seed s alone, whatever the batch it falls into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gansegctl.errors import UsageError

MAX_SEED = 2**32 - 1
"""numpy's RandomState takes 32 bits."""


def check_seeds(seeds: Sequence[int]) -> None:
    """UsageError unless every seed is in 0..2^32-1."""
    wrong = [s for s in seeds if not 0 <= int(s) <= MAX_SEED]
    if wrong:
        raise UsageError(f"got seed {wrong[0]}", wanted=f"seeds from 0 to {MAX_SEED}", remedy="choose other --seeds")


def z_of_seeds(seeds: Sequence[int], z_dim: int) -> Tensor:
    """z float32 [N, z_dim]; row i is `numpy.random.RandomState(seed_i).randn(1, z_dim)`, as in the official scripts."""
    check_seeds(seeds)
    if not len(seeds):
        return torch.empty(0, z_dim)
    rows = [np.random.RandomState(int(s)).randn(1, z_dim) for s in seeds]
    return torch.from_numpy(np.concatenate(rows)).float()  # [N, z_dim]


def noise_of_seeds(seeds: Sequence[int], resolutions: Sequence[int]) -> list[Tensor]:
    """One noise map a layer, float32 [N,1,r,r]; drawn on the CPU, layer by layer, from each sample's own stream.

    The stream is offset from that of z (a second key word), so that noise and latent of one seed are independent.
    """
    check_seeds(seeds)
    streams = [np.random.RandomState([int(s), 1]) for s in seeds]
    maps = []
    for r in resolutions:
        rows = [stream.randn(1, 1, r, r).astype(np.float32) for stream in streams]
        maps.append(torch.from_numpy(np.concatenate(rows)) if rows else torch.empty(0, 1, r, r))  # [N, 1, r, r]
    return maps
