"""`gansegctl verify` as a shell sees it."""

from __future__ import annotations

import json

from gansegctl.store.manifest import foreign_files


def test_verify_finds_a_flipped_byte(dataset, call):
    shard = dataset / "shard-00000.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    status, out, err = call("verify", dataset, "--json")
    assert status == 4
    assert "damaged" in json.loads(out)["problems"][0]
    assert "remedy" in err


def test_scores_beside_a_segmenter_are_no_strangers_in_its_dataset(dataset):
    (dataset / "segmenter-eval").mkdir()
    (dataset / "notes.txt").write_text("mine")
    assert foreign_files(dataset) == ["notes.txt"]
