"""Settings of contrastive: the values of the released code, and ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gansegctl.errors import UsageError
from gansegctl.kernels.interpolation import MODES
from gansegctl.methods.base.settings import at_least, check, filled, more_than
from gansegctl.methods.contrastive.heads import HEADS

SHARE_OF_PIXELS = 20_000 / 256**2
"""A draw takes 20,000 of a 256 px image's pixels: the same share of a smaller one."""

PROFILES: dict[str, dict[str, Any]] = {
    "fixed": {
        "mode": "bilinear",
        "standardise": True,
        "init": "he",
        "aligned": True,
        "single_truncation": True,
        "perturb_from": 16,
        "perturb_last": True,
        "truncation": 1.0,
    },
    "release": {
        "mode": "nearest",
        "standardise": False,
        "init": "torch",
        "aligned": False,
        "single_truncation": False,
        "perturb_from": 0,
        "perturb_last": False,
        "truncation": 0.7,
    },
}
"""Values that a profile puts where the settings leave None.

fixed: the algorithm as meant. Both views are read at the same pixels of the image; a projection of single pixels
commutes with turning and mirroring, so once the views are aligned these would only resample, and are left out. Styles
that carry geometry (below 16 px) are kept; codes are not truncated, as images to label are not unless asked for (and
once where `truncation` is set); features are standardised; prototypes are at most a quarter of a draw's pixels.
release: as the authors' code runs, with its quirks:
- each view is turned and mirrored on its own, and both are read at the same flat index: half of the pairs show one
  place and its mirror image; pixels turned in from outside (zeros) take part;
- the first pairs of styles, which change geometry, are replaced too, and the last pair never;
- kept codes are truncated twice (0.49 instead of 0.7 of the way), replaced ones once;
- nearest-neighbour features, channels as they come;
- the xxs head has 12 outputs whatever the classes (here the surplus ones are dropped after the fit; more than 12
  classes are an error), and the linear one has its leaky ReLU after its last layer, the only one: scores below 0
  count a fifth;
- a draw takes all pixels of an image below 141 px.
There must be a pixel in a draw for every prototype, which images below 71 px lack for 5,000: that is refused.
Not reproduced: overflow of the plain Sinkhorn, generators cut at 256 px, the broken baselines; images to label are
truncated as the generator's user has it, in the release by 0.7.
"""


@dataclass(frozen=True)
class ContrastiveSettings:
    """Settings of `contrastive`; None takes the profile's value. UsageError for values out of range.

    Other defaults are the released ones for faces; the comments say where other domains have other values.
    """

    projection: str = "contrastive"  # contrastive | random | pca
    head: str = "xxs"  # linear | xxs | xs | s | m | l
    profile: str = "fixed"  # fixed | release: see PROFILES
    dimension: int = 512  # projected channels, ≥ 1
    min_resolution: int = 0  # of the taps to read [px]
    max_resolution: int | None = None  # of the taps to read [px]; None = no bound
    mode: str | None = None  # of upsampling: bilinear | nearest | bilinear-corners
    standardise: bool | None = None  # channels over their root mean square
    centre: bool = False  # standardise to mean 0 and deviation 1 instead
    statistics_samples: int = 16  # random samples that channels are standardised over, 0 … 10,000; 0 = the exemplars
    # pre-training
    pretrain_steps: int = 100  # of one image each, ≥ 0 (horses 50)
    prototypes: int = 5000  # ≥ 2; fixed: at most a quarter of a draw's pixels (cars and X-rays 4000; released GUI 8000)
    pixels: int | None = None  # of a draw, ≥ 8; None: the share that 20,000 are of 256 px, release: up to 20,000
    draws: int = 5  # of pixels in a step, ≥ 1
    epsilon: float = 0.005  # of Sinkhorn, > 0 (cats and horses 0.003; cars 0.01)
    sinkhorn_rounds: int = 10  # ≥ 0
    marginals: str = "uniform"  # uniform | norm (of a pixel's hypercolumn) | histogram (of norms, as released for cats)
    temperature: float = 0.01  # of the prediction, > 0
    truncation: float | None = None  # psi of the codes, > 0 (X-rays 0.9)
    sigma: float = 1.0  # share by which a style is replaced, 0 … 1
    perturb_from: int | None = None  # smallest resolution whose styles may be replaced [px]
    perturb_last: bool | None = None  # replace the last pair of styles too
    aligned: bool | None = None  # read both views at the same pixels; else each is turned and mirrored
    single_truncation: bool | None = None  # truncate kept codes once; else twice
    pretrain_lr: float = 0.01  # learning rate, > 0
    momentum: float = 0.9  # 0 … 0.999
    trust: float = 0.01  # of LARC, > 0
    # the head
    steps: int | None = None  # ≥ 1; None: 200 for each exemplar
    batch: int = 1  # exemplars a step, ≥ 1
    lr: float = 1e-3  # learning rate, > 0
    weight_decay: float = 0.0  # ≥ 0
    schedule: str = "constant"  # of lr: constant | cosine (to 0) | step (tenfold each 50)
    init: str | None = None  # how weights are drawn: he | torch
    balance: str = "none"  # none | sqrt-inverse (a class's pixels weigh 1/√share)
    label_smoothing: float = 0.0  # share of a target spread over all classes, 0 … 0.99
    feature_dropout: float = 0.0  # share of projected channels left out of a step, 0 … 0.99
    flip: bool = False  # mirror exemplars at random: only for classes without a left and a right

    def __post_init__(self) -> None:
        check(self, projection=("contrastive", "random", "pca"), head=tuple(HEADS), profile=tuple(PROFILES))
        check(self, mode=MODES, init=("he", "torch"), marginals=("uniform", "norm", "histogram"))
        check(self, schedule=("constant", "cosine", "step"), balance=("none", "sqrt-inverse"))
        check(self, dimension=at_least(1), statistics_samples=at_least(0, 10_000), pretrain_steps=at_least(0))
        check(self, prototypes=at_least(2), pixels=at_least(8), draws=at_least(1), sinkhorn_rounds=at_least(0))
        check(self, sigma=at_least(0, 1), momentum=at_least(0, 0.999), steps=at_least(1), batch=at_least(1))
        check(self, weight_decay=at_least(0), label_smoothing=at_least(0, 0.99), feature_dropout=at_least(0, 0.99))
        check(self, epsilon=more_than(0), temperature=more_than(0), pretrain_lr=more_than(0), trust=more_than(0))
        check(self, lr=more_than(0), truncation=more_than(0))

    def resolved(self, exemplars: int, size: tuple[int, int]) -> ContrastiveValues:
        """The same settings with values in place of None, for that many exemplars of H×W pixels.

        UsageError under release for more prototypes to learn than a draw has pixels.
        """
        there = size[0] * size[1]
        share = min(20_000, round(SHARE_OF_PIXELS * there)) if self.profile == "fixed" else 20_000
        pixels = min(self.pixels or max(share, 8), there)
        prototypes = min(self.prototypes, pixels // 4) if self.profile == "fixed" else self.prototypes
        if prototypes > pixels and self.projection == "contrastive" and self.pretrain_steps:
            raise UsageError(
                f"got {prototypes} prototypes for draws of {pixels} pixels, under profile release",
                wanted=f"at most {pixels}",
                remedy=f"set the method's prototypes to {pixels // 4}, say, or use profile fixed",
            )
        values = PROFILES[self.profile] | {"steps": 200 * exemplars}
        return filled(replace(self, pixels=pixels, prototypes=prototypes), ContrastiveValues, values)


@dataclass(frozen=True, kw_only=True)
class ContrastiveValues(ContrastiveSettings):
    """`ContrastiveSettings` in which every value is known."""

    mode: str
    standardise: bool
    pixels: int
    truncation: float
    perturb_from: int
    perturb_last: bool
    aligned: bool
    single_truncation: bool
    steps: int
    init: str
