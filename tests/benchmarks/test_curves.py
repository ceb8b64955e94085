"""Learning curves: how many labels a score is worth, and an image of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.real.curves import labels_to_match, learning_curve
from gansegctl.errors import UsageError
from gansegctl.visualize.charts import COLOURS

CURVE = [(50, 0.6), (5, 0.4), (200, 0.8)]


def test_labels_to_match_reads_the_curve_over_the_logarithm():
    assert labels_to_match(CURVE, 0.5)[0] == pytest.approx(math.sqrt(5 * 50))
    assert labels_to_match(CURVE, 0.5)[1] == "16"
    assert labels_to_match(CURVE, 0.6)[0] == pytest.approx(50)
    assert labels_to_match(CURVE, 0.4) == (5.0, "5")


def test_scores_beyond_the_curve_say_so():
    assert labels_to_match(CURVE, 0.3) == (0.0, "< 5")
    assert labels_to_match(CURVE, 0.9) == (math.inf, "> 200")
    with pytest.raises(UsageError):
        labels_to_match([], 0.5)


def test_a_dip_does_not_hide_an_earlier_match():
    assert labels_to_match([(5, 0.4), (10, 0.7), (50, 0.6)], 0.65)[0] < 10


def test_every_line_is_drawn_with_its_spread():
    series = {"supervised": [(5, 0.4, 0.02), (50, 0.6, 0.0)], "repurpose": [(1, 0.5, 0.2)]}
    pixels = np.asarray(learning_curve(series, "a title"))
    assert (pixels == COLOURS[0]).all(axis=2).sum() > 200  # a line
    single = np.argwhere((pixels == COLOURS[1]).all(axis=2))
    assert np.ptp(single[single[:, 1] < 200][:, 0]) > 100  # the bar of one point


def test_what_cannot_be_drawn_is_refused():
    for series in ({}, {"a": []}, {"a": [(0, 0.5, 0)]}):
        with pytest.raises(UsageError):
            learning_curve(series, "")
