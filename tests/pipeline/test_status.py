"""Status over all tasks, and several processes on one dataset: politely, and with the bytes of one."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from gansegctl.config import AnnotateSettings, GenerateSettings
from gansegctl.contracts import result_of
from gansegctl.errors import DatasetError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.annotate.stage import annotate
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.pipeline.run import Plan, run
from gansegctl.pipeline.runtime.tasks import Task
from gansegctl.pipeline.status import status_of
from gansegctl.store.claims import claim_path, claims
from gansegctl.store.manifest import Manifest


def settings(generator) -> GenerateSettings:
    return GenerateSettings(generator=str(generator), seeds="0-13", batch_size=2, shard_size=2)


@pytest.fixture(scope="module")
def job(generator_file):
    return plan_generate(settings(generator_file), None, "cpu")[:2]


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "d"
    list(synthesize(job[0], folder, job[1]))
    return folder


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def others(folder, index, age=0.0):
    """A claim of another living process."""
    path = claim_path(folder, index)
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getppid(), "task": "1/2"}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_tasks_in_turn_make_what_one_makes(job, whole, tmp_path):
    out = tmp_path / "d"
    for index in (2, 0, 2, 1):
        events = list(synthesize(job[0], out, job[1], task=Task(index, 3)))
        assert events[-1].done == events[-1].total == 2 * len(range(index, 7, 3))
        assert (out / "card.md").exists() == (index == 1)  # the last one finds it whole
    assert content(out) == content(whole)


def test_status_while_it_grows(job, tmp_path):
    out = tmp_path / "d"
    events = synthesize(job[0], out, job[1], task=Task(1, 2))
    next(events)  # the first batch of shard 1; its shard is not committed yet
    told = status_of(out)
    assert (told["shards"], told["done"], told["samples"], told["planned"]) == (7, 0, 0, 14)
    assert [(r["shard"], r["process"], r["task"]) for r in told["running"]] == [(1, os.getpid(), "1/2")]
    assert told["missing_shards"] == "0,2-6" and told["eta_s"] is None and told["per_second"] is None
    list(events)
    for shard, at in ((1, 1000.0), (3, 1010.0), (5, 1014.0)):
        os.utime(out / f"shard-0000{shard}.json", (at, at))
    others(out, 0)
    told = status_of(out, now=1020.0)
    assert (told["done"], told["missing"], told["per_second"]) == (3, 3, round(4 / 14, 3))
    assert told["eta_s"] == round(8 / (4 / 14)) and told["last_shard_s_ago"] == 6.0
    assert [r["shard"] for r in told["running"]] == [0] and told["abandoned"] == ""
    others(out, 2, age=10_000)
    assert status_of(out)["abandoned"] == "2"


def test_status_of_a_finished_dataset_and_of_none(whole, tmp_path):
    told = status_of(whole)
    assert (told["done"], told["missing"], told["eta_s"], told["running"]) == (7, 0, 0, [])
    with pytest.raises(DatasetError, match="no such folder"):
        status_of(tmp_path / "nowhere")


def test_a_second_writer_leaves_a_shard_to_the_first_and_says_so(job, whole, tmp_path):
    out = tmp_path / "d"
    job[0].manifest.begin(out)
    held = others(out, 3)
    last = list(synthesize(job[0], out, job[1]))[-1]
    assert f"shards 3 left to {socket.gethostname()} (process {os.getppid()})" in last.facts["note"]
    assert Manifest.read(out).done(out) == [0, 1, 2, 4, 5, 6] and held.exists() and not (out / "card.md").exists()
    held.unlink()
    list(synthesize(job[0], out, job[1]))
    assert content(out) == content(whole)


def test_a_shard_left_by_the_dead_is_taken_over(job, whole, tmp_path):
    out = tmp_path / "d"
    job[0].manifest.begin(out)
    others(out, 3, age=10_000)
    list(synthesize(job[0], out, job[1]))
    assert content(out) == content(whole)


def test_what_the_other_finishes_meanwhile_is_not_made_twice(job, whole, tmp_path, monkeypatch):
    out = tmp_path / "d"
    job[0].manifest.begin(out)
    held = others(out, 0)
    events = synthesize(job[0], out, job[1])
    next(events)
    for name in ("shard-00000.h5", "shard-00000.json"):
        (out / name).write_bytes((whole / name).read_bytes())
    held.unlink()
    last = list(events)[-1]
    assert last.facts == {"made": 12} and content(out) == content(whole)


def test_an_interrupt_gives_the_claim_back(job, tmp_path):
    events = synthesize(job[0], tmp_path / "d", job[1])
    next(events)
    assert len(list(claims(tmp_path / "d"))) == 1
    events.close()
    assert not list(claims(tmp_path / "d"))


def test_of_several_annotating_tasks_the_first_fits_and_the_others_wait(whole, tmp_path, monkeypatch):
    import shutil

    import numpy as np

    from gansegctl.contracts import Exemplar

    chosen = AnnotateSettings(shots=1, options={"steps": 3})
    labels = LabelMap(("low", "high"))
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9] = 1

    def stage(folder, task):
        source = Source.open(folder)
        return annotate(source, [Exemplar(source.latents([3]), 3, mask, "const")], labels, chosen, task)

    alone = shutil.copytree(whole, tmp_path / "alone" / "d")
    list(stage(alone, Task()))
    shared = shutil.copytree(whole, tmp_path / "shared" / "d")
    monkeypatch.setattr("gansegctl.pipeline.annotate.stage.POLL", 0.0)
    second = stage(shared, Task(1, 2))
    assert [next(second).facts for _ in range(3)] == [{"waiting": "for task 0/2 to fit"}] * 3
    first = list(stage(shared, Task(0, 2)))
    assert first[-1].total == 8 and any(e.stage == "fit" for e in first)
    assert [e for e in second if e.stage == "fit"][-1].facts["fitted"] == "before"
    pairs = {k: v for k, v in content_of_files(alone).items() if k.startswith(("shard", "card", "segm", "manifest"))}
    assert pairs.items() <= content_of_files(shared).items()


def content_of_files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_run_stops_where_it_is_told_and_shares_generation_only(generator_file, tmp_path):
    plan = Plan("p", settings(generator_file), annotate=AnnotateSettings(shots=1))
    done = result_of(run(plan, tmp_path, "cpu", until="generate", task=Task(0, 2)))
    assert done["dataset"]["shards"] == 4 and not (tmp_path / "dataset/exemplars").exists()
    with pytest.raises(UsageError, match="--until generate"):
        result_of(run(plan, tmp_path, "cpu", task=Task(0, 2)))
