"""The coverage-quality curve: what is kept, what an oracle would keep, and how a report carries it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gansegctl.errors import UsageError
from gansegctl.evaluate.coverage import SHARES, coverage_curve, gain
from gansegctl.evaluate.report import score
from gansegctl.labels import LabelMap
from gansegctl.visualize.charts import COLOURS

LABELS = LabelMap(("a", "b"))


def matrices(rights):
    """One [2,2] matrix a sample with that share of 100 pixels a class right."""
    return np.array([[[r, 100 - r], [100 - r, r]] for r in rights])


def test_the_least_certain_are_left_out_first():
    rights = [90, 50, 80, 60]
    curve = coverage_curve(matrices(rights), np.array([0.1, 0.9, 0.2, 0.8]), shares=(1.0, 0.75, 0.5, 0.25))
    assert [round(accuracy, 9) for _, _, accuracy, _ in curve] == [0.7, round(230 / 300, 9), 0.85, 0.9]
    for _, miou, accuracy, oracle in curve:
        assert miou == pytest.approx(accuracy / (2 - accuracy)) and oracle == pytest.approx(miou)


def test_an_uncertainty_that_says_nothing_gains_nothing_and_a_wrong_one_loses():
    rights = np.arange(50, 90)
    wrong = coverage_curve(matrices(rights), rights.astype(float))  # most certain where it is worst
    right = coverage_curve(matrices(rights), -rights.astype(float))
    assert gain(wrong) < 0 < gain(right) and gain(right) == pytest.approx(right[2][1] - right[0][1])
    assert all(oracle >= miou for _, miou, _, oracle in (*wrong, *right))
    assert [row[0] for row in right] == list(SHARES)


def test_a_sample_without_a_score_is_the_least_certain():
    curve = coverage_curve(matrices([10, 90]), np.array([np.nan, 0.9]), shares=(1.0, 0.5))
    assert curve[1][2] == pytest.approx(0.9)
    with pytest.raises(UsageError, match="one of each"):
        coverage_curve(matrices([10, 90]), np.zeros(3))


def stream(with_scores):
    """Ten samples, ever worse; one batch a sample."""
    truth = np.tile(np.arange(100) % 2, (10, 1)).reshape(10, 10, 10)
    for i in range(10):
        found = truth[i].copy()
        found[:i] = 1 - found[:i]
        image = np.zeros((1, 10, 10, 3), np.uint8)
        yield (found[None], truth[i : i + 1], image, np.array([i / 10]))[: 4 if with_scores else 3]


def test_a_report_has_the_curve_where_every_sample_has_a_score(tmp_path):
    report = score(stream(True), LABELS, bootstrap=0)
    assert report.coverage[0][1] == pytest.approx(report.miou) and report.coverage[-1][1] == 1.0
    assert json.loads(json.dumps(report.to_json()))["coverage"][-1][0] == 0.1
    names = [p.name for p in report.write_images(tmp_path)]
    assert "coverage.png" in names
    drawn = np.asarray(Image.open(tmp_path / "coverage.png").convert("RGB")).reshape(-1, 3)
    assert (drawn == COLOURS[1]).all(1).sum() > 500  # the oracle's line, which here covers the other
    without = score(stream(False), LABELS, bootstrap=0)
    assert without.coverage is None and "coverage.png" not in [p.name for p in without.write_images(tmp_path / "b")]
