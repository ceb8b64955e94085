"""Run lengths and polygons: exact, whatever the region looks like."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers.shapes import fill_even_odd, smooth_mask
from PIL import Image, ImageDraw

from gansegctl.io import rle
from gansegctl.store.export.contours import components, polygons

RING = np.pad(np.pad(np.zeros((1, 1), bool), 1, constant_values=True), 1)
RINGS_IN_RINGS = np.pad(np.pad(np.pad(np.pad(np.ones((2, 2), bool), 2), 2, constant_values=True), 2), 1)


def regions():
    stream = np.random.default_rng(0)
    yield from (np.zeros((3, 4), bool), np.ones((3, 4), bool), np.ones((1, 1), bool), RING, RINGS_IN_RINGS)
    yield np.indices((5, 6)).sum(0) % 2 == 0
    yield ~(np.indices((7, 9)) % 2).all(0)  # a sieve: holes in rows, each joined through its neighbour
    yield from (stream.random(stream.integers(1, 14, 2)) < stream.random() for _ in range(60))
    yield from (smooth_mask(s) == k for s in range(2) for k in range(4))


def test_run_lengths_and_their_text_lose_nothing():
    for region in regions():
        runs = rle.encode(region)
        assert sum(runs) == region.size and sum(runs[1::2]) == region.sum()
        assert rle.from_text(rle.to_text(runs)) == runs
        assert np.array_equal(rle.decode(runs, *region.shape), region)


def test_the_text_is_cocos():
    assert rle.encode(np.array([[0, 1], [1, 1]], bool)) == [1, 3]
    assert rle.to_text([1, 3]) == "13"
    assert rle.to_text([6, 1, 40, 4, 5, 4, 5, 4, 21]) == "61X13mN000`0"  # what pycocotools makes of it


def test_run_lengths_of_another_size_are_refused():
    with pytest.raises(ValueError, match="got runs of 5 pixels; wanted 6"):
        rle.decode([2, 3], 2, 3)


def test_the_box_of_a_region():
    region = np.zeros((6, 8), bool)
    region[2:4, 3] = region[3, 3:7] = True
    assert rle.box(region) == [3, 2, 4, 2]


@pytest.mark.parametrize("inset", [0.0, 0.05])
def test_polygons_cover_the_region_and_nothing_else(inset):
    for region in regions():
        covered = np.zeros(region.shape, int)
        for polygon in polygons(region, inset):
            covered += fill_even_odd(polygon, *region.shape)
        assert np.array_equal(covered, region.astype(int))


def test_there_is_one_polygon_a_connected_part_and_the_parts_are_the_region():
    for region in regions():
        found = list(components(region))
        assert len(found) == len(polygons(region))
        assert np.array_equal(np.sum([p.astype(int) for p in found], axis=0) if found else region * 0, region)
        for part in found:
            assert len(list(components(part))) == 1


def test_pixels_that_touch_at_a_corner_are_two_parts():
    assert len(list(components(np.eye(2, dtype=bool)))) == len(polygons(np.eye(2, dtype=bool))) == 2
    assert polygons(np.ones((2, 3), bool)) == [[(0, 0), (3, 0), (3, 2), (0, 2)]]


def area(polygon) -> float:
    x, y = np.asarray(polygon).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def test_holes_do_not_count_as_area():
    """Trainers that compute areas by the shoelace rule get the region's."""
    for region in regions():
        assert sum(area(p) for p in polygons(region)) == pytest.approx(region.sum())


def test_those_who_fill_with_the_border_get_the_region_from_inset_corners():
    """Pillow fills as OpenCV's fillPoly does: integer corners, border included."""
    for region in regions():
        image = Image.new("1", region.shape[::-1])
        for polygon in polygons(region, 0.05):
            if len({(int(x), int(y)) for x, y in polygon}) > 1:
                ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in polygon], fill=1, outline=1)
            else:
                image.putpixel(tuple(int(v) for v in polygon[0]), 1)
        assert np.array_equal(np.asarray(image), region)


def test_parts_come_one_by_one():
    speckle = np.indices((256, 256)).sum(0) % 2 == 0
    tracemalloc.start()
    try:
        count = sum(1 for _ in components(speckle))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 32768 and peak < 32_000_000  # all at once: 2 GB
