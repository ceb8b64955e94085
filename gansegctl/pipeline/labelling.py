"""Image and mask of one batch, from one pass: the only place where the two are joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Generator, Segmenter
from gansegctl.errors import UsageError
from gansegctl.io.image import to_uint8
from gansegctl.pipeline.inputs.generators import grouped, latents_of_seeds


@overload
def image_and_mask(
    generator: Generator,
    ws: Tensor,
    seeds: Sequence[int],
    noise: str,
    segmenter: Segmenter,
    probabilities: bool = False,
) -> tuple[np.ndarray, Annotation]: ...
@overload
def image_and_mask(
    generator: Generator,
    ws: Tensor,
    seeds: Sequence[int],
    noise: str,
    segmenter: Segmenter | None,
    probabilities: bool = False,
) -> tuple[np.ndarray, Annotation | None]: ...
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


def sample(
    generator: Generator,
    seeds: Iterable[int],
    segmenter: Segmenter | None = None,
    *,
    truncation: float = 1.0,
    noise: str = "const",
    class_index: int | None = None,
    batch_size: int = 16,
    probabilities: bool = False,
) -> tuple[Tensor, Annotation | None]:
    """Images uint8 [N,H,W,c] of the seeds on the CPU, and the segmenter's annotation of them (None without one).

    truncation: ψ, 1 for none. noise: const | seed | none. class_index: for conditional generators. Image and mask come
    from the same activations. They are those that `gansegctl generate` writes for the same seeds and settings, but for
    the rounding of another batch size or device. Error: UsageError for no seeds.
    """
    wanted = list(seeds)
    if not wanted:
        raise UsageError("got no seeds", wanted="one or more", remedy="pass seeds, as in range(8)")
    device = str(next(generator.parameters()).device) if isinstance(generator, torch.nn.Module) else "cpu"
    images, found = [], []
    for batch in grouped(wanted, batch_size):
        ws = latents_of_seeds(generator, batch, truncation, class_index=class_index, device=device)
        image, annotation = image_and_mask(generator, ws, batch, noise, segmenter, probabilities)
        images.append(torch.from_numpy(image))
        found += [annotation] if annotation else []
    return torch.cat(images), _concatenated(found)


def _concatenated(parts: Sequence[Annotation]) -> Annotation | None:
    """The annotations of consecutive batches as one, on the CPU."""
    if not parts:
        return None
    return Annotation(
        torch.cat([a.labels for a in parts]).cpu(),
        torch.cat([a.confidence for a in parts]).cpu(),
        torch.cat([a.score for a in parts]).cpu(),
        torch.cat([a.probabilities for a in parts if a.probabilities is not None]).cpu()
        if parts[0].probabilities is not None
        else None,
    )
