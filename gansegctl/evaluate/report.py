"""One report a comparison: scores of a stream of masks against their truth, as JSON, table rows and images."""

from __future__ import annotations

import csv
import heapq
import io
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.evaluate import confusion as c
from gansegctl.evaluate.bootstrap import interval
from gansegctl.evaluate.calibration import Reliability
from gansegctl.evaluate.coverage import coverage_curve
from gansegctl.evaluate.trimap import per_image_trimap_confusion
from gansegctl.io.atomic import write_text
from gansegctl.io.image import save_png
from gansegctl.labels import LabelMap
from gansegctl.visualize import sheets
from gansegctl.visualize.charts import heat_map, line_chart

SCORE_COLUMNS = ("score", "low", "high", "reference")
"""The values of `Report.rows`: the score, its interval, and the score of the reference segmenter itself against exact
masks, where the truth is one."""
CLASS_COLUMNS = ("iou", "low", "high", "dice", "share", "reference")
"""The values of `Report.class_rows`; share is of the truth's pixels."""

Batch = tuple[Any, ...]
"""(predicted, truth[, image[, uncertainty[, confidence]]]), as `score` takes them."""
Array = np.ndarray | Tensor
Statistic = Callable[[np.ndarray], np.ndarray]
"""Matrices [..., K, K] → a score of each, [...] or [..., K]."""


@dataclass(frozen=True)
class Case:
    """One image of the worst: its place in the stream, its own mIoU, masks uint8 [H, W], image uint8 [H, W, c]."""

    index: int
    miou: float
    truth: np.ndarray
    predicted: np.ndarray
    image: np.ndarray | None = None


@dataclass
class Report:
    """Scores of `subject` against `truth` over `images` images; shares and scores are 0 … 1, nan where undefined.

    iou, dice, share: [K], classes as in `labels`. scores: by name, see docs/metrics.md. intervals: (low, high) of each
    score at `level`; iou_intervals [K, 2]. ignored: the share of pixels that no score counts. confusion: int64 [K, K].
    truth_error: when the truth is itself a segmenter, its scores against exact masks, as `as_truth_error` gives them;
    to be shown beside every score, because no difference below it means anything. matched: cluster → the class it was
    taken for, where the subject's clusters have no names. coverage: rows of `coverage_curve`, where the subject says
    how sure it is of a sample. calibration_error and reliability: `Reliability.error` and `.bins`, where it says how
    sure it is of a pixel.
    """

    subject: str
    truth: str
    images: int
    labels: LabelMap
    confusion: np.ndarray
    iou: np.ndarray
    dice: np.ndarray
    share: np.ndarray
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    iou_intervals: np.ndarray
    trimap_width: int
    ignored: float
    bootstrap: int
    level: float
    seed: int
    truth_error: dict[str, Any] | None = None
    matched: dict[str, str] | None = None
    coverage: list[tuple[float, float, float, float]] | None = None
    calibration_error: float | None = None
    reliability: list[tuple[float, float, float]] | None = None
    worst: list[Case] = field(default_factory=list, repr=False)

    @property
    def miou(self) -> float:
        """The plain mean IoU over the classes that occur, of all images together."""
        return self.scores["miou"]

    def as_truth_error(self) -> dict[str, Any]:
        """These scores as the `truth_error` of reports that will use this report's subject as their truth."""
        return _plain({**self.scores, "iou": dict(zip(self.labels.names, self.iou.tolist(), strict=True))})

    def to_json(self) -> dict[str, Any]:
        """Everything but the images, ready for `json.dumps`: nan becomes null."""
        classes = {
            name: {"iou": self.iou[i], "interval": self.iou_intervals[i], "dice": self.dice[i], "share": self.share[i]}
            for i, name in enumerate(self.labels.names)
        }
        scores = {name: {"score": score, "interval": self.intervals[name]} for name, score in self.scores.items()}
        return _plain(
            {
                "subject": self.subject,
                "truth": self.truth,
                "images": self.images,
                "ignored": self.ignored,
                "trimap_width": self.trimap_width,
                "bootstrap": {"samples": self.bootstrap, "level": self.level, "seed": self.seed},
                "scores": scores,
                "classes": classes,
                "confusion": self.confusion,
                "truth_error": self.truth_error,
                "matched": self.matched,
                "coverage": self.coverage,
                "calibration_error": self.calibration_error,
                "reliability": self.reliability,
                "worst": [{"index": case.index, "miou": case.miou} for case in self.worst],
            }
        )

    def rows(self) -> list[tuple[str, tuple[float, ...]]]:
        """A table of the scores: (name, values in the order of `SCORE_COLUMNS`)."""
        error = self.truth_error or {}
        return [(name, (score, *self.intervals[name], _number(error.get(name)))) for name, score in self.scores.items()]

    def class_rows(self) -> list[tuple[str, tuple[float, ...]]]:
        """A table of the classes: (name, values in the order of `CLASS_COLUMNS`)."""
        error = (self.truth_error or {}).get("iou") or {}
        return [
            (
                name,
                (
                    *map(float, (self.iou[i], *self.iou_intervals[i], self.dice[i], self.share[i])),
                    _number(error.get(name)),
                ),
            )
            for i, name in enumerate(self.labels.names)
        ]

    def write_images(self, folder: Path | str) -> list[Path]:
        """Write confusion.png, per_class.csv and what there is of coverage, reliability and worst.png; their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = self.confusion.sum(1, keepdims=True)
        shares = np.divide(self.confusion, rows, out=np.full(self.confusion.shape, np.nan), where=rows > 0)
        title = "Where the pixels of each true class went, in percent"
        image = heat_map(shares, self.labels.names, rows="truth", columns="predicted", title=title)
        save_png(folder / "confusion.png", image)
        write_text(folder / "per_class.csv", self._csv())
        written = [folder / "confusion.png", folder / "per_class.csv"]
        if self.coverage:
            lines = {
                "least certain left out": [(kept, miou) for kept, miou, _, _ in self.coverage],
                "worst left out (oracle)": [(kept, oracle) for kept, _, _, oracle in self.coverage],
            }
            title = "mIoU of the samples that are kept"
            save_png(folder / "coverage.png", line_chart(lines, "share of samples kept", "mIoU", title))
            written.append(folder / "coverage.png")
        if self.reliability:
            lines = {"here": [row[:2] for row in self.reliability], "as it should be": [(0.0, 0.0), (1.0, 1.0)]}
            title = f"Pixels by their confidence (calibration error {self.calibration_error:.3f})"
            save_png(folder / "reliability.png", line_chart(lines, "confidence", "share right", title))
            written.append(folder / "reliability.png")
        if self.worst:
            save_png(folder / "worst.png", self._worst_sheet())
            written.append(folder / "worst.png")
        return written

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("class", *CLASS_COLUMNS))
        for name, values in self.class_rows():
            writer.writerow((name, *("" if math.isnan(v) else f"{v:.6f}" for v in values)))
        return text.getvalue()

    def _worst_sheet(self) -> Image.Image:
        images = [case.image for case in self.worst if case.image is not None]
        with_image = len(images) == len(self.worst)
        panels, captions = [], []
        for i, case in enumerate(self.worst):
            masks = [sheets.colourise(case.truth, self.labels), sheets.colourise(case.predicted, self.labels)]
            errors = sheets.errors_map(case.predicted, case.truth)
            panels.append([*(images[i : i + 1] if with_image else []), *masks, errors])
            conf = c.confusion(case.predicted, case.truth, len(self.labels))
            captions.append(
                f"image {case.index}   mIoU {100 * case.miou:.1f} %   right {100 * float(c.pixel_accuracy(conf)):.1f} %"
                f"   worst class: {self.labels.names[int(np.nanargmin(c.iou(conf)))]}"
            )
        headings = [*(["image"] if with_image else []), "truth", "predicted", "error"]
        marks = [("wrong pixel", sheets.WRONG), ("ignored", sheets.IGNORED)]
        return sheets.panel_sheet(panels, headings, captions, [*sheets.legend_of(self.labels), *marks])


def score(
    predictions: Iterable[Batch],
    labels: LabelMap,
    *,
    subject: str = "",
    truth: str = "",
    trimap_width: int = 3,
    bootstrap: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    worst: int = 8,
    truth_error: dict[str, Any] | None = None,
) -> Report:
    """Score a stream of batches (predicted [n, H, W], truth [n, H, W][, image uint8 [n, H, W, c][, uncertainty [n][,
    confidence uint8 [n, H, W]]]]).

    Masks are integer, numpy or torch, `IGNORE` where no score shall count. Memory: one [K, K] int32 matrix twice an
    image, and the `worst` images of the lowest mIoU (of those with a counted pixel). bootstrap: resamples, 0 for none.
    Errors: UsageError for an empty stream, and as `per_image_confusion`.
    """
    stream = _Stream(labels, trimap_width, worst)
    for batch in predictions:
        stream.add(*batch)
    if not stream.matrices:
        raise UsageError("got no masks to score", wanted="one image or more on both sides")
    per_image, trimap = np.concatenate(stream.matrices), np.concatenate(stream.trimaps)
    pooled, pooled_trimap = per_image.sum(0, dtype=np.int64), trimap.sum(0, dtype=np.int64)
    kinds: dict[str, tuple[np.ndarray, Statistic, bool]] = {  # matrices an image, statistic, is it a mean over images?
        "miou": (per_image, c.mean_iou, False),
        "wiou_tritrong": (per_image, c.wiou_tritrong, False),
        "wiou_tritrong_foreground": (per_image, lambda m: c.wiou_tritrong(m, background=False), False),
        "wiou_manerikar": (per_image, c.wiou_manerikar_each, True),
        "wiou_manerikar_maximum": (per_image, lambda m: c.class_shares(m)[..., 1:].sum(-1), True),
        "pixel_accuracy": (per_image, c.pixel_accuracy, False),
        "foreground_miou": (per_image, c.foreground_miou, False),
        "trimap_miou": (trimap, c.mean_iou, False),
    }
    pooled_scores = {
        name: float(f(pooled_trimap if matrices is trimap else pooled))
        for name, (matrices, f, mean) in kinds.items()
        if not mean
    }
    mean_scores = {
        "wiou_manerikar": c.wiou_manerikar(per_image),
        "wiou_manerikar_maximum": c.wiou_manerikar_maximum(per_image),
    }

    def ends(matrices: np.ndarray, statistic: Statistic, average: bool = False) -> tuple[np.ndarray, np.ndarray]:
        if bootstrap:
            return interval(matrices, statistic, bootstrap, level, seed, average)
        nothing = np.full_like(statistic(matrices[0]), np.nan)
        return nothing, nothing

    intervals = {}
    for name, (matrices, f, mean) in kinds.items():
        low, high = ends(matrices, f, mean)
        intervals[name] = float(low), float(high)
    return Report(
        subject=subject,
        truth=truth,
        images=len(per_image),
        labels=labels,
        confusion=pooled,
        iou=c.iou(pooled),
        dice=c.dice(pooled),
        share=c.class_shares(pooled),
        scores={name: {**pooled_scores, **mean_scores}[name] for name in kinds},
        intervals=intervals,
        iou_intervals=np.stack(ends(per_image, c.iou), -1),
        trimap_width=trimap_width,
        ignored=1 - float(pooled.sum()) / stream.pixels,
        bootstrap=bootstrap,
        level=level,
        seed=seed,
        truth_error=truth_error,
        coverage=stream.coverage(per_image),
        calibration_error=stream.reliability.error() if stream.confident else None,
        reliability=stream.reliability.bins() if stream.confident else None,
        worst=list(stream.worst_cases()),
    )


class _Stream:
    """The counts and worst images of the batches seen so far."""

    def __init__(self, labels: LabelMap, trimap_width: int, worst: int) -> None:
        self.classes, self.width, self.keep = len(labels), trimap_width, worst
        self.matrices: list[np.ndarray] = []
        self.trimaps: list[np.ndarray] = []
        self.uncertainty: list[np.ndarray] | None = []
        self.reliability, self.confident = Reliability(), True
        self.pixels = self.count = 0
        self._heap: list[tuple[float, int, Case]] = []  # by (-mIoU, -index): the best of the worst lies on top

    def add(
        self,
        predicted: Array,
        truth: Array,
        image: Array | None = None,
        uncertainty: Array | None = None,
        confidence: Array | None = None,
    ) -> None:
        predicted, truth = c.tensor(predicted), c.tensor(truth)
        if not len(predicted) and not len(truth):
            return
        matrices = c.per_image_confusion(predicted, truth, self.classes)
        trimaps = per_image_trimap_confusion(predicted, truth.to(predicted.device), self.classes, self.width)
        self.matrices.append(matrices.astype(np.int32))
        self.trimaps.append(trimaps.astype(np.int32))
        if uncertainty is None:
            self.uncertainty = None
        elif self.uncertainty is not None:
            self.uncertainty.append(c.tensor(uncertainty).cpu().numpy())
        if confidence is None:
            self.confident = False
        else:
            self.reliability.add(confidence, predicted, truth)
        self.pixels += truth.numel()
        for i, miou in enumerate(c.mean_iou(matrices).tolist()):
            self._offer(self.count + i, miou, truth[i], predicted[i], None if image is None else image[i])
        self.count += len(matrices)

    def _offer(self, index: int, miou: float, truth: Tensor, predicted: Tensor, image: Array | None) -> None:
        full = len(self._heap) >= self.keep
        if math.isnan(miou) or self.keep < 1 or (full and -miou <= self._heap[0][0]):
            return
        parts = (truth, predicted) if image is None else (truth, predicted, c.tensor(image))
        case = Case(index, miou, *(part.cpu().numpy().astype(np.uint8) for part in parts))  # copies: the batch may go
        (heapq.heapreplace if full else heapq.heappush)(self._heap, (-miou, -index, case))

    def coverage(self, per_image: np.ndarray) -> list[tuple[float, float, float, float]] | None:
        """Rows of `coverage_curve`; None unless every sample came with its uncertainty."""
        if self.uncertainty is None:
            return None
        return coverage_curve(per_image, np.concatenate(self.uncertainty))

    def worst_cases(self) -> Iterator[Case]:
        for _, _, case in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1])):
            yield case


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    """Arrays to lists, numpy numbers to Python's, nan and infinities to None, all the way down."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
