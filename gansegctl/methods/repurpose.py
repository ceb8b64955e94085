"""repurpose: a small segmenter on generator activations, from one or a few annotated images.

Tritrong, Rewatbowornwong, Suwajanakorn: Repurposing GANs for One-shot Semantic Part Segmentation, CVPR 2021.
Every pixel is described by the activations that made it, all upsampled to the image's size; a convolutional head (or
a perceptron on single pixels) learns the classes from the exemplars with a per-pixel cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import LabelMap
from gansegctl.methods.base.fitting import feature_statistics, fit_head, grown, soft_targets, standardised
from gansegctl.methods.base.heads import HEADS, Head, make_head
from gansegctl.methods.base.segmenter import (
    BaseSegmenter,
    annotation_by_heads,
    annotation_of,
    check_exemplars,
    choose_taps,
    device_of,
    read_segmenter,
    resynthesize,
)

AT_ONCE_ON_CPU = 2
"""Samples a head labels at one time. Temporaries of more leave the cache and are paged in anew for every batch: the
demo's batches of 32 went at 21 images a second on two cores at once, and at 33 in pairs."""

PROFILES: dict[str, dict] = {
    "fixed": {
        "min_resolution": 0,
        "mode": "bilinear",
        "init": "he",
        "standardise": True,
        "steps": 80,
        "lr": 2e-3,
        "weight_decay": 1e-3,
        "schedule": "cosine",
        "feature_dropout": 0.3,
        "batch": 1,
    },
    "release": {
        "min_resolution": 0,
        "mode": "nearest",
        "init": "torch",
        "standardise": False,
        "steps": 100,
        "lr": 1e-3,
        "weight_decay": 1e-3,
        "schedule": "step",
        "feature_dropout": 0.0,
        "batch": 16,
    },
}
"""What a profile puts where the settings leave None.

fixed: the algorithm as meant, and what one exemplar needs that no release has: standardised channels, He's weights,
a share of 0.3 of the channels dropped at every step, a rate of 2e-3 that falls to 0 as a cosine, one exemplar a step;
steps are those of one exemplar, times the root of how many there are.
release: as the public re-implementation for 256 px StyleGAN2 runs (with head official: see OFFICIAL), with its quirks:
- nearest-neighbour features, although bilinear ones are smoother;
- channels as they come, so that those of large scale lead the fit;
- weights drawn so small that the deeper heads start slowly;
- a learning rate that falls tenfold every 50 steps, so that little is learned after the 100th.
"""

OFFICIAL = {
    "min_resolution": 8,
    "mode": "bilinear-corners",
    "init": "torch",
    "standardise": False,
    "steps": 1000,
    "lr": 1e-3,
    "weight_decay": 1e-3,
    "schedule": "stairs",
    "feature_dropout": 0.0,
    "batch": 1,
}
"""What profile release puts there with head official, as the authors' own code has it: activations of 8 px and more,
upsampled with coinciding corners; 1,000 epochs of one exemplar a step, the rate times 0.9 every 50. Not repeated:
images other than of 512 px are read at 512, larger maps by area; exemplars come in the order of their files."""


@dataclass(frozen=True)
class RepurposeSettings:
    """Settings of `repurpose`; None takes the profile's value.

    head: cnn-s | cnn-m | cnn-l (of the re-implementation) | official (the authors' own: 1×1, then dilated 3×3; profile
    release trains it as they do, `OFFICIAL`, fixed as any other) | mlp. mlp_hidden: hidden widths of mlp, a list or
    "2000,200" (None = 2000, 200, no more than ΣC and ΣC/4). min_resolution, max_resolution: of the taps to read, in
    pixels (None = no bound; official under release: from 8). mode: bilinear | nearest | bilinear-corners. init: he |
    torch, how weights are drawn. standardise: channels over their root mean square in `statistics_samples` random
    samples (0 = in the exemplars); with centre, to mean 0 and deviation 1. steps: of `batch` exemplars each (None:
    fixed 80·√exemplars; release 100, official 1,000 epochs). schedule: cosine (to 0) | step (tenfold down every 50)
    | stairs (times 0.9 at every twentieth of the steps) | constant. balance: none | sqrt-inverse (a class's pixels
    weigh 1/√share). label_smoothing: share of a target spread over all classes. feature_dropout: share of channels
    left out of a step. flip: exemplars are mirrored at random (only for classes without a left and a right). Errors:
    UsageError for values out of range.
    """

    head: str = "cnn-s"
    profile: str = "fixed"
    mlp_hidden: tuple[int, ...] | str | None = None
    min_resolution: int | None = None
    max_resolution: int | None = None
    mode: str | None = None
    init: str | None = None
    standardise: bool | None = None
    centre: bool = False
    statistics_samples: int = 16
    steps: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    batch: int | None = None
    balance: str = "none"
    label_smoothing: float = 0.0
    feature_dropout: float | None = None
    flip: bool = False

    def __post_init__(self) -> None:
        if self.mlp_hidden is not None:
            object.__setattr__(self, "mlp_hidden", _widths(self.mlp_hidden))
        _one_of("head", self.head, HEADS)
        _one_of("profile", self.profile, PROFILES)
        _one_of("mode", self.mode, (None, "bilinear", "nearest", "bilinear-corners"))
        _one_of("init", self.init, (None, "he", "torch"))
        _one_of("schedule", self.schedule, (None, "cosine", "step", "stairs", "constant"))
        _one_of("balance", self.balance, ("none", "sqrt-inverse"))
        for name, low, high in (
            ("statistics_samples", 0, 10_000),
            ("steps", 1, None),
            ("batch", 1, None),
            ("weight_decay", 0, None),
            ("label_smoothing", 0, 0.99),
            ("feature_dropout", 0, 0.99),
        ):
            value = getattr(self, name)
            if value is not None and (value < low or (high is not None and value > high)):
                upper = "" if high is None else f" and at most {high}"
                raise UsageError(f"got {name} {value}", wanted=f"at least {low}{upper}")
        if self.lr is not None and not self.lr > 0:
            raise UsageError(f"got lr {self.lr}", wanted="a positive learning rate")

    def resolved(self, exemplars: int, channels: int) -> RepurposeSettings:
        """The same settings with values in place of None, for that many exemplars and feature channels ΣC."""
        values = self._defaults()
        if self.profile == "fixed":
            values["steps"] = grown(values["steps"], exemplars)
        elif self.head == "official":
            values["steps"] *= math.ceil(exemplars / (self.batch or values["batch"]))
        values["mlp_hidden"] = (min(2000, channels), min(200, max(channels // 4, 1)))
        filled = asdict(self)
        return RepurposeSettings(**filled | {name: v for name, v in values.items() if filled[name] is None})

    def lowest(self) -> int:
        """Resolution of the coarsest taps to read, in pixels; 0 = no bound."""
        return self._defaults()["min_resolution"] if self.min_resolution is None else self.min_resolution

    def _defaults(self) -> dict:
        official = self.profile == "release" and self.head == "official"
        return dict(OFFICIAL if official else PROFILES[self.profile])


def _widths(given: Sequence[int] | str) -> tuple[int, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    try:
        widths = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        widths = ()
    if not widths or min(widths) < 1:
        raise UsageError(f"got mlp_hidden {given!r}", wanted='positive widths, as in [2000, 200] or "2000,200"')
    return widths


def _one_of(name: str, value: str | None, known: Sequence[str | None]) -> None:
    if value not in known:
        names = [k for k in known if k is not None]
        raise UsageError(f"got {name} {value!r}", wanted=" | ".join(names), remedy=did_you_mean(str(value), names))


class Repurpose:
    """The method (protocol `contracts.Method`)."""

    name = "repurpose"
    needs = frozenset({"exemplars"})
    settings_type = RepurposeSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap,
        settings: RepurposeSettings | None = None,
        seed: int = 0,
    ) -> RepurposeSegmenter:
        """Fit the head on the exemplars. The same seed gives the same weights; torch's own random state is not used.

        Errors: UsageError for masks of another size, undeclared values, or taps that the generator lacks.
        """
        settings = settings or RepurposeSettings()
        check_exemplars(generator, exemplars, labels)
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, settings.lowest(), settings.max_resolution)
        channels = sum(t.channels for t in generator.spec.taps if t.name in taps)
        settings = settings.resolved(len(exemplars), channels)
        raw = resynthesize(generator, exemplars, taps, device).with_mode(settings.mode)
        widths, pyramid, mean, scale = tuple(raw.widths), raw, None, None
        if settings.standardise:
            noise = exemplars[0].noise
            samples = settings.statistics_samples
            mean, scale = feature_statistics(generator, taps, samples, noise, raw, stream, settings.centre)
            pyramid = standardised(raw, mean, scale)
        del raw
        masks = torch.stack([torch.from_numpy(ex.mask.astype("int64")) for ex in exemplars]).to(device)  # [N, H, W]
        targets, weights = soft_targets(masks, len(labels), settings.label_smoothing, settings.balance)
        head = make_head(settings.head, channels, len(labels), settings.mlp_hidden, stream, settings.init).to(device)
        if head.kernel > 1:  # what a convolution does at every step, done once
            pyramid = pyramid.joined()
        losses = fit_head(head, pyramid, targets, weights, settings, stream)
        if mean is not None:
            head.fold(mean, scale)
        facts = {
            "exemplars": len(exemplars),
            "loss": round(losses[-1], 6),
            "seed": seed,
        }
        head.requires_grad_(False).eval()
        names = {"method": self.name, "labels": labels, "taps": taps, "widths": widths}
        return RepurposeSegmenter(
            **names, generator_sha256=generator.sha256, settings=asdict(settings), facts=facts, head=head
        )

    def load(self, path: Path) -> RepurposeSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(Path(path), self.name)
        known = {f.name for f in fields(RepurposeSettings)}
        settings = RepurposeSettings(**{k: v for k, v in stored["settings"].items() if k in known})
        head = make_head(settings.head, sum(stored["widths"]), len(stored["labels"]), settings.mlp_hidden)
        try:
            head.load_state_dict(tensors)
        except RuntimeError as e:
            raise UsageError(f"got {path}: {e}", wanted="the tensors of this segmenter's head, no other") from None
        return RepurposeSegmenter(**stored, head=head.requires_grad_(False).eval())


@dataclass
class RepurposeSegmenter(BaseSegmenter):
    """A fitted head (protocol `contracts.Segmenter`); it follows the activations to their device."""

    head: Head | None = None

    @torch.no_grad()
    def logits(self, generator: Generator, synthesis: Synthesis) -> Tensor:
        """Class scores before the softmax, float32 [N,K,H,W]."""
        pyramid: FeaturePyramid = self.features(generator, synthesis).with_mode(self.settings["mode"])
        head = self.head.to(pyramid.levels[0].device)
        step = AT_ONCE_ON_CPU if pyramid.levels[0].device.type == "cpu" else pyramid.batch
        return torch.cat([head(pyramid[i : i + step]) for i in range(0, pyramid.batch, step)])

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks of the images in `synthesis`, which must hold the taps of this segmenter."""
        if self.head.per_pixel:
            pyramid = self.features(generator, synthesis).with_mode(self.settings["mode"])
            head = self.head.to(pyramid.levels[0].device)
            return annotation_by_heads(pyramid, [head.layers()], head.slope, probabilities)
        return annotation_of(self.logits(generator, synthesis), probabilities)

    def tensors(self) -> dict[str, Tensor]:
        """The head's weights, by name."""
        return dict(self.head.state_dict())
