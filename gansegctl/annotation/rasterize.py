"""Outlines → pixels, one rule for all formats: a pixel belongs to a shape when its centre lies inside.

Coordinates are in pixels, (0, 0) the top left corner of the top left pixel, as canvases and COCO count; the centre of
pixel (x, y) is (x + 0.5, y + 0.5). Where a shape crosses itself the even-odd rule holds, as in the tools' own
converters; parts beyond the image are cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_ROWS = 4_000_000  # crossings held at once


def polygon(points: Sequence[Sequence[float]] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Closed polygon [(x, y), …] → bool [H,W]. A centre exactly on a left or upper border is inside, else outside."""
    height, width = size
    a = np.asarray(points, np.float64).reshape(-1, 2)
    b = np.roll(a, -1, axis=0)
    up = a[:, 1] > b[:, 1]
    top, bottom = np.where(up[:, None], b, a), np.where(up[:, None], a, b)
    first = np.clip(np.ceil(top[:, 1] - 0.5), 0, height).astype(np.int64)  # rows whose centre lies in [top, bottom)
    last = np.clip(np.ceil(bottom[:, 1] - 0.5), 0, height).astype(np.int64)
    count = last - first
    turns = np.zeros((height, width + 1), np.int64)
    crossing = np.flatnonzero(count > 0)
    for block in np.array_split(crossing, max(1, int(count[crossing].sum()) // _ROWS + 1)):
        n = count[block]
        edge = np.repeat(block, n)
        row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(n) - n, n)
        slope = (bottom[edge, 0] - top[edge, 0]) / (bottom[edge, 1] - top[edge, 1])
        x = top[edge, 0] + slope * (row + 0.5 - top[edge, 1])
        np.add.at(turns, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)), 1)
    return np.cumsum(turns[:, :width], axis=1) % 2 == 1


def ellipse(
    centre: tuple[float, float], radii: tuple[float, float], size: tuple[int, int], degrees: float = 0.0
) -> np.ndarray:
    """An ellipse, turned clockwise by `degrees` about its centre → bool [H,W]."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = x - centre[0], y - centre[1]
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, across = c * x + s * y, c * y - s * x
    rx, ry = max(radii[0], 1e-9), max(radii[1], 1e-9)
    return (along / rx) ** 2 + (across / ry) ** 2 <= 1.0


def rectangle(
    corner: tuple[float, float], sides: tuple[float, float], size: tuple[int, int], degrees: float = 0.0
) -> np.ndarray:
    """A rectangle (top left corner; width and height), turned clockwise about that corner → bool [H,W]."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    offsets = ((0.0, 0.0), (sides[0], 0.0), (sides[0], sides[1]), (0.0, sides[1]))
    return polygon([(corner[0] + c * u - s * v, corner[1] + s * u + c * v) for u, v in offsets], size)
