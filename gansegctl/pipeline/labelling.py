"""Image and mask of one batch, from one pass: the only place where the two are joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Generator, Segmenter
from gansegctl.io.image import to_uint8


@torch.no_grad()
def image_and_mask(
    generator: Generator,
    ws: Tensor,
    seeds: Sequence[int],
    noise: str,
    segmenter: Segmenter | None,
    probabilities: bool = False,
) -> tuple[np.ndarray, Annotation | None]:
    """ws [N,num_ws,w] → uint8 images [N,H,W,c] and what the segmenter says of these very activations.

    probabilities: whether it shall say them too.
    """
    taps = segmenter.taps if segmenter else ()
    synthesis = generator.synthesize(ws, noise, taps, seeds)
    synthesis.ws, synthesis.noise, synthesis.seeds = ws, noise, tuple(int(s) for s in seeds)
    annotation = segmenter.predict(generator, synthesis, probabilities) if segmenter else None
    return to_uint8(synthesis.image), annotation
