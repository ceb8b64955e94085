"""Damage is found, named and made good from the seeds, byte for byte."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from gansegctl.config import AnnotateSettings, GenerateSettings
from gansegctl.contracts import Exemplar, result_of
from gansegctl.errors import DatasetError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.annotate.stage import annotate
from gansegctl.pipeline.generate.shards import write_shards
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.pipeline.verify import check, repair
from gansegctl.store.manifest import Manifest, manifest_changed
from gansegctl.store.shard import problem_of_shard, shard_record


@pytest.fixture(scope="module")
def made(generator_file, tmp_path_factory):
    """Pairs in three shards."""
    folder = tmp_path_factory.mktemp("made") / "d"
    settings = GenerateSettings(generator=str(generator_file), seeds="0-11", batch_size=4, shard_size=5)
    job, network, _ = plan_generate(settings, None, "cpu")
    list(synthesize(job, folder, network))
    source = Source.open(folder)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9] = 1
    exemplar = Exemplar(source.latents([3]), 3, mask, "const")
    chosen = AnnotateSettings(shots=1, options={"steps": 5})
    list(annotate(source, [exemplar], LabelMap(("low", "high")), chosen))
    return folder


@pytest.fixture
def dataset(made, tmp_path):
    return shutil.copytree(made, tmp_path / "d")


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(data)


def fix(folder, **files):
    return asdict(result_of(repair(folder, **files)))


def test_a_whole_dataset_has_no_problems_and_is_left_alone(dataset):
    assert check(dataset) == {"problems": [], "foreign": []}
    before = {p: p.stat().st_mtime_ns for p in dataset.iterdir()}
    assert fix(dataset) == {"repaired": [], "differing": []}
    assert {p: p.stat().st_mtime_ns for p in dataset.iterdir()} == before


def test_bad_shards_come_back_byte_for_byte_and_good_ones_are_not_touched(dataset, made):
    flip(dataset / "shard-00000.h5")
    (dataset / "shard-00002.h5").unlink()
    kept = (dataset / "shard-00001.h5").stat().st_mtime_ns
    assert [p.split(":")[0] for p in check(dataset)["problems"]] == ["shard-00000", "shard-00002"]
    assert fix(dataset) == {"repaired": ["shard-00000.h5", "shard-00002.h5"], "differing": []}
    assert content(dataset) == content(made) and check(dataset)["problems"] == []
    assert (dataset / "shard-00001.h5").stat().st_mtime_ns == kept


def test_any_flipped_byte_of_a_record_is_found(dataset):
    path, manifest = dataset / "shard-00001.json", Manifest.read(dataset)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        flip(path, place)
        record = shard_record(dataset, 1)
        unplanned = record is not None and (record.digest, record.seeds) != (manifest.digest, manifest.shards[1])
        assert unplanned or problem_of_shard(dataset, 1), (place, whole[place : place + 9])
        path.write_bytes(whole)
    flip(path, whole.index(b"sha256") + 12)
    assert fix(dataset) == {"repaired": ["shard-00001.h5"], "differing": []}
    assert path.read_bytes() == whole


def test_any_flipped_byte_of_the_manifest_is_found_and_stops_a_repair(dataset):
    path = dataset / "manifest.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        flip(path, place)
        try:
            Manifest.read(dataset)
            assert manifest_changed(dataset), (place, whole[place : place + 9])
        except DatasetError:
            continue
        finally:
            path.write_bytes(whole)
    flip(path, whole.index(b"checksum"))
    assert check(dataset)["problems"] == ["manifest.json: changed since it was written"]
    table = json.loads(whole)
    table["settings"]["generate"]["truncation"] = 0.5
    path.write_text(json.dumps(table, indent=1) + "\n")
    with pytest.raises(DatasetError, match="changed since it was written"):
        fix(dataset)
    assert (dataset / "shard-00000.json").exists()


def test_foreign_and_unplanned_files_are_named(dataset):
    (dataset / "notes.txt").write_text("mine")
    (dataset / "shard-00001.h5.part.far.7").write_text("half")
    (dataset / "shard-00007.h5").write_bytes(b"")
    found = check(dataset)
    assert found["foreign"] == ["notes.txt", "shard-00001.h5.part.far.7"]
    assert found["problems"] == ["shard-00007.h5: not in the plan"]
    assert fix(dataset)["repaired"] == [] and (dataset / "notes.txt").exists()


def test_another_segmenter_is_found_and_refused(dataset):
    flip(dataset / "segmenter.safetensors")
    assert check(dataset)["problems"] == ["segmenter.safetensors: not the one that made the masks, by its sha256"]
    (dataset / "shard-00000.h5").unlink()
    with pytest.raises(DatasetError, match=r"another segmenter[\s\S]*--segmenter"):
        fix(dataset)
    assert (dataset / "shard-00000.json").exists()  # nothing was begun


def test_a_segmenter_that_has_moved_is_passed_by_hand(dataset, made, tmp_path):
    moved = tmp_path / "s.safetensors"
    shutil.move(dataset / "segmenter.safetensors", moved)
    flip(dataset / "shard-00000.h5")
    with pytest.raises(DatasetError, match="which is not there"):
        fix(dataset)
    assert fix(dataset, segmenter=moved)["repaired"] == ["shard-00000.h5"]
    assert (dataset / "shard-00000.h5").read_bytes() == (made / "shard-00000.h5").read_bytes()


def test_bytes_that_differ_after_a_repair_are_told(dataset, monkeypatch):
    """As on another kind of device: the images are made anew, a little different."""
    from gansegctl.pipeline.generate import shards as making

    real = making.image_and_mask

    def elsewhere(*arguments):
        image, annotation = real(*arguments)
        return image ^ 1, annotation

    flip(dataset / "shard-00000.h5")
    monkeypatch.setattr(making, "image_and_mask", elsewhere)
    assert fix(dataset) == {"repaired": ["shard-00000.h5"], "differing": ["shard-00000.h5"]}
    assert check(dataset)["problems"] == []


def test_shards_of_other_settings_are_made_anew(dataset, made):
    manifest = Manifest.read(dataset)
    record = json.loads((dataset / "shard-00000.json").read_text()) | {"digest": "0" * 64}
    (dataset / "shard-00000.json").write_text(json.dumps(record, indent=1) + "\n")
    assert 0 not in manifest.done(dataset)
    assert fix(dataset)["repaired"] == ["shard-00000.h5"]
    assert content(dataset) == content(made)


def test_a_shard_made_with_half_the_batch_is_made_so_again(generator_file, tmp_path):
    out = tmp_path / "d"
    settings = GenerateSettings(generator=str(generator_file), seeds="0-9", batch_size=4, shard_size=5)
    job, network, _ = plan_generate(settings, None, "cpu")
    list(synthesize(job, out, network))
    less = replace(job.settings, batch_size=2)
    (out / "shard-00001.json").unlink()
    list(write_shards(job.manifest, job.shards, out, network, None, less, "cpu", "generate"))
    before = content(out)
    flip(out / "shard-00000.h5")
    flip(out / "shard-00001.h5", 5000)
    assert fix(out)["differing"] == [] and content(out) == before
