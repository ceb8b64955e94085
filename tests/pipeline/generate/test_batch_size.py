"""Batch sizes: the estimate follows the table of taps, memory that runs out halves the batch, and nothing is lost."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from gansegctl.config import GenerateSettings
from gansegctl.contracts import FeatureTap, GeneratorSpec
from gansegctl.errors import GansegError
from gansegctl.pipeline.generate import batch_size as batching
from gansegctl.pipeline.generate.batch_size import (
    FittingBatch,
    choose_batch,
    estimate,
    halved,
    is_out_of_memory,
    resolve_batch,
)
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.store.manifest import Manifest
from gansegctl.store.shard import read_shard

TAPS = (FeatureTap("a", 8, 10), FeatureTap("b", 16, 4, 2))
SPEC = GeneratorSpec("tiny", 16, 3, 8, 8, 0, 4, TAPS)


class Cramped:
    """A generator with room for `room` samples a pass; more fail with `error`, as a full device does."""

    def __init__(self, network, room: int, error: Exception) -> None:
        self.network, self.room, self.error, self.passes = network, room, error, []
        self.spec, self.sha256, self.map = network.spec, network.sha256, network.map

    def synthesize(self, ws, noise="const", taps=None, seeds=None):
        self.passes.append(tuple(seeds))
        if len(seeds) > self.room:
            raise self.error
        return self.network.synthesize(ws, noise, taps, seeds)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
]


def settings(path, **changes) -> GenerateSettings:
    return GenerateSettings(**{"generator": str(path), "seeds": "0-9", "batch_size": 8, "shard_size": 5} | changes)


def run(path, out, room, error, halve=True):
    job, network, _ = plan_generate(settings(path), None, "cpu", out if halve else None)
    job = type(job)(**{**vars(job), "settings": settings(path)})  # as if 8 had been the estimate
    cramped = Cramped(network, room, error)
    return cramped, list(synthesize(job, out, cramped))


def test_the_estimate_is_the_sum_of_its_parts_and_grows_with_the_batch():
    bare, read = estimate(SPEC, 4), estimate(SPEC, 4, ("a", "b"))
    assert (bare.activations, bare.head) == (0, 0)
    assert read.activations == 4 * 4 * (10 * 8 * 8 + 4 * 20 * 20)  # samples · bytes · the two maps, margin included
    assert read.total == read.activations + read.layer + read.head + read.images > bare.total
    assert estimate(SPEC, 8, ("a", "b")).activations == 2 * read.activations
    assert estimate(SPEC, 4, ("a",), itemsize=2).activations == 4 * 2 * 10 * 8 * 8
    assert "4 samples per batch" in read.describe()
    assert "MB" in read.describe()


def test_the_batch_is_the_largest_power_of_two_that_fits():
    assert choose_batch(SPEC, (), 10**12) == batching.LARGEST
    assert choose_batch(SPEC, ("a", "b"), 1) == 1
    free = estimate(SPEC, 8, ("a", "b")).total / batching.SHARE
    assert choose_batch(SPEC, ("a", "b"), int(free) + 1) == 8
    assert choose_batch(SPEC, ("a", "b"), int(free * 0.99)) == 4


def test_what_is_out_of_memory():
    assert all(is_out_of_memory(e) for e in ERRORS)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(KeyError):
        halved(KeyError("x"), 8, True)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_a_batch_that_does_not_fit_is_halved_with_the_same_seeds_and_remembered(generator_file, tmp_path, error):
    cramped, events = run(generator_file, tmp_path / "halved", 2, error)
    assert cramped.passes[:4] == [(0, 1, 2, 3, 4), (0, 1, 2, 3), (0, 1), (2, 3)]
    assert max(len(p) for p in cramped.passes[2:]) == 2  # the second shard begins with what the first found out
    assert events[-1].done == events[-1].total == 10
    assert events[-1].facts["batch_size"] == 2
    assert [s for i in (0, 1) for s in read_shard(tmp_path / "halved", i).seed] == list(range(10))


def test_images_are_those_of_the_smaller_batch_and_the_shard_says_so(generator_file, tmp_path):
    run(generator_file, tmp_path / "halved", 2, ERRORS[0])
    job, network, _ = plan_generate(settings(generator_file, batch_size=2), None, "cpu")
    list(synthesize(job, tmp_path / "small", network))
    for i in (0, 1):
        left, right = read_shard(tmp_path / "halved", i), read_shard(tmp_path / "small", i)
        assert np.array_equal(left.image, right.image)
        assert np.array_equal(left.latent, right.latent)
        with h5py.File(tmp_path / "halved" / f"shard-{i:05d}.h5") as f:
            assert f.attrs["batch_size"] == 2


def test_a_failure_in_the_middle_of_a_shard_begins_it_again(generator_file, tmp_path):
    """Memory may run out late; progress goes back by what is made again, and no sample is there twice."""
    job, network, _ = plan_generate(settings(generator_file, batch_size=2), None, "cpu", tmp_path)
    job = type(job)(**{**vars(job), "settings": settings(generator_file, batch_size=2)})
    late = Cramped(network, 2, ERRORS[0])
    original = late.synthesize
    late.synthesize = lambda ws, noise, taps, seeds: (
        late.fail() if seeds == (2, 3) else original(ws, noise, taps, seeds)
    )
    late.fail = lambda: (_ for _ in ()).throw(ERRORS[0])
    done = [e.done for e in synthesize(job, tmp_path / "out", late)]
    assert done[:3] == [2, 0, 1]
    assert done[-1] == 10
    assert list(read_shard(tmp_path / "out", 0).seed) == [0, 1, 2, 3, 4]


def test_a_batch_asked_for_by_number_is_not_changed(generator_file, tmp_path):
    with pytest.raises(GansegError, match="out of memory") as caught:
        run(generator_file, tmp_path / "out", 2, ERRORS[0], halve=False)
    assert "--batch-size auto, or --batch-size 4" in caught.value.remedy
    assert not list((tmp_path / "out").glob("*.h5"))


def test_one_sample_that_does_not_fit_is_an_error_with_a_remedy(generator_file, tmp_path):
    with pytest.raises(GansegError, match="batch of 1") as caught:
        run(generator_file, tmp_path / "out", 0, ERRORS[1])
    assert "smaller generator" in caught.value.remedy


def test_other_errors_are_not_taken_for_memory(generator_file, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(generator_file, tmp_path / "out", 0, ZeroDivisionError())


def test_nothing_is_retried_where_nothing_fails():
    batch = FittingBatch(GenerateSettings(batch_size=4), True)
    assert list(batch.run(lambda s: iter([s.batch_size, 1, "arrays"]))) == [4, 1, "arrays"]
    assert batch.facts == {}


def test_auto_is_recorded_and_a_dataset_goes_on_with_its_own(generator_file, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "available_memory", lambda device: 10**12)
    job, network, _ = plan_generate(settings(generator_file, batch_size=1), None, "cpu", tmp_path / "out")
    assert job.settings.batch_size == batching.LARGEST
    assert job.memory.batch == batching.LARGEST
    assert "64 samples per batch" in job.describe()["memory"]
    list(synthesize(job, tmp_path / "out", network))
    assert Manifest.read(tmp_path / "out").settings["generate"]["batch_size"] == batching.LARGEST
    monkeypatch.setattr(batching, "available_memory", lambda device: 1)
    again = resolve_batch(settings(generator_file), network, None, "cpu", tmp_path / "out")
    assert again.batch_size == batching.LARGEST
    assert resolve_batch(settings(generator_file), network, None, "cpu", tmp_path / "new").batch_size == 1
