"""Calibration: pixels counted by confidence, the mean distance from being right, and how a report carries it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gansegctl.evaluate.calibration import BINS, Reliability
from gansegctl.evaluate.report import score
from gansegctl.labels import IGNORE, LabelMap

LABELS = LabelMap(("a", "b"))


def counted(confidence, right, ignored=()):
    """Pixels in one row: truth 0, predicted 0 where right."""
    truth = torch.zeros(1, 1, len(confidence), dtype=torch.uint8)
    predicted = torch.tensor([0 if r else 1 for r in right], dtype=torch.uint8).view_as(truth)
    truth[0, 0, list(ignored)] = IGNORE
    found = Reliability()
    found.add(np.array(confidence, np.uint8).reshape(1, 1, -1), predicted, truth)
    return found


def test_the_error_is_the_mean_distance_weighed_by_pixels():
    # three sure pixels of which two are right; one of 51/255 = 0.2 that is right
    found = counted([255, 255, 255, 51], [True, True, False, True])
    assert found.bins() == [(pytest.approx(0.2), 1.0, 0.25), (1.0, pytest.approx(2 / 3), 0.75)]
    assert found.error() == pytest.approx(0.25 * 0.8 + 0.75 / 3)


def test_confidence_that_holds_has_no_error_and_what_is_ignored_is_not_counted():
    found = counted([255, 255, 255], [True, True, False], ignored=[2])
    assert found.error() == 0 and found.bins() == [(1.0, 1.0, 1.0)]
    assert np.isnan(Reliability().error()) and Reliability().bins() == []
    ignored_by_subject = Reliability()
    sure, predicted = torch.full((1, 1, 2), 9), torch.tensor([[[IGNORE, 0]]])
    ignored_by_subject.add(sure, predicted, torch.zeros(1, 1, 2, dtype=torch.int64))
    assert ignored_by_subject.pixels.sum() == 1


def test_every_confidence_has_a_bin():
    found = counted(list(range(256)), [True] * 256)
    assert len(found.bins()) == BINS
    assert sum(share for *_, share in found.bins()) == pytest.approx(1)
    means = [mean for mean, *_ in found.bins()]
    assert means == sorted(means)


def batches(with_confidence):
    stream = np.random.RandomState(0)
    for _ in range(3):
        truth = stream.randint(0, 2, (2, 8, 8)).astype(np.uint8)
        confidence = stream.randint(128, 256, (2, 8, 8)).astype(np.uint8)
        wrong = stream.rand(2, 8, 8) > confidence / 255  # calibrated by its making
        found = np.where(wrong, 1 - truth, truth)
        yield (found, truth, np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2), confidence)[: 5 if with_confidence else 4]


def test_a_report_has_it_where_every_pixel_has_a_confidence(tmp_path):
    report = score(batches(True), LABELS, bootstrap=0)
    assert report.calibration_error < 0.15  # 384 pixels in eight bins
    told = json.loads(json.dumps(report.to_json()))
    assert told["calibration_error"] == pytest.approx(report.calibration_error) and len(told["reliability"]) == 8
    assert "reliability.png" in [p.name for p in report.write_images(tmp_path)]
    without = score(batches(False), LABELS, bootstrap=0)
    assert without.calibration_error is None and without.reliability is None
    assert "reliability.png" not in [p.name for p in without.write_images(tmp_path / "b")]
    mixed = score([*batches(True), *batches(False)], LABELS, bootstrap=0)
    assert mixed.calibration_error is None  # of all pixels or of none
