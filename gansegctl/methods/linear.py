"""linear: one matrix on generator activations, no hidden layer.

Xu & Zheng: Linear Semantics in Generative Adversarial Networks, CVPR 2021 (LSE, "linear semantic extractor"). Every
layer has a 1x1 convolution without bias; its maps are upsampled and summed. Written as one [K,ΣC] matrix that is
`FeaturePyramid.project`. Memory to label an image: K maps of its size, 2.6 MB for ten classes at 256 px.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import GansegError
from gansegctl.features.pyramid import FeaturePyramid, fold_affine
from gansegctl.kernels.interpolation import MODES
from gansegctl.labels import LabelMap
from gansegctl.methods.base.annotations import annotation_by_heads
from gansegctl.methods.base.exemplars import check_exemplars, choose_taps, device_of, masks_of, resynthesize
from gansegctl.methods.base.fitting import cross_entropy, feature_statistics, grown, soft_targets, standardised
from gansegctl.methods.base.method import BaseMethod
from gansegctl.methods.base.segmenter import BaseSegmenter, check_tensors, read_segmenter
from gansegctl.methods.base.settings import at_least, check, filled, more_than, read_settings

PROFILES: dict[str, dict[str, Any]] = {
    "fixed": {
        "mode": "bilinear",
        "init": "small",
        "standardise": True,
        "steps": 600,
        "batch": 1,
        "lr": 1e-2,
        "weight_decay": 1e-2,
        "schedule": "cosine",
        "feature_dropout": 0.3,
        "redraw_noise": 0,
    },
    "release": {
        "mode": "bilinear-corners",
        "init": "torch",
        "standardise": False,
        "lr": 1e-3,
        "weight_decay": 0.0,
        "schedule": "drop",
        "feature_dropout": 0.0,
    },
}
"""Values that a profile puts where the settings leave None.

fixed: the algorithm as meant, with what one exemplar needs: standardised channels, weight decay, dropped channels;
steps are those of one exemplar, times the root of how many there are.
release: 50 epochs of 128 gradients, of which those of all K exemplars make one step: ⌈128/K⌉ an epoch. Its quirks:
- channels as they come: layers of large scale lead;
- corners coincide in upsampling; each layer's weights are drawn within ±1/√C of that layer alone;
- new noise every epoch, so that the mask and the activations it teaches belong to slightly different images;
- the rate falls tenfold at epoch 20 of 50, and 6,400 gradients are taken whatever the number of exemplars.
Not repeated: where K does not divide 128, the last step of an epoch takes the remaining exemplars alone. The released
software takes its labels from a trained segmenter; here they are the exemplars'.
"""

EPOCHS, IMAGES = 50, 128  # of the release; images an epoch


@dataclass(frozen=True)
class LinearSettings:
    """Settings of `linear`; None takes the profile's value. UsageError for values out of range."""

    profile: str = "fixed"  # fixed | release: see PROFILES
    min_resolution: int = 0  # of the taps to read [px]
    max_resolution: int | None = None  # of the taps to read [px]; None = no bound
    mode: str | None = None  # of upsampling: bilinear | nearest | bilinear-corners
    combine: str = "sum"  # sum (few-shot) | softplus (layer l times softplus(v_l)/Σ softplus(v), v learned)
    init: str | None = None  # small (deviation 0.1/√ΣC) | torch (within ±1/√C of each layer)
    standardise: bool | None = None  # channels over their root mean square, and a bias is learned
    centre: bool = False  # standardise to mean 0 and deviation 1 instead
    statistics_samples: int = 16  # random samples that channels are standardised over, 0 … 10,000; 0 = the exemplars
    steps: int | None = None  # ≥ 1; None: fixed 600·√exemplars, release 50 epochs
    batch: int | None = None  # exemplars a step, ≥ 1; their mean losses count alike
    lr: float | None = None  # learning rate, > 0
    weight_decay: float | None = None  # ≥ 0
    schedule: str | None = None  # of lr: cosine (to 0) | drop (tenfold after 40 % of the steps) | constant
    redraw_noise: int | None = None  # steps after which the exemplars are made again with new noise; 0 = never
    balance: str = "none"  # none | sqrt-inverse (a class's pixels weigh 1/√share)
    feature_dropout: float | None = None  # share of channels left out of a step, 0 … 0.99

    def __post_init__(self) -> None:
        check(self, profile=tuple(PROFILES), mode=MODES, combine=("sum", "softplus"), init=("small", "torch"))
        check(self, schedule=("cosine", "drop", "constant"), balance=("none", "sqrt-inverse"))
        check(self, statistics_samples=at_least(0, 10_000), steps=at_least(1), batch=at_least(1), lr=more_than(0))
        check(self, weight_decay=at_least(0), redraw_noise=at_least(0), feature_dropout=at_least(0, 0.99))

    def resolved(self, exemplars: int) -> LinearValues:
        """The same settings with values in place of None, for that many exemplars."""
        values = dict(PROFILES[self.profile])
        if self.profile == "release":
            epoch = math.ceil(IMAGES / exemplars)
            values |= {"batch": exemplars, "steps": EPOCHS * epoch, "redraw_noise": epoch}
        else:
            values["steps"] = grown(values["steps"], exemplars)
        return filled(self, LinearValues, values)


@dataclass(frozen=True, kw_only=True)
class LinearValues(LinearSettings):
    """`LinearSettings` in which every value is known."""

    mode: str
    init: str
    standardise: bool
    steps: int
    batch: int
    lr: float
    weight_decay: float
    schedule: str
    redraw_noise: int
    feature_dropout: float

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.lr * 0.1 if self.schedule == "drop" and step >= 0.4 * self.steps else self.lr


class Linear(BaseMethod):
    """The method (protocol `contracts.Method`)."""

    name = "linear"
    needs = frozenset({"exemplars"})
    settings_type = LinearSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap | None,
        settings: LinearSettings | None = None,
        seed: int = 0,
    ) -> LinearSegmenter:
        """Fit the matrix on the exemplars; the same seed gives the same one. Errors: as `check_exemplars`."""
        labels = check_exemplars(generator, exemplars, labels)
        values = (settings or LinearSettings()).resolved(len(exemplars))
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, values.min_resolution, values.max_resolution)
        raw = resynthesize(generator, exemplars, taps, device).with_mode(values.mode)
        statistics = None
        if values.standardise:
            samples, noise = values.statistics_samples, exemplars[0].noise
            statistics = feature_statistics(generator, taps, samples, noise, raw, stream, values.centre)
        targets, pixel_weights = soft_targets(masks_of(exemplars, device), len(labels), 0.0, values.balance)

        def features(step: int) -> FeaturePyramid:
            made = raw
            if step:
                made = _with_new_noise(generator, exemplars, taps, device, stream).with_mode(values.mode)
            return made if statistics is None else standardised(made, *statistics)

        weight, bias, losses = _descend(features, targets, pixel_weights, values, stream)
        if statistics is not None:
            mean, scale = statistics
            weight, bias = fold_affine(weight, bias, scale, -mean * scale)
        return LinearSegmenter(
            method=self.name,
            labels=labels,
            taps=taps,
            widths=tuple(raw.widths),
            generator_sha256=generator.sha256,
            settings=asdict(values),
            facts={"exemplars": len(exemplars), "loss": round(losses[-1], 6), "seed": seed},
            weight=weight,
            bias=bias,
        )

    def load(self, path: Path) -> LinearSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(path, self.name)
        read_settings(LinearValues, stored["settings"], f"settings of {path}")
        classes, channels = len(stored["labels"]), sum(stored["widths"])
        check_tensors(path, tensors, {"weight": (classes, channels), "bias": (classes,)})
        return LinearSegmenter(**stored, weight=tensors["weight"], bias=tensors["bias"])


@torch.no_grad()
def _with_new_noise(
    generator: Generator,
    exemplars: Sequence[Exemplar],
    taps: Sequence[str],
    device: torch.device,
    stream: torch.Generator,
) -> FeaturePyramid:
    """The exemplars' activations under noise that is drawn anew."""
    pyramids = []
    for ex in exemplars:
        seed = int(torch.randint(2**31, (1,), generator=stream))
        synthesis = generator.synthesize(ex.ws.to(device), noise="seed", taps=taps, seeds=[seed])
        pyramids.append(synthesis.pyramid.map(lambda x: x.float()))
    return FeaturePyramid.cat(pyramids)


def _start(classes: int, widths: Sequence[int], init: str, stream: torch.Generator) -> Tensor:
    """The matrix to start from, [classes, ΣC]; widths: C of each layer."""
    if init == "small":
        return torch.randn(classes, sum(widths), generator=stream) * 0.1 / sum(widths) ** 0.5
    parts = [torch.empty(classes, c).uniform_(-(c**-0.5), c**-0.5, generator=stream) for c in widths]
    return torch.cat(parts, dim=1)


def _descend(
    features: Callable[[int], FeaturePyramid],
    targets: Tensor,
    pixel_weights: Tensor,
    settings: LinearValues,
    stream: torch.Generator,
) -> tuple[Tensor, Tensor, list[float]]:
    """Adam on the matrix, each exemplar once before any comes again → weight [K,ΣC], bias [K], losses.

    A bias is learned on standardised channels; raw ones are taken as released, without.
    """
    pyramid = features(0)
    device, widths = targets.device, torch.tensor(pyramid.widths, device=targets.device)
    start = _start(targets.shape[1], pyramid.widths, settings.init, stream)
    weight = start.to(device).requires_grad_(True)
    shares = torch.zeros(len(widths), device=device, requires_grad=True)

    def combined() -> Tensor:
        if settings.combine == "sum":
            return weight
        of_layer = softplus(shares) / softplus(shares).sum()
        return weight * of_layer.repeat_interleave(widths) * len(widths)  # at the start every layer counts once

    bias = torch.zeros(len(weight), device=device, requires_grad=settings.standardise)
    parameters = [weight, *([bias] if settings.standardise else []), *([shares] if settings.combine != "sum" else [])]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    usable = pixel_weights.flatten(1).sum(dim=1).nonzero().flatten().cpu()  # images that are not ignored whole
    size = min(settings.batch, len(usable))
    losses, queue = [], torch.empty(0, dtype=torch.long)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for step in range(settings.steps):
            if settings.redraw_noise and step % settings.redraw_noise == 0:
                pyramid = features(step)
            while len(queue) < size:
                queue = torch.cat([queue, usable[torch.randperm(len(usable), generator=stream)]])
            rows, queue = [slice(i, i + 1) for i in queue[:size].tolist()], queue[size:]
            optimizer.param_groups[0]["lr"] = settings.rate(step)
            used = combined()
            if settings.feature_dropout:
                kept = torch.rand(pyramid.channels, generator=stream) >= settings.feature_dropout
                used = used * (kept.float() / (1 - settings.feature_dropout)).to(device)
            each = [cross_entropy(pyramid[r].project(used, bias), targets[r], pixel_weights[r]) for r in rows]
            loss = torch.stack(each).mean()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise GansegError(f"got a loss of {losses[-1]} at step {step}", remedy="lower the method's lr")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return combined().detach(), bias.detach(), losses


@dataclass(repr=False, kw_only=True)
class LinearSegmenter(BaseSegmenter):
    """A fitted matrix (protocol `contracts.Segmenter`): weight [K,ΣC], bias [K] (0 unless standardised)."""

    weight: Tensor
    bias: Tensor

    @torch.no_grad()
    def logits(self, generator: Generator, synthesis: Synthesis) -> Tensor:
        """Class scores before the softmax, float32 [N,K,H,W]."""
        pyramid = self.features(generator, synthesis)
        device = pyramid.levels[0].device
        return pyramid.project(self.weight.to(device), self.bias.to(device))

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks of the images in `synthesis`, which must hold the taps of this segmenter."""
        pyramid = self.features(generator, synthesis)
        device = pyramid.levels[0].device
        layers = [(self.weight.to(device), self.bias.to(device))]
        return annotation_by_heads(pyramid, [layers], probabilities=probabilities)

    def tensors(self) -> dict[str, Tensor]:
        """The matrix and its bias."""
        return {"weight": self.weight, "bias": self.bias}
