"""What a shard may hold, and seeds written as ranges."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.datasets import draw

from gansegctl.errors import DatasetError, UsageError
from gansegctl.store.schema import ShardArrays, ShardRecord, format_seeds, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0", [0]),
        ("0-3", [0, 1, 2, 3]),
        ("0-2,200", [0, 1, 2, 200]),
        (" 7 , 3-4", [7, 3, 4]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_seeds_are_read(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,,2", "1,", "1.5", "²", "0x3", "4294967296", "1-2-3"])
def test_other_texts_are_refused(text):
    with pytest.raises(UsageError, match="0-99,200"):
        parse_seeds(text)


def test_seeds_are_written_in_order_and_as_short_as_they_go():
    assert format_seeds([0, 1, 2, 5, 4, 9, 10]) == "0-2,5,4,9-10"
    assert format_seeds(np.array([3, 4], dtype=np.uint64)) == "3-4"
    assert format_seeds([]) == ""
    stream = np.random.default_rng(0)
    for _ in range(50):
        seeds = stream.integers(0, 30, stream.integers(1, 20)).tolist()
        assert parse_seeds(format_seeds(seeds)) == seeds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", np.zeros((2, 16, 16), np.uint8)),
        ("image", np.zeros((2, 16, 16, 4), np.uint8)),
        ("image", np.zeros((2, 16, 16, 3), np.float32)),
        ("image", np.zeros((0, 16, 16, 3), np.uint8)),
        ("image", np.zeros((16, 16), np.uint8)),
        ("seed", np.zeros(2, np.int64)),
        ("seed", np.zeros((2, 1), np.uint64)),
        ("seed", np.zeros(3, np.uint64)),
        ("latent", np.zeros((2, 8), np.float64)),
        ("latent", np.zeros(2, np.float32)),
        ("latent", np.zeros((3, 8), np.float32)),
        ("mask", np.zeros((2, 16, 15), np.uint8)),
        ("mask", np.zeros((2, 16, 16), np.int64)),
        ("confidence", np.zeros((2, 8, 8), np.uint8)),
        ("score", np.zeros((2, 2), np.float32)),
        ("score", np.zeros(2, np.float64)),
    ],
)
def test_wrong_arrays_are_refused_by_name(name, value):
    with pytest.raises(DatasetError, match=f"got {name} .*[\\s\\S]*wanted"):
        replace(draw([0, 1]), **{name: value})


def test_grey_images_and_full_latents_are_taken():
    grey = draw([0, 1], channels=1)
    full = replace(grey, latent=np.zeros((2, 6, 8), np.float16), mask=None, score=None)
    assert len(full) == 2 and list(full.present()) == ["image", "seed", "latent", "confidence"]
    assert list(ShardArrays(grey.image, grey.seed).present()) == ["image", "seed"]


@pytest.mark.parametrize("histogram", [None, (5, 0, 7)])
def test_a_record_survives_json(histogram):
    record = ShardRecord(3, 4, "0-3", "ab", 100, "cd", ("image", "seed"), histogram)
    assert ShardRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
