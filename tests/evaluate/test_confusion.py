"""Scores by hand on tiny masks, and against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gansegctl.errors import UsageError
from gansegctl.evaluate.confusion import (
    class_shares,
    confusion,
    dice,
    iou,
    mean_iou,
    per_image_confusion,
    pixel_accuracy,
    wiou_manerikar,
    wiou_manerikar_maximum,
    wiou_tritrong,
)

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
PREDICTED = np.array([[0, 1, 1, 1], [0, 0, 0, 2]], np.uint8)
# Counted: 7 pixels; class 3 is absent from both, class 2 only predicted on an ignored pixel.
MATRIX = np.array([[3, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def random_masks(seed: int, n: int = 4, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (n, 6, 7), dtype=np.uint8)
    predicted = np.where(random.random(truth.shape) < 0.6, truth, random.integers(0, classes, truth.shape)).astype(
        np.uint8
    )
    truth[random.random(truth.shape) < 0.1] = 255
    predicted[random.random(truth.shape) < 0.05] = 255
    return predicted, truth


def test_confusion_by_hand():
    result = confusion(PREDICTED, TRUTH, 4)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, MATRIX)
    np.testing.assert_array_equal(confusion(TRUTH, PREDICTED, 4), MATRIX.T)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_per_image_confusion_against_a_loop_over_pixels(kind):
    predicted, truth = random_masks(0)
    wanted = np.zeros((4, 5, 5), np.int64)
    for (n, y, x), t in np.ndenumerate(truth):
        if t != 255 and predicted[n, y, x] != 255:
            wanted[n, t, predicted[n, y, x]] += 1
    np.testing.assert_array_equal(per_image_confusion(kind(predicted), kind(truth), 5), wanted)
    np.testing.assert_array_equal(confusion(kind(predicted), kind(truth), 5), wanted.sum(0))


def test_another_ignore_value_and_wide_integers():
    truth = torch.tensor([[[0, 1], [-1, 1]]])
    predicted = torch.tensor([[[0, 0], [1, 1]]])
    assert per_image_confusion(predicted, truth, 2, ignore=-1).tolist() == [[[1, 0], [1, 1]]]


def test_arrays_that_must_not_be_written_are_read():
    predicted, truth = PREDICTED.copy(), TRUTH.copy()
    predicted.flags.writeable = truth.flags.writeable = False
    np.testing.assert_array_equal(confusion(predicted, truth, 4), MATRIX)


def test_no_image_gives_no_matrix():
    nothing = np.zeros((0, 4, 4), np.uint8)
    assert per_image_confusion(nothing, nothing, 3).shape == (0, 3, 3)


def test_values_that_are_no_class_are_refused_on_either_side():
    with pytest.raises(UsageError, match="mask values 1, 2 in the prediction"):
        confusion(PREDICTED, np.zeros_like(TRUTH), 1)
    with pytest.raises(UsageError, match="mask values 1 in the truth"):
        confusion(np.zeros_like(TRUTH), TRUTH, 1)
    with pytest.raises(UsageError, match="mask values -1"):
        confusion(np.zeros((2, 2), int), np.full((2, 2), -1), 3)


def test_shapes_that_differ_are_refused():
    with pytest.raises(UsageError, match="one shape"):
        confusion(PREDICTED[:, :3], TRUTH, 4)
    with pytest.raises(UsageError, match=r"\[N, H, W\]"):
        per_image_confusion(PREDICTED, TRUTH, 4)
    with pytest.raises(UsageError, match="confusion matrix of shape"):
        iou(np.zeros((3, 4)))


def test_scores_by_hand():
    np.testing.assert_allclose(iou(MATRIX), [3 / 5, 2 / 4, np.nan, np.nan])
    np.testing.assert_allclose(dice(MATRIX), [6 / 8, 4 / 6, np.nan, np.nan])
    np.testing.assert_allclose(class_shares(MATRIX), [4 / 7, 3 / 7, 0, 0])
    assert mean_iou(MATRIX) == pytest.approx(0.55)
    assert pixel_accuracy(MATRIX) == pytest.approx(5 / 7)
    assert wiou_tritrong(MATRIX) == pytest.approx(4 / 7 * 0.6 + 3 / 7 * 0.5)
    assert wiou_tritrong(MATRIX, background=False) == pytest.approx(0.5)
    assert wiou_manerikar(MATRIX[None]) == pytest.approx(3 / 7 * 0.5)
    assert wiou_manerikar_maximum(MATRIX[None]) == pytest.approx(3 / 7)


def test_an_absent_class_is_nan_and_a_hallucinated_one_is_0():
    hallucinated = np.array([[4, 0, 2], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(iou(hallucinated), [4 / 6, np.nan, 0])
    assert mean_iou(hallucinated) == pytest.approx(2 / 6)
    assert wiou_tritrong(hallucinated) == pytest.approx(4 / 6)
    assert np.isnan(wiou_tritrong(hallucinated, background=False))  # the truth has no foreground
    assert wiou_manerikar(hallucinated[None]) == 0


def test_nothing_counted_is_nan_everywhere():
    empty = np.zeros((3, 3), int)
    for statistic in (mean_iou, pixel_accuracy, wiou_tritrong):
        assert np.isnan(statistic(empty))
    assert np.isnan(class_shares(empty)).all() and np.isnan(iou(empty)).all()
    assert np.isnan(wiou_manerikar(empty[None]))


def test_iou_against_sets_of_pixels():
    predicted, truth = random_masks(1)
    counted = (truth != 255) & (predicted != 255)
    for k, value in enumerate(iou(confusion(predicted, truth, 5))):
        mine, theirs = counted & (predicted == k), counted & (truth == k)
        assert value == pytest.approx((mine & theirs).sum() / (mine | theirs).sum())


def test_scores_are_vectorised_over_leading_dimensions():
    matrices = per_image_confusion(*random_masks(2), 5).reshape(2, 2, 5, 5)
    for statistic in (iou, dice, mean_iou, wiou_tritrong, pixel_accuracy, class_shares):
        whole = statistic(matrices)
        assert whole.shape[:2] == (2, 2)
        for i in range(2):
            for j in range(2):
                np.testing.assert_array_equal(whole[i, j], statistic(matrices[i, j]))


def test_wiou_tritrong_weights_add_up_to_1():
    predicted, truth = random_masks(3)
    perfect = confusion(truth, truth, 5)
    assert wiou_tritrong(perfect) == pytest.approx(1) and wiou_tritrong(perfect, background=False) == pytest.approx(1)
    matrix = confusion(predicted, truth, 5)
    pixels = matrix.sum(1)
    assert wiou_tritrong(matrix) == pytest.approx(np.average(iou(matrix), weights=pixels))
    assert wiou_tritrong(matrix, background=False) == pytest.approx(np.average(iou(matrix)[1:], weights=pixels[1:]))


def test_wiou_manerikar_is_a_mean_over_images_with_the_foreground_share_as_its_maximum():
    predicted, truth = random_masks(4)
    matrices = per_image_confusion(predicted, truth, 5)
    wanted = []
    for p, t in zip(predicted, truth, strict=True):
        counted = (p != 255) & (t != 255)
        total = 0.0
        for k in range(1, 5):
            a, b = counted & (p == k), counted & (t == k)
            total += b.sum() / counted.sum() * ((a & b).sum() / (a | b).sum() if (a | b).any() else 0)
        wanted.append(total)
    assert wiou_manerikar(matrices) == pytest.approx(np.mean(wanted))
    perfect = per_image_confusion(truth, truth, 5)
    assert wiou_manerikar(perfect) == pytest.approx(wiou_manerikar_maximum(perfect))
    assert wiou_manerikar(perfect) == pytest.approx(np.mean([(t[t != 255] > 0).mean() for t in truth]))
    assert wiou_manerikar(perfect) < 1
