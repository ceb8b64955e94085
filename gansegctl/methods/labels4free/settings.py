"""Settings of labels4free: the values of the paper, of the released code, and ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from gansegctl.errors import UsageError, did_you_mean

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
a pixel is foreground from alpha 0.9 on; D's score of one real image is added to its loss with every R1 penalty, which
pulls it down; all iterations are run. In either profile, and unlike there: one pass serves both networks in a step,
and the guard ends a fit of collapsed masks with an error.
"""


@dataclass(frozen=True)
class Labels4FreeSettings:
    """Settings of `labels4free`; None takes the preset's or the profile's value.

    preset: `PRESETS`. images: real images, a folder or file that the pipeline reads ("" = the generator's own
    samples). discriminator: a checkpoint to begin with that of ("" = new weights). iterations, batch, truncation (of
    foregrounds; backgrounds have none), lr (alpha's Adam takes 0.8 of it). mult: weight of mean min(A, 1−A) + mean
    relu(0.25 − area). bg_weight, bg_share: weight and smallest share of background. sat_weight: of the adversarial
    term. standardise: channels over `statistics_samples` random samples. ema: keep the averaged network. threshold: of
    the written label. noise: of the training samples. guard_every iterations, and after the last, the guard looks at
    `guard_samples` images, made again each time; early_stop ends the fit when it finds masks settled, not before
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
