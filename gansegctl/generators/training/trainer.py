"""Adversarial training of a small StyleGAN2 (32-256 px) on one machine, resumable, for domains without a generator.

Losses: non-saturating logistic (Goodfellow et al. 2014) with R1 on real images (Mescheder et al. 2018) every
`R1_INTERVAL` steps (lazy, Karras et al. 2020 section 3.1), and an exponential moving average of the generator.
The images that train the discriminator in a step train the generator in the same step: one synthesis fewer.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.choices import AUGMENTATIONS, GENERATOR_TRAINING_PRECISIONS
from gansegctl.contracts import Progress
from gansegctl.errors import GansegError, UsageError
from gansegctl.generators.discriminator import FADING, Discriminator
from gansegctl.generators.layers import Conv, channels_last
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from gansegctl.generators.training.augment import augment
from gansegctl.io.image import normalised
from gansegctl.io.training_state import SavedState, load_state, save_state

KIND = "gansegctl.training"
R1_INTERVAL = 16
"""Steps from one R1 penalty to the next (Karras et al. 2020, section 3.1)."""
STYLE_MIXING = 0.5
"""Share of the steps in which the finer slots take their styles from a second z (Karras et al. 2019, section 3.1)."""
HALF_LIFE = 10_000
"""Images after which a step counts half in the averaged generator; early in a run a 20th of the images so far."""
ADA_TARGET = 0.6
"""Mean sign of the discriminator's answers to real images that adaptive augmentation holds (Karras et al. 2020b)."""
FADE_IN = 20_000
"""Images over which the new block of a grown discriminator comes in."""
_COUNTERS = {
    "step": "step",
    "images": "images_seen",
    "seconds": "seconds",
    "augment_p": "augment_p",
    "sign": "sign",
    "grown_at": "grown_at",
}
"""Name in a checkpoint → attribute of the trainer."""


@dataclass(frozen=True)
class TrainSettings:
    """How a generator is trained."""

    network: StyleGAN2Config = field(default_factory=StyleGAN2Config)
    images: int = 400_000  # real images to show to the discriminator, repetitions counted
    batch_size: int = 32
    lr: float = 2.5e-3  # of both networks
    lr_decay: float = 0.0  # share of the run, at its end, over which lr falls to a tenth
    r1: float = 1.0  # weight of the R1 penalty
    mirror: bool = False  # also show images mirrored
    upside_down: bool = False  # also show images upside down
    quarter_turns: bool = False  # also show images turned by 90, 180 and 270 degrees
    augment: str = "none"  # of all that the discriminator sees: none | diff | ada
    augment_p: float = 0.6  # probability of each operation: as is for diff, at most for ada
    precision: str = "fp32"  # fp32 | bf16
    seed: int = 0  # of the weights and of the random stream

    def __post_init__(self) -> None:
        if self.augment not in AUGMENTATIONS:
            raise UsageError(f"got augmentation {self.augment!r}", wanted=" | ".join(AUGMENTATIONS))
        if self.precision not in GENERATOR_TRAINING_PRECISIONS:
            raise UsageError(f"got precision {self.precision!r}", wanted=" | ".join(GENERATOR_TRAINING_PRECISIONS))
        if self.network.c_dim:
            raise UsageError("got a network with classes", wanted="an unconditional one", remedy="train one per class")
        if self.batch_size < 2 or self.images < 1:
            raise UsageError(f"got batch size {self.batch_size}, {self.images} images", wanted="at least 2, and 1")


def check_compiler(device: torch.device) -> None:
    """UsageError where torch.compile would find no C++ compiler for the CPU; a GPU's compiler comes with Triton."""
    name = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(name) is None:
        raise UsageError(
            f"got --compile, and no {name}",
            wanted="a C++ compiler",
            remedy="install one, name it in CXX, or train without --compile",
        )


class Trainer:
    """Owns the networks, optimisers, random stream and counters of one training run.

    real_images: uint8 [N,c,H,W] in memory; `images_seen` counts how many were shown, by itself, for a resumed run may
    have another batch size. compiled: both networks through torch.compile, in every pass but R1's, whose
    second derivative it does not have; other bits, and a minute at the start, for more images a second. Errors:
    UsageError where the images do not fit the network's size or channels, or where there is no compiler.
    """

    def __init__(
        self, real_images: Tensor, settings: TrainSettings, device: str = "cpu", compiled: bool = False
    ) -> None:
        net = settings.network
        wanted = (net.image_channels, net.resolution, net.resolution)
        if real_images.dtype != torch.uint8 or tuple(real_images.shape[1:]) != wanted or not len(real_images):
            got = f"got images {list(real_images.shape)} {real_images.dtype}"
            raise UsageError(got, wanted=f"uint8 [N, {wanted}]")
        self.real_images, self.settings, self.device = real_images, settings, torch.device(device)
        if compiled:
            check_compiler(self.device)
        self.stream = torch.Generator().manual_seed(settings.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.generator = channels_last(StyleGAN2(net), self.device)
            self.discriminator = channels_last(Discriminator(net), self.device)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.compiled = compiled
        networks = (self.generator.synthesis, self.discriminator)
        self._synthesize, self._judge = (torch.compile(n, dynamic=False) if compiled else n for n in networks)
        # Lazy R1 makes R1_INTERVAL/(R1_INTERVAL+1) of the steps: Adam is rescaled by it (Karras et al. 2020, app. B).
        lazy = R1_INTERVAL / (R1_INTERVAL + 1)
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), lr=settings.lr, betas=(0.0, 0.99), eps=1e-8)
        self.d_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=settings.lr * lazy, betas=(0.0, 0.99**lazy), eps=1e-8
        )
        self.base_lr = [settings.lr, settings.lr * lazy]
        self.step, self.seconds, self.augment_p, self.sign = 0, 0.0, self._fixed_p(), 0.0
        self.images_seen = 0
        self.grown_at = -1  # images seen when it took over a smaller network; -1: it never did

    def run(self, report_every: float = 60.0) -> Iterator[Progress]:
        """Train until `settings.images` have been shown; yields at the start, every `report_every` s and at the end."""
        s, last, losses = self.settings, time.monotonic(), []
        self.generator.train()
        while self.images_seen < s.images:
            began = time.monotonic()
            losses.append(self.train_step())
            self.seconds += time.monotonic() - began
            due = time.monotonic() - last >= report_every
            if due or len(losses) == 1 or self.images_seen >= s.images:
                mean = [sum(x) / len(losses) for x in zip(*losses, strict=True)]
                if not all(math.isfinite(x) for x in mean):
                    raise GansegError(
                        f"got loss {mean} at image {self.images_seen}",
                        wanted="finite losses",
                        remedy="resume from the last checkpoint with a lower --lr or a higher --r1",
                    )
                facts = {"loss_g": mean[0], "loss_d": mean[1], "sign_real": self.sign, "augment_p": self.augment_p}
                facts["images_per_second"] = self.images_seen / max(self.seconds, 1e-9)
                yield Progress("train", min(self.images_seen, s.images), s.images, "images", facts)
                last, losses = time.monotonic(), [losses[-1]]

    def train_step(self) -> tuple[float, float]:
        """One step of both networks → (generator loss, discriminator loss)."""
        s = self.settings
        self._schedule_lr()
        self._fade_in()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            fake = self._fake(s.batch_size)  # [B, c, H, W]
            real = self._real(s.batch_size)
            # Discriminator: softplus(D(fake)) + softplus(-D(real))
            self.discriminator.requires_grad_(True)
            d_fake = self._judge(self._augmented(fake.detach()))
            d_real = self._judge(self._augmented(real))
            loss_d = F.softplus(d_fake.float()).mean() + F.softplus(-d_real.float()).mean()
        self.d_optimizer.zero_grad(set_to_none=True)
        loss_d.backward()
        self.d_optimizer.step()
        if self.step % R1_INTERVAL == 0:
            self._r1_step(real)
        # Generator, on the same images, against the discriminator as it is now.
        self.discriminator.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            loss_g = F.softplus(-self._judge(self._augmented(fake)).float()).mean()
        self.g_optimizer.zero_grad(set_to_none=True)
        loss_g.backward()
        self.g_optimizer.step()
        self.step += 1
        self.images_seen += s.batch_size
        self._update_average()
        self._adapt(d_real.detach())
        return loss_g.item(), loss_d.item()

    def _r1_step(self, real: Tensor) -> None:
        s = self.settings
        real = self._augmented(real).detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean() * (s.r1 / 2 * R1_INTERVAL)
        self.d_optimizer.zero_grad(set_to_none=True)
        penalty.backward()
        self.d_optimizer.step()

    def _fake(self, n: int) -> Tensor:
        g, net = self.generator, self.settings.network
        z = torch.randn(2, n, net.z_dim, generator=self.stream).to(self.device)
        w = g.mapping(z[0])
        with torch.no_grad():
            g.mapping.w_avg.lerp_(w.detach().float().mean(dim=0), 1 - 0.998)
        ws = w.unsqueeze(1).repeat(1, g.spec.num_ws, 1)
        mixed = torch.rand((), generator=self.stream) < STYLE_MIXING
        cut = int(torch.randint(1, g.spec.num_ws, (), generator=self.stream))
        if mixed:
            ws[:, cut:] = g.mapping(z[1]).unsqueeze(1)
        maps = [
            torch.randn(n, 1, conv.resolution, conv.resolution, generator=self.stream)
            for _, conv in g.synthesis.convs()
        ]
        return self._synthesize(ws, lambda layer, conv: maps[layer].to(self.device))

    def _real(self, n: int) -> Tensor:
        chosen = torch.randint(len(self.real_images), (n,), generator=self.stream)
        x = normalised(self.real_images[chosen].to(self.device))  # [B, c, H, W]
        if self.settings.mirror:
            x = torch.where(self._coin(n), x.flip(3), x)
        if self.settings.upside_down:
            x = torch.where(self._coin(n), x.flip(2), x)
        if self.settings.quarter_turns:
            turns = torch.randint(4, (n,), generator=self.stream)
            x = torch.stack([torch.rot90(one, int(k), (1, 2)) for one, k in zip(x, turns, strict=True)])
        return x.contiguous(memory_format=torch.channels_last)

    def _coin(self, n: int) -> Tensor:
        """bool [n,1,1,1], half of them true."""
        return (torch.rand(n, generator=self.stream) < 0.5).to(self.device).view(-1, 1, 1, 1)

    def _augmented(self, x: Tensor) -> Tensor:
        return augment(x, self.augment_p, self.stream)

    def _fixed_p(self) -> float:
        return self.settings.augment_p if self.settings.augment == "diff" else 0.0

    def _adapt(self, d_real: Tensor) -> None:
        """Adaptive p (Karras et al. 2020b, eq. 1): raise it while the discriminator is too sure of real images."""
        s = self.settings
        self.sign += (d_real.float().sign().mean().item() - self.sign) * 0.05
        if s.augment == "ada" and self.step % 4 == 0:
            change = math.copysign(4 * s.batch_size / 100_000, self.sign - ADA_TARGET)
            self.augment_p = min(max(self.augment_p + change, 0.0), s.augment_p)

    @torch.no_grad()
    def _update_average(self) -> None:
        half_life = min(HALF_LIFE, max(self.images_seen * 0.05, 1.0))
        keep = 0.5 ** (self.settings.batch_size / half_life)
        for average, current in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(current, 1 - keep)
        for buffer, newest in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            buffer.copy_(newest)

    def _schedule_lr(self) -> None:
        s = self.settings
        factor = 1.0
        if s.lr_decay > 0:
            into = (self.images_seen / s.images - (1 - s.lr_decay)) / s.lr_decay
            factor = 0.1 ** min(max(into, 0.0), 1.0)
        for optimizer, lr in zip((self.g_optimizer, self.d_optimizer), self.base_lr, strict=True):
            optimizer.param_groups[0]["lr"] = lr * factor

    def _fade_in(self) -> None:
        if self.discriminator.before is not None:
            share = (self.images_seen - self.grown_at) / FADE_IN
            self.discriminator.fade_in(self.discriminator.before if share < 1 else None, min(share, 1.0))

    def save(self, path: Path) -> None:
        """Write everything a resume needs; the file appears whole or not at all."""
        counters = {name: getattr(self, attribute) for name, attribute in _COUNTERS.items()}
        facts = {"settings": asdict(self.settings), "counters": counters}
        save_state(path, KIND, facts, self._parts(), self._optimizers(), self.stream)

    def resume(self, path: Path) -> None:
        """Go on from `save`, from here on with these settings. UsageError for a file of another network."""
        state = load_state(path, KIND)
        network = self.settings.network
        if StyleGAN2Config(**state.facts["settings"]["network"]) != network:
            wanted = json.dumps(network.to_json())
            raise UsageError(f"got {path}: another network", wanted=wanted, remedy="use the settings it was begun with")
        counters = _counters(state, path)
        if any(name.startswith(FADING) for name in state.below("discriminator")):
            self._blend_with_smaller()
        state.restore(self._parts(), self._optimizers(), self.stream)
        for name, value in counters.items():
            setattr(self, _COUNTERS[name], value)
        if self.settings.augment != "ada":
            self.augment_p = self._fixed_p()

    def grow_from(self, path: Path) -> None:
        """Begin with what a run at half the size has learned (progressive growing, Karras et al. 2018, section 2).

        path: its checkpoint. The images that it has seen count. The generator's new block adds nothing to the enlarged
        image at first; the discriminator's comes in over `FADE_IN` images. The optimisers begin anew. Errors:
        UsageError for a file of another network, or of one that has seen all that this run is to see.
        """
        state = load_state(path, KIND)
        small, net = StyleGAN2Config(**state.facts["settings"]["network"]), self.settings.network
        if replace(small, resolution=net.resolution) != net or 2 * small.resolution != net.resolution:
            raise UsageError(
                f"got {path}, a network of {small.resolution} px: {json.dumps(small.to_json())}",
                wanted=f"the same at {net.resolution // 2} px: {json.dumps(net.to_json())}",
                remedy="grow by one doubling at a time, with one --channel-base, --channel-max, --z-dim and --w-dim",
            )
        counters = _counters(state, path)
        if counters["images"] >= self.settings.images:
            raise UsageError(
                f"got {path}, which has seen {counters['images']} images, for a run of {self.settings.images}",
                wanted="more: those of both sizes are counted together",
                remedy="raise --images-seen",
            )
        for network in (self.generator, self.average):
            name = "average" if network is self.average else "generator"
            network.load_state_dict(network.state_dict() | state.below(name))
            newest = getattr(network.synthesis, f"b{net.resolution}").torgb
            torch.nn.init.zeros_(newest.weight)
        known = state.below("discriminator")
        first = {name.removeprefix("fromrgb."): v for name, v in known.items() if name.startswith("fromrgb.")}
        kept = {_one_block_on(name): v for name, v in known.items() if not name.startswith(("fromrgb.", FADING))}
        self.discriminator.load_state_dict(self.discriminator.state_dict() | kept)
        self._blend_with_smaller().load_state_dict(first)
        self.images_seen = self.grown_at = counters["images"]
        self.seconds, self.sign = counters["seconds"], counters["sign"]
        if self.settings.augment == "ada":
            self.augment_p = min(counters["augment_p"], self.settings.augment_p)

    def _blend_with_smaller(self) -> Conv:
        """A `fromrgb` of half the size beside the discriminator's first block, its weights still to come."""
        net = self.settings.network
        before = Conv(net.image_channels, net.channels(net.resolution // 2), 1)
        self.discriminator.fade_in(channels_last(before, self.device), 0.0)
        return before

    def _parts(self) -> dict[str, torch.nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer}


def _counters(state: SavedState, path: Path) -> dict[str, Any]:
    """How far a checkpoint's run was. UsageError where it does not say."""
    counters = state.facts.get("counters", {})
    if missing := sorted(set(_COUNTERS) - set(counters)):
        raise UsageError(
            f"got {path} without {', '.join(missing)}", wanted="all counters of a run", remedy="train anew"
        )
    return {name: counters[name] for name in _COUNTERS}


def _one_block_on(name: str) -> str:
    """The name that a discriminator's tensor has in one of twice the size, whose blocks begin one earlier."""
    kind, _, rest = name.partition(".")
    if kind != "blocks":
        return name
    number, _, rest = rest.partition(".")
    return f"blocks.{int(number) + 1}.{rest}"
