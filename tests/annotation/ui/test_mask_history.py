"""Strokes on a mask, undo and redo, against whole copies of the mask."""

from __future__ import annotations

import numpy as np
import pytest

from gansegctl.annotation.ui.mask_history import MaskHistory, decode, encode
from gansegctl.errors import UsageError


def test_nothing_is_painted_at_first():
    history = MaskHistory((2, 3), 4)
    assert history.mask.tolist() == [[255] * 3] * 2
    assert (history.painted, history.changes, history.undo(), history.redo()) == (0.0, 0, False, False)


def test_strokes_undo_and_redo_walk_through_the_same_masks():
    rng = np.random.default_rng(0)
    history, masks = MaskHistory((6, 7), 5), []
    masks.append(history.mask.copy())
    for _ in range(20):
        bits = rng.random(42) < 0.3
        edges = np.flatnonzero(np.diff(np.concatenate([[0], bits.astype(int), [0]])))
        runs = np.stack([edges[::2], edges[1::2] - edges[::2]], axis=1).ravel().tolist()
        value = int(rng.choice([0, 1, 4, 255]))
        wanted = masks[-1].copy()
        wanted.ravel()[bits] = value
        history.paint(value, runs)
        np.testing.assert_array_equal(history.mask, wanted)
        masks.append(wanted)
    for mask in masks[-2::-1]:
        assert history.undo()
        np.testing.assert_array_equal(history.mask, mask)
    assert (history.undoable, history.redoable) == (0, 20)
    for mask in masks[1:]:
        assert history.redo()
        np.testing.assert_array_equal(history.mask, mask)
    assert history.changes == 60


def test_a_new_stroke_forgets_what_was_taken_back():
    history = MaskHistory((2, 2), 2)
    history.paint(1, [0, 1])
    history.undo()
    history.paint(0, [1, 1])
    assert not history.redo()
    assert history.mask.tolist() == [[255, 0], [255, 255]]


def test_replacing_the_whole_mask_is_one_stroke():
    history = MaskHistory((2, 3), 3)
    history.paint(1, [0, 2])
    history.replace([2, 4, 255, 2])
    assert history.mask.tolist() == [[2, 2, 2], [2, 255, 255]]
    history.undo()
    assert history.mask.tolist() == [[1, 1, 255], [255] * 3]


def test_runs_and_masks_are_each_others_inverse():
    mask = np.random.default_rng(1).integers(0, 3, (9, 5), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode(mask), 45), mask.ravel())
    assert encode(np.zeros((2, 2), np.uint8)) == [0, 4]


@pytest.mark.parametrize(
    ("value", "runs"),
    [
        (3, [0, 1]), (-1, [0, 1]), ("1", [0, 1]), (True, [0, 1]), (None, [0, 1]), (1.0, [0, 1]),
        (1, [0]), (1, [0, 0]), (1, [-1, 2]), (1, [5, 2]), (1, [0, 3, 2, 1]), (1, [3, 1, 0, 1]), (1, [0, "1"]),
        (1, [0, 1.5]), (1, "0,1"), (1, None), (1, [0, 10**30]), (1, {"0": 1}), (1, [[0, 1], [2, 1]]), (1, [False, 1]),
    ],
)  # fmt: skip
def test_strokes_that_cannot_be_are_refused(value, runs):
    history = MaskHistory((2, 3), 3)
    with pytest.raises(UsageError):
        history.paint(value, runs)
    assert (history.changes, history.painted) == (0, 0.0)


@pytest.mark.parametrize("runs", [[0, 5], [0, 7], [0, 3, 1], [3, 6], [0, 0, 1, 6], [-1, 6], [300, 6], None, [0, "6"]])
def test_masks_that_cannot_be_are_refused(runs):
    history = MaskHistory((2, 3), 3)
    with pytest.raises(UsageError):
        history.replace(runs)
    assert history.changes == 0
