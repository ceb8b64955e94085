"""The manifest: begin, resume, refuse; and what verification finds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from helpers.datasets import LABELS, draw, fill, plan

from gansegctl.errors import DatasetError, ExitStatus, GansegError, UsageError
from gansegctl.io import run_folder
from gansegctl.store.manifest import Manifest, problems_of_dataset, settings_digest
from gansegctl.store.schema import FORMAT_VERSION
from gansegctl.store.shard import write_shard


@pytest.mark.parametrize("masks", [True, False])
def test_a_manifest_survives_the_disk(tmp_path, masks):
    manifest = plan(masks=masks)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    stored = json.loads((tmp_path / "manifest.json").read_text())
    assert stored["format"] == FORMAT_VERSION and stored["digest"] == manifest.digest
    assert stored["tool"].startswith("gansegctl ")


def test_the_digest_names_all_that_determines_a_shard():
    base = plan()
    others = [
        plan(truncation=0.5),
        plan(batch_size=4),
        plan(masks=False),
        replace(base, generator=base.generator | {"sha256": "00"}),
        replace(base, segmenter=base.segmenter | {"sha256": "00"}),
    ]
    assert len({m.digest for m in [base, *others]}) == 6
    assert replace(base, licence="MIT").digest == base.digest == plan().digest
    assert settings_digest({"a": 1, "b": [2]}) == settings_digest({"b": (2,), "a": 1}) != settings_digest({"a": 1})


def test_seeds_follow_the_plan():
    assert plan().seeds == [0, 1, 2, 3, 4, 5, 6, 7, 20, 9]
    assert Manifest.plan([(0, 1, 2), (7, 3)]) == ("0-2", "7,3")


def test_begin_takes_a_new_or_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "deep" / "new"):
        assert plan().begin(folder) == Manifest.read(folder) == plan()


def test_begin_resumes_where_settings_are_the_same(tmp_path):
    assert fill(tmp_path / "d", plan(), only=[1]) == [1]
    before = (tmp_path / "d/shard-00001.h5").stat().st_mtime_ns
    assert fill(tmp_path / "d", plan()) == [0, 2]
    assert fill(tmp_path / "d", plan()) == []
    assert (tmp_path / "d/shard-00001.h5").stat().st_mtime_ns == before
    assert problems_of_dataset(tmp_path / "d") == []


def test_settings_that_json_stores_alike_are_the_same(tmp_path):
    plan(levels=(1, 2)).begin(tmp_path / "d")
    assert plan(levels=[1, 2]).begin(tmp_path / "d").settings["generate"]["levels"] == [1, 2]


def test_other_settings_are_refused_with_every_difference(tmp_path):
    plan().begin(tmp_path / "d")
    other = plan(truncation=0.5, noise="seed", extra=None)
    with pytest.raises(DatasetError) as e:
        other.begin(tmp_path / "d")
    told = str(e.value)
    assert "generate.truncation: 0.7 there, 0.5 asked for" in told
    assert 'generate.noise: "const" there, "seed" asked for' in told
    assert "generate.extra: nothing there, null asked for" in told
    assert "generate.generator" not in told and "another -o" in told and e.value.status == ExitStatus.DATASET
    assert Manifest.read(tmp_path / "d") == plan()


def test_another_generator_and_another_shard_plan_are_refused(tmp_path):
    plan().begin(tmp_path / "d")
    with pytest.raises(DatasetError, match=r'generator: "abab.*"1234" asked for'):
        replace(plan(), generator=plan().generator | {"sha256": "1234"}).begin(tmp_path / "d")
    with pytest.raises(DatasetError, match=r'shards: "3 \(0-3 to 20,9\)" there, "2 \(0-7 to 20,9\)" asked for'):
        plan(("0-7", "20,9")).begin(tmp_path / "d")


@pytest.mark.parametrize("masks", [True, False])
def test_a_generator_that_has_moved_is_known_by_its_digest(tmp_path, masks):
    there = plan(masks=masks)
    there.begin(tmp_path)
    moved = replace(there, settings=there.settings | {"generate": there.settings["generate"] | {"generator": "/b.pt"}})
    assert moved != there and moved.begin(tmp_path) == there
    with pytest.raises(DatasetError, match=r"generate\.generator: .*/b\.pt.* asked for; generator: "):
        replace(moved, generator=moved.generator | {"sha256": "00"}).begin(tmp_path)
    nameless = [replace(m, generator={"name": "a"}) for m in (there, moved)]
    nameless[0].begin(tmp_path / "nameless")
    with pytest.raises(DatasetError, match=r"generate\.generator"):
        nameless[1].begin(tmp_path / "nameless")


def test_masks_may_stay_when_images_are_asked_for_but_never_be_mixed(tmp_path):
    plan().begin(tmp_path / "pairs")
    plan(masks=False).begin(tmp_path / "images")
    assert plan(masks=False).begin(tmp_path / "pairs").stage == "pairs"
    with pytest.raises(DatasetError, match="segmenter"):
        plan().begin(tmp_path / "images")
    with pytest.raises(DatasetError, match=r'segmenter.sha256: "cdcd.*"9999" asked for'):
        replace(plan(), segmenter=plan().segmenter | {"sha256": "9999"}).begin(tmp_path / "pairs")
    annotated = replace(plan(), settings=plan().settings | {"annotate": {"shots": 1}})
    with pytest.raises(DatasetError, match=r"annotate.shots: nothing there, 1 asked for"):
        annotated.begin(tmp_path / "pairs")


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis.tex[\s\S]*another -o") as e:
        plan().begin(tmp_path)
    assert e.value.status == ExitStatus.USAGE
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GansegError, match="can be written") as e:
        plan().begin(tmp_path / "file" / "d")
    assert e.value.status == ExitStatus.FAILED


def test_leftovers_of_dead_processes_of_this_host_go_and_others_stay(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    dead = tmp_path / f"shard-00000.h5.part.{host}.{gone.pid}"
    ours, elsewhere = tmp_path / f"x.part.{host}.{os.getppid()}", tmp_path / f"x.part.other-{host}.{gone.pid}"
    for begun in (False, True):
        for part in (dead, ours, elsewhere):
            part.write_bytes(b"half")
        assert (tmp_path / "manifest.json").exists() == begun
        plan().begin(tmp_path)
        assert not dead.exists() and ours.exists() and elsewhere.exists()


def test_reading_what_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match=r"no such folder[\s\S]*gansegctl generate"):
        Manifest.read(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"no manifest.json in it"):
        Manifest.read(tmp_path)
    (tmp_path / "student.safetensors").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"a file, not a folder"):
        Manifest.read(tmp_path / "student.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "1"}', '{"format": 1, "labels": null}', "\udcff"])
def test_a_broken_manifest_is_a_dataset_error(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match="manifest"):
        Manifest.read(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    row = plan().to_json() | {"format": FORMAT_VERSION + 1}
    (tmp_path / "manifest.json").write_text(json.dumps(row))
    with pytest.raises(DatasetError, match=r"format 2[\s\S]*at most 1[\s\S]*update"):
        Manifest.read(tmp_path)


def test_verification_lists_all_that_is_wrong(dataset):
    assert problems_of_dataset(dataset) == []
    manifest = plan()
    data = bytearray((dataset / "shard-00000.h5").read_bytes())
    data[700] ^= 1
    (dataset / "shard-00000.h5").write_bytes(data)
    (dataset / "shard-00001.json").unlink()
    (dataset / "shard-00002.h5").unlink()
    write_shard(dataset, 7, draw([1]), LABELS, manifest.digest)
    (dataset / "shard-00009.json").write_text("{}")
    assert problems_of_dataset(dataset) == [
        "shard-00000: damaged: sha256 differs from its json",
        "shard-00001: unfinished: it has no json",
        "shard-00002: missing",
        "shard-00007.h5: not in the plan",
        "shard-00009.h5: not in the plan",
    ]
    assert manifest.done(dataset) == [0]  # a flipped byte shows only when the file is read


def test_verification_finds_shards_of_other_settings_or_seeds(dataset):
    write_shard(dataset, 0, draw([0, 1, 2, 3]), LABELS, plan(truncation=0.1).digest)
    write_shard(dataset, 1, draw([4, 5, 6]), LABELS, plan().digest)
    found = problems_of_dataset(dataset)
    assert len(found) == 2 and all("made with other settings or seeds" in row for row in found)
    assert plan().done(dataset) == [2]
    with pytest.raises(DatasetError, match="2 of 3 shards missing: 0-1"):
        plan().require_whole(dataset)
    assert fill(dataset, plan()) == [0, 1]
    assert problems_of_dataset(dataset) == []


def test_of_two_that_begin_at_once_with_other_settings_one_is_refused(tmp_path, monkeypatch):
    first, second = plan(batch_size=4), plan(batch_size=8)
    create = run_folder.create_text

    def as_if_slower(path, text, sync):
        monkeypatch.setattr(run_folder, "create_text", create)
        first.begin(tmp_path)
        create(path, text, sync)

    monkeypatch.setattr(run_folder, "create_text", as_if_slower)
    with pytest.raises(DatasetError, match="batch_size: 4 there, 8 asked for"):
        second.begin(tmp_path)
    monkeypatch.setattr(run_folder, "create_text", as_if_slower)
    assert plan(batch_size=4).begin(tmp_path).digest == Manifest.read(tmp_path).digest == first.digest
