"""contrastive: a projection learned without labels, then a small head on it from one annotated image.

Manerikar and Kak, 2023. Pre-training (`projection`) asks that a pixel keep its soft cluster when the image's style
changes; the head sees the projected channels only. The controls are built in: with `projection` random or pca
everything else is the same, and random is what contrastive starts from, number by number.

What is saved is one head on raw activations: standardisation and projection are folded into its first layer, so neither
the hypercolumn nor the projected map exists when images are labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from gansegctl.contracts import Exemplar, Generator
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import LabelMap
from gansegctl.methods.base.fitting import feature_statistics, fit_head, soft_targets, standardised
from gansegctl.methods.base.segmenter import check_exemplars, choose_taps, device_of, read_segmenter, resynthesize
from gansegctl.methods.contrastive.heads import HEADS, one_shot_head
from gansegctl.methods.contrastive.pretraining import Source, pretrain, principal_axes, random_projection
from gansegctl.methods.repurpose import RepurposeSegmenter

SHARE_OF_PIXELS = 20_000 / 256**2
"""A draw takes 20,000 of a 256 px image's pixels: the same share of a smaller one."""

HELD = 1 << 28
"""Bytes of projected maps up to which those of all exemplars are made once; above, those of each step."""

RELEASED_OUTPUTS = 12  # of the xxs head in the release, whatever the classes

PROFILES: dict[str, dict] = {
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
"""What a profile puts where the settings leave None.

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
    """Settings of `contrastive`; None takes the profile's value. Other defaults are the released ones for faces.

    projection: contrastive | random | pca. head: linear | xxs | xs | s | m | l. dimension: projected channels.
    min_resolution, max_resolution: of the taps to read, in pixels. mode: bilinear | nearest | bilinear-corners.
    standardise: channels over their root mean square in `statistics_samples` random samples (0 = in the exemplars);
    with centre, to mean 0 and deviation 1.
    Pre-training: pretrain_steps of one image each (100; 50 for horses); prototypes (5000; 4000 for cars and X-rays,
    8000 in the released GUI; fixed takes at most a quarter of the pixels of a draw, and stores what it took; release
    refuses more than the pixels); pixels of a draw (None = the share that 20,000 are of a 256 px image; release: up
    to 20,000); draws a step; epsilon of Sinkhorn (0.005; 0.003 for cats and horses, 0.01 for cars); sinkhorn_rounds;
    marginals: uniform | norm (a pixel by the norm of its hypercolumn) | histogram (of those norms, as released for
    cats); temperature of the prediction; truncation (fixed 1; release 0.7, 0.9 for X-rays); sigma, share by which a
    style is replaced; perturb_from, smallest resolution in pixels whose styles may be replaced; perturb_last: the last
    pair too; aligned, single_truncation: see the profiles; pretrain_lr, momentum, trust (LARC).
    Head: steps (None = 200 for each exemplar) of `batch` exemplars; lr; weight_decay; schedule: constant | cosine |
    step; init: he | torch; balance: none | sqrt-inverse; label_smoothing; feature_dropout, of projected channels; flip.
    Errors: UsageError for values out of range.
    """

    projection: str = "contrastive"
    head: str = "xxs"
    profile: str = "fixed"
    dimension: int = 512
    min_resolution: int = 0
    max_resolution: int | None = None
    mode: str | None = None
    standardise: bool | None = None
    centre: bool = False
    statistics_samples: int = 16
    pretrain_steps: int = 100
    prototypes: int = 5000
    pixels: int | None = None
    draws: int = 5
    epsilon: float = 0.005
    sinkhorn_rounds: int = 10
    marginals: str = "uniform"
    temperature: float = 0.01
    truncation: float | None = None
    sigma: float = 1.0
    perturb_from: int | None = None
    perturb_last: bool | None = None
    aligned: bool | None = None
    single_truncation: bool | None = None
    pretrain_lr: float = 0.01
    momentum: float = 0.9
    trust: float = 0.01
    steps: int | None = None
    batch: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    init: str | None = None
    balance: str = "none"
    label_smoothing: float = 0.0
    feature_dropout: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("projection", ("contrastive", "random", "pca")),
            ("head", tuple(HEADS)),
            ("profile", tuple(PROFILES)),
            ("mode", ("bilinear", "nearest", "bilinear-corners", None)),
            ("init", ("he", "torch", None)),
            ("marginals", ("uniform", "norm", "histogram")),
            ("schedule", ("constant", "cosine", "step")),
            ("balance", ("none", "sqrt-inverse")),
        ):
            value = getattr(self, name)
            if value not in known:
                names = [k for k in known if k]
                raise UsageError(
                    f"got {name} {value!r}", wanted=" | ".join(names), remedy=did_you_mean(str(value), names)
                )
        for name, low, high in (
            ("dimension", 1, None),
            ("statistics_samples", 0, 10_000),
            ("pretrain_steps", 0, None),
            ("prototypes", 2, None),
            ("pixels", 8, None),
            ("draws", 1, None),
            ("sinkhorn_rounds", 0, None),
            ("sigma", 0, 1),
            ("momentum", 0, 0.999),
            ("steps", 1, None),
            ("batch", 1, None),
            ("weight_decay", 0, None),
            ("label_smoothing", 0, 0.99),
            ("feature_dropout", 0, 0.99),
        ):
            value = getattr(self, name)
            if value is not None and (value < low or (high is not None and value > high)):
                raise UsageError(
                    f"got {name} {value}", wanted=f"at least {low}" + ("" if high is None else f" and at most {high}")
                )
        for name in ("epsilon", "temperature", "pretrain_lr", "trust", "lr", "truncation"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"got {name} {value}", wanted="a positive number")

    def resolved(self, exemplars: int, size: tuple[int, int]) -> ContrastiveSettings:
        """The same settings with values in place of None, for that many exemplars of H×W pixels.

        UsageError under release for more prototypes to learn than a draw has pixels.
        """
        there = size[0] * size[1]
        share = min(20_000, round(SHARE_OF_PIXELS * there)) if self.profile == "fixed" else 20_000
        pixels = min(self.pixels or max(share, 8), there)
        values = dict(PROFILES[self.profile]) | {"steps": 200 * exemplars}
        filled = asdict(self)
        filled |= {name: v for name, v in values.items() if filled[name] is None}
        prototypes = min(self.prototypes, pixels // 4) if self.profile == "fixed" else self.prototypes
        if prototypes > pixels and self.projection == "contrastive" and self.pretrain_steps:
            raise UsageError(
                f"got {prototypes} prototypes for draws of {pixels} pixels, under profile release",
                wanted=f"at most {pixels}",
                remedy=f"set the method's prototypes to {pixels // 4}, say, or use profile fixed",
            )
        return ContrastiveSettings(**filled | {"pixels": pixels, "prototypes": prototypes})


class Contrastive:
    """The method (protocol `contracts.Method`)."""

    name = "contrastive"
    needs = frozenset({"exemplars"})
    settings_type = ContrastiveSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap,
        settings: ContrastiveSettings | None = None,
        seed: int = 0,
    ) -> ContrastiveSegmenter:
        """Learn the projection on random images, then the head on the exemplars. The same seed, the same weights.

        Errors: UsageError for masks of another size, undeclared values, taps that the generator lacks, and under
        release for more than 12 classes with head xxs or more prototypes than pixels; GansegError where a loss is not
        finite.
        """
        settings = settings or ContrastiveSettings()
        check_exemplars(generator, exemplars, labels)
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, settings.min_resolution, settings.max_resolution)
        size = (generator.spec.resolution, generator.spec.resolution)
        settings = settings.resolved(len(exemplars), size)
        outputs = _outputs(settings, labels)
        widths = tuple(t.channels for t in generator.spec.taps if t.name in taps)
        mean = scale = None
        noise = exemplars[0].noise
        if settings.standardise:  # exemplars are not held over the pre-training: they are made again after it
            shown = exemplars if not settings.statistics_samples else exemplars[:1]
            raw = resynthesize(generator, shown, taps, device).with_mode(settings.mode)
            samples = settings.statistics_samples
            mean, scale = feature_statistics(generator, taps, samples, noise, raw, stream, settings.centre)
            del raw
        source = Source(generator, taps, settings.mode, noise, mean, scale, device)
        projection, facts = self._projection(source, sum(widths), size, settings, stream)
        pyramid = resynthesize(generator, exemplars, taps, device).with_mode(settings.mode)
        pyramid = pyramid if mean is None else standardised(pyramid, mean, scale)

        def project(part: FeaturePyramid) -> FeaturePyramid:
            """Activations → the projected map [N,d,H,W] as a pyramid of one level."""
            with torch.no_grad():
                return FeaturePyramid([part.project(projection)], size, settings.mode)

        later = 4 * len(exemplars) * len(projection) * size[0] * size[1] > HELD
        pyramid = pyramid if later else project(pyramid)
        masks = torch.stack([torch.from_numpy(ex.mask.astype("int64")) for ex in exemplars]).to(device)  # [N, H, W]
        targets, weights = soft_targets(masks, outputs, settings.label_smoothing, settings.balance)
        head = one_shot_head(settings.head, len(projection), outputs, stream, settings.init, _leaky(settings))
        head = head.to(device)
        read = project if later else None
        losses = fit_head(head, pyramid, targets, weights, settings, stream, betas=(0.9, 0.99), read=read)
        head = head.behind(projection)
        head.keep(len(labels))
        if mean is not None:
            head.fold(mean, scale)
        facts |= {"exemplars": len(exemplars), "loss": round(losses[-1], 6), "seed": seed}
        names = {"method": self.name, "labels": labels, "taps": taps, "widths": widths}
        head.requires_grad_(False).eval()
        return ContrastiveSegmenter(
            **names, generator_sha256=generator.sha256, settings=asdict(settings), facts=facts, head=head
        )

    def _projection(
        self,
        source: Source,
        channels: int,
        size: tuple[int, int],
        settings: ContrastiveSettings,
        stream: torch.Generator,
    ) -> tuple[Tensor, dict]:
        if settings.projection == "pca":
            return principal_axes(source, settings.dimension, channels, settings.statistics_samples, stream), {}
        start = random_projection(settings.dimension, channels, stream).to(source.device)
        if settings.projection == "random" or not settings.pretrain_steps:
            return start, {}
        learned, losses = pretrain(source, start, size, settings, stream)
        return learned, {
            "pretrain_loss": [round(losses[0], 6), round(losses[-1], 6)],
            "projection_moved": round(float((learned - start).norm() / start.norm()), 6),
        }

    def load(self, path: Path) -> ContrastiveSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(Path(path), self.name)
        known = {f.name for f in fields(ContrastiveSettings)}
        settings = ContrastiveSettings(**{k: v for k, v in stored["settings"].items() if k in known})
        classes, leaky = len(stored["labels"]), _leaky(settings)
        head = one_shot_head(settings.head, sum(stored["widths"]), classes, torch.Generator(), leaky=leaky)
        try:
            head.load_state_dict(tensors)
        except RuntimeError as e:
            raise UsageError(f"got {path}: {e}", wanted="the tensors of this segmenter's head, no other") from None
        return ContrastiveSegmenter(**stored, head=head.requires_grad_(False).eval())


class ContrastiveSegmenter(RepurposeSegmenter):
    """A fitted head that has the projection in its first layer (protocol `contracts.Segmenter`)."""


def _leaky(settings: ContrastiveSettings) -> bool:
    return settings.profile == "release" and settings.head == "linear"


def _outputs(settings: ContrastiveSettings, labels: LabelMap) -> int:
    if settings.profile != "release" or settings.head != "xxs":
        return len(labels)
    if len(labels) > RELEASED_OUTPUTS:
        raise UsageError(
            f"got {len(labels)} classes for the released xxs head",
            wanted=f"at most {RELEASED_OUTPUTS}",
            remedy="use profile fixed, or another head",
        )
    return RELEASED_OUTPUTS
