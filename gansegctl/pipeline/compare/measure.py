"""One run of a comparison: a method is fitted on exemplars that all methods get, and scored on the same fresh samples.

The truth is a reference segmenter, whose masks are also the exemplars': a person's mask would differ from it by about
the reference's own error.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from gansegctl import methods
from gansegctl.config import from_dict
from gansegctl.contracts import Exemplar, Generator, Segmenter
from gansegctl.errors import UsageError
from gansegctl.evaluate import confusion
from gansegctl.evaluate.coverage import gain
from gansegctl.evaluate.matching import are_segments, match_segments, overlap_of
from gansegctl.evaluate.report import Report, score
from gansegctl.io.digest import file_digest
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.evaluate import truth_path
from gansegctl.pipeline.inputs.generators import grouped, latents_of_seeds, open_generator
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.runtime.memory import with_peak
from gansegctl.students.student import Student, predict_masks

SHOWN = 6  # samples on the sheet
SCORES = ("miou", "wiou_tritrong", "wiou_tritrong_foreground", "wiou_manerikar", "pixel_accuracy", "trimap_miou")


@dataclass(frozen=True)
class CompareSettings:
    """methods: "NAME" or "NAME:key=value,…". Exemplars of draw d are `shots` seeds from first_exemplar + 100·d on.

    truncation: psi of exemplars and samples alike, 1 = none. Errors: UsageError for values out of range, or an unknown
    method or setting.
    """

    generator: str
    against: str
    methods: tuple[str, ...]
    shots: tuple[int, ...] = (1,)
    draws: int = 5
    seeds: int = 3
    num: int = 300
    batch_size: int = 20
    first_exemplar: int = 2_000_000
    first_sample: int = 3_000_000
    truncation: float = 1.0

    def __post_init__(self) -> None:
        for name in ("draws", "seeds", "num", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}", wanted="at least 1")
        if not math.isfinite(self.truncation):
            raise UsageError(f"got truncation {self.truncation}", wanted="a number, 1 for none")
        if not self.methods or not self.shots or min(self.shots) < 0 or max(self.shots) > 100:
            raise UsageError(f"got methods {self.methods}, shots {self.shots}", wanted="one method, 0 to 100 shots")
        for text in self.methods:
            parse_method(text)


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """ "repurpose:head=mlp,steps=100" → name and options, checked against the method's own settings.

    A comma parts options only before the next `name=`, so that "hidden=128,64" and "hidden=[128,64]" are one option.
    Errors: UsageError for an unknown method or setting, or a value of the wrong type.
    """
    name, _, rest = text.partition(":")
    options = {}
    for part in filter(None, re.split(r",\s*(?=[A-Za-z_]\w*=)", rest.strip(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"got {part!r} in {text!r}", wanted="key=value")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    from_dict(methods.get(name).settings_type, options, name)
    return name, options


class SettingsChanged(UsageError):
    """A method is fitted with other settings than those of its finished rows: its defaults have changed since."""


class Scored(NamedTuple):
    """The scores of a segmenter: its report, foreground/background mIoU, and the masks that the sheet shows.

    pair_seconds: of all images with masks; image_seconds: of images alone, each batch made beside its pair.
    """

    report: Report
    foreground_miou: float
    shown: np.ndarray
    pair_seconds: float
    image_seconds: float


class Comparison:
    """The generator, the truth of the fresh samples, and exemplars by draw; made once for all runs."""

    def __init__(self, settings: CompareSettings, device: str = "cpu") -> None:
        self.settings, self.device = settings, device
        self.generator: Generator = open_generator(settings.generator, device)
        path, kind = truth_path(settings.against)
        if kind != "student":
            raise UsageError(
                f"got {settings.against}", wanted="a reference segmenter: a student's file, or a preset with one"
            )
        self.reference = Student.load(path, device)
        self.truth_digest = file_digest(path)
        self.samples = list(range(settings.first_sample, settings.first_sample + settings.num))
        images, masks = [], []
        for batch in grouped(self.samples, settings.batch_size):
            image, _ = image_and_mask(self.generator, self._ws(batch), batch, "const", None)
            images.append(image)
            masks.append(predict_masks(self.reference, image))
        self.images, self.masks = np.concatenate(images), np.concatenate(masks)

    def _ws(self, seeds: Sequence[int]) -> torch.Tensor:
        return latents_of_seeds(self.generator, seeds, self.settings.truncation, device=self.device)

    def exemplars(self, draw: int, shots: int) -> list[Exemplar]:
        """The first `shots` of a draw, annotated by the reference segmenter."""
        first = self.settings.first_exemplar + 100 * draw
        seeds = list(range(first, first + shots))
        if not seeds:
            return []
        ws = self._ws(seeds)
        image, _ = image_and_mask(self.generator, ws, seeds, "const", None)
        masks = predict_masks(self.reference, image)
        return [Exemplar(ws[i : i + 1], s, masks[i]) for i, s in enumerate(seeds)]

    def run(
        self, text: str, shots: int, draw: int, seed: int, known: str | None = None
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Fit and score once → a row, and the masks uint8 [n,H,W] of the samples that the sheet shows.

        known: the `fit_digest` of finished rows of this method and number of shots, if they have one. Errors:
        SettingsChanged, before anything is scored, where this fit's is another; those of the method.
        """
        name, options = parse_method(text)
        method, labels = methods.get(name), self.reference.labels
        exemplars = self.exemplars(draw, shots)
        settings = from_dict(method.settings_type, options, name)
        given = beyond_generator(method, self.generator, settings)

        def fit_and_score() -> tuple[Segmenter, float, str | None, Scored]:
            began = time.perf_counter()
            segmenter = method.fit(self.generator, exemplars, labels if exemplars else None, settings, seed, **given)
            seconds, digest = time.perf_counter() - began, fit_digest(segmenter)
            if known and digest and digest != known:
                raise SettingsChanged(
                    f"got {text} at {shots} shots fitted with other settings than in its finished rows "
                    f"(digest {digest}, theirs {known}): its defaults have changed since",
                    wanted="rows of one method that were all fitted with the same settings",
                    remedy=f"delete those rows of {text} from rows.json, or choose another -o",
                )
            return segmenter, seconds, digest, self._score(segmenter)

        (segmenter, fit_seconds, digest, scored), peak = with_peak(fit_and_score, self.device)
        report, pair, image = scored.report, scored.pair_seconds, scored.image_seconds
        row = {"method": text, "shots": shots, "draw": draw, "seed": seed, "settings_digest": digest}
        row |= {name: float(report.scores[name]) for name in SCORES}
        row["foreground_miou"] = scored.foreground_miou
        row["gain_10"] = gain_10(report)
        row["iou"] = {n: float(v) for n, v in zip(labels.names, report.iou, strict=True)}
        row["fit_seconds"] = round(fit_seconds, 2)
        # What a mask takes beyond its image; unknown where noise of the clock hides it.
        row["masks_per_second"] = round(len(self.samples) / (pair - image), 1) if pair > image else float("nan")
        row["pair_over_image"] = round(pair / image, 3)
        row["peak_mb"] = float("nan") if peak is None else round(peak / 2**20, 1)
        row["parameters"] = parameters_of(segmenter)
        return row, scored.shown

    def _score(self, segmenter: Segmenter) -> Scored:
        labels, own = self.reference.labels, segmenter.labels
        found, scores, pair_seconds, image_seconds = [], [], 0.0, 0.0
        for batch in grouped(self.samples, self.settings.batch_size):
            ws = self._ws(batch)
            began = time.perf_counter()
            _, annotation = image_and_mask(self.generator, ws, batch, "const", segmenter)
            pair_seconds += time.perf_counter() - began
            began = time.perf_counter()
            image_and_mask(self.generator, ws, batch, "const", None)
            image_seconds += time.perf_counter() - began
            found.append(annotation.labels.cpu().numpy())
            scores.append(annotation.score.float().cpu().numpy())
        masks, uncertainty, foreground = np.concatenate(found), np.concatenate(scores), None
        if own.names != labels.names:
            if are_segments(own):  # background too has no name, so the truth says for two parts which is which
                two = (self.masks > 0).astype(np.uint8)
                split = match_segments(overlap_of(masks, two, len(own), 2)).astype(np.uint8)[masks]
                foreground = float(confusion.mean_iou(overlap_of(two, split, 2, 2)))
            taken = taken_for(own, labels, overlap_of(masks, self.masks, len(own), len(labels)))
            masks = taken.astype(np.uint8)[masks]
        report = score([(masks, self.masks, None, uncertainty)], labels, bootstrap=0, worst=0)
        if not np.isfinite(uncertainty).all() or np.ptp(uncertainty) == 0:
            report.coverage = None  # the segmenter is equally sure of all samples
        if foreground is None:
            foreground = float(report.scores["foreground_miou"])
        return Scored(report, foreground, masks[:SHOWN], pair_seconds, image_seconds)


def taken_for(own: LabelMap, truth: LabelMap, overlap: np.ndarray) -> np.ndarray:
    """The class of the truth that each of a segmenter's classes counts as, int64 [k]; overlap [k,K]: common pixels.

    By name where it has names; segments without names as `match_segments` says. Of background and foreground, the
    first is the truth's first class; foreground, which is none of its classes, counts as the other one that it has the
    highest IoU with. Errors: UsageError for other names than those of the truth.
    """
    if are_segments(own):
        return match_segments(overlap)
    if set(own.names) <= set(truth.names):
        return np.array([truth.index(name) for name in own.names])
    if own.names != ("background", "foreground") or len(truth) < 2:
        raise UsageError(
            f"got classes {', '.join(own.names)}",
            wanted=f"those of the truth: {', '.join(truth.names)}",
            remedy="use the class names of the truth",
        )
    common = overlap[1, 1:]
    union = overlap[1].sum() + overlap[:, 1:].sum(0) - common
    return np.array([0, 1 + int((common / np.maximum(union, 1)).argmax())])


def gain_10(report: Report) -> float | None:
    """Points of mIoU won by keeping the most certain 90 % of the samples; None where all are equally certain."""
    points = 100 * gain(report.coverage, 0.1) if report.coverage else float("nan")
    return None if math.isnan(points) else points


def fit_digest(segmenter: Segmenter) -> str | None:
    """12 hex digits that name the settings a segmenter was fitted with, defaults included; None for one without."""
    settings = getattr(segmenter, "settings", None)
    if settings is None:
        return None
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def parameters_of(segmenter: Segmenter) -> int:
    """Numbers that the segmenter stores; 0 for one without."""
    tensors = getattr(segmenter, "tensors", None)
    return sum(t.numel() for t in tensors().values()) if tensors else 0
