"""Labelled sets of the built-in domain as datasets on disk, in the same form as generated ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gansegctl.demo.scenes import render

BATCH = 250
HELD_OUT = 20_000_000
"""Scenes of this seed and above are never trained on by anything that ships."""


def batches_of_scenes(seeds: Sequence[int], resolution: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """image uint8 [n,H,W,3], mask uint8 [n,H,W], at most BATCH at a time."""
    for i in range(0, len(seeds), BATCH):
        image, mask = render(seeds[i : i + BATCH], resolution)
        yield image.numpy(), mask.numpy()
