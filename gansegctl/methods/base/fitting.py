"""Fitting a head on a few images: what targets, statistics and the loop have in common over methods.

Everything random comes from one CPU stream that the caller seeds; torch's own random state is never touched.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Generator, GeneratorSpec
from gansegctl.errors import GansegError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import IGNORE
from gansegctl.methods.base.heads import Head


def grown(steps: int, exemplars: int) -> int:
    """Steps for so many exemplars, from those for one: times √exemplars, the rule of `oneshot`.

    As published, methods train in epochs, so their steps grow in proportion. By the root, each of ten exemplars is
    seen a third as often as a single one is, in a third of the time that epochs would take.
    """
    return round(steps * math.sqrt(exemplars))


class FitSettings(Protocol):
    """The settings of a method that the loop reads."""

    @property
    def steps(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def feature_dropout(self) -> float: ...
    @property
    def flip(self) -> bool: ...


def class_codes(classes: Tensor, spec: GeneratorSpec, device: torch.device) -> Tensor:
    """Classes int64 [N] as a conditional generator takes them: one-hot [N,c_dim]."""
    return F.one_hot(classes, spec.c_dim).float().to(device)


def draw_class(spec: GeneratorSpec, stream: torch.Generator, device: torch.device) -> Tensor | None:
    """A random class [1,c_dim] of a conditional generator, else None."""
    if not spec.c_dim:
        return None
    return class_codes(torch.randint(spec.c_dim, (1,), generator=stream), spec, device)


@torch.no_grad()
def random_pyramids(
    generator: Generator,
    taps: Sequence[str],
    samples: int,
    noise: str,
    stream: torch.Generator,
    device: torch.device,
    truncation: float = 1.0,
) -> Iterator[FeaturePyramid]:
    """The activations of so many random images (and classes, of a generator that has them), one by one, float32.

    Nothing is drawn before it is asked for: others may draw from the stream between two images.
    """
    for _ in range(samples):
        z = torch.randn(1, generator.spec.z_dim, generator=stream)
        seed = int(torch.randint(2**31, (1,), generator=stream))
        ws = generator.map(z.to(device), draw_class(generator.spec, stream, device), truncation)
        yield generator.synthesize(ws, noise=noise, taps=taps, seeds=[seed]).pyramid.map(lambda x: x.float())


@torch.no_grad()
def feature_statistics(
    generator: Generator,
    taps: Sequence[str],
    samples: int,
    noise: str,
    exemplars: FeaturePyramid,
    stream: torch.Generator,
    centred: bool = True,
) -> tuple[Tensor, Tensor]:
    """Statistics to standardise channels with, [ΣC] each: subtract the mean, multiply by 1/deviation, over random
    samples (over the exemplars when `samples` is 0); not centred, 0 and 1/(root mean square).

    A style multiplies channels (StyleGAN's modulation), so 0 means the same in every image and a mean does not: what
    learns from one image learns more from channels that are left where they are (docs/methods.md). The exemplar alone
    says little about how a channel varies: many are constant in it and would be blown up.
    """
    drawn = random_pyramids(generator, taps, samples, noise, stream, exemplars.levels[0].device)
    parts = [pyramid.with_mode(exemplars.mode).moments() for pyramid in drawn]
    parts = parts or [exemplars.moments()]
    trim()
    means, variances = (torch.stack(part) for part in zip(*parts, strict=True))
    mean = means.mean(dim=0)
    variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)  # within images + between them
    if not centred:
        mean, variance = torch.zeros_like(mean), variance + mean.square()
    # Channels that hardly vary carry rounding, not meaning: they stay small instead of being scaled to 1.
    return mean, (variance + 1e-4 * variance.median() + 1e-12).rsqrt()


def trim() -> None:
    """Give freed memory back to the system. glibc keeps it as holes in its heap, which at 256 px come to 200 MB, and
    which the next, larger tensors do not fit in. Nothing is done where there is no glibc."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def standardised(pyramid: FeaturePyramid, mean: Tensor, scale: Tensor) -> FeaturePyramid:
    """(x − mean)·scale per channel, on the native maps: upsampling weights sum to 1, so the two commute."""
    means, scales = mean.split(pyramid.widths), scale.split(pyramid.widths)
    levels = [
        (x - m.view(1, -1, 1, 1)) * s.view(1, -1, 1, 1) for x, m, s in zip(pyramid.levels, means, scales, strict=True)
    ]
    return FeaturePyramid(levels, pyramid.size, pyramid.mode, pyramid.backend)


def soft_targets(masks: Tensor, classes: int, smoothing: float, balance: str) -> tuple[Tensor, Tensor]:
    """masks int64 [N,H,W] → target distributions [N,K,H,W] and pixel weights [N,H,W]; ignored pixels weigh 0.

    balance "sqrt-inverse": a pixel of class k weighs 1/√(share of k), scaled to a mean of 1 over counted pixels.
    """
    counted = masks != IGNORE
    known = masks.where(counted, 0)
    onehot = torch.zeros(len(masks), classes, *masks.shape[1:], device=masks.device).scatter_(1, known[:, None], 1.0)
    weights = counted.float()
    if balance == "sqrt-inverse":
        shares = torch.bincount(known[counted], minlength=classes).float() / counted.sum()
        weights = weights * shares.clamp(min=1e-12).rsqrt()[known]
        weights = weights * (counted.sum() / weights.sum())
    return onehot * (1 - smoothing) + smoothing / classes, weights


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of −Σ_k target_k · log p_k over pixels; in products, whose gradient repeats to the bit on GPUs."""
    per_pixel = -(targets * logits.log_softmax(dim=1)).sum(dim=1)  # [N, H, W]
    return (per_pixel * weights).sum() / weights.sum()


def learning_rate(settings: FitSettings, step: int) -> float:
    """cosine: lr·(1 + cos πt/T)/2; step: lr·0.1^⌊t/50⌋; stairs: lr·0.9^⌊20·t/T⌋; constant: lr."""
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    if settings.schedule == "stairs":
        return settings.lr * 0.9 ** (20 * step // settings.steps)
    return settings.lr * 0.1 ** (step // 50) if settings.schedule == "step" else settings.lr


def fit_head(
    head: Head,
    pyramid: FeaturePyramid,
    targets: Tensor,
    weights: Tensor,
    settings: FitSettings,
    stream: torch.Generator,
    betas: tuple[float, float] = (0.9, 0.999),
    read: Callable[[FeaturePyramid], FeaturePyramid] | None = None,
) -> list[float]:
    """Adam on the head; every step one batch of exemplars, each exemplar once before any comes again. Losses by step.

    read: what a batch goes through before the head sees it, without gradients. Error: GansegError when the loss is not
    finite.
    """
    device, losses = pyramid.levels[0].device, []
    usable = weights.flatten(1).sum(dim=1).nonzero().flatten().cpu()  # an image that is ignored whole teaches nothing
    size = min(settings.batch, len(usable))
    optimizer = torch.optim.Adam(head.parameters(), lr=settings.lr, betas=betas, weight_decay=settings.weight_decay)
    queue = torch.empty(0, dtype=torch.long)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for step in range(settings.steps):
            while len(queue) < size:
                queue = torch.cat([queue, usable[torch.randperm(len(usable), generator=stream)]])
            rows, queue = queue[:size], queue[size:]
            # One image, or all of one, is a view: indices would copy its activations, 123 MB at 256 px.
            chosen = slice(int(rows[0]), int(rows[0]) + 1) if size == 1 else rows.to(device)
            part, target, weight = pyramid[chosen], targets[chosen], weights[chosen]
            if read is not None:
                part = read(part)
            if settings.flip and torch.rand(1, generator=stream) < 0.5:
                part, target, weight = part.map(lambda x: x.flip(-1)), target.flip(-1), weight.flip(-1)
            optimizer.param_groups[0]["lr"] = learning_rate(settings, step)
            gain = _gain(settings.feature_dropout, part.channels, stream, device)
            loss = cross_entropy(head(part, gain), target, weight)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise GansegError(
                    f"got a loss of {losses[-1]} at step {step}", wanted="a finite loss", remedy="lower the method's lr"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses


def _gain(dropout: float, channels: int, stream: torch.Generator, device: torch.device) -> Tensor | None:
    if not dropout:
        return None
    kept = torch.rand(channels, generator=stream) >= dropout
    return (kept.float() / (1 - dropout)).to(device)
