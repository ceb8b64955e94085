"""Conditions, quotas and splits: what they mean, and that nothing typed is evaluated."""

from __future__ import annotations

import pytest

from gansegctl.errors import DatasetError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.store.export.base import ExportSettings
from gansegctl.store.export.condition import Condition
from gansegctl.store.export.selection import Selection, Splits

CLASSES = ("background", "eyes", "left ear", "score")
VALUES = {
    "score": 0.25,
    "seed": 7,
    "class:eyes": 0.01,
    "class:left ear": 0.0,
    "class:background": 0.9,
    "class:score": 1,
}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("score<0.3", True),
        ("score < .25", False),
        ("score<=2.5e-1", True),
        ("0.2 < score < 0.3", True),
        ("0.2 < score < 0.24", False),
        ("seed == 7 and eyes >= 0.01", True),
        ("seed != 7 or eyes > 0.01", False),
        ("not seed == 7 or score < 1", True),
        ("not (seed == 7 or score < 1)", False),
        ("seed == 1 or seed == 7 and score < 0.1", False),
        ("(seed == 1 or seed == 7) and score < 0.3", True),
        ("'left ear' > 0", False),
        ('"score" == 1', True),
        ("score > -1", True),
        ("background > eyes", True),
        ("not not seed == 7", True),
    ],
)
def test_conditions(text, kept):
    assert Condition(text, CLASSES).keeps(VALUES) is kept


def test_a_condition_knows_what_it_asks_for():
    assert Condition("score < 1 and eyes > 0", CLASSES).names == {"score", "class:eyes"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "score",
        "score <",
        "score < 1 and",
        "< 1",
        "(score < 1",
        "score < 1)",
        "score < 1 score < 2",
        "score = 1",
        "score < 1;",
        "__import__('os').system('x') < 1",
        "score.real < 1",
        "score < 1e",
        "score < 1.2.3",
        "and < 1",
        "score << 1",
        "eyes[0] < 1",
        "1 + 1 < 3",
        "not",
        "'eyes < 1",
    ],
)
def test_anything_else_is_a_usage_error_and_never_run(text):
    with pytest.raises(UsageError, match="wanted: comparisons of score"):
        Condition(text, CLASSES)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"unknown name 'eye'[\s\S]*did you mean 'eyes'"):
        Condition("eye > 0", CLASSES)


def test_endless_conditions_are_refused():
    with pytest.raises(UsageError, match="deep"):
        Condition("(" * 500 + "seed == 1" + ")" * 500, CLASSES)
    with pytest.raises(UsageError, match="characters"):
        Condition("seed == 1 or " * 1000 + "seed == 1", CLASSES)


def selection(**changes) -> Selection:
    return Selection(ExportSettings("png", **changes), LabelMap(("background", "eyes", "a:b")))


def test_quotas_and_shares_of_the_image():
    assert selection(min_class=("eyes:10", "a:b:5")).keeps(0, 0.1, (50, 10, 5), 65)
    assert not selection(min_class=("eyes:10", "a:b:5")).keeps(0, 0.1, (50, 10, 4), 65)
    assert selection(where="eyes >= 0.1").keeps(0, None, (90, 10, 0), 100)
    assert not selection(where="eyes >= 0.1").keeps(0, None, (90, 10, 0), 101)  # of the image, ignored pixels too
    with pytest.raises(DatasetError, match="without scores"):
        selection(where="score<1").keeps(0, None, (1, 0, 0), 1)


@pytest.mark.parametrize("text", ["eyes", "eyes:", ":5", "eyes:-1", "eyes:1.5", "nose:5"])
def test_odd_quotas_are_refused(text):
    with pytest.raises(UsageError):
        selection(min_class=(text,))


def test_splits_follow_from_the_seed_alone():
    splits = Splits.parse(" train=0.7, val=0.2,test=.1", 3)
    placed = [splits.of(s) for s in range(4000)]
    assert [splits.of(s) for s in reversed(range(4000))][::-1] == placed
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        assert placed.count(name) / 4000 == pytest.approx(share, abs=0.03)
    assert [Splits.parse("train=0.7,val=0.2,test=0.1", 4).of(s) for s in range(4000)] != placed
    moved = Splits.parse("train=0.8,val=0.1,test=0.1", 3)
    assert all(moved.of(s) == "train" for s in range(4000) if placed[s] == "train")


@pytest.mark.parametrize(
    "text", ["", "train", "train=", "train=1,train=0", "train=0.5,val=0.4", "a/b=1", "é=1", "t=-1"]
)
def test_odd_splits_are_refused(text):
    with pytest.raises(UsageError, match="--split"):
        Splits.parse(text)
