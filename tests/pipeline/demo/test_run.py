"""The whole job in small: `demo run` and `run PRESET` on the shipped generator, with fewer samples and steps."""

from __future__ import annotations

import copy
import json
import math

import pytest

from gansegctl import presets
from gansegctl.contracts import result_of
from gansegctl.errors import UsageError
from gansegctl.pipeline.demo.run import COLUMNS, SCORES, run_demo
from gansegctl.pipeline.run import read_plan, run
from gansegctl.store.manifest import problems_of_dataset


@pytest.fixture
def small(monkeypatch):
    """The demo preset with little of everything."""
    tables = copy.deepcopy(presets.load("demo"))
    tables["generate"] |= {"seeds": "0-15", "batch_size": 8}
    tables["annotate"]["options"] = {"hidden": "32", "steps": 6, "statistics_samples": 2}
    tables["distill"] |= {"steps": 2, "batch_size": 4}
    tables["eval"]["num"] = 10
    tables["demo"] |= {"samples": 10, "held_out": 10, "upper_bound": 12}
    monkeypatch.setattr(presets, "load", lambda name: tables)
    return tables


def test_the_demo_runs_every_stage_and_does_nothing_twice(small, tmp_path):
    said, stages = [], set()

    def follow(stage):
        while True:
            try:
                stages.add(next(stage).stage)
            except StopIteration as end:
                return end.value

    result = follow(run_demo(tmp_path / "demo", said.append))
    assert set(result.reports) == set(COLUMNS[1:])
    assert all(f.is_file() for f in result.files)
    rows = {row[0]: row[1:] for row in result.rows()}
    assert rows["images"] == ("10",) * 4
    assert {"nose", "mouth", *SCORES} <= set(rows)
    assert rows["miou"][0] > 0.9  # the reference segmenter on exact renderings
    assert all(0 <= v <= 1 or math.isnan(v) for v in rows["miou"])
    assert problems_of_dataset(tmp_path / "demo" / "dataset") == []
    assert json.loads((tmp_path / "demo" / "table.json").read_text())["reports"]["student"]["images"] == 10
    assert stages == {"generate", "fit", "annotate", "distill", "scenes"}
    assert "trained on 12 exactly labelled images" in result.legend()

    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "demo").rglob("*.h5")}
    student = (tmp_path / "demo" / "student.safetensors").read_bytes()
    again = follow(run_demo(tmp_path / "demo", said.append))
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "demo").rglob("*.h5")} == files
    assert (tmp_path / "demo" / "student.safetensors").read_bytes() == student
    assert again.reports["student"].miou == result.reports["student"].miou


def test_run_goes_through_the_stages_of_a_preset(small, tmp_path):
    plan = read_plan("demo")
    assert plan.against == "demo"
    assert plan.distill.steps == 2
    result = result_of(run(plan, tmp_path / "r", "cpu"))
    assert result["dataset"]["stage"] == "pairs"
    assert (tmp_path / "r" / "student.safetensors").is_file()
    assert 0 < result["scores"]["miou"]["score"] <= 1
    assert (tmp_path / "r" / "eval" / "worst.png").is_file()


def test_run_without_masks_stops_and_says_what_to_paint(small, tmp_path):
    del small["annotate"]["masks"]
    result = result_of(run(read_plan("demo"), tmp_path / "r", "cpu"))
    assert "paint" in result["next"]
    assert len(list((tmp_path / "r" / "dataset" / "exemplars").glob("*.mask.png"))) == 1
    assert result["dataset"]["stage"] == "images"


def test_a_preset_file_is_read_strictly(tmp_path):
    path = tmp_path / "p.toml"
    for text, word in (
        ("[generate\n", "p.toml"),
        ("[distill]\nepochs = 3\n", "without"),
        ("[generate]\n[anotate]\n", "did you mean 'annotate'"),
        ("[generate]\n[distill]\nepochs = 0\n", "epochs"),
        ("[generate]\n[eval]\ntrimap = 'wide'\n", "eval.trimap"),
        ("generate = 3\n", "table"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=word):
            read_plan(str(path))
    with pytest.raises(UsageError, match="no such file"):
        read_plan(str(tmp_path / "none.toml"))
    path.write_text('[generate]\nseeds = "0-3"\n[distill]\nepochs = 2\n')
    plan = read_plan(str(path))
    assert plan.annotate is None
    assert plan.describe()["distill"]["epochs"] == 2
