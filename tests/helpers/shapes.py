"""Masks with holes, thin parts and ignored pixels; and a reader of polygons that owes nothing to their writer."""

from __future__ import annotations

import numpy as np

CLASSES = 4


def smooth_mask(seed: int, size: int = 48) -> np.ndarray:
    """uint8 [size,size] of CLASSES classes: the largest of so many blurred noises; a corner is ignored."""
    noise = np.random.default_rng(seed).standard_normal((CLASSES, size, size))
    for _ in range(6):
        noise = sum(np.roll(noise, s, axis) for axis in (1, 2) for s in (-1, 0, 1))
    mask = noise.argmax(0).astype(np.uint8)
    mask[:3, :3] = 255
    return mask


def fill_even_odd(polygon, height: int, width: int) -> np.ndarray:
    """bool [H,W]: pixels whose centres lie inside, by counting borders to their left."""
    points = np.asarray(polygon, float).reshape(-1, 2)
    ys = np.arange(height) + 0.5 + 1e-9
    crossed = np.zeros((height, width), int)
    for (xa, ya), (xb, yb) in zip(points, np.roll(points, -1, 0), strict=True):
        rows = np.flatnonzero((ys >= min(ya, yb)) & (ys < max(ya, yb)))
        if len(rows):
            at = xa + (ys[rows] - ya) / (yb - ya) * (xb - xa)
            crossed[rows] += np.arange(width)[None] + 0.5 > at[:, None]
    return crossed % 2 == 1


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """1 for two empty regions."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
