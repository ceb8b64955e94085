"""Line charts and heat maps: points land where the axes say, ticks are round, and nonsense is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gansegctl.errors import UsageError
from gansegctl.visualize.charts import COLOURS, heat_map, line_chart, round_numbers


def pixels(image, colour):
    """Rows and columns of a colour, left of the names."""
    return np.argwhere((np.asarray(image)[:, :700] == colour).all(-1))


def count(image, colour) -> int:
    """Pixels of a colour."""
    return int((np.asarray(image.convert("RGB")) == colour).all(-1).sum())


def test_a_rising_line_rises_and_every_series_has_its_colour():
    image = line_chart({"up": [(0, 0.0), (1, 0.5), (2, 1.0)], "down": [(0, 1.0), (2, 0.0)]}, "x", "y", "title")
    up, down = pixels(image, COLOURS[0]), pixels(image, COLOURS[1])
    assert np.corrcoef(up[:, 0], up[:, 1])[0, 1] < -0.9  # rows count downwards
    assert np.corrcoef(down[:, 0], down[:, 1])[0, 1] > 0.9


def test_a_logarithmic_axis_spaces_factors_evenly():
    points = [(1, 0.0), (10, 0.0), (100, 1.0)]
    columns = {}
    for log in (True, False):
        found = pixels(line_chart({"a": points}, "x", "y", log_x=log), COLOURS[0])
        columns[log] = sorted({c for r, c in found if r >= np.max(found[:, 0]) - 1})
    middle = [(c[0] + c[-1]) / 2 for c in (columns[True], columns[False])]
    assert middle[0] > middle[1] + 50  # from 1 to 10 is half of the way, not a tenth


def test_an_interval_is_drawn_and_what_is_not_finite_is_left_out():
    spread = line_chart({"a": [(0, 0.0, -1.0, 1.0), (1, 1.0, 0.5, 1.5), (2, math.nan)]}, "x", "y")
    tall = pixels(spread, COLOURS[0])
    first = tall[tall[:, 1] == tall[:, 1].min() + 3]
    assert np.ptp(first[:, 0]) > 100  # the bar of the first point


def test_nothing_to_draw_is_refused():
    with pytest.raises(UsageError, match="a point or more"):
        line_chart({"a": [(0, math.nan)]}, "x", "y")
    with pytest.raises(UsageError, match="positive x"):
        line_chart({"a": [(0, 1.0)]}, "x", "y", log_x=True)


@pytest.mark.parametrize("low, high", [(0, 1), (0.61, 0.93), (-3, 17), (0, 1234), (1e-5, 3e-5)])
def test_ticks_are_round_few_and_inside(low, high):
    ticks = round_numbers(low, high)
    assert 2 <= len(ticks) <= 8 and all(low - 1e-12 <= t <= high + 1e-12 for t in ticks)
    step = ticks[1] - ticks[0]
    assert f"{step:.6e}"[0] in "125" and np.allclose(np.diff(ticks), step)
    assert round_numbers(2, 2) == [2]


def test_heat_map_of_many_classes_stays_small_and_of_few_has_numbers():
    few = heat_map(np.full((2, 2), 0.5), ["a", "b"], rows="truth", columns="predicted")
    zero = heat_map(np.full((2, 2), 0.25), ["a", "b"], rows="truth", columns="predicted")
    many = heat_map(np.full((100, 100), 0.5), [f"class {i}" for i in range(100)], "truth", "predicted")
    middle = tuple(round(255 + (c - 255) * 0.5) for c in (8, 60, 130))
    assert 0.5 * 4 * 45 * 45 < count(few, middle) < 4 * 45 * 45  # the rest is digits
    assert count(many, middle) == 100 * 100 * 13 * 13  # no digits
    assert count(zero, middle) == 0
    assert max(many.size) < 1700
