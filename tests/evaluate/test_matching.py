"""Matching: the assignment against all permutations, clusters against classes by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from gansegctl.errors import UsageError
from gansegctl.evaluate.confusion import confusion, foreground_miou, mean_iou
from gansegctl.evaluate.matching import are_segments, assignment, match_segments, overlap_of
from gansegctl.labels import LabelMap


def best(gain):
    rows, columns = gain.shape
    if rows > columns:
        return best(gain.T)
    return max(sum(gain[i, c] for i, c in enumerate(chosen)) for chosen in permutations(range(columns), rows))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (5, 5), (2, 6), (6, 2), (4, 5)])
def test_the_assignment_is_the_best_of_all(shape):
    stream = np.random.RandomState(0)
    for kind in range(40):
        gain = stream.randn(*shape) if kind % 2 else stream.randint(-3, 4, shape).astype(float)  # ties as well
        found = assignment(gain)
        taken = found[found >= 0]
        assert found.shape == (shape[0],) and len(taken) == len(set(taken.tolist())) == min(shape)
        total = sum(gain[i, c] for i, c in enumerate(found) if c >= 0)
        assert total == pytest.approx(best(gain))


def test_it_is_not_greedy():
    assert assignment(np.array([[10.0, 9.0], [9.0, 0.0]])).tolist() == [1, 0]


def test_a_large_one_is_solved_and_nonsense_refused():
    order = np.random.RandomState(1).permutation(60)
    gain = np.zeros((60, 60))
    gain[np.arange(60), order] = 1.0
    assert np.array_equal(assignment(gain), order)
    for wrong in (np.zeros((0, 3)), np.zeros(3), np.array([[np.nan]])):
        with pytest.raises(UsageError, match="gains"):
            assignment(wrong)


def test_clusters_take_the_classes_they_cover_and_the_rest_join_the_largest():
    overlap = np.array([[90, 5, 0], [2, 40, 1], [60, 0, 0], [0, 3, 8]])
    assert match_segments(overlap).tolist() == [0, 1, 0, 2]
    few = np.array([[10, 50, 0, 0], [80, 3, 0, 2]])
    assert match_segments(few).tolist() == [1, 0]


def test_matching_undoes_a_renaming():
    stream = np.random.RandomState(3)
    truth = stream.randint(0, 5, (4, 9, 9)).astype(np.uint8)
    order = np.array([3, 0, 4, 1, 2], np.uint8)
    renamed = order[truth]
    truth[0, 0] = 255
    overlap = overlap_of(renamed, truth, 5, 5)
    assert overlap.sum() == truth.size - 9
    mapping = match_segments(overlap).astype(np.uint8)
    assert float(mean_iou(confusion(mapping[renamed], truth, 5))) == 1.0


def test_what_is_a_segment():
    assert are_segments(LabelMap(("segment-0", "segment-1")))
    assert not are_segments(LabelMap(("background", "segment-1"))) and not are_segments(LabelMap(("segment-a",)))


def test_foreground_against_background():
    matrix = np.array([[50, 2, 3], [4, 10, 7], [1, 6, 20]])
    two = np.array([[50, 5], [5, 43]])
    assert float(foreground_miou(matrix)) == pytest.approx(float(mean_iou(two)))
    assert foreground_miou(np.stack([matrix, matrix])).shape == (2,)
