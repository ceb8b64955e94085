"""oneshot: gansegctl's own method for one or a few annotated images.

A small ensemble of perceptrons on single pixels of standardised activations (as DatasetGAN, Zhang et al. 2021, reads
them), kept from leaning on what one image happens to show:
- pixels are drawn so that rare classes are seen often (weight share^-balance);
- every draw of a pixel is moved by Gaussian noise of random strength, in deviations of each channel over the
  generator's images, so that classes are learned as regions and not as the points of one image;
- a draw of pixels takes the style of another image: its channels get the mean and deviation that they have in a
  random sample of the generator, in part or whole (as in style transfer, Huang & Belongie 2017), so that tone and
  texture of one exemplar do not stand for a class;
- channels of a level count less the more of them there are, so that coarse levels, which are wide, do not outvote the
  few channels of fine ones, which know where a class ends;
- whole levels of the pyramid are left out at random, so that no resolution alone decides a class;
- members see different pixels, noise and levels, and their mean probability is the answer;
- logits are moved towards the classes' shares again, by a part of what the drawing of pixels took (as in logit
  adjustment, Menon et al. 2021, the other way round);
- logits are divided by a temperature (Guo et al. 2017), since who learned from one image is too sure of others.
Each part can be switched off (balance 0, noise 0, restyle 0, level_balance 0, level_dropout 0, members 1, prior 0,
temperature 1);
docs/methods.md has the ablation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import GansegError, UsageError
from gansegctl.features.pyramid import FeaturePyramid, fold_affine
from gansegctl.kernels.interpolation import MODES
from gansegctl.labels import LabelMap
from gansegctl.methods.base.annotations import annotation_by_heads
from gansegctl.methods.base.exemplars import check_exemplars, choose_taps, device_of, painted_pixels, resynthesize
from gansegctl.methods.base.fitting import feature_statistics, random_pyramids, standardised
from gansegctl.methods.base.method import BaseMethod
from gansegctl.methods.base.segmenter import BaseSegmenter, check_tensors, read_segmenter
from gansegctl.methods.base.settings import at_least, check, filled, more_than, read_settings, widths_of

SLOPE = 0.2

HELD = 256 << 20
"""Bytes of hypercolumns up to which all pixels that are learned from are gathered once; above, those of each step."""

LEAST_SHARE = 1e-4
"""Of a class, in `prior`: a class that nobody painted has some logarithm too."""


@dataclass(frozen=True)
class OneShotSettings:
    """Settings of `oneshot`; None takes a value for the number K of exemplars. UsageError for values out of range.

    More images show more of what steps, restyle, noise, level_dropout and temperature make up for.
    """

    members: int = 5  # perceptrons, 1 … 100
    hidden: tuple[int, ...] | str = (128, 64)  # their hidden widths, a list or "128,64"
    steps: int | None = None  # ≥ 1; None: 300·√K
    batch: int = 512  # pixels of a member in a step, ≥ 1
    lr: float = 4e-3  # highest learning rate, > 0; it falls as a cosine
    weight_decay: float = 1e-4  # ≥ 0
    restyle: float | None = None  # share of draws moved towards another image's style, 0 … 1; None: 1/√K
    noise: float | None = None  # largest deviation of the noise, in those of each channel, ≥ 0; None: 1/√K
    level_balance: float = 1.0  # a channel of a level of C counts C^-this, 0 … 2 (0: channels alike, 0.5: levels)
    level_dropout: float | None = None  # share of levels left out of a draw, 0 … 0.9; None: 0.2/√K
    balance: float = 0.5  # a pixel of a class of share s is drawn with weight s^-this, 0 … 1
    prior: float = 0.25  # logits of that class are moved by this times log s after the fit, 0 … 1
    temperature: float | None = None  # logits are divided by it, > 0: confidences, hardly masks; None: 1.5 + 0.5/√K
    statistics_samples: int = 32  # random samples that channels are standardised over, 0 … 10,000; 0 = the exemplars
    pixels: int = 16_384  # of an exemplar that are kept, drawn once, ≥ 1
    min_resolution: int = 0  # of the taps to read [px]
    max_resolution: int | None = None  # of the taps to read [px]; None = no bound
    centre: bool = False  # standardise to mean 0 and deviation 1; else divide by the root mean square
    mode: str = "bilinear"  # of upsampling: bilinear | nearest | bilinear-corners

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", widths_of("hidden", self.hidden))
        check(self, members=at_least(1, 100), steps=at_least(1), batch=at_least(1), lr=more_than(0), pixels=at_least(1))
        check(self, weight_decay=at_least(0), restyle=at_least(0, 1), noise=at_least(0), level_balance=at_least(0, 2))
        check(self, level_dropout=at_least(0, 0.9), balance=at_least(0, 1), prior=at_least(0, 1))
        check(self, temperature=more_than(0), statistics_samples=at_least(0, 10_000), mode=MODES)

    def resolved(self, exemplars: int) -> OneShotValues:
        """The same settings with values in place of None, for that many exemplars.

        Styles are those of the statistics samples: without any, restyle is 0. UsageError where it was set higher.
        """
        if not self.statistics_samples and self.restyle:
            raise UsageError(
                f"got restyle {self.restyle} with statistics_samples 0",
                wanted="random samples whose styles exemplars can take",
                remedy="raise the method's statistics_samples, or set restyle to 0",
            )
        root = math.sqrt(exemplars)
        values = {
            "steps": round(300 * root),
            "restyle": round(1 / root, 6) if self.statistics_samples else 0.0,
            "noise": round(1 / root, 6),
            "level_dropout": round(0.2 / root, 6),
            "temperature": round(1.5 + 0.5 / root, 6),
        }
        return filled(self, OneShotValues, values)


@dataclass(frozen=True, kw_only=True)
class OneShotValues(OneShotSettings):
    """`OneShotSettings` in which every value is known."""

    hidden: tuple[int, ...]
    steps: int
    restyle: float
    noise: float
    level_dropout: float
    temperature: float


class OneShot(BaseMethod):
    """The method (protocol `contracts.Method`)."""

    name = "oneshot"
    needs = frozenset({"exemplars"})
    settings_type = OneShotSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap | None,
        settings: OneShotSettings | None = None,
        seed: int = 0,
    ) -> OneShotSegmenter:
        """Fit the ensemble. The same seed gives the same weights; torch's own random state is not used.

        Errors: UsageError for masks of another size, undeclared values, or taps that the generator lacks.
        """
        labels = check_exemplars(generator, exemplars, labels)
        values = (settings or OneShotSettings()).resolved(len(exemplars))
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, values.min_resolution, values.max_resolution)
        raw = resynthesize(generator, exemplars, taps, device).with_mode(values.mode)
        samples, noise = values.statistics_samples, exemplars[0].noise
        mean, scale = feature_statistics(generator, taps, samples, noise, raw, stream, values.centre)  # [ΣC] each
        points, classes = _painted_points(exemplars, values.pixels, stream)
        shown = standardised(raw, mean, scale)
        del raw
        styles = None
        if values.restyle:
            drawn = random_pyramids(generator, taps, samples, noise, stream, device)
            others = [style_of(standardised(p, mean, scale)) for p in drawn]  # [2, 1, ΣC] each
            styles = (style_of(shown), torch.cat(others, dim=1))
        weights, biases, loss = _fit_members(shown, points, classes, len(labels), values, stream, styles)
        weights[0] = weights[0] * channel_weights(shown.widths, values.level_balance)[:, None].to(device)
        biases[-1] += values.prior * _shares(classes, len(labels)).clamp(min=LEAST_SHARE).log().to(device)
        weights[-1], biases[-1] = weights[-1] / values.temperature, biases[-1] / values.temperature
        first, offset = [], []
        for w, b in zip(weights[0], biases[0], strict=True):  # raw activations in, from here on
            folded = fold_affine(w.T, b[0], scale, -mean * scale)
            first.append(folded[0].T)
            offset.append(folded[1][None])
        weights[0], biases[0] = torch.stack(first), torch.stack(offset)
        return OneShotSegmenter(
            method=self.name,
            labels=labels,
            taps=taps,
            widths=tuple(shown.widths),
            generator_sha256=generator.sha256,
            settings=asdict(values),
            facts={"exemplars": len(exemplars), "loss": round(loss, 6), "seed": seed},
            weights=weights,
            biases=biases,
        )

    def load(self, path: Path) -> OneShotSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(path, self.name)
        values = read_settings(OneShotValues, stored["settings"], f"settings of {path}")
        sizes = (sum(stored["widths"]), *values.hidden, len(stored["labels"]))
        wanted: dict[str, tuple[int, ...]] = {}
        for i, (c_in, c_out) in enumerate(pairwise(sizes)):
            wanted |= {f"weight{i}": (values.members, c_in, c_out), f"bias{i}": (values.members, 1, c_out)}
        check_tensors(path, tensors, wanted)
        layers = range(len(sizes) - 1)
        return OneShotSegmenter(
            **stored, weights=[tensors[f"weight{i}"] for i in layers], biases=[tensors[f"bias{i}"] for i in layers]
        )


@dataclass(repr=False, kw_only=True)
class OneShotSegmenter(BaseSegmenter):
    """A fitted ensemble (protocol `contracts.Segmenter`): weights [M,C_in,C_out] and biases [M,1,C_out] a layer."""

    weights: list[Tensor]
    biases: list[Tensor]

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks of the images in `synthesis`: the mean of the members' probabilities; score: their divergence."""
        pyramid = self.features(generator, synthesis)
        device = pyramid.levels[0].device
        self.weights, self.biases = [w.to(device) for w in self.weights], [b.to(device) for b in self.biases]
        return annotation_by_heads(pyramid, self.heads(), SLOPE, probabilities)

    def heads(self) -> list[list[tuple[Tensor, Tensor]]]:
        """The members, each as layers (weight [K_out,K_in], bias [K_out])."""
        pairs = list(zip(self.weights, self.biases, strict=True))
        return [[(w[m].T, b[m, 0]) for w, b in pairs] for m in range(len(self.weights[0]))]

    def tensors(self) -> dict[str, Tensor]:
        """The weights, by layer."""
        both = {f"weight{i}": w for i, w in enumerate(self.weights)}
        return both | {f"bias{i}": b for i, b in enumerate(self.biases)}


def _painted_points(exemplars: Sequence[Exemplar], most: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """points int64 [P,3] (sample, row, column), at most `most` of a sample, and their classes int64 [P]."""
    points, classes = [], []
    for i, exemplar in enumerate(exemplars):
        rows, columns, painted = painted_pixels(exemplar)
        if len(rows) > most:
            kept = torch.randperm(len(rows), generator=stream)[:most]
            rows, columns, painted = rows[kept], columns[kept], painted[kept]
        points.append(torch.stack([torch.full_like(rows, i), rows, columns], dim=1))
        classes.append(painted)
    return torch.cat(points), torch.cat(classes)


def _shares(classes: Tensor, count: int) -> Tensor:
    """Classes int64 [P] → the share of each [K], 0 for those that nobody painted."""
    return torch.bincount(classes, minlength=count).float() / len(classes)


def channel_weights(widths: Sequence[int], level_balance: float) -> Tensor:
    """The factor of every channel [ΣC], from the number of channels of each level; their mean square is 1."""
    of_level = torch.tensor(widths, dtype=torch.float32).pow(-level_balance)
    weights = of_level.repeat_interleave(torch.tensor(widths))
    return weights / weights.square().mean().sqrt()


def style_of(pyramid: FeaturePyramid) -> Tensor:
    """Mean and deviation of every channel over each image, at native size: [2,N,ΣC]."""
    means = [x.mean(dim=(2, 3)) for x in pyramid.levels]
    deviations = [(x.var(dim=(2, 3), correction=0) + 1e-2).sqrt() for x in pyramid.levels]
    return torch.stack([torch.cat(means, dim=1), torch.cat(deviations, dim=1)])


def _reader(shown: FeaturePyramid, points: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows int64 [M,B] of the points [P,3] → their hypercolumns [M,B,ΣC], as a function: the same bits held or not."""
    device = shown.levels[0].device
    points = points.to(device)
    if 4 * len(points) * shown.channels > HELD:
        return lambda rows: shown.at(points[rows.flatten()]).unflatten(0, rows.shape)
    x = torch.empty(len(points), shown.channels, device=device)
    for some, rows in zip(points.split(1024), x.split(1024), strict=True):  # not at once, which would need it twice
        rows.copy_(shown.at(some))
    return lambda rows: x[rows]


def _restyled(x: Tensor, own: Tensor, styles: Tensor, share: float, stream: torch.Generator) -> Tensor:
    """x [M,B,ΣC] of style own [2,M|1,B|1,ΣC] → the same pixels on their way to the styles [2,S,ΣC] of other images.

    Pixels of a member go in eight groups, each in one direction: a style belongs to an image, not to a pixel.
    """
    members, batch = x.shape[:2]
    groups = min(8, batch)
    whose = torch.randint(styles.shape[1], (members, groups), generator=stream)
    way = torch.rand(members, groups, 1, generator=stream)
    way = way * (torch.rand(members, groups, 1, generator=stream) < share)
    of_pixel = torch.arange(batch) * groups // batch  # [B]
    way = way.to(x)[:, of_pixel]  # [M, B, 1]
    mean, deviation = torch.lerp(own, styles[:, whose.to(x.device)][:, :, of_pixel], way)
    return (x - own[0]) / own[1] * deviation + mean


def _fit_members(
    shown: FeaturePyramid,
    points: Tensor,
    classes: Tensor,
    count: int,
    settings: OneShotValues,
    stream: torch.Generator,
    styles: tuple[Tensor, Tensor] | None = None,
) -> tuple[list[Tensor], list[Tensor], float]:
    """Images shown, points [P,3] of them and their classes [P] → weights [M,C_in,C_out], biases [M,1,C_out] a layer,
    and the last loss. The first weights are those of channels times `channel_weights`.

    styles: those of the images shown [2,N,ΣC], and those of others [2,S,ΣC].
    """
    s, device = settings, shown.levels[0].device
    levels = torch.repeat_interleave(torch.arange(len(shown.widths)), torch.tensor(shown.widths))  # [ΣC]
    read, image = _reader(shown, points), points[:, 0]
    weights, biases = [], []
    for c_in, c_out in pairwise((shown.channels, *s.hidden, count)):
        drawn = torch.randn(s.members, c_in, c_out, generator=stream) * math.sqrt(2 / (1 + SLOPE**2) / c_in)
        weights.append(drawn.to(device).requires_grad_())
        biases.append(torch.zeros(s.members, 1, c_out, device=device, requires_grad=True))
    optimizer = torch.optim.AdamW([*weights, *biases], lr=s.lr, weight_decay=s.weight_decay)
    counts = channel_weights(shown.widths, s.level_balance).to(device)
    chance = _shares(classes, count).clamp(min=1e-9).pow(-s.balance)[classes]  # [P]
    loss = torch.zeros(())
    for step in range(s.steps):
        optimizer.param_groups[0]["lr"] = s.lr * 0.5 * (1 + math.cos(math.pi * step / s.steps))
        chosen = torch.multinomial(chance, s.members * s.batch, replacement=True, generator=stream)
        chosen = chosen.view(s.members, s.batch)
        y = read(chosen.to(device))  # [M, B, ΣC]
        if styles is not None:
            ours, others = styles
            own = ours[:, image[chosen].to(device)] if ours.shape[1] > 1 else ours[:, :, None]
            y = _restyled(y, own, others, s.restyle, stream)
        if s.noise:
            strength = s.noise * torch.rand(s.members, s.batch, 1, generator=stream)
            y = y + (torch.randn(y.shape, generator=stream) * strength).to(device)
        if s.level_dropout:
            kept = torch.rand(s.members, 1, int(levels.max()) + 1, generator=stream) >= s.level_dropout
            y = y * kept[:, :, levels].to(y)
        y = y * counts
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            y = torch.baddbmm(b, F.leaky_relu(y, SLOPE) if i else y, w)
        loss = F.cross_entropy(y.flatten(0, 1), classes[chosen].flatten().to(device))
        if not math.isfinite(float(loss.detach())):
            raise GansegError(f"got a loss of {loss.item()} at step {step}", remedy="lower the method's lr")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [w.detach() for w in weights], [b.detach() for b in biases], float(loss.detach())
