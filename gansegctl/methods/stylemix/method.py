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

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.kmeans_points import parallel_kmeans
from gansegctl.labels import LabelMap
from gansegctl.methods.base.annotations import annotation_of
from gansegctl.methods.base.clusters import (
    FOREGROUND,
    centrality,
    foreground_clusters,
    no_exemplars,
    segments,
    stream_of,
)
from gansegctl.methods.base.method import BaseMethod
from gansegctl.methods.base.segmenter import BaseSegmenter, read_segmenter
from gansegctl.methods.base.settings import read_settings
from gansegctl.methods.stylemix.boxes import Box, Detector, check_boxes, instances, of_instances, read_boxes
from gansegctl.methods.stylemix.clustering import cluster
from gansegctl.methods.stylemix.settings import StyleMixSettings, StyleMixValues
from gansegctl.methods.stylemix.variants import Original, halves, make_variants, points


class StyleMix(BaseMethod):
    """The method (protocol `contracts.Method`)."""

    name = "stylemix"
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
        values = (settings or StyleMixSettings()).resolved()
        if values.class_index is not None and values.class_index >= generator.spec.c_dim:
            raise UsageError(f"got class_index {values.class_index}", wanted=f"below {generator.spec.c_dim}")
        values = _with_boxes(values, generator.spec.resolution, boxes)
        classes = FOREGROUND if values.output == "foreground" else segments(values.k)
        return StyleMixSegmenter(
            method=self.name,
            labels=instances(values.instances) if values.instances else classes,
            taps=(),
            widths=(),
            generator_sha256=generator.sha256,
            settings=asdict(values),
            facts={"exemplars": 0, "seed": seed},
            boxes_of=boxes,
        )

    def load(self, path: Path) -> StyleMixSegmenter:
        """Read what `save` wrote. Errors: UsageError for a file of another kind or method."""
        stored, _ = read_segmenter(path, self.name)
        read_settings(StyleMixValues, stored["settings"], f"settings of {path}")
        return StyleMixSegmenter(**stored)


def _with_boxes(settings: StyleMixValues, side: int, detector: Detector | None) -> StyleMixValues:
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


@dataclass(repr=False, kw_only=True)
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
        values = read_settings(StyleMixValues, self.settings, "settings of stylemix")
        boxes = self._boxes(synthesis, synthesis.seeds, values)
        votes = []
        for i, seed in enumerate(synthesis.seeds):
            one = slice(i, i + 1)
            original = Original(synthesis.image[one], synthesis.ws[one], synthesis.noise, seed)
            votes.append(self._votes(generator, original, boxes[i], values))
        return annotation_of(torch.stack(votes).clamp(min=1e-9).log(), probabilities)

    def _boxes(self, synthesis: Synthesis, seeds: tuple[int, ...], s: StyleMixValues) -> Sequence[list[Box] | None]:
        """Of each image; None for the image as a whole."""
        if not s.instances:
            return [None] * len(seeds)
        if self.boxes_of is not None:
            found = list(self.boxes_of(synthesis))
            if len(found) != len(seeds):
                raise UsageError(f"got boxes of {len(found)} images", wanted=f"of {len(seeds)}, a list for each")
        elif not isinstance(s.boxes, dict):
            raise UsageError(
                "got no boxes for a segmenter of instances",
                wanted="what found them when it was fitted, which its file does not hold",
                remedy="set its boxes_of",
            )
        else:
            missing = [seed for seed in seeds if str(seed) not in s.boxes]
            if missing:
                raise UsageError(
                    f"got no boxes for seed {missing[0]}", wanted="an entry for every image, [] for none in it"
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

    def _votes(self, generator: Generator, original: Original, boxes: list[Box] | None, s: StyleMixValues) -> Tensor:
        """Share of the repeats that put a pixel of an image into each class: [K,H,W]."""
        seeds = self.facts["seed"], original.seed
        stream = stream_of(*seeds)
        height, width = original.image.shape[2:]
        regions = [(0, 0, width, height)] if boxes is None else boxes
        rounds = [s.repeats] if s.drawn == "shared" else [1] * s.repeats
        votes: list[list[Tensor]] = [[] for _ in regions]
        how = s.k, s.iterations, s.fitted_pixels, s.clusterer
        first = None
        for number, runs in enumerate(rounds if regions else ()):
            images = make_variants(generator, original, s, stream)  # [V, c, H, W]
            keep = halves(runs, len(images), stream)  # [R, V]
            for region, found in zip(regions, votes, strict=True):
                left, top, right, bottom = region
                x, columns = points(images[:, :, top:bottom, left:right], keep, s.standardise)
                if s.output == "segments":
                    if first is None:
                        first = cluster(x, torch.ones_like(columns[:1]), *how, stream)[0]
                        order = centrality(first.view(1, height, width), s.k).argsort().argsort()
                        first = order[first]
                    labels = parallel_kmeans(x, columns, s.k, s.iterations, stream, start=first)
                    found.append(F.one_hot(labels, s.k).float())
                    continue
                # An instance's mask is a function of its own box, whatever others there are.
                own = stream if boxes is None else stream_of(*seeds, number, *region)
                for one in cluster(x, columns, *how, own):
                    inside = foreground_clusters(one.view(1, bottom - top, right - left), s.k, s.rule, s.sides)
                    found.append(F.one_hot(inside[one].long(), 2).float()[None])
        shares = [torch.cat(found).mean(dim=0) for found in votes]  # [P, K] each
        if s.output == "foreground":  # at least half of the votes: the tie is foreground
            tie = original.image.new_tensor([0.4999, 0.5001], dtype=torch.float32)
            shares = [torch.where((share[:, 1:] == 0.5), tie, share) for share in shares]
        if boxes is None:
            return shares[0].T.view(-1, height, width)
        nobody = original.image.new_zeros(s.instances + 1, height, width)
        return of_instances([x[:, 1] for x in shares], boxes, nobody)

    def tensors(self) -> dict[str, Tensor]:
        """None: nothing was fitted."""
        return {}
