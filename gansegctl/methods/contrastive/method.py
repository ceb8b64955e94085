"""contrastive: a projection learned without labels, then a small head on it from one annotated image.

Manerikar and Kak, 2023. Pre-training (`projection`) asks that a pixel keep its soft cluster when the image's style
changes; the head sees the projected channels only. The controls are built in: with `projection` random or pca
everything else is the same, and random is what contrastive starts from, number by number.

The saved segmenter is one head on raw activations: standardisation and projection are folded into its first layer.
Neither the hypercolumn nor the projected map exists when images are labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansegctl.contracts import Exemplar, Generator
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import LabelMap
from gansegctl.methods.base.exemplars import check_exemplars, choose_taps, device_of, masks_of, resynthesize
from gansegctl.methods.base.fitting import feature_statistics, fit_head, soft_targets, standardised
from gansegctl.methods.base.head_segmenter import HeadSegmenter
from gansegctl.methods.base.method import BaseMethod
from gansegctl.methods.base.segmenter import loaded, read_segmenter
from gansegctl.methods.base.settings import read_settings
from gansegctl.methods.contrastive.heads import one_shot_head
from gansegctl.methods.contrastive.pretraining import Source, pretrain, principal_axes, random_projection
from gansegctl.methods.contrastive.settings import ContrastiveSettings, ContrastiveValues

HELD = 1 << 28
"""Bytes of projected maps up to which those of all exemplars are made once; above, those of each step."""

RELEASED_OUTPUTS = 12  # of the xxs head in the release, whatever the classes


class Contrastive(BaseMethod):
    """The method (protocol `contracts.Method`)."""

    name = "contrastive"
    needs = frozenset({"exemplars"})
    settings_type = ContrastiveSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap | None,
        settings: ContrastiveSettings | None = None,
        seed: int = 0,
    ) -> ContrastiveSegmenter:
        """Learn the projection on random images, then the head on the exemplars. The same seed, the same weights.

        Errors: UsageError for masks of another size, undeclared values, taps that the generator lacks, and under
        release for more than 12 classes with head xxs or more prototypes than pixels; GansegError where a loss is not
        finite.
        """
        settings = settings or ContrastiveSettings()
        labels = check_exemplars(generator, exemplars, labels)
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, settings.min_resolution, settings.max_resolution)
        size = (generator.spec.resolution, generator.spec.resolution)
        values = settings.resolved(len(exemplars), size)
        outputs = _outputs(values, labels)
        widths = tuple(t.channels for t in generator.spec.taps if t.name in taps)
        statistics = None
        noise = exemplars[0].noise
        if values.standardise:  # exemplars are not held over the pre-training: they are made again after it
            shown = exemplars if not values.statistics_samples else exemplars[:1]
            raw = resynthesize(generator, shown, taps, device).with_mode(values.mode)
            samples = values.statistics_samples
            statistics = feature_statistics(generator, taps, samples, noise, raw, stream, values.centre)
            del raw
        source = Source(generator, taps, values.mode, noise, statistics, device)
        projection, facts = self._projection(source, sum(widths), size, values, stream)
        pyramid = resynthesize(generator, exemplars, taps, device).with_mode(values.mode)
        pyramid = pyramid if statistics is None else standardised(pyramid, *statistics)

        def project(part: FeaturePyramid) -> FeaturePyramid:
            """Activations → the projected map [N,d,H,W] as a pyramid of one level."""
            with torch.no_grad():
                return FeaturePyramid([part.project(projection)], size, values.mode)

        later = 4 * len(exemplars) * len(projection) * size[0] * size[1] > HELD
        pyramid = pyramid if later else project(pyramid)
        targets, weights = soft_targets(masks_of(exemplars, device), outputs, values.label_smoothing, values.balance)
        head = one_shot_head(values.head, len(projection), outputs, stream, values.init, _leaky(values))
        head = head.to(device)
        read = project if later else None
        losses = fit_head(head, pyramid, targets, weights, values, stream, betas=(0.9, 0.99), read=read)
        head = head.behind(projection)
        head.keep(len(labels))
        if statistics is not None:
            head.fold(*statistics)
        return ContrastiveSegmenter(
            method=self.name,
            labels=labels,
            taps=taps,
            widths=widths,
            facts=facts | {"exemplars": len(exemplars), "loss": round(losses[-1], 6), "seed": seed},
            generator_sha256=generator.sha256,
            settings=asdict(values),
            head=head.requires_grad_(False).eval(),
        )

    def _projection(
        self,
        source: Source,
        channels: int,
        size: tuple[int, int],
        settings: ContrastiveValues,
        stream: torch.Generator,
    ) -> tuple[Tensor, dict[str, Any]]:
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
        stored, tensors = read_segmenter(path, self.name)
        values = read_settings(ContrastiveValues, stored["settings"], f"settings of {path}")
        channels, classes = sum(stored["widths"]), len(stored["labels"])
        head = one_shot_head(values.head, channels, classes, torch.Generator(), leaky=_leaky(values))
        return ContrastiveSegmenter(**stored, head=loaded(head, tensors, path, "this segmenter's head"))


class ContrastiveSegmenter(HeadSegmenter):
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
