"""Samples chosen by score and quota: the same ones after any interruption, by any task, and after a repair."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gansegctl.config import AnnotateSettings, GenerateSettings, from_dict, to_dict
from gansegctl.contracts import Exemplar
from gansegctl.errors import DatasetError, GansegError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.annotate.stage import annotate
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.pipeline.inspect import describe_dataset
from gansegctl.pipeline.runtime.tasks import ALONE, Task
from gansegctl.pipeline.verify import check, repair
from gansegctl.store import claims
from gansegctl.store.dataset import ShardDataset, iter_shards
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import format_seeds
from gansegctl.store.shard import shard_record


@pytest.fixture(scope="module")
def scene(generator_file, tmp_path_factory):
    """A segmenter, and all 16 pairs in four shards."""
    folder = tmp_path_factory.mktemp("scene")
    job, network, _ = plan_generate(settings(generator_file), None, "cpu")
    list(synthesize(job, folder / "plain", network))
    source = Source.open(folder / "plain")
    light = source.images([3])[0].mean(axis=2)
    exemplar = Exemplar(source.latents([3]), 3, (light > np.quantile(light, 0.9)).astype(np.uint8), "const")
    chosen = AnnotateSettings(shots=1, options={"steps": 100})
    list(annotate(source, [exemplar], LabelMap(("ground", "spot")), chosen))
    segmenter = folder / "plain" / "segmenter.safetensors"
    whole = Scene(generator_file, segmenter, None)
    whole.run(folder / "all")
    arrays = [a for _, a in iter_shards(folder / "all")]
    return Scene(
        generator_file,
        segmenter,
        {k: np.concatenate([v.present()[k] for v in arrays]) for k in ("image", "mask", "score", "seed")},
    )


class Scene:
    """The files, and the arrays of all candidates."""

    def __init__(self, generator, segmenter, arrays):
        self.generator, self.segmenter, self.all = generator, segmenter, arrays

    def begin(self, out, task=ALONE, **changes):
        job, network, fitted = plan_generate(settings(self.generator, **changes), self.segmenter, "cpu")
        return synthesize(job, out, network, fitted, task=task)

    def run(self, out, task=ALONE, **changes):
        return list(self.begin(out, task, **changes))

    @property
    def median(self) -> float:
        return float(np.median(self.all["score"]))

    def showing(self, below=np.inf):
        """Seeds below the score, and whether each shows the spot."""
        kept = self.all["score"] < below
        return self.all["seed"][kept].tolist(), (self.all["mask"][kept] == 1).any(axis=(1, 2))


def settings(generator, **changes):
    return GenerateSettings(
        **{"generator": str(generator), "seeds": "0-15", "batch_size": 2, "shard_size": 4} | changes
    )


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file() and p.name != "card.md"}


def test_the_sure_ones_are_kept_as_they_are(scene, tmp_path):
    out = tmp_path / "d"
    scene.run(out, keep_below=scene.median)
    rows = np.flatnonzero(scene.all["score"] < scene.median)
    assert 0 < len(rows) < 16
    data = ShardDataset(out, ("image", "mask"))
    assert data.seeds == scene.all["seed"][rows].tolist() and len(data) == len(rows)
    for item, row in enumerate(rows):
        assert np.array_equal(data[item]["image"], scene.all["image"][row])
        assert np.array_equal(data[item]["mask"], scene.all["mask"][row])
    manifest = Manifest.read(out)
    assert manifest.seeds == data.seeds
    assert manifest.candidates == ("0-3", "4-7", "8-11", "12-15")
    assert [shard_record(out, i).candidates for i in range(4)] == list(manifest.candidates)
    assert [shard_record(out, i).seeds for i in range(4)] == list(manifest.shards)
    assert check(out) == {"problems": [], "foreign": []}
    assert describe_dataset(out)["choice"] == {"candidates": 16, "kept": len(rows)}
    assert f"{len(rows)} of 16 samples: score below" in (out / "card.md").read_text()


def test_tasks_and_interruptions_choose_alike(scene, tmp_path):
    chosen = {"keep_below": scene.median}
    scene.run(tmp_path / "whole", **chosen)
    out = tmp_path / "parts"
    events = scene.begin(out, **chosen)
    for _ in range(3):
        next(events)
    events.close()
    assert len(Manifest.read(out).done(out)) in (1, 2)
    assert len(ShardDataset(out, partial=True)) == sum(r.count for r in (shard_record(out, i) for i in range(4)) if r)
    for i in (1, 0):
        scene.run(out, Task(i, 2), **chosen)
    assert content(out) == content(tmp_path / "whole")
    scene.run(out, **chosen)  # once more: nothing to do
    assert content(out) == content(tmp_path / "whole")
    with pytest.raises(DatasetError, match="keep_below"):
        scene.run(out, keep_below=0.0)


def test_a_shard_may_be_empty_but_not_all(scene, tmp_path):
    lowest = float(np.sort(scene.all["score"])[1])  # one sample lies below
    scene.run(tmp_path / "d", keep_below=lowest)
    manifest = Manifest.read(tmp_path / "d")
    assert len(manifest.seeds) == 1 and manifest.shards.count("") == 3
    assert check(tmp_path / "d")["problems"] == []
    assert len(ShardDataset(tmp_path / "d")) == 1
    with pytest.raises(GansegError, match="none of 16"):
        scene.run(tmp_path / "none", keep_below=0.0)


def test_a_quota_ends_with_the_sample_that_fills_it(scene, tmp_path):
    seeds, shows = scene.showing()
    wanted = int(shows.sum()) // 2
    assert 1 < wanted < 12, "the segmenter finds no spots, or nothing else"
    last = int(np.flatnonzero(np.cumsum(shows) == wanted)[0])
    out = tmp_path / "d"
    scene.run(out, until={"spot": wanted})
    manifest = Manifest.read(out)
    assert manifest.seeds == seeds[: last + 1]
    assert len(manifest.shards) == last // 4 + 1 < 4
    assert not (out / "shard-00003.h5").exists()
    assert manifest.facts["choice"]["shown"] == {"spot": wanted}
    assert check(out)["problems"] == []
    before = content(out)
    for name in (f"shard-{last // 4:05d}.h5", "shard-00000.json"):
        (out / name).unlink()
    scene.run(out, until={"spot": wanted})
    assert content(out) == before


def test_a_quota_that_cannot_be_met_is_told_and_the_dataset_is_whole(scene, tmp_path):
    _, shows = scene.showing(scene.median)
    for _ in range(2):
        with pytest.raises(GansegError, match=f"wanted: {100 - shows.sum()} more samples with spot") as told:
            scene.run(tmp_path / "d", keep_below=scene.median, until={"spot": 100})
    assert told.value.status == 1
    assert check(tmp_path / "d")["problems"] == [] and len(ShardDataset(tmp_path / "d")) == len(shows)


def test_a_quota_waits_for_the_shard_of_another_process(scene, tmp_path, monkeypatch):
    out = tmp_path / "d"
    events = scene.begin(out, until={"spot": 100})
    next(events)
    events.close()
    claim = claims.claim_path(out, len(Manifest.read(out).done(out)))
    claim.write_text(json.dumps({"host": "elsewhere", "pid": 1, "task": ""}))
    last = scene.run(out, until={"spot": 100})[-1]
    assert "left to elsewhere" in last.facts["note"]
    assert not (out / "shard-00003.json").exists()  # none after it is made, for how many are wanted is not known


def test_damage_is_repaired_to_the_byte(scene, tmp_path):
    out = tmp_path / "d"
    scene.run(out, keep_below=scene.median)
    before = content(out)
    path = next(out / f"shard-{i:05d}.h5" for i in range(4) if shard_record(out, i).count)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert len(check(out)["problems"]) == 1
    list(repair(out, segmenter=scene.segmenter))
    assert content(out) == before
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(record | {"class_samples": [9, 9]}, indent=1) + "\n")
    assert "its json differs" in check(out)["problems"][0]


def test_what_is_still_being_chosen_is_not_repaired(scene, tmp_path):
    scene.run(tmp_path / "d", Task(0, 2), keep_below=scene.median)
    with pytest.raises(DatasetError, match="still being chosen"):
        list(repair(tmp_path / "d", segmenter=scene.segmenter))


def test_what_means_nothing_is_refused(scene, tmp_path):
    for changes in ({"keep_below": 0.5}, {"until": {"spot": 1}}):
        with pytest.raises(UsageError, match="without masks"):
            plan_generate(settings(scene.generator, **changes), None, "cpu")
    with pytest.raises(UsageError, match="class 'sopt'"):
        scene.begin(tmp_path / "d", until={"sopt": 1})
    with pytest.raises(UsageError, match="--until in task 1/2"):
        scene.run(tmp_path / "d", Task(1, 2), until={"spot": 1})
    with pytest.raises(UsageError, match="from 1"):
        settings(scene.generator, until={"spot": 0})
    scene.run(tmp_path / "d", keep_below=scene.median)
    with pytest.raises(UsageError, match="chosen by the masks"):
        list(annotate(Source.open(tmp_path / "d"), [], None, AnnotateSettings(shots=0)))


def test_settings_that_are_not_used_leave_no_trace():
    plain = to_dict(GenerateSettings())
    assert not {"keep_below", "until", "codec"} & plain.keys()
    for changes in ({"keep_below": 0.0}, {"until": {"a": 1}}, {"codec": "none"}):
        table = to_dict(GenerateSettings(**changes))
        assert table == plain | changes and from_dict(GenerateSettings, table) == GenerateSettings(**changes)
    assert format_seeds([]) == ""
