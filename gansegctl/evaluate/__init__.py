"""Scores: confusion matrices and the IoU family, trimaps, bootstrap intervals, and the report that gathers them."""

from __future__ import annotations

from gansegctl.evaluate.bootstrap import interval
from gansegctl.evaluate.confusion import (
    class_shares,
    dice,
    foreground_miou,
    iou,
    mean_iou,
    per_image_confusion,
    pixel_accuracy,
    wiou_manerikar,
    wiou_manerikar_maximum,
    wiou_tritrong,
)
from gansegctl.evaluate.matching import assignment, match_segments
from gansegctl.evaluate.report import CLASS_COLUMNS, SCORE_COLUMNS, Case, Report, score
from gansegctl.evaluate.trimap import band, trimap_confusion

__all__ = [
    "CLASS_COLUMNS",
    "SCORE_COLUMNS",
    "Case",
    "Report",
    "assignment",
    "band",
    "class_shares",
    "dice",
    "foreground_miou",
    "interval",
    "iou",
    "match_segments",
    "mean_iou",
    "per_image_confusion",
    "pixel_accuracy",
    "score",
    "trimap_confusion",
    "wiou_manerikar",
    "wiou_manerikar_maximum",
    "wiou_tritrong",
]
