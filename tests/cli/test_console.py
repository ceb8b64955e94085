"""What commands say and where, and what flags resolve to."""

from __future__ import annotations

import json
import math

import pytest

from gansegctl.cli import console, options
from gansegctl.contracts import Progress
from gansegctl.errors import DeviceError, UsageError


def events(n=3):
    for i in range(n):
        yield Progress("work", i + 1, n, "things", {"loss": 0.123456, "note": "x"})


def test_off_a_terminal_a_stage_says_its_start_and_its_end(capsys):
    console.follow(events(), interval=1000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "work: 1/3 things, 0 s loss=0.1235 note=x",
        "work: 3/3 things, 0 s loss=0.1235 note=x",
    ]


def test_lines_come_at_the_interval(capsys):
    console.follow(events(5), interval=0)
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console.follow(e for e in [Progress("one", 1, 2), Progress("one", 2, 2), Progress("two", 1, 1)])
    err = capsys.readouterr().err
    assert "one" in err
    assert "two" in err
    assert "2/2" in err


def test_the_result_of_a_stage_is_returned_also_through_a_stage_that_runs_it(capsys):
    def inner():
        yield Progress("inner", 1, 1)
        return {"answer": 42}

    def outer():
        yield Progress("outer", 0, 1)
        found = yield from inner()
        return found["answer"]

    assert console.follow(outer()) == 42
    assert capsys.readouterr().err.splitlines() == ["outer: 0/1 images, 0 s", "inner: 1/1 images, 0 s"]


def test_a_bar_ends_its_line_where_a_stage_fails(capsys, monkeypatch):
    def failing():
        yield Progress("work", 1, 2)
        raise UsageError("got stuck")

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(UsageError, match="stuck"):
        console.follow(failing())
    assert capsys.readouterr().err.endswith("\n")


def test_nothing_happened(capsys):
    assert console.follow(events(0)) is None
    assert capsys.readouterr().err == ""


def test_data_goes_to_stdout(capsys):
    console.emit({"a": 1, "b": [1, 2], "c": None}, as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1, "b": [1, 2], "c": None}
    console.emit({"a": 1, "b": [1, 2]}, as_json=False)
    assert capsys.readouterr().out == "a: 1\nb: [1, 2]\n"
    assert err == ""


def test_cells_and_tables(capsys):
    assert [console.cell(v) for v in (0.12345, math.nan, None, 3, "x")] == ["0.123", "-", "-", "3", "x"]
    console.table("title", ("name", "value"), [("a", 0.5), ("b", math.nan)])
    out = capsys.readouterr().out
    assert "title" in out
    assert "0.500" in out


def test_seeds_come_from_a_count_or_from_ranges():
    assert options.pick_seeds(3, None) == "0-2"
    assert options.pick_seeds(1, None) == "0"
    assert options.pick_seeds(None, "4-6,9") == "4-6,9"
    for arguments in ((None, None), (3, "1")):
        with pytest.raises(UsageError, match="one of them"):
            options.pick_seeds(*arguments)
    with pytest.raises(UsageError, match="x"):
        options.pick_seeds(None, "x")


def test_devices():
    assert options.pick_device("cpu") == "cpu"
    assert options.pick_device("auto") in ("cpu", "cuda")
    for name in ("cuda:99", "gpu", "mps"):
        with pytest.raises(DeviceError):
            options.pick_device(name)


def test_what_is_to_be_noted_is_always_said(capsys):
    shown = [
        Progress("generate", 1, 9, "images"),
        Progress("generate", 2, 9, "images", {"note": "shard 3 left to far"}),
    ]
    console.follow(iter(shown))
    assert "note=shard 3 left to far" in capsys.readouterr().err
