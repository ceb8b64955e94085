"""labels4free: soft foreground masks without any label, by making the background exchangeable.

Abdal, Zhu, Mitra, Wonka: Labels4Free: Unsupervised Segmentation using StyleGAN, ICCV 2021. The generator is frozen. An
alpha network reads its activations; a picture's foreground is laid over a background that the same generator makes with
its coarse content silenced, x = A·fg + (1 − A)·bg; a discriminator tells such composites from pictures. Alpha learns
to give away only what a background can stand in for.

What it needs beyond a generator is handed in as an `Adversary` (the pipeline makes one): a discriminator, own or of a
checkpoint, and backgrounds. Without real pictures the generator's own samples stand in for them: composites are then
asked to look like samples. That keeps the generator's artefacts from giving composites away, but makes "everything is
foreground" a perfect answer that only the area terms forbid: give bg_share some thought, and real pictures if you can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.labels import LabelMap
from gansegctl.methods.base.clusters import FOREGROUND, no_exemplars
from gansegctl.methods.base.segmenter import BaseSegmenter, read_segmenter
from gansegctl.methods.labels4free.alpha_network import AlphaNetwork
from gansegctl.methods.labels4free.training import Adversary, AlphaTraining

PRESETS: dict[str, dict] = {
    "faces": {"mult": 1.2, "iterations": 2000, "truncation": 1.0, "lr": 2e-4, "bg_weight": 3.0, "bg_share": 0.4},
    "horse": {"mult": 3.0, "iterations": 2000, "truncation": 1.0, "lr": 2e-4, "bg_weight": 6.0, "bg_share": 0.6},
    "cat": {"mult": 3.0, "iterations": 2000, "truncation": 0.5, "lr": 2e-4, "bg_weight": 4.0, "bg_share": 0.35},
    "car": {
        "mult": 20.0,
        "iterations": 750,
        "truncation": 0.3,
        "lr": 8e-4,
        "bg_weight": 40.0,
        "bg_share": 0.75,
        "sat_weight": 0.1,
    },
    "faces-large-batch": {"mult": 1.2, "iterations": 1200, "truncation": 1.0, "lr": 2e-4, "batch": 8},
    "horse-large-batch": {"mult": 3.0, "iterations": 500, "truncation": 1.0, "lr": 2e-4, "batch": 8},
    "cat-large-batch": {"mult": 3.0, "iterations": 900, "truncation": 0.5, "lr": 2e-4, "batch": 8},
    "car-short": {"mult": 10.0, "iterations": 50, "truncation": 0.3, "lr": 2e-3},
}
"""The released constants by domain, where the settings leave None; what a preset lacks is the entry of `DEFAULTS`.
car-short is meant for a discriminator that is trained already."""

DEFAULTS = {"batch": 2, "bg_weight": 0.0, "bg_share": 0.0, "sat_weight": 1.0}

PROFILES: dict[str, dict] = {
    "fixed": {"standardise": True, "ema": True, "threshold": 0.5, "biased_r1": False, "early_stop": True},
    "release": {"standardise": False, "ema": False, "threshold": 0.9, "biased_r1": True, "early_stop": False},
}
"""What a profile puts where the settings leave None.

release, as the authors' code runs: activations as they come; the network that is kept as an average is the raw one;
a pixel is foreground from alpha 0.9 on; D's score of one real picture is added to its loss with every R1 penalty, which
pulls it down; all iterations are run. In either profile, and unlike there: one pass serves both networks in a step,
and the guard ends a fit of collapsed masks with an error.
"""


@dataclass(frozen=True)
class Labels4FreeSettings:
    """Settings of `labels4free`; None takes the preset's or the profile's value.

    preset: `PRESETS`. images: real pictures, a folder or file that the pipeline reads ("" = the generator's own
    samples). discriminator: a checkpoint to begin with that of ("" = new weights). iterations, batch, truncation (of
    foregrounds; backgrounds have none), lr (alpha's Adam takes 0.8 of it). mult: weight of mean min(A, 1−A) + mean
    relu(0.25 − area). bg_weight, bg_share: weight and smallest share of background. sat_weight: of the adversarial
    term. standardise: channels over `statistics_samples` random samples. ema: keep the averaged network. threshold: of
    the written label. noise: of the training samples. guard_every iterations, and after the last, the guard looks at
    `guard_samples` pictures, made again each time; early_stop ends the fit when it finds masks settled, not before
    min_iterations. Errors: UsageError for values out of range.
    """

    preset: str = "faces"
    profile: str = "fixed"
    images: str = ""
    discriminator: str = field(default="", metadata={"omit": True})
    iterations: int | None = None
    batch: int | None = None
    truncation: float | None = None
    lr: float | None = None
    mult: float | None = None
    bg_weight: float | None = None
    bg_share: float | None = None
    sat_weight: float | None = None
    standardise: bool | None = None
    statistics_samples: int = 16
    ema: bool | None = None
    biased_r1: bool | None = None
    threshold: float | None = None
    noise: str = "const"
    guard_every: int = 25
    guard_samples: int = 32
    early_stop: bool | None = None
    min_iterations: int = 200

    def __post_init__(self) -> None:
        for name, known in (("preset", PRESETS), ("profile", PROFILES)):
            value = getattr(self, name)
            if value not in known:
                raise UsageError(
                    f"got {name} {value!r}", wanted=" | ".join(known), remedy=did_you_mean(str(value), known)
                )
        for name, low, high in (
            ("iterations", 1, None),
            ("batch", 1, None),
            ("mult", 0, None),
            ("bg_weight", 0, None),
            ("bg_share", 0, 1),
            ("sat_weight", 0, None),
            ("statistics_samples", 1, 10_000),
            ("threshold", 0, 1),
            ("guard_every", 1, None),
            ("guard_samples", 1, None),
            ("min_iterations", 0, None),
        ):
            value = getattr(self, name)
            if value is not None and (value < low or (high is not None and value > high)):
                raise UsageError(
                    f"got {name} {value}", wanted=f"at least {low}" + ("" if high is None else f" and at most {high}")
                )
        for name in ("lr", "truncation"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"got {name} {value}", wanted="a positive number")

    def resolved(self) -> Labels4FreeSettings:
        """The same settings with values in place of None."""
        values = DEFAULTS | PRESETS[self.preset] | PROFILES[self.profile]
        filled = asdict(self)
        return Labels4FreeSettings(**filled | {k: v for k, v in values.items() if filled[k] is None})


class Labels4Free:
    """The method (protocol `contracts.Method`); `fit` takes what it needs beyond the generator by name."""

    name = "labels4free"
    needs = frozenset({"discriminator"})
    settings_type = Labels4FreeSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap | None = None,
        settings: Labels4FreeSettings | None = None,
        seed: int = 0,
        *,
        adversary: Adversary | None = None,
        images: Tensor | np.ndarray | None = None,
    ) -> Labels4FreeSegmenter:
        """Train alpha against a discriminator. labels: two, background first (None: background, foreground).

        images: real pictures, uint8 [N,H,W,c]. Errors: UsageError for exemplars, other than two classes, no adversary,
        pictures of another size; GansegError for a collapse, of alpha or of what its threshold leaves, or a loss that
        is not finite.
        """
        settings = (settings or Labels4FreeSettings()).resolved()
        no_exemplars(self.name, exemplars)
        labels = labels or FOREGROUND
        if len(labels) != 2:
            raise UsageError(
                f"got {len(labels)} classes", wanted="two, background first", remedy="--classes background,foreground"
            )
        if adversary is None:
            raise UsageError(
                "got no adversary", wanted="a discriminator and backgrounds of this generator", remedy="pass adversary="
            )
        spec = generator.spec
        wanted = (spec.resolution, spec.resolution, spec.image_channels)
        if images is not None and (tuple(images.shape[1:]) != wanted or str(images.dtype).split(".")[-1] != "uint8"):
            raise UsageError(
                f"got pictures {list(images.shape)} {images.dtype}", wanted=f"uint8 [N, {', '.join(map(str, wanted))}]"
            )
        training = AlphaTraining(generator, adversary, images, settings, seed)
        facts = training.run() | {"seed": seed, "real_pictures": 0 if images is None else len(images)}
        taps = training.taps
        names = {"method": self.name, "labels": labels, "taps": tuple(t.name for t in taps)}
        return Labels4FreeSegmenter(
            **names,
            widths=tuple(t.channels for t in taps),
            generator_sha256=generator.sha256,
            settings=asdict(settings) | {"resolutions": [t.resolution for t in taps]},
            facts=facts,
            network=training.finished(),
        )

    def load(self, path: Path) -> Labels4FreeSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(Path(path), self.name)
        network = AlphaNetwork(stored["settings"]["resolutions"], stored["widths"])
        try:
            network.load_state_dict(tensors)
        except RuntimeError as e:
            raise UsageError(f"got {path}: {e}", wanted="the tensors of an alpha network, no other") from None
        return Labels4FreeSegmenter(**stored, network=network.requires_grad_(False).eval())


@dataclass
class Labels4FreeSegmenter(BaseSegmenter):
    """A trained alpha network (protocol `contracts.Segmenter`); it follows the activations to their device."""

    network: AlphaNetwork | None = None

    @torch.no_grad()
    def alpha(self, generator: Generator, synthesis: Synthesis) -> Tensor:
        """Soft foreground mask, float32 [N,1,H,W] in [0,1]."""
        pyramid = self.features(generator, synthesis)
        network = self.network.to(pyramid.levels[0].device)
        return network(pyramid.levels, pyramid.size).sigmoid()

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Label 1 where alpha exceeds the threshold; confidence is the probability of the label that is written, the
        score mean binary entropy in bits; probabilities are (1 − alpha, alpha)."""
        a = self.alpha(generator, synthesis)[:, 0]  # [N, H, W]
        labels = a > self.settings["threshold"]
        p = torch.stack([1 - a, a], dim=1)
        bits = -(torch.xlogy(a, a) + torch.xlogy(1 - a, 1 - a)) / torch.log(torch.tensor(2.0))
        return Annotation(
            labels=labels.to(torch.uint8),
            confidence=(torch.where(labels, a, 1 - a) * 255).round().to(torch.uint8),
            score=bits.mean(dim=(1, 2)),
            probabilities=p.half() if probabilities else None,
        )

    def tensors(self) -> dict[str, Tensor]:
        """The network's weights, by name."""
        return dict(self.network.state_dict())
