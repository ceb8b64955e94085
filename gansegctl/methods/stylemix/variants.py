"""Variants of an image: its coarse styles, other fine ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gansegctl.contracts import Generator, GeneratorSpec
from gansegctl.methods.base.fitting import class_codes
from gansegctl.methods.stylemix.settings import StyleMixValues

AT_ONCE = 1 << 18
"""Pixels of the variants that are made at one time: four of 256 px, whose passes need half a gigabyte."""


@dataclass(frozen=True)
class Original:
    """One image [1,c,H,W] and what it was made from: ws [1,num_ws,w], the mode of its noise, its seed."""

    image: Tensor
    ws: Tensor
    noise: str
    seed: int


def make_variants(
    generator: Generator, original: Original, settings: StyleMixValues, stream: torch.Generator
) -> Tensor:
    """The image under other fine styles: [V,c,H,W]; itself first, where its noise is kept."""
    s, spec, device = settings, generator.spec, original.image.device
    made = [original.image.float()] if s.keep_noise else []
    count = s.variants - len(made)
    z = torch.randn(count, spec.z_dim, generator=stream).to(device)
    c = None
    if spec.c_dim:
        drawn = torch.randint(spec.c_dim, (count,), generator=stream)
        drawn = drawn if s.class_index is None else torch.full_like(drawn, s.class_index)
        c = class_codes(drawn, spec, device)
    low, high = crossover_slots(spec, s)
    begins = torch.randint(low, high + 1, (count,), generator=stream)
    noise_seeds = torch.randint(2**31, (count,), generator=stream).tolist()
    fresh = generator.map(z, c, s.truncation)  # [V, num_ws, w]
    new = (torch.arange(spec.num_ws) >= begins[:, None]).to(device)[:, :, None]
    mixed = torch.where(new, fresh, original.ws.to(fresh))
    passes = s.passes or max(1, min(8, AT_ONCE // spec.resolution**2))
    noise = original.noise if s.keep_noise else "seed"
    for some in torch.arange(count).split(passes):
        seeds = [original.seed] * len(some) if s.keep_noise else [noise_seeds[j] for j in some.tolist()]
        made.append(generator.synthesize(mixed[some], noise=noise, taps=(), seeds=seeds).image.float())
    return torch.cat(made)


def crossover_slots(spec: GeneratorSpec, settings: StyleMixValues) -> tuple[int, int]:
    """First and last style slot at which new styles may begin; 1 to num_ws−1, so that something stays and changes.

    By resolution: from the last layer of `crossover_low` px to the first of `crossover_high`, as the community
    implementation has slot 6, the second convolution at 32 px, to slot 9, the first at 128 px. Where a generator lacks
    a resolution, its next larger one's first layer stands for it.
    """
    if settings.crossover_by == "depth":
        ends = [round(x * spec.num_ws) for x in (settings.crossover_low, settings.crossover_high)]
    else:  # a layer's slot: the last one is ToRGB's, and StyleGAN3 has one before its first layer
        before = max(spec.num_ws - 1 - len(spec.taps), 0)
        sizes = [t.resolution for t in spec.taps]
        ends = [
            before + next((i for i, size in enumerate(sizes) if size >= bound), len(sizes))
            for bound in (settings.crossover_low, settings.crossover_high)
        ]
        ends[0] += max(sum(size == settings.crossover_low for size in sizes) - 1, 0)  # the last layer of that size
    low, high = (min(max(end, 1), spec.num_ws - 1) for end in ends)
    return low, max(low, high)


def halves(runs: int, count: int, stream: torch.Generator) -> Tensor:
    """Which of the variants each run reads, bool [R,V]: all for a single run, else the first and a random half."""
    if runs == 1:
        return torch.ones(1, count, dtype=torch.bool)
    keep = torch.rand(runs, count, generator=stream).argsort(dim=1) < (count + 1) // 2
    keep[:, 0] = True
    return keep


def points(images: Tensor, keep: Tensor, standardise: bool) -> tuple[Tensor, Tensor]:
    """Variants [V,c,h,w], those that each run reads [R,V] → pixels to cluster [P,V·c], columns to read [R,V·c]."""
    channels = images.shape[1]
    if standardise:
        middle = images - images.mean(dim=(2, 3), keepdim=True)
        images = middle / middle.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-6)
    x = images.flatten(0, 1).flatten(1).T.contiguous()
    return x, keep.repeat_interleave(channels, dim=1).to(x.device)
