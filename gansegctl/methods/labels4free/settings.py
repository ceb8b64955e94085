"""Settings of labels4free: the values of the paper, of the released code, and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gansegctl.choices import NOISE_MODES
from gansegctl.methods.base.settings import at_least, check, filled, more_than

PRESETS: dict[str, dict[str, Any]] = {
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


DEFAULTS: dict[str, Any] = {"batch": 2, "bg_weight": 0.0, "bg_share": 0.0, "sat_weight": 1.0}


PROFILES: dict[str, dict[str, Any]] = {
    "fixed": {"standardise": True, "ema": True, "threshold": 0.5, "biased_r1": False, "early_stop": True},
    "release": {"standardise": False, "ema": False, "threshold": 0.9, "biased_r1": True, "early_stop": False},
}
"""Values that a profile puts where the settings leave None.

release, as the authors' code runs: activations as they come; the network that is kept as an average is the raw one;
a pixel is foreground from alpha 0.9 on; D's score of one real image is added to its loss with every R1 penalty, which
pulls it down; all iterations are run. In either profile, and unlike there: one pass serves both networks in a step,
and the guard ends a fit of collapsed masks with an error.
"""


@dataclass(frozen=True)
class Labels4FreeSettings:
    """Settings of `labels4free`; None takes the preset's or the profile's value. UsageError for values out of range."""

    preset: str = "faces"  # released constants by domain: see PRESETS
    profile: str = "fixed"  # fixed | release: see PROFILES
    images: str = ""  # real images, a folder or file that the pipeline reads; "" = the generator's own samples
    discriminator: str = ""  # checkpoint whose discriminator to begin with; "" = new weights
    iterations: int | None = None  # ≥ 1
    batch: int | None = None  # images a step, ≥ 1
    truncation: float | None = None  # psi of foregrounds, > 0; backgrounds have none
    lr: float | None = None  # learning rate, > 0; alpha's Adam takes 0.8 of it
    mult: float | None = None  # weight of mean min(A, 1−A) + mean relu(0.25 − area), ≥ 0
    bg_weight: float | None = None  # weight of the background term, ≥ 0
    bg_share: float | None = None  # smallest share of background, 0 … 1
    sat_weight: float | None = None  # weight of the adversarial term, ≥ 0
    standardise: bool | None = None  # channels to mean 0 and deviation 1
    statistics_samples: int = 16  # random samples that channels are standardised over, 1 … 10,000
    ema: bool | None = None  # keep the averaged network
    biased_r1: bool | None = None  # add D's score of one real image to its loss with every R1 penalty
    threshold: float | None = None  # alpha above which a pixel is foreground, 0 … 1
    noise: str = "const"  # of the training samples: const | seed | none
    guard_every: int = 25  # iterations between two looks of the guard, ≥ 1; it looks after the last one too
    guard_samples: int = 32  # images that the guard looks at, made again each time, ≥ 1
    early_stop: bool | None = None  # end the fit when the guard finds masks settled
    min_iterations: int = 200  # before which the fit does not end early, ≥ 0

    def __post_init__(self) -> None:
        check(self, preset=tuple(PRESETS), profile=tuple(PROFILES), noise=NOISE_MODES)
        check(self, iterations=at_least(1), batch=at_least(1), lr=more_than(0), truncation=more_than(0))
        check(self, mult=at_least(0), bg_weight=at_least(0), bg_share=at_least(0, 1), sat_weight=at_least(0))
        check(self, statistics_samples=at_least(1, 10_000), threshold=at_least(0, 1), min_iterations=at_least(0))
        check(self, guard_every=at_least(1), guard_samples=at_least(1))

    def resolved(self, resolutions: tuple[int, ...] = ()) -> Labels4FreeValues:
        """The same settings with values in place of None; resolutions: of the taps that alpha reads [px]."""
        values = DEFAULTS | PRESETS[self.preset] | PROFILES[self.profile] | {"resolutions": resolutions}
        return filled(self, Labels4FreeValues, values)


@dataclass(frozen=True, kw_only=True)
class Labels4FreeValues(Labels4FreeSettings):
    """`Labels4FreeSettings` in which every value is known, and the resolutions of the taps that alpha reads."""

    iterations: int
    batch: int
    truncation: float
    lr: float
    mult: float
    bg_weight: float
    bg_share: float
    sat_weight: float
    standardise: bool
    ema: bool
    biased_r1: bool
    threshold: float
    early_stop: bool
    resolutions: tuple[int, ...]
