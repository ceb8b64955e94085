"""The band against a search of every pixel's neighbourhood."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gansegctl.errors import UsageError
from gansegctl.evaluate.confusion import per_image_confusion
from gansegctl.evaluate.trimap import band, per_image_trimap_confusion


def slow_band(mask: np.ndarray, width: int) -> np.ndarray:
    result = np.zeros(mask.shape, bool)
    for y, x in np.ndindex(mask.shape):
        near = mask[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        result[y, x] = mask[y, x] != 255 and ((near != mask[y, x]) & (near != 255)).any()
    return result


def blocks(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    mask = np.kron(random.integers(0, 4, (3, 3)), np.ones((6, 5), int)).astype(np.uint8)
    mask[random.random(mask.shape) < 0.1] = 255
    return mask


def test_band_of_a_vertical_edge():
    mask = np.zeros((5, 12), np.uint8)
    mask[:, 6:] = 1
    assert band(mask, width=2)[0].tolist() == [False] * 4 + [True] * 4 + [False] * 4


@pytest.mark.parametrize("width", [1, 2, 3])
def test_band_against_a_search(width):
    masks = np.stack([blocks(0), blocks(1)])
    wanted = np.stack([slow_band(mask, width) for mask in masks])
    assert wanted.any() and not wanted.all()
    np.testing.assert_array_equal(band(masks, width).numpy(), wanted)


def test_a_single_pixel_is_a_square_of_chebyshev_distance():
    mask = torch.zeros(9, 9, dtype=torch.uint8)
    mask[4, 4] = 3
    wanted = torch.zeros(9, 9, dtype=torch.bool)
    wanted[2:7, 2:7] = True
    assert torch.equal(band(mask, width=2), wanted)


def test_ignored_pixels_make_no_boundary_and_are_not_in_the_band():
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 255
    assert not band(mask, width=3).any()
    assert not band(np.full((4, 4), 255, np.uint8), width=1).any()


def test_trimap_confusion_counts_the_band_alone():
    truth = np.stack([blocks(2), blocks(3)])
    predicted = np.where(truth == 255, 0, (truth + 1) % 4).astype(np.uint8)
    near = np.stack([slow_band(mask, 1) for mask in truth])
    result = per_image_trimap_confusion(predicted, truth, 4, width=1)
    np.testing.assert_array_equal(result.sum((1, 2)), near.sum((1, 2)))
    np.testing.assert_array_equal(result, per_image_confusion(predicted, np.where(near, truth, 255), 4))


def test_errors_inside_do_not_count_and_errors_on_the_edge_do():
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 1
    inside, edge = truth.copy(), truth.copy()
    inside[:, :3] = 1
    edge[:, 9] = 1
    found = per_image_trimap_confusion(np.stack([inside, edge]), np.stack([truth, truth]), 2)
    assert [np.trace(matrix) for matrix in found] == [6 * 20, 5 * 20]


def test_a_width_of_0_is_refused():
    with pytest.raises(UsageError, match="trimap width of 0"):
        band(np.zeros((4, 4), np.uint8), width=0)
