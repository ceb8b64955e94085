"""Intervals: against a plain loop of resamples, and in the cases that have a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from gansegctl.errors import UsageError
from gansegctl.evaluate import bootstrap
from gansegctl.evaluate.bootstrap import interval
from gansegctl.evaluate.confusion import iou, mean_iou, pixel_accuracy, wiou_manerikar, wiou_manerikar_each


def matrices(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 50, (n, 3, 3)).astype(np.int32)


def resamples(n: int, samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(n, size=(samples, n))


def test_pooled_interval_against_a_loop():
    data = matrices(7)
    values = [float(mean_iou(data[rows].sum(0))) for rows in resamples(7, 200, seed=3)]
    low, high = interval(data, mean_iou, samples=200, level=0.9, seed=3)
    assert (low, high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])))
    assert low < float(mean_iou(data.sum(0))) < high


def test_averaged_interval_against_a_loop():
    data = matrices(6, seed=1)
    data[2] = 0  # an image without a counted pixel is left out of the mean
    values = [wiou_manerikar(data[rows]) for rows in resamples(6, 150, seed=4)]
    ends = interval(data, wiou_manerikar_each, samples=150, seed=4, average=True)
    assert ends == pytest.approx(tuple(np.nanquantile(values, [0.025, 0.975])))


def test_statistics_with_a_value_a_class():
    data = matrices(5)
    low, high = interval(data, iou, samples=100)
    assert low.shape == high.shape == (3,) and (low < high).all()


def test_a_class_that_never_occurs_is_nan_and_a_rare_one_is_not():
    data = matrices(5)
    data[:, 2], data[:, :, 2] = 0, 0
    data[1:, 1], data[1:, :, 1] = 0, 0  # class 1 occurs in the first image alone: absent from a third of the resamples
    low, high = interval(data, iou, samples=100)
    assert np.isnan(low[2]) and np.isnan(high[2])
    assert np.isfinite(low[:2]).all() and np.isfinite(high[:2]).all()


def test_equal_images_have_no_spread():
    data = np.repeat(matrices(1), 9, axis=0)
    low, high = interval(data, pixel_accuracy, samples=50)
    assert low == high == pytest.approx(float(pixel_accuracy(data[0])))


def test_one_image_has_no_interval():
    assert all(np.isnan(end) for end in interval(matrices(1), mean_iou, samples=20))
    assert all(np.isnan(end).all() for end in interval(matrices(1), iou, samples=20))


def test_seeds_and_levels():
    data = matrices(8)
    assert interval(data, mean_iou, seed=1) == interval(data, mean_iou, seed=1)
    assert interval(data, mean_iou, seed=1) != interval(data, mean_iou, seed=2)
    wide, narrow = interval(data, mean_iou, level=0.99), interval(data, mean_iou, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_result_does_not_depend_on_how_resamples_are_chunked(monkeypatch):
    data = matrices(5)
    whole = interval(data, mean_iou, samples=30)
    monkeypatch.setattr(bootstrap, "_CHUNK_BYTES", 8 * 5 * 7)  # seven resamples at a time
    assert interval(data, mean_iou, samples=30) == whole


@pytest.mark.parametrize(("n", "options"), [(0, {}), (3, {"samples": 0}), (3, {"level": 1.0}), (3, {"level": 0.0})])
def test_what_cannot_be_resampled_is_refused(n, options):
    with pytest.raises(UsageError):
        interval(matrices(n), mean_iou, **options)


def test_coverage_of_a_known_mean():
    """About 95 % of the intervals of images drawn from one distribution hold its true accuracy."""
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(60):
        right = random.binomial(100, random.beta(8, 2, size=40))
        data = np.zeros((40, 2, 2), np.int64)
        data[:, 0, 0], data[:, 0, 1] = right, 100 - right
        low, high = interval(data, pixel_accuracy, samples=200, seed=trial)
        hits += low <= 0.8 <= high
    assert 50 <= hits <= 60
