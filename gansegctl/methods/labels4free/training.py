"""Training an alpha network against a discriminator: composites that look like images (Labels4Free, ICCV 2021)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.contracts import Generator, Synthesis
from gansegctl.errors import GansegError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.io.image import from_uint8
from gansegctl.methods.base.exemplars import device_of
from gansegctl.methods.base.fitting import draw_class, feature_statistics, standardised
from gansegctl.methods.labels4free.alpha_network import AlphaNetwork, alpha_taps
from gansegctl.methods.labels4free.collapse_guard import CollapseGuard

if TYPE_CHECKING:
    from gansegctl.methods.labels4free.settings import Labels4FreeValues

MIN_AREA = 0.25  # mean alpha below which an image pays (Labels4Free's area term)
R1, R1_INTERVAL = 10.0, 16
HALF_LIFE = 10_000 / 32  # iterations, of the averaged alpha network


class Adversary(Protocol):
    """Discriminator and backgrounds, which a generator alone does not bring."""

    def critic(self, seed: int) -> nn.Module:
        """A discriminator, images [N,c,H,W] → logits [N,1]: new from `seed`, or trained already. Its owner keeps it
        as it is: `fit` trains a copy."""

    def background(self, ws: Tensor, noise: str, seeds: Sequence[int]) -> Tensor:
        """Images [N,c,H,W] of ws without their coarse content."""


class AlphaTraining:
    """One run: networks, optimisers, random stream and guard."""

    def __init__(
        self,
        generator: Generator,
        adversary: Adversary,
        images: Tensor | np.ndarray | None,
        settings: Labels4FreeValues,
        seed: int,
    ) -> None:
        self.generator, self.adversary, self.settings = generator, adversary, settings
        self.images = None if images is None else torch.as_tensor(images)  # uint8 [N, H, W, c]
        self.device, self.stream = device_of(generator), torch.Generator().manual_seed(seed)
        self.taps = alpha_taps(generator.spec)
        self.names = tuple(t.name for t in self.taps)
        sizes = [t.resolution for t in self.taps], [t.channels for t in self.taps]
        self.alpha = AlphaNetwork(*sizes, self.stream).to(self.device)
        self.average = copy.deepcopy(self.alpha).requires_grad_(False)
        self.critic = copy.deepcopy(adversary.critic(seed)).to(self.device).train().requires_grad_(True)
        self.statistics: tuple[Tensor, Tensor] | None = None  # mean and 1/deviation [ΣC]
        if settings.standardise:
            first = self._foregrounds(*self._draw(1)).pyramid
            samples, noise = settings.statistics_samples, settings.noise
            self.statistics = feature_statistics(generator, self.names, samples, noise, first, self.stream)
        lazy = R1_INTERVAL / (R1_INTERVAL + 1)  # Adam is rescaled for lazy penalties (Karras et al. 2020, app. B)
        self.a_optimizer = torch.optim.Adam(self.alpha.parameters(), lr=settings.lr * 0.8, betas=(0.0, 0.99**0.8))
        self.d_optimizer = torch.optim.Adam(self.critic.parameters(), lr=settings.lr * lazy, betas=(0.0, 0.99**lazy))
        self.guard = CollapseGuard(threshold=settings.threshold)

    def run(self) -> dict[str, Any]:
        """Train until the iterations are done or masks have settled → facts."""
        s = self.settings
        # Codes, not activations, which are 115 MB an image at 256 px: these are made again for every look.
        held = [self._draw(1) for _ in range(s.guard_samples)]
        losses, stopped = (0.0, 0.0), "iterations done"
        done = 0
        for done in range(1, s.iterations + 1):
            losses = self.step(done - 1)
            if not torch.tensor(losses).isfinite().all():
                raise GansegError(f"got losses {losses} at iteration {done}", wanted="finite ones", remedy="lower lr")
            if done % s.guard_every == 0 or done == s.iterations:
                settled = self.guard.look(self._alphas_of(held), done, last=done == s.iterations)
                if settled and s.early_stop and done >= s.min_iterations:
                    stopped = "masks settled"
                    break
        last = self.guard.looks[-1]
        return {
            "iterations": done,
            "stopped": stopped,
            "loss_alpha": round(losses[0], 6),
            "loss_critic": round(losses[1], 6),
            "area": round(last.area, 4),
            "written": round(last.written, 4),
            "area_histogram": last.histogram,
            "undecided": round(last.undecided, 4),
        }

    def step(self, index: int) -> tuple[float, float]:
        """One step of both networks → their losses, alpha's first."""
        s = self.settings
        codes = self._draw(s.batch)
        made, bg = self._foregrounds(*codes), self._backgrounds(*codes)
        a = self._alpha_of(self.alpha, made.pyramid)  # [N, 1, H, W]
        composite = a * made.image + (1 - a) * bg
        real = self._real()
        self.critic.requires_grad_(True)
        loss_d = F.softplus(self.critic(composite.detach())).mean() + F.softplus(-self.critic(real)).mean()
        self._descend(self.d_optimizer, loss_d)
        if index % R1_INTERVAL == 0:
            real = real.detach().requires_grad_()
            score = self.critic(real)
            (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            penalty = slope.square().sum(dim=(1, 2, 3)).mean() * (R1 / 2 * R1_INTERVAL)
            self._descend(self.d_optimizer, penalty + (score[0].sum() if s.biased_r1 else 0.0))
        self.critic.requires_grad_(False)
        loss_a = s.sat_weight * F.softplus(-self.critic(composite)).mean() + alpha_penalty(
            a, s.mult, s.bg_weight, s.bg_share
        )
        self._descend(self.a_optimizer, loss_a)
        self._update_average(index)
        return float(loss_a.detach()), float(loss_d.detach())

    def finished(self) -> AlphaNetwork:
        """The network to keep: reads raw activations."""
        network = self.average if self.settings.ema else self.alpha
        if self.statistics is not None:
            network.fold(*self.statistics)
        return network.requires_grad_(False).eval()

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step down the loss."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def _draw(self, n: int) -> tuple[Tensor, Tensor | None, list[int]]:
        """n new images: z [n,z_dim], classes [n,c_dim] or None, and the seeds of their noise."""
        spec = self.generator.spec
        z = torch.randn(n, spec.z_dim, generator=self.stream).to(self.device)
        drawn = [draw_class(spec, self.stream, self.device) for _ in range(n)]
        classes = [c for c in drawn if c is not None]  # all of them, or none
        seeds = torch.randint(2**31, (n,), generator=self.stream).tolist()
        return z, torch.cat(classes) if classes else None, seeds

    @torch.no_grad()
    def _foregrounds(self, z: Tensor, c: Tensor | None, seeds: list[int]) -> Synthesis:
        """The images of these codes and their activations, float32."""
        ws = self.generator.map(z, c, truncation=self.settings.truncation)
        made = self.generator.synthesize(ws, noise=self.settings.noise, taps=self.names, seeds=seeds)
        return Synthesis(made.image, made.pyramid.map(lambda x: x.float()))

    @torch.no_grad()
    def _backgrounds(self, z: Tensor, c: Tensor | None, seeds: list[int]) -> Tensor:
        """Images of the same codes [N,c,H,W] without what is in front."""
        return self.adversary.background(self.generator.map(z, c), self.settings.noise, seeds)

    def _real(self) -> Tensor:
        """A batch [N,c,H,W] of the real images, or of samples where there are none."""
        n = self.settings.batch
        if self.images is None:
            return self._foregrounds(*self._draw(n)).image
        chosen = self.images[torch.randint(len(self.images), (n,), generator=self.stream)]
        return from_uint8(chosen.to(self.device))  # [n, c, H, W]

    def _ready(self, pyramid: FeaturePyramid) -> FeaturePyramid:
        return pyramid if self.statistics is None else standardised(pyramid, *self.statistics)

    @torch.no_grad()
    def _alphas_of(self, held: Sequence[tuple[Tensor, Tensor | None, list[int]]]) -> Iterator[Tensor]:
        """Alpha [1,1,H,W] of one held-out image after another; their activations never exist together."""
        network = self.average if self.settings.ema else self.alpha
        for codes in held:
            yield self._alpha_of(network, self._foregrounds(*codes).pyramid)

    def _alpha_of(self, network: AlphaNetwork, pyramid: FeaturePyramid) -> Tensor:
        return network(self._ready(pyramid).levels, pyramid.size).sigmoid()

    @torch.no_grad()
    def _update_average(self, index: int) -> None:
        keep = min(0.5 ** (1 / HALF_LIFE), (1 + index) / (10 + index))  # quick at first: the start means nothing
        for average, current in zip(self.average.parameters(), self.alpha.parameters(), strict=True):
            average.lerp_(current, 1 - keep)


def alpha_penalty(a: Tensor, mult: float, bg_weight: float, bg_share: float) -> Tensor:
    """mult·[ mean min(A, 1−A) + mean relu(0.25 − area) ] + bg_weight·mean relu(bg_share − (1 − area)); a [N,1,H,W]."""
    area = a.flatten(1).mean(dim=1)  # [N]
    decided = torch.minimum(a, 1 - a).mean() + F.relu(MIN_AREA - area).mean()
    return mult * decided + bg_weight * F.relu(bg_share - (1 - area)).mean()
