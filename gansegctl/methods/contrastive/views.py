"""Pairs of views of one generated image that differ in style: what a contrastive pre-training compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gansegctl.contracts import Generator, GeneratorSpec
from gansegctl.errors import UsageError
from gansegctl.methods.base.fitting import draw_class

MAX_ANGLE = 10.0
"""Degrees to either side by which a view of the release profile is turned."""


def style_pairs(spec: GeneratorSpec, lowest: int = 0, last: bool = True) -> list[tuple[int, ...]]:
    """Slots (2k, 2k+1) of ws that feed taps of `lowest` px or more; without the last pair unless `last`.

    A slot is named by the tap it feeds, so that the rule means the same for every family and size. UsageError when
    no pair is left.
    """
    extra = max(spec.num_ws - 1 - len(spec.taps), 0)  # slots before the first tap, as StyleGAN3's input has one
    fed = [spec.taps[min(max(slot - extra, 0), len(spec.taps) - 1)].resolution for slot in range(spec.num_ws)]
    pairs = [tuple(range(k, min(k + 2, spec.num_ws))) for k in range(0, spec.num_ws, 2)]
    pairs = pairs if last or len(pairs) == 1 else pairs[:-1]
    chosen = [pair for pair in pairs if fed[pair[0]] >= lowest]
    if not chosen:
        raise UsageError(
            f"got perturb_from {lowest}, above every pair of styles of this generator",
            wanted=f"at most {max(fed[pair[0]] for pair in pairs)}",
            remedy="lower perturb_from",
        )
    return chosen


@torch.no_grad()
def draw_views(
    generator: Generator,
    pairs: Sequence[tuple[int, ...]],
    truncation: float,
    sigma: float,
    twice: bool,
    stream: torch.Generator,
    device: torch.device,
) -> Tensor:
    """ws [2,num_ws,w] of one random image in two styles.

    In each view the slots of one random pair are (1 − sigma)·w + sigma·w_new, w_new of a fresh z a slot. Every code is
    truncated once by `truncation`; with `twice` those that were kept are truncated a second time, as released.
    """
    spec = generator.spec
    c = draw_class(spec, stream, device)

    def draw(psi: float) -> Tensor:
        z = torch.randn(1, spec.z_dim, generator=stream).to(device)
        return generator.map(z, c, truncation=psi)

    base = draw(truncation**2 if twice else truncation)  # truncation is linear in w: twice psi is once psi²
    views = base.repeat(2, 1, 1)
    for view in views:
        pair = pairs[int(torch.randint(len(pairs), (1,), generator=stream))]
        for slot in pair:
            view[slot] = (1 - sigma) * view[slot] + sigma * draw(truncation)[0, slot]
    return views


@dataclass(frozen=True)
class Warp:
    """For every pixel of a view, row by row: `source` int64 [H·W], the pixel of the image that it shows, and
    `inside` bool [H·W], False where it shows nothing."""

    source: Tensor
    inside: Tensor


def draw_warp(size: tuple[int, int], stream: torch.Generator) -> Warp:
    """A random turn of up to ±10° about the middle, to the nearest pixel, then a mirror image half of the time."""
    h, w = size
    angle = math.radians(MAX_ANGLE) * (2 * float(torch.rand(1, generator=stream)) - 1)
    flipped = bool(torch.rand(1, generator=stream) < 0.5)
    rows = torch.arange(h, dtype=torch.float64).view(-1, 1) - (h - 1) / 2
    columns = torch.arange(w, dtype=torch.float64).view(1, -1) - (w - 1) / 2
    columns = -columns if flipped else columns
    y = (math.cos(angle) * rows + math.sin(angle) * columns + (h - 1) / 2).round().long()
    x = (math.cos(angle) * columns - math.sin(angle) * rows + (w - 1) / 2).round().long()
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    return Warp((y.clamp(0, h - 1) * w + x.clamp(0, w - 1)).flatten(), inside.flatten())
