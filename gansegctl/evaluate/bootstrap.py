"""Confidence intervals by resampling images with replacement (the percentile bootstrap, Efron 1979).

They say how much a score owes to which images were drawn. They do not cover the spread over fits with other seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gansegctl.errors import UsageError

_CHUNK_BYTES = 64 << 20


def _quantiles(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Both ends along the first axis, leaving nan out: a rare class is missing from some resamples."""
    flat = values.reshape(len(values), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    for column in range(flat.shape[1]):
        there = flat[~np.isnan(flat[:, column]), column]
        if there.size:
            ends[:, column] = np.quantile(there, [(1 - level) / 2, (1 + level) / 2])
    return ends[0].reshape(values.shape[1:]), ends[1].reshape(values.shape[1:])


def interval(
    per_image: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    average: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of a score over images: matrices [N, K, K] → (low, high), each [] or [K] as `statistic` gives.

    statistic: [S, K, K] → [S] or [S, K]. It is applied to the summed matrices of each resample; with `average` to each
    image, and the values are averaged over the resampled images (for scores defined per image, such as
    `wiou_manerikar_each`). One image says nothing of the spread between images: its interval is (nan, nan).
    Errors: UsageError for no images, for samples below 1 and for a level outside (0, 1).
    """
    per_image = np.asarray(per_image)
    n = len(per_image)
    if n == 0:
        raise UsageError("got no images to resample", wanted="at least one confusion matrix")
    if samples < 1 or not 0 < level < 1:
        raise UsageError(f"got {samples} resamples at level {level}", wanted="1 or more, and a level between 0 and 1")
    each = np.asarray(statistic(per_image)) if average else None
    random = np.random.default_rng(seed)
    flat = per_image.reshape(n, -1).astype(np.float64)  # sums of pixel counts are exact up to 2^53
    step = max(1, _CHUNK_BYTES // (8 * n))
    values = []
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn = random.integers(n, size=(rows, n)) + np.arange(rows)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)  # how often each image was drawn
        if each is None:
            values.append(np.asarray(statistic((counts @ flat).reshape(rows, *per_image.shape[1:]))))
        else:
            values.append(_weighted_mean(counts, each))
    low, high = _quantiles(np.concatenate(values), level)
    if n == 1:
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    return low, high


def _weighted_mean(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means of values [N, ...] with weights [S, N], leaving nan out: [S, ...]."""
    there = ~np.isnan(values)
    total = np.tensordot(counts, np.where(there, values, 0.0), axes=1)
    weight = np.tensordot(counts, there.astype(np.float64), axes=1)
    return np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
