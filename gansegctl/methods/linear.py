"""linear: one matrix on generator activations, no hidden layer.

Xu & Zheng: Linear Semantics in Generative Adversarial Networks, CVPR 2021 (LSE, "linear semantic extractor"). Every
layer has a 1x1 convolution without bias; its maps are upsampled and summed. Written as one [K,ΣC] matrix that is
`FeaturePyramid.project`. Memory to label an image: K maps of its size, 2.6 MB for ten classes at 256 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import GansegError, UsageError
from gansegctl.features.pyramid import FeaturePyramid, fold_affine
from gansegctl.labels import LabelMap
from gansegctl.methods.base.fitting import cross_entropy, feature_statistics, grown, soft_targets, standardised
from gansegctl.methods.base.segmenter import (
    BaseSegmenter,
    annotation_by_heads,
    check_exemplars,
    choose_taps,
    device_of,
    read_segmenter,
    resynthesize,
)
from gansegctl.methods.base.settings import filled, one_of, within

MODES = ("bilinear", "nearest", "bilinear-corners")

PROFILES: dict[str, dict] = {
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
"""What a profile puts where the settings leave None.

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
    """Settings of `linear`; None takes the profile's value.

    min_resolution, max_resolution: of the taps to read, in pixels. mode: bilinear | nearest | bilinear-corners.
    combine: sum (few-shot) | softplus (full: layer l times softplus(v_l)/Σ softplus(v), v learned). standardise:
    channels over their root mean square in `statistics_samples` random samples, with a bias; with centre, to mean 0
    and deviation 1.
    init: small (deviation 0.1/√ΣC) | torch (within ±1/√C of each layer). steps: of `batch` exemplars each, whose mean
    losses count alike (None: fixed 600·√exemplars of 1, release see there). schedule: cosine (to 0) | drop (tenfold
    after 40 %) | constant. redraw_noise: every so many steps the exemplars are made again with new noise (0 = never).
    balance: none | sqrt-inverse. feature_dropout: share of channels left out of a step. Errors: UsageError for values
    out of range.
    """

    profile: str = "fixed"
    min_resolution: int = 0
    max_resolution: int | None = None
    mode: str | None = None
    combine: str = "sum"
    init: str | None = None
    standardise: bool | None = None
    centre: bool = False
    statistics_samples: int = 16
    steps: int | None = None
    batch: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    redraw_noise: int | None = None
    balance: str = "none"
    feature_dropout: float | None = None

    def __post_init__(self) -> None:
        one_of("profile", self.profile, tuple(PROFILES))
        one_of("mode", self.mode, MODES)
        one_of("combine", self.combine, ("sum", "softplus"))
        one_of("init", self.init, ("small", "torch"))
        one_of("schedule", self.schedule, ("cosine", "drop", "constant"))
        one_of("balance", self.balance, ("none", "sqrt-inverse"))
        within("statistics_samples", self.statistics_samples, 0, 10_000)
        within("steps", self.steps, 1)
        within("batch", self.batch, 1)
        within("lr", self.lr, 0, above=True)
        within("weight_decay", self.weight_decay, 0)
        within("redraw_noise", self.redraw_noise, 0)
        within("feature_dropout", self.feature_dropout, 0, 0.99)

    def resolved(self, exemplars: int) -> LinearSettings:
        """The same settings with values in place of None, for that many exemplars."""
        values = dict(PROFILES[self.profile])
        if self.profile == "release":
            epoch = math.ceil(IMAGES / exemplars)
            values |= {"batch": exemplars, "steps": EPOCHS * epoch, "redraw_noise": epoch}
        else:
            values["steps"] = grown(values["steps"], exemplars)
        return filled(self, values)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.lr * 0.1 if self.schedule == "drop" and step >= 0.4 * self.steps else self.lr


class Linear:
    """The method (protocol `contracts.Method`)."""

    name = "linear"
    needs = frozenset({"exemplars"})
    settings_type = LinearSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap,
        settings: LinearSettings | None = None,
        seed: int = 0,
    ) -> LinearSegmenter:
        """Fit the matrix on the exemplars; the same seed gives the same one. Errors: as `check_exemplars`."""
        check_exemplars(generator, exemplars, labels)
        settings = (settings or LinearSettings()).resolved(len(exemplars))
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, settings.min_resolution, settings.max_resolution)
        raw = resynthesize(generator, exemplars, taps, device).with_mode(settings.mode)
        mean = scale = None
        if settings.standardise:
            samples, noise = settings.statistics_samples, exemplars[0].noise
            mean, scale = feature_statistics(generator, taps, samples, noise, raw, stream, settings.centre)
        masks = torch.stack([torch.from_numpy(ex.mask.astype("int64")) for ex in exemplars]).to(device)  # [N, H, W]
        targets, pixel_weights = soft_targets(masks, len(labels), 0.0, settings.balance)

        def features(step: int) -> FeaturePyramid:
            made = raw
            if step:
                made = _with_new_noise(generator, exemplars, taps, device, stream).with_mode(settings.mode)
            return made if mean is None else standardised(made, mean, scale)

        weight, bias, losses = _descend(features, targets, pixel_weights, settings, stream)
        if mean is not None:
            weight, bias = fold_affine(weight, bias, scale, -mean * scale)
        return LinearSegmenter(
            method=self.name,
            labels=labels,
            taps=taps,
            widths=tuple(raw.widths),
            generator_sha256=generator.sha256,
            settings=asdict(settings),
            facts={"exemplars": len(exemplars), "loss": round(losses[-1], 6), "seed": seed},
            weight=weight,
            bias=bias,
        )

    def load(self, path: Path) -> LinearSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(Path(path), self.name)
        known = {f.name for f in fields(LinearSettings)}
        LinearSettings(**{k: v for k, v in stored["settings"].items() if k in known})
        wanted = {"weight": (len(stored["labels"]), sum(stored["widths"])), "bias": (len(stored["labels"]),)}
        if {k: tuple(v.shape) for k, v in tensors.items()} != wanted:
            raise UsageError(f"got {path} with other tensors", wanted=f"the tensors of this segmenter: {wanted}")
        return LinearSegmenter(**stored, **tensors)


@torch.no_grad()
def _with_new_noise(generator, exemplars, taps, device, stream) -> FeaturePyramid:
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


def _descend(features, targets: Tensor, pixel_weights: Tensor, settings: LinearSettings, stream: torch.Generator):
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


@dataclass
class LinearSegmenter(BaseSegmenter):
    """A fitted matrix (protocol `contracts.Segmenter`): weight [K,ΣC], bias [K] (0 unless standardised)."""

    weight: Tensor | None = None
    bias: Tensor | None = None

    @torch.no_grad()
    def logits(self, generator: Generator, synthesis: Synthesis) -> Tensor:
        """Class scores before the softmax, float32 [N,K,H,W]."""
        pyramid = self.features(generator, synthesis).with_mode(self.settings["mode"])
        device = pyramid.levels[0].device
        return pyramid.project(self.weight.to(device), self.bias.to(device))

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks of the images in `synthesis`, which must hold the taps of this segmenter."""
        pyramid = self.features(generator, synthesis).with_mode(self.settings["mode"])
        device = pyramid.levels[0].device
        return annotation_by_heads(
            pyramid, [[(self.weight.to(device), self.bias.to(device))]], probabilities=probabilities
        )

    def tensors(self) -> dict[str, Tensor]:
        """The matrix and its bias."""
        return {"weight": self.weight, "bias": self.bias}
