"""A segmenter that is one fitted head: what `repurpose` and `contrastive` make."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Generator, Synthesis
from gansegctl.methods.base.annotations import annotation_by_heads, annotation_of
from gansegctl.methods.base.heads import Head
from gansegctl.methods.base.segmenter import BaseSegmenter

AT_ONCE_ON_CPU = 2
"""Samples a head labels at one time. Temporaries of more leave the cache and are paged in anew for every batch: the
demo's batches of 32 went at 21 images a second on two cores at once, and at 33 in pairs."""


@dataclass(repr=False, kw_only=True)
class HeadSegmenter(BaseSegmenter):
    """A fitted head (protocol `contracts.Segmenter`); it follows the activations to their device."""

    head: Head

    @torch.no_grad()
    def logits(self, generator: Generator, synthesis: Synthesis) -> Tensor:
        """Class scores before the softmax, float32 [N,K,H,W]."""
        pyramid = self.features(generator, synthesis)
        head = self.head.to(pyramid.levels[0].device)
        step = AT_ONCE_ON_CPU if pyramid.levels[0].device.type == "cpu" else pyramid.batch
        return torch.cat([head(pyramid[i : i + step]) for i in range(0, pyramid.batch, step)])

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks of the images in `synthesis`, which must hold the taps of this segmenter."""
        if self.head.per_pixel:
            pyramid = self.features(generator, synthesis)
            head = self.head.to(pyramid.levels[0].device)
            return annotation_by_heads(pyramid, [head.layers()], head.slope, probabilities)
        return annotation_of(self.logits(generator, synthesis), probabilities)

    def tensors(self) -> dict[str, Tensor]:
        """The head's weights, by name."""
        return dict(self.head.state_dict())
