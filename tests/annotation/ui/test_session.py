"""A session over a journal: state is replay, whatever happens in between; masks go out as they were painted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import backend_of_squares
from helpers.backend_of_squares import LABELS, OFFERED, SEEDS, SIZE, backend, blank_masks, paint, write_mask

from gansegctl.annotation.bundle import saved_masks
from gansegctl.annotation.ui.session import JOURNAL, Session
from gansegctl.errors import GansegError, UsageError
from gansegctl.labels import LabelMap


@pytest.fixture
def session(tmp_path):
    blank_masks(tmp_path)
    opened = Session(tmp_path, backend(), SEEDS)
    yield opened
    opened.close()


def again(session, **changes) -> Session:
    session.close()
    return Session(session.folder, backend(**changes), SEEDS)


def test_blank_masks_are_not_taken_for_paint(session):
    told = session.describe()
    assert [e["painted"] for e in told["exemplars"]] == [0, 0]
    assert [e["why"] for e in told["exemplars"]] == ["because of 5", "because of 9"]
    assert (told["size"], told["revision"], len(told["classes"])) == (list(SIZE), 0, 3)


def test_every_stroke_survives_a_crash_and_can_still_be_taken_back(session):
    session.stroke(paint("a", [0, 40]))
    session.stroke(paint("b", [10, 4], 2))
    session.stroke(paint("c", [0, 192], 0, exemplar=1))
    session.stroke({"kind": "undo", "id": "d", "exemplar": 0})
    session.stroke({"kind": "redo", "id": "e", "exemplar": 0})
    session.stroke({"kind": "undo", "id": "f", "exemplar": 0})
    before = session.masks()
    revived = again(session)
    for seed, mask in before.items():
        np.testing.assert_array_equal(revived.masks()[seed], mask)
    assert revived.describe()["exemplars"] == session.describe()["exemplars"]
    answer = revived.stroke({"kind": "redo", "id": "g", "exemplar": 0})
    assert (answer["undo"], answer["redo"]) == (2, 0)
    assert set(revived.masks()[5].ravel()[10:14]) == {2}
    revived.close()


def test_a_stroke_that_arrives_twice_counts_once_also_after_a_restart(session):
    first = session.stroke(paint("a", [0, 4]))
    assert session.stroke(paint("a", [0, 4])) == first
    session.stroke({"kind": "undo", "id": "u", "exemplar": 0})
    session.stroke({"kind": "undo", "id": "u", "exemplar": 0})
    revived = again(session)
    assert revived.stroke(paint("a", [0, 4]))["changes"] == 2
    assert revived.masks()[5].ravel()[0] == 255
    revived.close()


def test_a_stroke_that_the_disk_does_not_take_is_not_painted(session, monkeypatch):
    def full(record):
        raise GansegError("got no space")

    monkeypatch.setattr(session.journal, "append", full)
    with pytest.raises(GansegError):
        session.stroke(paint("a", [0, 4]))
    monkeypatch.undo()
    assert session.mask(0)["painted"] == 0
    assert session.stroke(paint("a", [0, 4]))["changes"] == 1


@pytest.mark.parametrize(
    "given",
    [
        {}, [], "x", paint("", [0, 1]), paint("x" * 65, [0, 1]), paint(7, [0, 1]), paint("a", [0, 1], 3),
        paint("a", [190, 3]), paint("a", None), paint("a", [0, 1], exemplar=2), paint("a", [0, 1], exemplar=-1),
        paint("a", [0, 1], exemplar="0"), paint("a", [0, 1], exemplar=True), paint("a", [0, 1], kind="format"),
        {"kind": "replace", "id": "a", "exemplar": 0, "runs": [0, 5]}, {"kind": "undo", "id": "a", "exemplar": None},
    ],
)  # fmt: skip
def test_nonsense_is_refused_before_it_is_written(session, given):
    length = session.journal.path.stat().st_size
    with pytest.raises(UsageError):
        session.stroke(given)
    assert (session.journal.path.stat().st_size, session.revision) == (length, 0)


def test_undo_without_a_stroke_is_no_stroke(session):
    assert session.stroke({"kind": "undo", "id": "a", "exemplar": 0})["changes"] == 0


def test_masks_painted_elsewhere_are_taken_over_once_as_a_stroke(tmp_path):
    blank_masks(tmp_path)
    elsewhere = np.zeros(SIZE, np.uint8)
    elsewhere[2:5] = 2
    write_mask(tmp_path, 5, elsewhere)
    session = Session(tmp_path, backend(), SEEDS)
    np.testing.assert_array_equal(session.masks()[5], elsewhere)
    session = again(session)
    assert session.mask(0)["undo"] == 1
    session.stroke({"kind": "undo", "id": "u", "exemplar": 0})
    assert session.mask(0)["painted"] == 0
    session.close()


def test_finish_writes_what_was_painted_and_nothing_else(session):
    with pytest.raises(UsageError, match="no image"):
        session.finish()
    session.stroke(paint("a", [0, 100]))
    session.stroke(paint("b", [100, 50], 2))
    assert session.finish() == (5,)
    mask = saved_masks(session.folder, [5], SIZE, LABELS)[5].ravel()
    assert (set(mask[:100]), set(mask[100:150]), set(mask[150:])) == ({1}, {2}, {255})
    revived = again(session)  # our own file is no news
    assert [e["undo"] for e in revived.describe()["exemplars"]] == [2, 0]
    revived.close()


def test_a_image_on_offer_joins_the_strip_and_stays(session):
    with pytest.raises(UsageError, match="offered"):
        session.add(OFFERED + 1)
    assert session.add(OFFERED)["exemplar"] == 2
    assert session.add(OFFERED)["exemplar"] == 2
    session.stroke(paint("a", [3, 3], exemplar=2))
    revived = again(session)
    assert [p.seed for p in revived.images] == [*SEEDS, OFFERED]
    assert revived.mask(2)["changes"] == 1
    revived.close()


def test_parts_are_split_within_and_keep_all_other_borders(session):
    before = session.parts(0, 1)
    after = session.split(0, 1, 16 * 1 + 1)
    inside = before == before[1, 1]
    assert len(np.unique(after[inside])) == 2
    np.testing.assert_array_equal(after[~inside], before[~inside])
    assert not set(np.unique(after[inside])[1:]) & set(np.unique(before))
    np.testing.assert_array_equal(session.parts(0, 1), after)
    np.testing.assert_array_equal(session.parts(1, 1), backend_of_squares.parts(9, 1))
    for place, level, pixel in ((0, 3, 0), (0, -1, 0), (2, 0, 0), (0, 0, 192), (0, 0, -1), (0, 0, "0"), (0, 0, None)):
        with pytest.raises(UsageError):
            session.split(place, level, pixel)


def test_strokes_of_other_classes_or_sizes_are_refused_with_the_file_named(session):
    for changes in ({"labels": LabelMap(("background", "car", "hair"))}, {"size": (12, 12)}):
        with pytest.raises(UsageError, match=JOURNAL):
            again(session, **changes)
    lines = session.journal.path.read_bytes().splitlines()
    assert json.loads(lines[0][9:])["classes"] == list(LABELS.names)
