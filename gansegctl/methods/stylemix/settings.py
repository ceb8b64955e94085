"""Settings of stylemix: the values of a community implementation, and ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE
from gansegctl.methods.base.clusters import RULES, check_sides
from gansegctl.methods.base.settings import at_least, check, filled
from gansegctl.methods.stylemix.clustering import faiss_module

PROFILES: dict[str, dict[str, Any]] = {
    "fixed": {
        "variants": 12,
        "k": 4,
        "repeats": 9,
        "drawn": "shared",
        "crossover_by": "depth",
        "iterations": 12,
        "fitted_pixels": 0,
        "keep_noise": True,
        "standardise": True,
        "rule": "border",
        "sides": "tlr",
    },
    "release": {
        "variants": 50,
        "k": 3,
        "repeats": 10,
        "drawn": "anew",
        "crossover_by": "resolution",
        "iterations": 200,
        "fitted_pixels": 256,
        "keep_noise": False,
        "standardise": False,
        "rule": "least-central",
        "sides": "tlrb",
    },
}
"""Values that a profile puts where the settings leave None.

fixed: the idea as meant, at the cost of 11 more passes an image; the repeats that the vote is taken over are random
halves of the same variants. release: as the community implementation runs, with its quirks:
- 50 new variants for each of 10 repeats: 500 passes an image, the image itself among none of them;
- noise drawn anew for every variant, so that fine texture moves;
- crossover at slots 6 to 9, which are 32 to 128 px of any StyleGAN2 and next to nothing of a small one;
- centroids fitted on 256 pixels a cluster; raw colours;
- whatever k is, the least central cluster alone is background.
"""


@dataclass(frozen=True)
class StyleMixSettings:
    """Settings of `stylemix`; None takes the profile's value.

    Errors: UsageError for values out of range, boxes with output segments, or faiss where it is not installed.
    """

    profile: str = "fixed"  # fixed | release: see PROFILES
    variants: int | None = None  # of an image, 2 … 10,000, the image itself among them where its noise is kept
    k: int | None = None  # clusters of an image, 2 … 255
    crossover_by: str | None = None  # depth (share of the style slots) | resolution [px]
    crossover_low: float | None = None  # the lowest place where new styles begin, ≥ 0; None: 6/18 or 32 px
    crossover_high: float | None = None  # the highest, ≥ the lowest; None: 9/18 or 128 px; each variant draws its own
    truncation: float = 0.7  # psi of the new styles
    class_index: int | None = None  # their class, ≥ 0, of a conditional generator; None: drawn
    output: str = "foreground"  # foreground | segments (clusters of each image from its rim, 0, to its middle, k−1)
    rule: str | None = None  # least-central | centre | border | agreement: see `foreground_clusters`
    sides: str | None = None  # which border counts: letters of t, l, r, b
    repeats: int | None = None  # clusterings that vote, ≥ 1
    drawn: str | None = None  # variants of a repeat: shared (a random half of the same) | anew
    keep_noise: bool | None = None  # the image's own noise in all variants
    standardise: bool | None = None  # every variant's colours to deviation 1
    iterations: int | None = None  # of k-means, ≥ 1
    fitted_pixels: int | None = None  # of a cluster, that its centroids are fitted on, ≥ 0; 0 = all
    clusterer: str = "torch"  # torch | faiss (torch in its place on a GPU that this faiss cannot use)
    passes: int | None = None  # variants made at one time, ≥ 1; None: 8, fewer of large images
    boxes: str | dict[str, Any] | None = field(default=None, hash=False)  # JSON file, or table: see `read_boxes`
    instances: int = 0  # classes of instances, 0 … 254; 0 = the largest number of boxes in an image of the file

    def __post_init__(self) -> None:
        check(self, profile=tuple(PROFILES), crossover_by=("depth", "resolution"), output=("foreground", "segments"))
        check(self, rule=RULES, drawn=("shared", "anew"), clusterer=("torch", "faiss"))
        check(self, variants=at_least(2, 10_000), k=at_least(2, IGNORE), class_index=at_least(0))
        check(self, crossover_low=at_least(0), crossover_high=at_least(self.crossover_low or 0))
        check(self, repeats=at_least(1), iterations=at_least(1), fitted_pixels=at_least(0), passes=at_least(1))
        check(self, instances=at_least(0, IGNORE - 1))
        check_sides(self.sides)
        if (self.boxes or self.instances) and self.output == "segments":
            raise UsageError("got boxes with output segments", wanted="output foreground, of which instances are parts")
        if self.clusterer == "faiss":
            faiss_module()

    def resolved(self) -> StyleMixValues:
        """The same with values in place of None."""
        values = PROFILES[self.profile]
        low, high = (6 / 18, 9 / 18) if (self.crossover_by or values["crossover_by"]) == "depth" else (32, 128)
        low = low if self.crossover_low is None else self.crossover_low
        return filled(self, StyleMixValues, values | {"crossover_low": low, "crossover_high": max(high, low)})


@dataclass(frozen=True, kw_only=True)
class StyleMixValues(StyleMixSettings):
    """`StyleMixSettings` in which every value is known."""

    variants: int
    k: int
    crossover_by: str
    crossover_low: float
    crossover_high: float
    rule: str
    sides: str
    repeats: int
    drawn: str
    keep_noise: bool
    standardise: bool
    iterations: int
    fitted_pixels: int
