"""Settings of methods: one helper checks them, fills them in, and reads those of a segmenter's file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest
from helpers.methods.contract import LABELS
from helpers.methods.tiny_generator import TinyGenerator, exemplars_of

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.methods.base import segmenter_file
from gansegctl.methods.base.settings import at_least, check, filled, more_than, read_settings, widths_of
from gansegctl.methods.linear import Linear, LinearSettings, LinearValues

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Some:
    """Settings to try the helper on."""

    kind: str = "a"
    share: float | None = None
    steps: int = 1


@dataclass(frozen=True, kw_only=True)
class Known(Some):
    """The same with a share."""

    share: float


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "b"}, r"got kind 'b'\n.*a \| another"),
        ({"kind": None}, "got kind None"),
        ({"share": 0.0}, r"got share 0.0\n.*more than 0 and at most 1"),
        ({"share": 1.5}, "got share 1.5"),
        ({"share": float("nan")}, "got share nan"),
        ({"steps": 0}, r"got steps 0\n.*at least 1"),
        ({"steps": None}, None),
    ],
)
def test_a_value_out_of_its_rule_is_refused_by_name(wrong, message):
    settings = Some(**wrong)
    check(Some(), kind=("a", "another"), share=more_than(0, 1), steps=at_least(1))
    with pytest.raises(UsageError if message else TypeError, match=message):
        check(settings, kind=("a", "another"), share=more_than(0, 1), steps=at_least(1))


def test_the_nearest_name_is_the_remedy():
    with pytest.raises(UsageError, match="did you mean 'another'"):
        check(Some(kind="anoter"), kind=("a", "another"))


def test_values_of_the_profile_stand_in_place_of_none_alone():
    assert filled(Some(), Known, {"share": 0.5, "kind": "b"}) == Known(share=0.5)
    assert filled(Some(share=0.2), Known, {"share": 0.5}) == Known(share=0.2)


@pytest.mark.parametrize("given", ["128,64", [128, 64], (128, 64)])
def test_widths_are_a_list_or_a_text(given):
    assert widths_of("hidden", given) == (128, 64)


@pytest.mark.parametrize("given", ["", "128,", "a", [], [0], [[1]]])
def test_other_widths_are_refused(given):
    with pytest.raises(UsageError, match="hidden"):
        widths_of("hidden", given)


def test_a_file_has_all_settings_and_no_other():
    assert read_settings(Known, {"share": 1, "kind": "b"}, "settings of s") == Known(share=1, kind="b")
    with pytest.raises(UsageError, match=r"unknown key settings of s\.shares\n.*\n.*did you mean 'share'"):
        read_settings(Known, {"share": 1.0, "shares": 1.0}, "settings of s")
    with pytest.raises(UsageError, match="settings of s without share"):
        read_settings(Known, {"kind": "a"}, "settings of s")
    with pytest.raises(UsageError, match=r"settings of s\.share = 'x'"):
        read_settings(Known, {"share": "x"}, "settings of s")


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_segmenter_with_a_setting_that_nobody_knows_is_refused_by_name(name, tmp_path):
    """Whatever the method: a newer gansegctl may have meant by it that masks differ."""
    segmenter_file.write(
        tmp_path / "s",
        {
            "method": name,
            "generator": "ab" * 32,
            "labels": json.dumps(LABELS.to_json()),
            "taps": "[]",
            "settings": json.dumps({"brand_new": 3}),
            "facts": "{}",
        },
        {},
    )
    with pytest.raises(UsageError, match=r"unknown key settings of .*/s\.brand_new"):
        methods.load(tmp_path / "s")


def test_a_setting_more_in_a_real_file_is_refused_too(tmp_path):
    generator = TinyGenerator()
    settings = LinearSettings(steps=2, statistics_samples=2)
    segmenter = Linear().fit(generator, exemplars_of(generator, (3,)), LABELS, settings)
    segmenter.save(tmp_path / "s")
    assert methods.load(tmp_path / "s").settings == asdict(settings.resolved(1))
    segmenter.settings["scheduel"] = "cosine"
    segmenter.save(tmp_path / "s")
    with pytest.raises(UsageError, match=r"unknown key settings of .*/s\.scheduel"):
        methods.load(tmp_path / "s")


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_setting_has_its_meaning_beside_it(name):
    kind = methods.get(name).settings_type
    source = (ROOT / Path(*kind.__module__.split("."))).with_suffix(".py").read_text().splitlines()
    for field in fields(kind):
        lines = [line for line in source if line.startswith(f"    {field.name}: ") and " = " in line]
        assert len(lines) == 1 and "  # " in lines[0], field.name


def test_values_are_settings_of_which_fewer_may_be_none():
    optional = {f.name for f in fields(LinearValues) if "None" in str(f.type)}
    assert optional == {"max_resolution"}
    assert [f.name for f in fields(LinearValues)] == [f.name for f in fields(LinearSettings)]
