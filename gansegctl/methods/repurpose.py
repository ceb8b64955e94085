"""repurpose: a small segmenter on generator activations, from one or a few annotated images.

Tritrong, Rewatbowornwong, Suwajanakorn: Repurposing GANs for One-shot Semantic Part Segmentation, CVPR 2021.
Every pixel is described by the activations that made it, all upsampled to the image's size; a convolutional head (or
a perceptron on single pixels) learns the classes from the exemplars with a per-pixel cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gansegctl.contracts import Exemplar, Generator
from gansegctl.kernels.interpolation import MODES
from gansegctl.labels import LabelMap
from gansegctl.methods.base.exemplars import check_exemplars, choose_taps, device_of, masks_of, resynthesize
from gansegctl.methods.base.fitting import feature_statistics, fit_head, grown, soft_targets, standardised
from gansegctl.methods.base.head_segmenter import HeadSegmenter
from gansegctl.methods.base.heads import HEADS, make_head
from gansegctl.methods.base.method import BaseMethod
from gansegctl.methods.base.segmenter import loaded, read_segmenter
from gansegctl.methods.base.settings import at_least, check, filled, more_than, read_settings, widths_of

PROFILES: dict[str, dict[str, Any]] = {
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
"""Values that a profile puts where the settings leave None.

fixed: the algorithm as meant, and what one exemplar needs that no release has: standardised channels, He's weights,
a share of 0.3 of the channels dropped at every step, a rate of 2e-3 that falls to 0 as a cosine, one exemplar a step;
steps are those of one exemplar, times the root of how many there are.
release: as the public re-implementation for 256 px StyleGAN2 runs (with head official: see OFFICIAL), with its quirks:
- nearest-neighbour features, although bilinear ones are smoother;
- channels as they come, so that those of large scale lead the fit;
- weights drawn so small that the deeper heads start slowly;
- a learning rate that falls tenfold every 50 steps, so that little is learned after the 100th.
"""

OFFICIAL: dict[str, Any] = {
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
"""Values of profile release with head official, as the authors' own code has it: activations of 8 px and more,
upsampled with coinciding corners; 1,000 epochs of one exemplar a step, the rate times 0.9 every 50. Not repeated:
images other than of 512 px are read at 512, larger maps by area; exemplars come in the order of their files."""


@dataclass(frozen=True)
class RepurposeSettings:
    """Settings of `repurpose`; None takes the profile's value. UsageError for values out of range."""

    head: str = "cnn-s"  # cnn-s | cnn-m | cnn-l (re-implementation) | official (the authors': 1×1, then 3×3) | mlp
    profile: str = "fixed"  # fixed | release: see PROFILES, and OFFICIAL for the release of head official
    mlp_hidden: tuple[int, ...] | str | None = None  # widths of mlp, as "2000,200"; None: those, at most ΣC, ΣC/4
    min_resolution: int | None = None  # of the taps to read [px]; None = no bound (official under release: 8)
    max_resolution: int | None = None  # of the taps to read [px]; None = no bound
    mode: str | None = None  # of upsampling: bilinear | nearest | bilinear-corners
    init: str | None = None  # how weights are drawn: he | torch
    standardise: bool | None = None  # channels over their root mean square
    centre: bool = False  # standardise to mean 0 and deviation 1 instead
    statistics_samples: int = 16  # random samples that channels are standardised over, 0 … 10,000; 0 = the exemplars
    steps: int | None = None  # ≥ 1; None: fixed 80·√exemplars, release 100, official under release 1,000 epochs
    lr: float | None = None  # learning rate, > 0
    weight_decay: float | None = None  # ≥ 0
    schedule: str | None = None  # of lr: cosine (to 0) | step (tenfold each 50) | stairs (20 times × 0.9) | constant
    batch: int | None = None  # exemplars a step, ≥ 1
    balance: str = "none"  # none | sqrt-inverse (a class's pixels weigh 1/√share)
    label_smoothing: float = 0.0  # share of a target spread over all classes, 0 … 0.99
    feature_dropout: float | None = None  # share of channels left out of a step, 0 … 0.99
    flip: bool = False  # mirror exemplars at random: only for classes without a left and a right

    def __post_init__(self) -> None:
        if self.mlp_hidden is not None:
            object.__setattr__(self, "mlp_hidden", widths_of("mlp_hidden", self.mlp_hidden))
        check(self, head=HEADS, profile=tuple(PROFILES), mode=MODES, init=("he", "torch"))
        check(self, schedule=("cosine", "step", "stairs", "constant"), balance=("none", "sqrt-inverse"))
        check(self, statistics_samples=at_least(0, 10_000), steps=at_least(1), batch=at_least(1), lr=more_than(0))
        check(self, weight_decay=at_least(0), label_smoothing=at_least(0, 0.99), feature_dropout=at_least(0, 0.99))

    def resolved(self, exemplars: int, channels: int) -> RepurposeValues:
        """The same settings with values in place of None, for that many exemplars and feature channels ΣC."""
        values = self._defaults()
        if self.profile == "fixed":
            values["steps"] = grown(values["steps"], exemplars)
        elif self.head == "official":
            values["steps"] *= math.ceil(exemplars / (self.batch or values["batch"]))
        values["mlp_hidden"] = (min(2000, channels), min(200, max(channels // 4, 1)))
        return filled(self, RepurposeValues, values)

    def lowest(self) -> int:
        """Resolution of the coarsest taps to read, in pixels; 0 = no bound."""
        return int(self._defaults()["min_resolution"]) if self.min_resolution is None else self.min_resolution

    def _defaults(self) -> dict[str, Any]:
        official = self.profile == "release" and self.head == "official"
        return dict(OFFICIAL if official else PROFILES[self.profile])


@dataclass(frozen=True, kw_only=True)
class RepurposeValues(RepurposeSettings):
    """`RepurposeSettings` in which every value is known."""

    mlp_hidden: tuple[int, ...]
    min_resolution: int
    mode: str
    init: str
    standardise: bool
    steps: int
    lr: float
    weight_decay: float
    schedule: str
    batch: int
    feature_dropout: float


class Repurpose(BaseMethod):
    """The method (protocol `contracts.Method`)."""

    name = "repurpose"
    needs = frozenset({"exemplars"})
    settings_type = RepurposeSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap | None,
        settings: RepurposeSettings | None = None,
        seed: int = 0,
    ) -> RepurposeSegmenter:
        """Fit the head on the exemplars. The same seed gives the same weights; torch's own random state is not used.

        Errors: UsageError for masks of another size, undeclared values, or taps that the generator lacks.
        """
        settings = settings or RepurposeSettings()
        labels = check_exemplars(generator, exemplars, labels)
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, settings.lowest(), settings.max_resolution)
        channels = sum(t.channels for t in generator.spec.taps if t.name in taps)
        values = settings.resolved(len(exemplars), channels)
        raw = resynthesize(generator, exemplars, taps, device).with_mode(values.mode)
        widths, pyramid, statistics = tuple(raw.widths), raw, None
        if values.standardise:
            samples, noise = values.statistics_samples, exemplars[0].noise
            statistics = feature_statistics(generator, taps, samples, noise, raw, stream, values.centre)
            pyramid = standardised(raw, *statistics)
        del raw
        masks = masks_of(exemplars, device)
        targets, weights = soft_targets(masks, len(labels), values.label_smoothing, values.balance)
        head = make_head(values.head, channels, len(labels), values.mlp_hidden, stream, values.init).to(device)
        if head.kernel > 1:  # what a convolution does at every step, done once
            pyramid = pyramid.joined()
        losses = fit_head(head, pyramid, targets, weights, values, stream)
        if statistics is not None:
            head.fold(*statistics)
        return RepurposeSegmenter(
            method=self.name,
            labels=labels,
            taps=taps,
            widths=widths,
            generator_sha256=generator.sha256,
            settings=asdict(values),
            facts={"exemplars": len(exemplars), "loss": round(losses[-1], 6), "seed": seed},
            head=head.requires_grad_(False).eval(),
        )

    def load(self, path: Path) -> RepurposeSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(path, self.name)
        values = read_settings(RepurposeValues, stored["settings"], f"settings of {path}")
        head = make_head(values.head, sum(stored["widths"]), len(stored["labels"]), values.mlp_hidden)
        return RepurposeSegmenter(**stored, head=loaded(head, tensors, path, "this segmenter's head"))


class RepurposeSegmenter(HeadSegmenter):
    """A fitted head (protocol `contracts.Segmenter`)."""
