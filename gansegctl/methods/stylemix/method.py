"""stylemix: pixels of one part change colour together when the style changes; no labels, nothing to fit.

Feng et al.: Network-Free, Unsupervised Semantic Segmentation with Synthetic Images, CVPR 2023. Of each image, N
variants are made that keep its coarse styles and take finer ones from other latents: shapes stay, colours change. The
pixels of the image are clustered by their colours over all variants, and a rule says which clusters are foreground.

Constants are settings, because the paper's are unknown: N, k, crossover and rule are those of a community
implementation (profile release) or what served on the demo domain (fixed). The image itself is the first variant and
its own latents and noise make the others, so the mask is of this very image; `predict` needs `Synthesis.ws`, and
makes N−1 more passes an image. Memory: N·c·H·W·4 bytes, 39 MB for 50 variants at 256 px, and a few passes at a time.

Instances come, as in the paper, from boxes that something else finds: within each box of an image its pixels alone are
clustered, and the same rule says what is foreground there, "centre" and "border" being those of the box. A mask has one
value a pixel, so instances are classes: background, instance-1, instance-2, … in the order of the image's boxes, up
to the largest number of boxes in the file. instance-2 of two images are therefore not of one kind. Where boxes
overlap a pixel goes to the instance that more repeats put it in, of equals to that of the smaller box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, GeneratorSpec, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.kmeans_points import parallel_kmeans
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.methods.base.clusters import (
    FOREGROUND,
    RULES,
    centrality,
    check_sides,
    foreground_clusters,
    no_exemplars,
    segments,
    stream_of,
)
from gansegctl.methods.base.segmenter import BaseSegmenter, annotation_of, read_segmenter
from gansegctl.methods.base.settings import filled, one_of, within
from gansegctl.methods.stylemix.boxes import Box, check_boxes, instances, read_boxes

PROFILES: dict[str, dict] = {
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
"""What a profile puts where the settings leave None.

fixed: the idea as meant, at the cost of 11 more passes an image; the repeats that the vote is taken over are random
halves of the same variants. release: as the community implementation runs, with its quirks:
- 50 new variants for each of 10 repeats: 500 passes an image, the image itself among none of them;
- noise drawn anew for every variant, so that fine texture moves;
- crossover at slots 6 to 9, which are 32 to 128 px of any StyleGAN2 and next to nothing of a small one;
- centroids fitted on 256 pixels a cluster; raw colours;
- whatever k is, the least central cluster alone is background.
"""

AT_ONCE = 1 << 18
"""Pixels of the variants that are made at one time: four of 256 px, whose passes need half a gigabyte."""

Detector = Callable[[Synthesis], Sequence[Any]]
"""What finds boxes: N images → N lists of [left, top, right, bottom] in pixels."""


@dataclass(frozen=True)
class StyleMixSettings:
    """Settings of `stylemix`; None takes the profile's value.

    variants: N, the image itself among them where noise is kept. k: clusters of an image. crossover_by: depth (as a
    share of the style slots, 6/18 to 9/18) | resolution (in pixels, 32 to 128); crossover_low, crossover_high: its
    range, from which every variant draws the slot where new styles begin. truncation: psi of the new styles.
    class_index: their class, of a conditional generator (None: drawn). output: foreground | segments (clusters of each
    image, from its rim, 0, to its middle, k−1). rule: see `foreground_clusters`; sides: of t, l, r, b, which border
    counts (fixed: not the lower one, which most subjects stand on). repeats: clusterings to vote; drawn: shared (random
    halves of the variants) | anew. keep_noise: the image's own noise in all variants. standardise: every variant's
    colours to deviation 1. iterations: of k-means; fitted_pixels: a cluster, that its centroids are fitted on (0 =
    all). clusterer: torch | faiss (where the images are: on the CPU, or all GPUs; torch in its place where they are
    on a GPU that this faiss cannot use). passes: variants made at one time (None: 8, or fewer of large images,
    with `AT_ONCE` pixels in all). boxes: a JSON file {seed: [[left, top, right, bottom], …]} in pixels, right and
    bottom outside, [] for an image without instances; or that table, which is what a segmenter stores. instances:
    classes of them (0: the largest number of boxes in an image of the file). Errors: UsageError for values out of
    range, boxes with output segments, or faiss where it is not installed.
    """

    profile: str = "fixed"
    variants: int | None = None
    k: int | None = None
    crossover_by: str | None = None
    crossover_low: float | None = None
    crossover_high: float | None = None
    truncation: float = 0.7
    class_index: int | None = None
    output: str = "foreground"
    rule: str | None = None
    sides: str | None = None
    repeats: int | None = None
    drawn: str | None = None
    keep_noise: bool | None = None
    standardise: bool | None = None
    iterations: int | None = None
    fitted_pixels: int | None = None
    clusterer: str = "torch"
    passes: int | None = None
    boxes: str | dict[str, Any] | None = field(default=None, hash=False)
    instances: int = 0

    def __post_init__(self) -> None:
        one_of("profile", self.profile, tuple(PROFILES))
        one_of("crossover_by", self.crossover_by, ("depth", "resolution"))
        one_of("output", self.output, ("foreground", "segments"))
        one_of("rule", self.rule, RULES)
        one_of("drawn", self.drawn, ("shared", "anew"))
        one_of("clusterer", self.clusterer, ("torch", "faiss"))
        within("variants", self.variants, 2, 10_000)
        within("k", self.k, 2, IGNORE)
        within("crossover_low", self.crossover_low, 0)
        within("crossover_high", self.crossover_high, self.crossover_low or 0)
        within("class_index", self.class_index, 0)
        within("repeats", self.repeats, 1)
        within("iterations", self.iterations, 1)
        within("fitted_pixels", self.fitted_pixels, 0)
        within("passes", self.passes, 1)
        within("instances", self.instances, 0, IGNORE - 1)
        check_sides(self.sides)
        if (self.boxes or self.instances) and self.output == "segments":
            raise UsageError("got boxes with output segments", wanted="output foreground, of which instances are parts")
        if self.clusterer == "faiss":
            _faiss()

    def resolved(self) -> StyleMixSettings:
        """The same with values in place of None."""
        settings = filled(self, PROFILES[self.profile])
        low, high = (6 / 18, 9 / 18) if settings.crossover_by == "depth" else (32, 128)
        settings = filled(settings, {"crossover_low": low})
        return filled(settings, {"crossover_high": max(high, settings.crossover_low)})


def crossover_slots(spec: GeneratorSpec, settings: StyleMixSettings) -> tuple[int, int]:
    """First and last style slot at which new styles may begin; 1 to num_ws−1, so that something stays and changes.

    By resolution: from the last layer of `crossover_low` px to the first of `crossover_high`, as the community
    implementation has slot 6, the second convolution at 32 px, to slot 9, the first at 128 px. Where a generator lacks
    a resolution, its next larger one's first layer stands for it.
    """
    if settings.crossover_by == "depth":
        ends = [round(x * spec.num_ws) for x in (settings.crossover_low, settings.crossover_high)]
    else:  # a layer's slot: the last one is ToRGB's, and StyleGAN3 has one before its first layer
        before = max(spec.num_ws - 1 - len(spec.taps), 0)
        sizes = [t.resolution for t in spec.taps]
        ends = [
            before + next((i for i, size in enumerate(sizes) if size >= bound), len(sizes))
            for bound in (settings.crossover_low, settings.crossover_high)
        ]
        ends[0] += max(sizes.count(settings.crossover_low) - 1, 0)  # to the last of the layers of that size
    low, high = (min(max(end, 1), spec.num_ws - 1) for end in ends)
    return low, max(low, high)


class StyleMix:
    """The method (protocol `contracts.Method`)."""

    name = "stylemix"
    needs: frozenset[str] = frozenset()
    settings_type = StyleMixSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar] = (),
        labels: LabelMap | None = None,
        settings: StyleMixSettings | None = None,
        seed: int = 0,
        *,
        boxes: Detector | None = None,
    ) -> StyleMixSegmenter:
        """A segmenter with these settings; its variants are drawn from `seed` and the sample's seed.

        boxes: finds instances, in place of a file of boxes; `settings.instances` says how many classes they may have.
        It is not stored: set `boxes_of` of a loaded segmenter anew. Errors: UsageError for exemplars, which it cannot
        use, a class that the generator lacks, boxes that are wrong or twice, or instances without either.
        """
        no_exemplars(self.name, exemplars)
        settings = (settings or StyleMixSettings()).resolved()
        if settings.class_index is not None and settings.class_index >= generator.spec.c_dim:
            raise UsageError(f"got class_index {settings.class_index}", wanted=f"below {generator.spec.c_dim}")
        settings = _with_boxes(settings, generator.spec.resolution, boxes)
        classes = FOREGROUND if settings.output == "foreground" else segments(settings.k)
        return StyleMixSegmenter(
            method=self.name,
            labels=instances(settings.instances) if settings.instances else classes,
            taps=(),
            widths=(),
            generator_sha256=generator.sha256,
            settings=asdict(settings),
            facts={"exemplars": 0, "seed": seed},
            boxes_of=boxes,
        )

    def load(self, path: Path) -> StyleMixSegmenter:
        """Read what `save` wrote. Errors: UsageError for a file of another kind or method."""
        stored, _ = read_segmenter(Path(path), self.name)
        known = {f.name for f in fields(StyleMixSettings)}
        StyleMixSettings(**{k: v for k, v in stored["settings"].items() if k in known})
        return StyleMixSegmenter(**stored)


@dataclass
class StyleMixSegmenter(BaseSegmenter):
    """Settings and a seed (protocol `contracts.Segmenter`); it reads no taps, only images.

    boxes_of: finds the boxes of instances; it goes before those of the settings, and is not stored.
    """

    boxes_of: Detector | None = field(default=None, compare=False)

    @torch.no_grad()
    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks of the images in `synthesis`; probabilities are shares of votes over the repeats.

        Errors: UsageError for another generator, where `synthesis` does not say which ws, noise and seeds made it, and
        of instances for an image without boxes, with wrong ones, or with more than there are classes.
        """
        self.check_generator(generator)
        if synthesis.ws is None or synthesis.noise is None or synthesis.seeds is None:
            raise UsageError(
                "got images without their latents",
                wanted="Synthesis.ws, noise and seeds, from which stylemix makes its variants",
                remedy="fill them in where the images are made",
            )
        boxes = self._boxes(synthesis)
        votes = [self._votes(generator, synthesis, i, boxes[i]) for i in range(len(synthesis.image))]
        return annotation_of(torch.stack(votes).clamp(min=1e-9).log(), probabilities)

    def _boxes(self, synthesis: Synthesis) -> list[list[Box] | None]:
        """Of each image; None for the image as a whole."""
        s, seeds = self._settings(), synthesis.seeds
        if not s.instances:
            return [None] * len(seeds)
        if self.boxes_of is not None:
            found = list(self.boxes_of(synthesis))
            if len(found) != len(seeds):
                raise UsageError(f"got boxes of {len(found)} images", wanted=f"of {len(seeds)}, a list for each")
        elif s.boxes is None:
            raise UsageError(
                "got no boxes for a segmenter of instances",
                wanted="what found them when it was fitted, which its file does not hold",
                remedy="set its boxes_of",
            )
        else:
            lacking = [seed for seed in seeds if str(seed) not in s.boxes]
            if lacking:
                raise UsageError(
                    f"got no boxes for seed {lacking[0]}", wanted="an entry for every image, [] for none in it"
                )
            found = [s.boxes[str(seed)] for seed in seeds]
        checked = [check_boxes(seed, b, *synthesis.image.shape[2:]) for seed, b in zip(seeds, found, strict=True)]
        for seed, some in zip(seeds, checked, strict=True):
            if len(some) > s.instances:
                raise UsageError(
                    f"got {len(some)} boxes for seed {seed}",
                    wanted=f"at most {s.instances}, the classes of this segmenter",
                    remedy="fit with instances set higher",
                )
        return checked

    def _votes(self, generator: Generator, synthesis: Synthesis, i: int, boxes: list[Box] | None) -> Tensor:
        """Share of the repeats that put a pixel of image i into each class: [K,H,W]."""
        s = self._settings()
        seeds = self.facts["seed"], synthesis.seeds[i]
        stream = stream_of(*seeds)
        height, width = synthesis.image.shape[2:]
        regions = [(0, 0, width, height)] if boxes is None else boxes
        rounds = [s.repeats] if s.drawn == "shared" else [1] * s.repeats
        votes: list[list[Tensor]] = [[] for _ in regions]
        first = None
        for number, runs in enumerate(rounds if regions else ()):
            images = self._variants(generator, synthesis, i, stream)  # [V, c, H, W]
            keep = _halves(runs, len(images), stream)  # [R, V]
            for region, found in zip(regions, votes, strict=True):
                left, top, right, bottom = region
                x, columns = self._points(images[:, :, top:bottom, left:right], keep)
                if s.output == "segments":
                    if first is None:
                        first = self._cluster(x, torch.ones_like(columns[:1]), stream)[0]
                        order = centrality(first.view(1, height, width), s.k).argsort().argsort()
                        first = order[first]
                    labels = parallel_kmeans(x, columns, s.k, s.iterations, stream, start=first)
                    found.append(F.one_hot(labels, s.k).float())
                    continue
                # An instance's mask is a function of its own box, whatever others there are.
                own = stream if boxes is None else stream_of(*seeds, number, *region)
                for one in self._cluster(x, columns, own):
                    inside = foreground_clusters(one.view(1, bottom - top, right - left), s.k, s.rule, s.sides)
                    found.append(F.one_hot(inside[one].long(), 2).float()[None])
        shares = [torch.cat(found).mean(dim=0) for found in votes]  # [P, K] each
        if s.output == "foreground":  # at least half of the votes: the tie is foreground
            tie = synthesis.image.new_tensor([0.4999, 0.5001], dtype=torch.float32)
            shares = [torch.where((share[:, 1:] == 0.5), tie, share) for share in shares]
        if boxes is None:
            return shares[0].T.view(-1, height, width)
        return _of_instances(
            [x[:, 1] for x in shares], boxes, synthesis.image.new_zeros(s.instances + 1, height, width)
        )

    def _points(self, images: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Variants [V,c,h,w], those that each run reads [R,V] → pixels to cluster [P,V·c], columns to read [R,V·c]."""
        channels = images.shape[1]
        if self._settings().standardise:
            middle = images - images.mean(dim=(2, 3), keepdim=True)
            images = middle / middle.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-6)
        x = images.flatten(0, 1).flatten(1).T.contiguous()
        return x, keep.repeat_interleave(channels, dim=1).to(x.device)

    def _settings(self) -> StyleMixSettings:
        known = {f.name for f in fields(StyleMixSettings)}
        return StyleMixSettings(**{k: v for k, v in self.settings.items() if k in known})

    def _variants(self, generator: Generator, synthesis: Synthesis, i: int, stream: torch.Generator) -> Tensor:
        """Image i under other fine styles, [V,c,H,W]; itself first, where its noise is kept."""
        s, spec = self._settings(), generator.spec
        ws, device = synthesis.ws[i : i + 1], synthesis.image.device
        made = [synthesis.image[i : i + 1].float()] if s.keep_noise else []
        count = s.variants - len(made)
        z = torch.randn(count, spec.z_dim, generator=stream).to(device)
        c = None
        if spec.c_dim:
            drawn = torch.randint(spec.c_dim, (count,), generator=stream)
            drawn = drawn if s.class_index is None else torch.full_like(drawn, s.class_index)
            c = F.one_hot(drawn, spec.c_dim).float().to(device)
        low, high = crossover_slots(spec, s)
        begins = torch.randint(low, high + 1, (count,), generator=stream)
        noise_seeds = torch.randint(2**31, (count,), generator=stream).tolist()
        fresh = generator.map(z, c, s.truncation)  # [V, num_ws, w]
        new = (torch.arange(spec.num_ws) >= begins[:, None]).to(device)[:, :, None]
        mixed = torch.where(new, fresh, ws.to(fresh))
        noise = synthesis.noise if s.keep_noise else "seed"
        passes = s.passes or max(1, min(8, AT_ONCE // spec.resolution**2))
        for some in torch.arange(count).split(passes):
            seeds = [synthesis.seeds[i]] * len(some) if s.keep_noise else [noise_seeds[j] for j in some]
            made.append(generator.synthesize(mixed[some], noise=noise, taps=(), seeds=seeds).image.float())
        return torch.cat(made)

    def _cluster(self, x: Tensor, columns: Tensor, stream: torch.Generator) -> Tensor:
        """Clusters of the rows of x [P,D], once with each set of columns [R,D]: int64 [R,P]."""
        s = self._settings()
        options = None if s.clusterer == "torch" else faiss_options(x.device)
        if options is None:
            return parallel_kmeans(x, columns, s.k, s.iterations, stream, sample=s.k * s.fitted_pixels or None)
        found, k = [], min(s.k, len(x))  # faiss refuses more clusters than pixels, which a small box has
        for keep in columns:
            part = x[:, keep].float().cpu().contiguous().numpy()
            points = {"max_points_per_centroid": s.fitted_pixels or len(part), "min_points_per_centroid": 1}
            seed = int(torch.randint(2**31 - 1, (1,), generator=stream))
            run = _faiss().Kmeans(part.shape[1], k, niter=s.iterations, seed=seed, **points, **options)
            run.train(part)
            found.append(torch.from_numpy(run.index.search(part, 1)[1][:, 0]))
        return torch.stack(found).to(x.device)

    def tensors(self) -> dict[str, Tensor]:
        """None: nothing was fitted."""
        return {}


def _halves(runs: int, count: int, stream: torch.Generator) -> Tensor:
    """Which of the variants each run reads, bool [R,V]: all for a single run, else the first and a random half."""
    if runs == 1:
        return torch.ones(1, count, dtype=torch.bool)
    keep = torch.rand(runs, count, generator=stream).argsort(dim=1) < (count + 1) // 2
    keep[:, 0] = True
    return keep


def _with_boxes(settings: StyleMixSettings, side: int, detector: Detector | None) -> StyleMixSettings:
    """The same with the boxes of the file in place of its path, and the number of instances."""
    if settings.boxes is None:
        if (detector is not None) != (settings.instances > 0):
            raise UsageError(
                f"got instances {settings.instances} and {'no' if detector is None else 'a callable that finds'} boxes",
                wanted="both, or neither",
                remedy="set boxes to a file" if detector is None else "set instances to the most boxes of an image",
            )
        return settings
    if detector is not None:
        raise UsageError("got a file of boxes and a callable that finds them", wanted="one of the two")
    boxes = read_boxes(settings.boxes, side)
    most = max(map(len, boxes.values()), default=0)
    if not most:
        raise UsageError("got boxes without any box in them", wanted="one at least", remedy="leave boxes out")
    if settings.instances and most > settings.instances:
        raise UsageError(f"got {most} boxes in one image", wanted=f"at most {settings.instances}, as instances says")
    return replace(settings, boxes=boxes, instances=settings.instances or most)


def _of_instances(shares: Sequence[Tensor], boxes: Sequence[Box], votes: Tensor) -> Tensor:
    """Shares of each box's pixels [P] → of the whole image's, written into votes [1+instances,H,W] of zeros."""
    best = torch.zeros_like(votes[0])
    owner = torch.zeros_like(best, dtype=torch.int64)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    for j in sorted(range(len(boxes)), key=areas.__getitem__):
        left, top, right, bottom = boxes[j]
        window = np.s_[top:bottom, left:right]
        share = shares[j].view(bottom - top, right - left).to(best)
        more = share > best[window]
        owner[window] = owner[window].masked_fill(more, j + 1)
        best[window] = torch.maximum(best[window], share)
    votes.scatter_(0, owner[None], best[None])
    votes[0] = 1 - best
    return votes


def faiss_options(device: torch.device) -> dict[str, bool] | None:
    """What faiss's k-means is told for images on this device; None where torch's is quicker: on a GPU that this faiss
    was not built for, which would have it work on the CPU."""
    if device.type != "cuda":
        return {}
    return {"gpu": True} if getattr(_faiss(), "get_num_gpus", int)() > 0 else None


def _faiss():
    try:
        import faiss
    except ImportError:
        raise UsageError(
            "got clusterer faiss, which is not installed", wanted="faiss", remedy="pip install 'gansegctl[cpu]'"
        ) from None
    return faiss
