"""segment_in_style: k-means on the activations of many images; clusters are parts, to be named once.

Pakhomov et al.: Segmentation in Style: Unsupervised Semantic Image Segmentation with StyleGAN and CLIP, 2021. The same
part of two images has similar activations, so clusters found over many images mean the same in each. A person names
them; here, an annotated image does (`--shots 1`), or a table of cluster numbers, or nobody (segment-0, …).

k-means is exact, on all pixels of all images and all chosen levels (`features.kmeans`). Memory at StyleGAN2-256
shapes, 40 images: 11 MB each of half-precision maps of 8 to 64 px (0.45 GB), and one image's k maps beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.kmeans import kmeans
from gansegctl.features.pyramid import FeaturePyramid, fold_affine
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.methods.base.clusters import FOREGROUND, RULES, check_sides, foreground_clusters, segments
from gansegctl.methods.base.fitting import feature_statistics, standardised
from gansegctl.methods.base.segmenter import (
    BaseSegmenter,
    annotation_of,
    check_exemplars,
    choose_taps,
    device_of,
    read_segmenter,
    resynthesize,
)
from gansegctl.methods.base.settings import filled, one_of, within

PROFILES: dict[str, dict] = {
    "fixed": {"standardise": True, "images": 40, "truncation": 1.0, "mode": "bilinear", "softness": 0.3},
    "release": {"standardise": False, "images": 50, "truncation": 0.7, "mode": "bilinear-corners", "softness": 0.0},
}
"""What a profile puts where the settings leave None. fixed: clusters of what the dataset will hold, untruncated, every
channel heard. release: 50 images at psi 0.7 and raw channels of one layer, upsampled with coinciding corners; a pixel
belongs to its nearest cluster alone. Not repeated by either: masks at 128 px; the library's k-means, 10 starts of up to
300 iterations, of which the best is kept, where one of up to `iterations`, 30, is made here; a person who names the
clusters, for whom exemplars stand (`naming` balanced is ours)."""


@dataclass(frozen=True)
class SegmentInStyleSettings:
    """Settings of `segment_in_style`; None takes the profile's value.

    k: clusters (None: 9 as released where nobody names them, 6 a class with exemplars). images: random samples to
    cluster. min_resolution, max_resolution: of the levels to cluster, in pixels (None: fixed 8 to 64, release the last
    layer of 64 alone). mode: bilinear (fixed) | nearest | bilinear-corners (release).
    truncation: of the clustered samples. standardise: channels to mean 0 and deviation 1. coordinates: none | x | xy as
    channels, which alone tell left from right; coordinate_weight: their share of the distance, against all channels
    together (on standardised ones). iterations: of k-means. naming: majority (a cluster is the class most of its
    exemplar pixels have) | balanced (classes count alike). names: class → cluster numbers; what is not listed is
    "background". output, without exemplars and names: segments | foreground, by `rule` (see `foreground_clusters`) and
    `sides` (of t, l, r, b) over the clustered images. softness: how far a pixel may belong to several clusters, in
    units of the mean squared distance (fixed 0.3; release 0 = not at all). Errors: UsageError for values out of range.
    """

    profile: str = "fixed"
    k: int | None = None
    images: int | None = None
    min_resolution: int | None = None
    max_resolution: int | None = None
    mode: str | None = None
    truncation: float | None = None
    standardise: bool | None = None
    statistics_samples: int = 16
    coordinates: str = "none"
    coordinate_weight: float = 0.1
    iterations: int = 30
    naming: str = "balanced"
    names: dict[str, Any] | None = field(default=None, hash=False)
    output: str = "segments"
    rule: str = "border"
    sides: str = "tlr"
    softness: float | None = None

    def __post_init__(self) -> None:
        one_of("profile", self.profile, tuple(PROFILES))
        one_of("mode", self.mode, ("bilinear", "nearest", "bilinear-corners"))
        one_of("coordinates", self.coordinates, ("none", "x", "xy"))
        one_of("naming", self.naming, ("majority", "balanced"))
        one_of("output", self.output, ("segments", "foreground"))
        one_of("rule", self.rule, RULES)
        within("k", self.k, 2, IGNORE)
        within("images", self.images, 1, 10_000)
        within("statistics_samples", self.statistics_samples, 1, 10_000)
        within("iterations", self.iterations, 1)
        within("coordinate_weight", self.coordinate_weight, 0, above=True)
        within("softness", self.softness, 0)
        check_sides(self.sides)
        if self.names is not None:
            for name, clusters in self.names.items():
                if not isinstance(clusters, list) or not all(type(c) is int and c >= 0 for c in clusters):
                    raise UsageError(
                        f"got names.{name} = {clusters!r}", wanted="a list of cluster numbers, as in [0, 4]"
                    )

    def resolved(self, resolution: int, classes: int) -> SegmentInStyleSettings:
        """The same with values in place of None; classes: those that exemplars have, 0 without any."""
        highest = self.max_resolution or min(resolution, 64)
        lowest = self.min_resolution or (highest if self.profile == "release" else min(8, highest))
        values = {"k": min(6 * classes, IGNORE) or 9, "max_resolution": highest, "min_resolution": lowest}
        return filled(self, PROFILES[self.profile] | values)


class SegmentInStyle:
    """The method (protocol `contracts.Method`). It takes exemplars, and needs none."""

    name = "segment_in_style"
    needs: frozenset[str] = frozenset()
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
        if exemplars:
            check_exemplars(generator, exemplars, labels)
            if settings.names:
                raise UsageError("got names and exemplars", wanted="one of them", remedy="pass --shots 0 with names")
        last_alone = settings.profile == "release" and settings.min_resolution is None
        settings = settings.resolved(generator.spec.resolution, len(labels) if exemplars else 0)
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, settings.min_resolution, settings.max_resolution)
        taps = taps[-1:] if last_alone else taps
        noise = exemplars[0].noise if exemplars else "const"
        images, (mean, scale) = _images(generator, taps, settings, noise, device, stream)
        widths = tuple(images[0].widths)
        coords = _coordinates(images[0].size, settings.coordinates, sum(widths), settings.coordinate_weight)
        coords = coords.to(device)
        found = kmeans([_with(p, coords) for p in images], settings.k, settings.iterations, seed)
        channels, places = found.centroids.split([sum(widths), len(coords)], dim=1)
        # argmin‖x − c‖² = argmax c·x − ½‖c‖²; x = (raw − mean)·scale goes into the weights
        weight, bias = fold_affine(channels, -0.5 * found.centroids.square().sum(dim=1), scale, -mean * scale)
        segmenter = SegmentInStyleSegmenter(
            method=self.name,
            labels=segments(settings.k),
            taps=taps,
            widths=widths,
            generator_sha256=generator.sha256,
            settings=asdict(settings),
            facts={"exemplars": len(exemplars), "seed": seed, "iterations": found.iterations},
            weight=weight,
            bias=bias,
            places=places,
            spread=torch.tensor([max(found.inertia, 1e-12) / max(int(found.counts.sum()), 1)], device=device),
            table=torch.eye(settings.k, device=device),
        )
        if exemplars:
            raw = resynthesize(generator, exemplars, taps, device).with_mode(settings.mode)
            segmenter.labels = labels
            segmenter.table = _named(segmenter.clusters(raw), exemplars, found.centroids, labels, settings.naming)
        elif settings.names:
            segmenter.labels, segmenter.table = _by_hand(settings.names, settings.k)
        elif settings.output == "foreground":
            maps = torch.cat([_with(p, coords).map(lambda x: x.float()).assign(found.centroids) for p in images])
            inside = foreground_clusters(maps, settings.k, settings.rule, settings.sides)
            segmenter.labels = FOREGROUND
            segmenter.table = torch.stack([~inside, inside], dim=1).float()
        segmenter.table = segmenter.table.to(device)
        return segmenter

    def load(self, path: Path) -> SegmentInStyleSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(Path(path), self.name)
        known = {f.name for f in fields(SegmentInStyleSettings)}
        settings = SegmentInStyleSettings(**{k: v for k, v in stored["settings"].items() if k in known})
        wanted = {
            "weight": (settings.k, sum(stored["widths"])),
            "bias": (settings.k,),
            "table": (settings.k, len(stored["labels"])),
            "places": (settings.k, {"none": 0, "x": 1, "xy": 2}[settings.coordinates]),
            "spread": (1,),
        }
        if {k: tuple(v.shape) for k, v in tensors.items()} != wanted:
            raise UsageError(f"got {path} with other tensors", wanted=f"the tensors of this segmenter: {wanted}")
        return SegmentInStyleSegmenter(**stored, **tensors)


@torch.no_grad()
def _images(generator, taps, settings, noise, device, stream):
    """Standardised half-precision (release: raw float32) pyramids of random samples, one each; mean and 1/deviation."""
    mean = scale = None
    made = []
    for _ in range(settings.images):
        z = torch.randn(1, generator.spec.z_dim, generator=stream)
        noise_seed = int(torch.randint(2**31, (1,), generator=stream))
        c = None
        if generator.spec.c_dim:
            one = int(torch.randint(generator.spec.c_dim, (1,), generator=stream))
            c = torch.eye(generator.spec.c_dim, device=device)[one : one + 1]
        ws = generator.map(z.to(device), c, settings.truncation)
        pyramid = generator.synthesize(ws, noise=noise, taps=taps, seeds=[noise_seed]).pyramid
        pyramid = pyramid.map(lambda x: x.float()).with_mode(settings.mode)
        if mean is None:
            mean, scale = torch.zeros(2, pyramid.channels, device=device)
            scale = scale + 1
            if settings.standardise:
                samples = settings.statistics_samples
                mean, scale = feature_statistics(generator, taps, samples, noise, pyramid, stream)
        if settings.standardise:  # values of a few units: half precision keeps three digits of them
            pyramid = standardised(pyramid, mean, scale).map(lambda x: x.half())
        made.append(pyramid)
    return made, (mean, scale)


def _coordinates(size: tuple[int, int], which: str, channels: int, weight: float) -> Tensor:
    """Coordinate channels [0|1|2,H,W], zero in the middle, their squares summing to `weight` times the channels'."""
    (height, width), count = size, {"none": 0, "x": 1, "xy": 2}[which]
    if not count:
        return torch.zeros(0, height, width)
    y, x = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in (height, width))
    maps = torch.stack([x.expand(height, width), y[:, None].expand(height, width)][:count])
    return maps * (3 * weight * channels / count) ** 0.5  # a coordinate spread evenly over −1 … 1 has variance 1/3


def _with(pyramid: FeaturePyramid, coords: Tensor) -> FeaturePyramid:
    if not len(coords):
        return pyramid
    level = coords.to(pyramid.levels[0].dtype).expand(pyramid.batch, -1, -1, -1)
    return FeaturePyramid([*pyramid.levels, level], pyramid.size, pyramid.mode, pyramid.backend)


def _named(clusters: Tensor, exemplars: Sequence[Exemplar], centroids: Tensor, labels: LabelMap, naming: str) -> Tensor:
    """Distribution over classes of each cluster's exemplar pixels [k,K]; one without any is as its neighbour."""
    masks = torch.stack([torch.from_numpy(e.mask.astype("int64")) for e in exemplars]).to(clusters.device)
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


def _by_hand(names: dict[str, list[int]], k: int) -> tuple[LabelMap, Tensor]:
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


@dataclass
class SegmentInStyleSegmenter(BaseSegmenter):
    """Clusters and their names (protocol `contracts.Segmenter`).

    weight [k,ΣC], bias [k], places [k,coordinates]: scores of raw activations. table [k,K]: classes of a cluster.
    spread [1]: mean squared distance of a pixel to its centroid.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    places: Tensor | None = None
    spread: Tensor | None = None
    table: Tensor | None = None

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
        pyramid = self.features(generator, synthesis).with_mode(self.settings["mode"])
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
