"""Malformed files, each with a message of its own: what was found and where, what was wanted, what to do."""

from __future__ import annotations

import copy
import json
import re

import pytest
from helpers import annotation_files
from helpers.annotation_files import LABELS, SIZE, brush, coco_frame, mask_shape, result, task
from helpers.annotation_references import SEED, truth
from helpers.malformed_annotations import CASES, POLYGON, SHAPE, SQUARE, message, raw

from gansegctl.annotation import archive
from gansegctl.annotation.importer import read_masks
from gansegctl.errors import UsageError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(archive, "MEMBER_BYTES", 2**20)


@pytest.mark.parametrize(("make", "said"), CASES.values(), ids=CASES)
def test_it_is_refused_and_told(tmp_path, make, said):
    text = message(make(tmp_path))
    assert re.search(said, text), text
    assert len(text) < 1000


def test_no_two_messages_are_the_same(tmp_path):
    said = {}
    for i, (name, (make, _)) in enumerate(CASES.items()):
        folder = tmp_path / str(i)
        folder.mkdir()
        text = message(make(folder)).replace(str(folder), "FOLDER")
        assert text not in said, f"{name} and {said[text]}: {text}"
        said[text] = name
    assert len(said) >= 40


def test_a_wrong_value_anywhere_ends_in_a_message_and_never_in_another_error(tmp_path):
    """Every value of a file of each kind replaced by what does not belong there."""
    frames = {
        "a.json": json.loads(annotation_files.labelme(tmp_path, truth()).read_text())
        | {"shapes": [mask_shape(truth() == 1, "face"), POLYGON]},
        "b.json": task([brush(truth() == 1, "face"), result("polygonlabels", SQUARE)]),
        "c.json": coco_frame([SHAPE, SHAPE | {"segmentation": [[1, 1, 9, 1, 9, 9]]}]),
    }
    read = refused = 0
    for name, frame in frames.items():
        for place in places(frame):
            for wrong in (None, 1e300, "x", {}, [[]]):
                changed = copy.deepcopy(frame)
                put(changed, place, wrong)
                path = raw(tmp_path, json.dumps(changed).encode(), name)
                try:
                    read_masks(path, LABELS, SIZE, [SEED])
                    read += 1
                except UsageError:
                    refused += 1
    assert refused > 300 and read > 50


def places(value, path=()):
    """The places of all values in a frame, of lists the first two members."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def put(frame, place, value) -> None:
    for key in place[:-1]:
        frame = frame[key]
    frame[place[-1]] = value
