"""Inversion: the latents whose image is nearest to a given one, in W, in W+, or in W+ with noise; batched.

Sources: Karras et al. 2020, appendix D (start at the mean of W, perceptual loss, noise regularisation, learning-rate
ramps); Abdal et al. 2019 (W+); Tritrong et al. 2021, section 3.1 (features of a real image through its latents).
Two starts compete in W for the first steps: the mean, and the nearest of many samples; the better one goes on.
"""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.choices import SPACES
from gansegctl.contracts import Generator, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.generators.inversion.latent_space import LatentSpace
from gansegctl.generators.inversion.perceptual import Perceptual, pixel_distance, scales
from gansegctl.generators.stylegan2 import StyleGAN2


@dataclass(frozen=True)
class InversionSettings:
    """How an image is inverted. Errors: UsageError for an unknown space, counts below 1, and negative weights."""

    space: str = "w+"  # w: one w for all slots; w+: one a slot; w+n: one a slot, and free noise maps
    steps: int = 200  # at most, of the better start
    start_steps: int = 50  # of both starts in W, before the better one goes on
    samples: int = 512  # of which the nearest is one of the starts
    lr: float = 0.1  # in standard deviations of W
    pixel: float = 1.0  # weight of the squared difference of pixels
    perceptual: float = 0.1  # weight of the perceptual distance
    distance: float = 0.002  # weight of the mean squared coordinate, which holds latents near the mean of W
    noise_weight: float = 1.0  # weight against maps that are not noise
    tolerance: float = 0.01  # an image stops early unless its loss falls by this share …
    patience: int = 40  # … within so many steps

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise UsageError(f"got --space {self.space}", wanted=" | ".join(SPACES))
        for name in ("steps", "start_steps", "samples", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}", wanted="at least 1")
        if min(self.lr, self.pixel) <= 0 or min(self.perceptual, self.distance, self.noise_weight) < 0:
            raise UsageError("got a weight or a rate below 0", wanted="positive lr and pixel, others 0 or more")


@dataclass
class Inverted:
    """N images inverted. ws [N,num_ws,w]; maps: noise [N,1,r,r] a layer, or None; the rest [N].

    error: data loss (pixels and features) at the end; start_error: the same in W, after start_steps; nearest: how far
    the nearest sample was; distance: root mean square coordinate of ws, about 1 for a random sample; steps: made.
    """

    ws: Tensor
    maps: list[Tensor] | None
    error: Tensor
    start_error: Tensor
    nearest: Tensor
    distance: Tensor
    steps: Tensor


def synthesize(
    generator: Generator, ws: Tensor, noise: str, maps: Sequence[Tensor] | None = None, taps: Sequence[str] | None = ()
) -> Synthesis:
    """Image and activations of inverted latents, from one pass; with `maps` in place of the generator's own noise.

    Error: UsageError for maps and a generator that takes none.
    """
    if maps is None:
        return generator.synthesize(ws, noise, taps)
    noisy = check_noise_maps(generator)
    wanted = noisy.wanted_taps(taps)
    kept: list[Tensor] = []
    image = noisy.synthesis(ws, lambda i, conv: maps[i], lambda name, x: kept.append(x) if name in wanted else None)
    side = generator.spec.resolution
    return Synthesis(image, FeaturePyramid(kept, (side, side)) if kept else None)


def check_noise_maps(generator: Generator) -> StyleGAN2:
    """The generator, a StyleGAN2 of which every layer adds noise. UsageError for any other."""
    if isinstance(generator, StyleGAN2) and all(m is not None for m in noise_maps(generator)):
        return generator
    raise UsageError(
        f"got --space w+n and a {generator.spec.family} without noise maps", wanted="w or w+", remedy="--space w+"
    )


def noise_maps(generator: StyleGAN2) -> list[Tensor | None]:
    """The stored map [r,r] of each layer, None where it adds no noise."""
    return [conv.noise_const for _, conv in generator.synthesis.convs()]


class Inversion:
    """One batch. `run()` yields the steps made, and returns the latents.

    target: [N,c,H,W] in [-1,1] of the generator's size. Rows do not depend on each other.
    """

    def __init__(
        self,
        generator: Generator,
        target: Tensor,
        latent_space: LatentSpace,
        measure: Perceptual,
        settings: InversionSettings,
    ) -> None:
        spec = generator.spec
        wanted = (spec.image_channels, spec.resolution, spec.resolution)
        if target.ndim != 4 or tuple(target.shape[1:]) != wanted:
            raise UsageError(f"got images {list(target.shape)}", wanted=f"[N, {', '.join(map(str, wanted))}]")
        if settings.space == "w+n":
            check_noise_maps(generator)
        self.generator, self.latent_space, self.measure, self.settings = generator, latent_space, measure, settings
        self.target = target

    @property
    def total_steps(self) -> int:
        return self.settings.start_steps + self.settings.steps

    def run(self) -> abc.Generator[int, None, Inverted]:
        """Search. Yields after every step; ends early when every image has stopped improving."""
        s, latent_space, n = self.settings, self.latent_space, len(self.target)
        index, nearest = latent_space.nearest(self.target)
        best = latent_space.coordinates[index].unsqueeze(1)  # [N, 1, w]
        both = torch.cat([torch.zeros_like(best), best])
        start = _Search(self, both, None, torch.arange(n).repeat(2), s.start_steps, early=False)
        yield from start.run(0)
        halves = start.best_error.view(2, n)
        winner = halves.argmin(dim=0)
        v = start.best_v.view(2, n, 1, -1)[winner, torch.arange(n)]
        start_error = halves.min(dim=0).values
        maps = None
        if s.space != "w":
            v = v.expand(-1, latent_space.num_ws, -1)
        if s.space == "w+n":
            stored = noise_maps(check_noise_maps(self.generator))
            maps = [m.expand(n, 1, -1, -1) for m in stored if m is not None]
        search = _Search(self, v, maps, torch.arange(n), s.steps, early=True)
        yield from search.run(s.start_steps)
        v = search.best_v
        return Inverted(
            latent_space.to_ws(v),
            search.best_maps,
            search.best_error,
            start_error,
            nearest,
            v.square().mean(dim=(1, 2)).sqrt(),
            s.start_steps + search.made,
        )


class _Search:
    """Adam on coordinates (and noise maps) of some rows, each with its own best so far."""

    def __init__(
        self, job: Inversion, v: Tensor, maps: list[Tensor] | None, rows: Tensor, steps: int, early: bool
    ) -> None:
        self.job, self.steps, self.early = job, steps, early
        self.live = torch.arange(len(v))
        target = job.target[rows]
        self.pixels, self.features = scales(target), job.measure.features(target)
        self.leaves = [v.clone(), *(m.clone() for m in maps or ())]
        self.moments = [(torch.zeros_like(x), torch.zeros_like(x)) for x in self.leaves]
        self.best_v, self.best_maps = v.clone(), None if maps is None else [m.clone() for m in maps]
        full = torch.full((len(v),), math.inf)
        self.best_loss, self.best_error, self.last_loss = full.clone(), full.clone(), full.clone()
        self.made = torch.zeros(len(v), dtype=torch.long)

    def run(self, before: int) -> Iterator[int]:
        s = self.job.settings
        for step in range(self.steps):
            self._step(step)
            yield before + step + 1
            if self.early and (step + 1) % s.patience == 0:
                best = self.best_loss[self.live]
                going = best < self.last_loss[self.live] * (1 - s.tolerance)
                self.last_loss[self.live] = best
                self._keep(going)
                if not len(self.live):
                    return

    def _step(self, step: int) -> None:
        s, latent_space = self.job.settings, self.job.latent_space
        leaves = [x.detach().requires_grad_(True) for x in self.leaves]
        v, maps = leaves[0], leaves[1:]
        image = synthesize(self.job.generator, latent_space.to_ws(v), latent_space.noise, maps or None).image.float()
        error = s.pixel * pixel_distance(scales(image), self.pixels)
        error = error + s.perceptual * self.job.measure.distance(self.job.measure.features(image), self.features)
        loss = error + s.distance * v.square().mean(dim=(1, 2))
        if maps:
            loss = loss + s.noise_weight * noise_structure(maps)
        gradients = torch.autograd.grad(loss.sum(), leaves)
        self._note(loss.detach().cpu(), error.detach().cpu())
        self._adam(gradients, step)

    def _note(self, loss: Tensor, error: Tensor) -> None:
        better = loss < self.best_loss[self.live]
        at = self.live[better]
        self.best_loss[at], self.best_error[at] = loss[better], error[better]
        mask = better.to(self.best_v.device)
        self.best_v[at] = self.leaves[0][mask]
        if self.best_maps is not None:
            for best, current in zip(self.best_maps, self.leaves[1:], strict=True):
                best[at] = current[mask]
        self.made[self.live] += 1

    @torch.no_grad()
    def _adam(self, gradients: Sequence[Tensor], step: int) -> None:
        """Betas 0.9 and 0.999; the rate rises over the first 5 % and falls over the last 25 % (Karras et al. 2020)."""
        t = step / self.steps
        ramp = min(1.0, 20 * (t + 1 / self.steps)) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, 4 * (1 - t))))
        rate = self.job.settings.lr * ramp
        for i, (x, g, (m, q)) in enumerate(zip(self.leaves, gradients, self.moments, strict=True)):
            m.lerp_(g, 0.1)
            q.lerp_(g * g, 0.001)
            move = (m / (1 - 0.9 ** (step + 1))) / ((q / (1 - 0.999 ** (step + 1))).sqrt() + 1e-10)
            x = x - rate * move
            if i:  # noise keeps mean 0 and deviation 1
                x = x - x.mean(dim=(2, 3), keepdim=True)
                x = x * (x.square().mean(dim=(2, 3), keepdim=True) + 1e-12).rsqrt()
            self.leaves[i] = x

    def _keep(self, going: Tensor) -> None:
        if bool(going.all()):
            return
        at = going.to(self.best_v.device)
        self.live = self.live[going]
        self.leaves = [x[at] for x in self.leaves]
        self.moments = [(m[at], q[at]) for m, q in self.moments]
        self.pixels, self.features = [x[at] for x in self.pixels], [x[at] for x in self.features]


def noise_structure(maps: Sequence[Tensor]) -> Tensor:
    """How much the maps [N,1,r,r] are correlated with themselves shifted by a pixel, at every scale above 4 px → [N].

    Karras et al. 2020, appendix D, equation 4.
    """
    total = torch.zeros(len(maps[0]), device=maps[0].device)
    for x in maps:
        while True:
            for axis in (2, 3):
                total = total + (x * x.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square()
            if x.shape[2] <= 8:
                break
            x = F.avg_pool2d(x, 2) * 2  # deviation 1 again
    return total
