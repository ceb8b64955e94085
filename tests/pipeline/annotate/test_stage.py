"""The annotate workflow, which is the same wherever it is called: from `annotate`, `run` and `demo run`."""

from __future__ import annotations

import copy
import json
import shutil

import pytest

from gansegctl import presets
from gansegctl.config import AnnotateSettings
from gansegctl.contracts import result_of
from gansegctl.errors import UsageError
from gansegctl.pipeline.annotate.real_images import RealImages
from gansegctl.pipeline.annotate.stage import ExemplarRequest, annotate_dataset, with_profile
from gansegctl.pipeline.demo.run import run_demo
from gansegctl.pipeline.run import read_plan, run
from gansegctl.pipeline.runtime.tasks import Task
from gansegctl.store.manifest import Manifest

METHOD, STEPS = "linear", 6  # a method that has a profile, which `--profile` names


@pytest.fixture
def small(monkeypatch):
    """The demo preset with little of everything."""
    tables = copy.deepcopy(presets.load("demo"))
    tables["generate"] |= {"seeds": "0-11", "batch_size": 4, "shard_size": 6}
    tables["annotate"] |= {"method": METHOD, "options": {"steps": STEPS}}
    monkeypatch.setattr(presets, "load", lambda name: tables)


@pytest.fixture
def dataset(small, tmp_path, call):
    """The dataset of that preset as `generate` makes it."""
    folder = tmp_path / "by-hand"
    words = ("--generator", "demo", "--seeds", "0-11", "--batch-size", 4, "--shard-size", 6)
    assert call("generate", *words, "-o", folder, "--device", "cpu")[0] == 0
    return folder


def test_annotate_run_and_demo_write_the_same_bytes_for_the_same_masks(dataset, tmp_path, call):
    words = ("--shots", 1, "--masks", "demo", "--method", METHOD, "--set", f"steps={STEPS}", "--device", "cpu")
    status, _, err = call("annotate", dataset, *words)
    assert status == 0, err
    result_of(run(read_plan("demo"), tmp_path / "run", "cpu", until="annotate"))
    for event in run_demo(tmp_path / "demo"):
        if event.stage == "distill":
            break
    names = ["manifest.json", "segmenter.safetensors", "shard-00000.h5", "shard-00001.h5"]
    assert Manifest.read(dataset).stage == "pairs" and len(list(dataset.glob("shard-*.h5"))) == 2
    for other in (tmp_path / "run" / "dataset", tmp_path / "demo" / "dataset"):
        for name in names:
            assert (other / name).read_bytes() == (dataset / name).read_bytes(), f"{name} of {other}"


def test_surplus_masks_are_named_alike_by_annotate_and_run(dataset, tmp_path, call):
    masks = tmp_path / "masks"
    masks.mkdir()
    for file in presets.folder().glob("demo-exemplar-*.mask.png"):
        shutil.copyfile(file, masks / file.name.removeprefix("demo-"))
    line = "3 masks and --shots 1: not used are seeds 111,356"
    assert line in call("annotate", dataset, "--masks", masks, "--dry-run", "--device", "cpu")[2]
    said = []
    plan = read_plan("demo").with_masks(str(masks))
    done = result_of(run(plan, tmp_path / "run", "cpu", until="annotate", say=said.append))
    assert line in said and line in done["masks"]


def test_a_dry_run_writes_nothing(dataset, call):
    before = {p: p.read_bytes() for p in sorted(dataset.rglob("*")) if p.is_file()}
    status, out, err = call("annotate", dataset, "--dry-run", "--json", "--device", "cpu")
    assert status == 0, err
    assert len(json.loads(out)["exemplars"]) == 1 and json.loads(out)["method"] == "oneshot"
    assert {p: p.read_bytes() for p in sorted(dataset.rglob("*")) if p.is_file()} == before


@pytest.mark.parametrize(
    ("request_", "settings", "task", "word"),
    [
        (ExemplarRequest(ui=True), AnnotateSettings(masks="demo"), Task(), "--ui with"),
        (ExemplarRequest(ui=True), AnnotateSettings(), Task(0, 2), "--ui with"),
        (ExemplarRequest(ui=True), AnnotateSettings(shots=0, method="stylemix"), Task(), "--ui with"),
        (ExemplarRequest(real=RealImages("real")), AnnotateSettings(masks="demo"), Task(), "--real with"),
        (ExemplarRequest(real=RealImages("real"), seeds=(3,)), AnnotateSettings(), Task(), "--real with"),
        (ExemplarRequest(real=RealImages("real"), ui=True), AnnotateSettings(), Task(), "--ui with"),
    ],
)
def test_wishes_that_exclude_each_other_are_refused_before_anything_is_opened(tmp_path, request_, settings, task, word):
    with pytest.raises(UsageError, match=word):
        result_of(annotate_dataset(tmp_path / "nowhere", settings, request_, task=task))


def test_the_profile_always_stands_in_the_settings_where_a_method_has_one():
    assert with_profile(AnnotateSettings(method=METHOD)).options == {"profile": "fixed"}
    release = AnnotateSettings(method=METHOD, options={"profile": "release"})
    assert with_profile(release) == release
    assert with_profile(AnnotateSettings()).options == {}, "oneshot has one algorithm only"
