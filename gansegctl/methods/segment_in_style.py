"""segment_in_style: k-means on the activations of many images; clusters are parts, to be named once.

Pakhomov et al.: Segmentation in Style: Unsupervised Semantic Image Segmentation with StyleGAN and CLIP, 2021. The same
part of two images has similar activations, so clusters found over many images mean the same in each. A person names
them; here, an annotated image does (`--shots 1`), or a table of cluster numbers, or nobody (segment-0, …).

k-means is exact, on all pixels of all images and all chosen levels (`features.kmeans`). Memory at StyleGAN2-256
shapes, 40 images: 11 MB each of half-precision maps of 8 to 64 px (0.45 GB), and one image's k maps beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.kmeans import kmeans
from gansegctl.features.pyramid import FeaturePyramid, fold_affine
from gansegctl.kernels.interpolation import MODES
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.methods.base.annotations import annotation_of
from gansegctl.methods.base.clusters import FOREGROUND, RULES, check_sides, foreground_clusters, segments
from gansegctl.methods.base.exemplars import check_exemplars, choose_taps, device_of, masks_of, resynthesize
from gansegctl.methods.base.fitting import feature_statistics, random_pyramids, standardised
from gansegctl.methods.base.method import BaseMethod
from gansegctl.methods.base.segmenter import BaseSegmenter, check_tensors, read_segmenter
from gansegctl.methods.base.settings import at_least, check, filled, more_than, read_settings

PROFILES: dict[str, dict[str, Any]] = {
    "fixed": {"standardise": True, "images": 40, "truncation": 1.0, "mode": "bilinear", "softness": 0.3},
    "release": {"standardise": False, "images": 50, "truncation": 0.7, "mode": "bilinear-corners", "softness": 0.0},
}
"""Values that a profile puts where the settings leave None.

fixed: clusters of samples as the dataset will hold them, untruncated; every channel counts. release: 50 images at psi
0.7 and raw channels of one layer, upsampled with coinciding corners; a pixel belongs to its nearest cluster alone.
Neither repeats: masks at 128 px; the library's k-means, 10 starts of up to 300 iterations, of which the best is kept
(here one start of up to `iterations`); a person who names the clusters (here exemplars do; `naming` balanced is ours).
"""


COORDINATES = {"none": 0, "x": 1, "xy": 2}
"""Coordinate channels by the name of the setting."""


@dataclass(frozen=True)
class SegmentInStyleSettings:
    """Settings of `segment_in_style`; None takes the profile's value. UsageError for values out of range."""

    profile: str = "fixed"  # fixed | release: see PROFILES
    k: int | None = None  # clusters, 2 … 255; None: 6 a class with exemplars, 9 without
    images: int | None = None  # random samples to cluster, 1 … 10,000
    min_resolution: int | None = None  # of the taps to cluster [px]; None: fixed 8, release the last tap of 64 alone
    max_resolution: int | None = None  # of the taps to cluster [px]; None: 64
    mode: str | None = None  # of upsampling: bilinear | nearest | bilinear-corners
    truncation: float | None = None  # psi of the clustered samples
    standardise: bool | None = None  # channels to mean 0 and deviation 1 in random samples
    statistics_samples: int = 16  # those samples, 1 … 10,000
    coordinates: str = "none"  # none | x | xy as channels, which alone tell left from right
    coordinate_weight: float = 0.1  # their share of the distance, against all (standardised) channels together, > 0
    iterations: int = 30  # of k-means, ≥ 1
    naming: str = "balanced"  # by exemplars: majority (of a cluster's pixels) | balanced (classes count alike)
    names: dict[str, Any] | None = field(default=None, hash=False)  # class → cluster numbers; others: "background"
    output: str = "segments"  # without exemplars and names: segments | foreground (by rule)
    rule: str = "border"  # least-central | centre | border | agreement: see `foreground_clusters`
    sides: str = "tlr"  # which border counts: letters of t, l, r, b
    softness: float | None = None  # how far a pixel belongs to several clusters, in mean squared distances, ≥ 0

    def __post_init__(self) -> None:
        check(self, profile=tuple(PROFILES), mode=MODES, coordinates=tuple(COORDINATES), rule=RULES)
        check(self, naming=("majority", "balanced"), output=("segments", "foreground"))
        check(self, k=at_least(2, IGNORE), images=at_least(1, 10_000), statistics_samples=at_least(1, 10_000))
        check(self, iterations=at_least(1), coordinate_weight=more_than(0), softness=at_least(0))
        check_sides(self.sides)
        for name, clusters in (self.names or {}).items():
            if not isinstance(clusters, list) or not all(type(c) is int and c >= 0 for c in clusters):
                raise UsageError(f"got names.{name} = {clusters!r}", wanted="a list of cluster numbers, as in [0, 4]")

    def resolved(self, resolution: int, classes: int) -> SegmentInStyleValues:
        """The same with values in place of None; classes: those that exemplars have, 0 without any."""
        highest = self.max_resolution or min(resolution, 64)
        lowest = self.min_resolution or (highest if self.profile == "release" else min(8, highest))
        values = {"k": min(6 * classes, IGNORE) or 9, "max_resolution": highest, "min_resolution": lowest}
        return filled(self, SegmentInStyleValues, PROFILES[self.profile] | values)


@dataclass(frozen=True, kw_only=True)
class SegmentInStyleValues(SegmentInStyleSettings):
    """`SegmentInStyleSettings` in which every value is known."""

    k: int
    images: int
    min_resolution: int
    max_resolution: int
    mode: str
    truncation: float
    standardise: bool
    softness: float


class SegmentInStyle(BaseMethod):
    """The method (protocol `contracts.Method`). It takes exemplars, and needs none."""

    name = "segment_in_style"
    takes = frozenset({"exemplars"})
    settings_type = SegmentInStyleSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar] = (),
        labels: LabelMap | None = None,
        settings: SegmentInStyleSettings | None = None,
        seed: int = 0,
    ) -> SegmentInStyleSegmenter:
        """Cluster random samples, then name the clusters: by the exemplars, whose classes are `labels`, if there are.

        The same seed gives the same clusters. Errors: UsageError as `check_exemplars`, and for `names` beside exemplars
        or beyond the clusters.
        """
        settings = settings or SegmentInStyleSettings()
        known = check_exemplars(generator, exemplars, labels) if exemplars else None
        if known and settings.names:
            raise UsageError("got names and exemplars", wanted="one of them", remedy="pass --shots 0 with names")
        last_alone = settings.profile == "release" and settings.min_resolution is None
        values = settings.resolved(generator.spec.resolution, len(known) if known else 0)
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, values.min_resolution, values.max_resolution)
        taps = taps[-1:] if last_alone else taps
        noise = exemplars[0].noise if exemplars else "const"
        images, (mean, scale) = _images(generator, taps, values, noise, device, stream)
        widths = tuple(images[0].widths)
        coords = _coordinates(images[0].size, values.coordinates, sum(widths), values.coordinate_weight)
        coords = coords.to(device)
        found = kmeans([_with(p, coords) for p in images], values.k, values.iterations, seed)
        channels, places = found.centroids.split([sum(widths), len(coords)], dim=1)
        # argmin‖x − c‖² = argmax c·x − ½‖c‖²; x = (raw − mean)·scale goes into the weights
        weight, bias = fold_affine(channels, -0.5 * found.centroids.square().sum(dim=1), scale, -mean * scale)
        segmenter = SegmentInStyleSegmenter(
            method=self.name,
            labels=segments(values.k),
            taps=taps,
            widths=widths,
            generator_sha256=generator.sha256,
            settings=asdict(values),
            facts={"exemplars": len(exemplars), "seed": seed, "iterations": found.iterations},
            weight=weight,
            bias=bias,
            places=places,
            spread=torch.tensor([max(found.inertia, 1e-12) / max(int(found.counts.sum()), 1)], device=device),
            table=torch.eye(values.k, device=device),
        )
        if known:
            raw = resynthesize(generator, exemplars, taps, device).with_mode(values.mode)
            segmenter.labels = known
            segmenter.table = _named(segmenter.clusters(raw), exemplars, found.centroids, known, values.naming)
        elif values.names:
            segmenter.labels, segmenter.table = _by_hand(values.names, values.k)
        elif values.output == "foreground":
            maps = torch.cat([_with(p, coords).map(lambda x: x.float()).assign(found.centroids) for p in images])
            inside = foreground_clusters(maps, values.k, values.rule, values.sides)
            segmenter.labels = FOREGROUND
            segmenter.table = torch.stack([~inside, inside], dim=1).float()
        segmenter.table = segmenter.table.to(device)
        return segmenter

    def load(self, path: Path) -> SegmentInStyleSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(path, self.name)
        values = read_settings(SegmentInStyleValues, stored["settings"], f"settings of {path}")
        wanted = {
            "weight": (values.k, sum(stored["widths"])),
            "bias": (values.k,),
            "table": (values.k, len(stored["labels"])),
            "places": (values.k, COORDINATES[values.coordinates]),
            "spread": (1,),
        }
        check_tensors(path, tensors, wanted)
        return SegmentInStyleSegmenter(
            **stored,
            weight=tensors["weight"],
            bias=tensors["bias"],
            places=tensors["places"],
            spread=tensors["spread"],
            table=tensors["table"],
        )


def _images(
    generator: Generator,
    taps: Sequence[str],
    settings: SegmentInStyleValues,
    noise: str,
    device: torch.device,
    stream: torch.Generator,
) -> tuple[list[FeaturePyramid], tuple[Tensor, Tensor]]:
    """Standardised half-precision (release: raw float32) pyramids of random samples, one each; mean and 1/deviation."""
    made: list[FeaturePyramid] = []
    drawn = random_pyramids(generator, taps, settings.images, noise, stream, device, settings.truncation)
    first = next(drawn).with_mode(settings.mode)
    mean, scale = torch.zeros(first.channels, device=device), torch.ones(first.channels, device=device)
    if settings.standardise:
        mean, scale = feature_statistics(generator, taps, settings.statistics_samples, noise, first, stream)
    for pyramid in chain([first], drawn):
        pyramid = pyramid.with_mode(settings.mode)
        if settings.standardise:  # values of a few units: half precision keeps three digits of them
            pyramid = standardised(pyramid, mean, scale).map(lambda x: x.half())
        made.append(pyramid)
    return made, (mean, scale)


def _coordinates(size: tuple[int, int], which: str, channels: int, weight: float) -> Tensor:
    """Coordinate channels [0|1|2,H,W], zero in the middle, their squares summing to `weight` times the channels'."""
    (height, width), count = size, COORDINATES[which]
    if not count:
        return torch.zeros(0, height, width)
    y, x = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in (height, width))
    maps = torch.stack([x.expand(height, width), y[:, None].expand(height, width)][:count])
    return maps * (3 * weight * channels / count) ** 0.5  # a coordinate spread evenly over −1 … 1 has variance 1/3


def _with(pyramid: FeaturePyramid, coords: Tensor) -> FeaturePyramid:
    """The pyramid with coordinate channels [C,H,W] as its last level."""
    if not len(coords):
        return pyramid
    level = coords.to(pyramid.levels[0].dtype).expand(pyramid.batch, -1, -1, -1)
    return FeaturePyramid([*pyramid.levels, level], pyramid.size, pyramid.mode, pyramid.backend)


def _named(clusters: Tensor, exemplars: Sequence[Exemplar], centroids: Tensor, labels: LabelMap, naming: str) -> Tensor:
    """Distribution over classes of each cluster's exemplar pixels [k,K]; one without any is as its neighbour."""
    masks = masks_of(exemplars, clusters.device)
    counted = masks != IGNORE
    k, classes = len(centroids), len(labels)
    cells = torch.bincount(clusters[counted] * classes + masks[counted], minlength=k * classes)
    table = cells.view(k, classes).float()
    if naming == "balanced":
        table = table / table.sum(dim=0).clamp(min=1)
    seen = table.sum(dim=1) > 0
    nearest = torch.cdist(centroids, centroids[seen]).argmin(dim=1)
    table = torch.where(seen[:, None], table, table[seen][nearest])
    return table / table.sum(dim=1, keepdim=True)


def _by_hand(names: Mapping[str, Sequence[int]], k: int) -> tuple[LabelMap, Tensor]:
    """Classes in the order given, "background" first for what is not listed. UsageError for clusters named wrongly."""
    labels = LabelMap(tuple(names) if "background" in names else ("background", *names))
    table = torch.zeros(k, len(labels))
    for name, clusters in names.items():
        for c in clusters:
            if c >= k or bool(table[c].any()):
                problem = f"cluster {c}, of {k}" if c >= k else f"cluster {c} twice"
                raise UsageError(f"got {problem} in names", wanted=f"numbers below {k}, each in one class")
            table[c, labels.index(name)] = 1
    table[~table.any(dim=1), labels.index("background")] = 1
    return labels, table


@dataclass(repr=False, kw_only=True)
class SegmentInStyleSegmenter(BaseSegmenter):
    """Clusters and their names (protocol `contracts.Segmenter`).

    weight [k,ΣC], bias [k], places [k,coordinates]: scores of raw activations. table [k,K]: classes of a cluster.
    spread [1]: mean squared distance of a pixel to its centroid.
    """

    weight: Tensor
    bias: Tensor
    places: Tensor
    spread: Tensor
    table: Tensor

    def scores(self, pyramid: FeaturePyramid) -> Tensor:
        """c·x − ½‖c‖² for every cluster: [N,k,H,W], largest for the nearest."""
        device = pyramid.levels[0].device
        scores = pyramid.project(self.weight.to(device), self.bias.to(device))
        which, weight = self.settings["coordinates"], self.settings["coordinate_weight"]
        coords = _coordinates(pyramid.size, which, sum(self.widths), weight).to(device)
        return scores + torch.einsum("kc,chw->khw", self.places.to(device), coords) if len(coords) else scores

    def clusters(self, pyramid: FeaturePyramid) -> Tensor:
        """The nearest cluster of every pixel, int64 [N,H,W]."""
        return torch.cat([self.scores(pyramid[i : i + 1]).argmax(dim=1) for i in range(pyramid.batch)])

    @torch.no_grad()
    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks of the images in `synthesis`: the classes of the clusters that a pixel is near."""
        pyramid = self.features(generator, synthesis)
        table, softness = self.table.to(pyramid.levels[0].device), self.settings["softness"]
        logits = []
        for i in range(pyramid.batch):
            scores = self.scores(pyramid[i : i + 1])
            if softness:
                near = (scores / (softness * self.spread.to(scores))).softmax(dim=1)
            else:
                near = torch.zeros_like(scores).scatter_(1, scores.argmax(dim=1, keepdim=True), 1.0)
            logits.append(torch.einsum("nkhw,kc->nchw", near, table).clamp(min=1e-9).log())
        return annotation_of(torch.cat(logits), probabilities)

    def tensors(self) -> dict[str, Tensor]:
        """Centroids in the generator's own units, and their classes."""
        return {name: getattr(self, name) for name in ("weight", "bias", "places", "spread", "table")}
