"""The needs of labels4free beyond a generator: a new discriminator of its size, backgrounds, and real images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gansegctl.contracts import Generator, Method
from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.discriminators import open_discriminator
from gansegctl.generators.discriminator import Discriminator
from gansegctl.generators.stylegan2 import StyleGAN2
from gansegctl.pipeline.inputs.images import check_split, load_images

COARSEST = "b4.conv1"
"""The convolution whose output is silenced to make a background; its input, the learned constant, at 512 px."""


class StyleGAN2Adversary:
    """Protocol `methods.labels4free.Adversary` for a StyleGAN2. trained: a discriminator to start from, else a new one.

    Error: UsageError for another family, in which there is no coarsest convolution to silence.
    """

    def __init__(self, generator: Generator, trained: nn.Module | None = None) -> None:
        if not isinstance(generator, StyleGAN2):
            raise UsageError(
                f"got a generator of family {generator.spec.family!r} for labels4free",
                wanted="a StyleGAN2, whose coarse content can be silenced",
                remedy="use another unsupervised method",
            )
        if generator.spec.c_dim:
            raise UsageError("got a generator with classes for labels4free", wanted="an unconditional one")
        self.generator, self.trained = generator, trained

    def critic(self, seed: int) -> nn.Module:
        """The trained discriminator if there is one, else new weights that depend on `seed` alone."""
        if self.trained is not None:
            return self.trained
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Discriminator(self.generator.config)

    @torch.no_grad()
    def background(self, ws: Tensor, noise: str, seeds: Sequence[int]) -> Tensor:
        """Images [N,c,H,W] of ws with the coarsest activation set to 0."""
        conv = self.generator.synthesis.get_submodule(COARSEST)
        if self.generator.spec.resolution == 512:
            handle = conv.register_forward_pre_hook(lambda _, given: (torch.zeros_like(given[0]), *given[1:]))
        else:
            handle = conv.register_forward_hook(lambda _, given, x: torch.zeros_like(x))
        try:
            return self.generator.synthesize(ws, noise, (), seeds).image
        finally:
            handle.remove()


def beyond_generator(method: Method, generator: Generator, settings: Any) -> dict[str, Any]:
    """The named arguments of `method.fit`, by the needs that the method states: nothing, or an adversary and images.

    Errors: UsageError for a discriminator of another size, or images of several splits.
    """
    if "discriminator" not in method.needs:
        return {}
    spec = generator.spec
    trained = open_discriminator(Path(settings.discriminator)) if settings.discriminator else None
    if trained is not None and (trained.channels, trained.resolution) != (spec.image_channels, spec.resolution):
        raise UsageError(
            f"got a discriminator of {trained.resolution} px and {trained.channels} channels",
            wanted=f"{spec.resolution} px and {spec.image_channels}, as the generator's images",
        )
    given: dict[str, Any] = {"adversary": StyleGAN2Adversary(generator, trained)}
    if settings.images:
        check_split(Path(settings.images), None, "write the images of one split to a file or folder of their own")
        given["images"] = load_images(Path(settings.images), spec.resolution, spec.image_channels)
    return given
