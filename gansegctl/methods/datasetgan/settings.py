"""Settings of datasetgan: the values of the released code, and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gansegctl.errors import UsageError
from gansegctl.kernels.interpolation import MODES
from gansegctl.methods.base.fitting import grown
from gansegctl.methods.base.settings import at_least, check, filled, more_than

PROFILES: dict[str, dict[str, Any]] = {
    "fixed": {
        "mode": "bilinear",
        "init": "he",
        "standardise": True,
        "steps": 220,
        "batch": 64,
        "lr": 3e-3,
        "schedule": "cosine",
        "sampling": "uniform",
        "min_pixels": 0,
        "vote": "mean",
        "divergence": "probabilities",
    },
    "release": {
        "mode": "bilinear",
        "init": "small",
        "standardise": False,
        "steps": 0,
        "batch": 64,
        "lr": 1e-3,
        "schedule": "constant",
        "sampling": "epochs",
        "min_pixels": 30,
        "vote": "majority",
        "divergence": "probabilities",
    },
}
"""Values that a profile puts where the settings leave None.

fixed: the algorithm as meant; steps are those of one exemplar, times the root of how many there are. release: as the
authors' code runs since it was corrected (bilinear maps, the divergence of mean probabilities), with its quirks:
- channels as they come, weights drawn with deviation 0.02;
- at most 100 epochs over all pixels, the last batch of each as small as what is left, but from the fifth epoch on a
  member stops once 51 batches of 64 pixels in a row had no lower loss than the lowest since that epoch began;
- classes of fewer than 30 pixels in an exemplar are taught as class 0.
As first published it was this with mode nearest and divergence logits, which takes the softmax of the members' mean
logits for their mean answer, and may so be negative.
Not repeated: its filter also drops the most certain samples, features are kept in half precision in memory, those of
1024 px images at 512, and the first 7 or 8 styles of its samples are truncated. A last batch of one pixel, of which
the release's batch-norm makes an error, is left out.
"""


@dataclass(frozen=True)
class DatasetGANSettings:
    """Settings of `datasetgan`; None takes the profile's value. UsageError for values out of range."""

    profile: str = "fixed"  # fixed | release: see PROFILES
    members: int = 10  # perceptrons, ≥ 1
    hidden: str | None = None  # their two hidden widths; None: "128,32" below 32 classes, else "256,128"
    min_resolution: int = 0  # of the taps to read [px]
    max_resolution: int | None = None  # of the taps to read [px]; None = no bound
    mode: str | None = None  # of upsampling: bilinear | nearest | bilinear-corners
    init: str | None = None  # how weights are drawn: he | small (deviation 0.02)
    standardise: bool | None = None  # channels over their root mean square
    centre: bool = False  # standardise to mean 0 and deviation 1 instead
    statistics_samples: int = 16  # random samples that channels are standardised over, 0 … 10,000; 0 = the exemplars
    steps: int | None = None  # ≥ 0; None: fixed 220·√exemplars, release 0; with sampling epochs 0 is no bound
    batch: int | None = None  # pixels of a member in a step, ≥ 2
    lr: float | None = None  # learning rate, > 0
    schedule: str | None = None  # of lr: cosine (to 0) | constant
    sampling: str | None = None  # of pixels: uniform | balanced (classes alike) | epochs (each once, early stop)
    min_pixels: int | None = None  # classes of fewer pixels in an exemplar are class 0 there, ≥ 0
    vote: str | None = None  # mean (of probabilities) | majority (shares of votes, ties by the mean)
    divergence: str | None = None  # of the members' probabilities | logits
    score_share: float = 0.1  # an image's score is the mean of this share of pixels, the least certain; > 0, at most 1

    def __post_init__(self) -> None:
        check(self, profile=tuple(PROFILES), mode=MODES, init=("he", "small"), schedule=("cosine", "constant"))
        check(self, sampling=("uniform", "balanced", "epochs"), vote=("mean", "majority"))
        check(self, divergence=("probabilities", "logits"), members=at_least(1), steps=at_least(0))
        check(self, statistics_samples=at_least(0, 10_000), lr=more_than(0), min_pixels=at_least(0))
        check(self, batch=at_least(2))  # batch-norm of one pixel is 0
        check(self, score_share=more_than(0, 1))
        if self.hidden is not None:
            self.widths(2)

    def resolved(self, exemplars: int) -> DatasetGANValues:
        """The same settings with values in place of None, for that many exemplars."""
        values = PROFILES[self.profile]
        return filled(self, DatasetGANValues, values | {"steps": grown(values["steps"], exemplars)})

    def widths(self, classes: int) -> tuple[int, int]:
        """The two hidden widths. UsageError for a text that is not two positive numbers."""
        text = self.hidden or ("128,32" if classes < 32 else "256,128")
        parts = text.split(",")
        if len(parts) != 2 or not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
            raise UsageError(f"got hidden {text!r}", wanted='two widths, as in "128,32"')
        return int(parts[0]), int(parts[1])


@dataclass(frozen=True, kw_only=True)
class DatasetGANValues(DatasetGANSettings):
    """`DatasetGANSettings` in which every value is known; `hidden` may still depend on the classes."""

    mode: str
    init: str
    sampling: str
    min_pixels: int
    standardise: bool
    steps: int
    batch: int
    lr: float
    schedule: str
    vote: str
    divergence: str
