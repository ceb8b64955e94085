"""A slice of the fuzz (`fuzz.py`), and that it can find what it looks for."""

from __future__ import annotations

import os
import random
import time

import pytest
import torch
from helpers.checkpoints import authoring, fuzz

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.reading import read


def test_a_slice_of_altered_checkpoints(tmp_path):
    outcomes = fuzz.run(500, seed=1, folder=tmp_path)
    assert sum(outcomes.values()) == 500 and set(outcomes) <= {"equal", "harmless", "refused"}
    assert outcomes["refused"] > 200 and outcomes["harmless"] + outcomes["equal"] > 20


def test_cases_are_functions_of_the_seed():
    content = authoring.torch_bytes({"a": torch.arange(9.0)})
    cases = [fuzz.mutated(random.Random(f"0-{i}"), content) for i in range(40)]
    assert cases == [fuzz.mutated(random.Random(f"0-{i}"), content) for i in range(40)]
    assert len(set(cases)) > 35


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        (lambda: exec("x = 1"), "did more than read"),
        (lambda: open(os.devnull, "w").close(), "did more than read"),
        (lambda: [][1], "IndexError"),
        (lambda: time.sleep(60), "Hang"),
        (lambda: bytearray(1 << 30), "MemoryError"),
        (lambda: _refuse_after(MemoryError()), "before a limit did"),
        (lambda: _refuse_after(None), "without a remedy"),
    ],
)
def test_each_kind_of_fault_is_found(fault, finding, tmp_path, monkeypatch):
    fixture = authoring.torch_bytes({"a": torch.ones(2)})
    monkeypatch.setattr(authoring, "fixtures", lambda resolution: iter([("x.pt", fixture)]))
    monkeypatch.setattr(fuzz, "SECONDS", 0.3)

    def faulty(path):
        if path.name == "case":
            fault()
        return read(path)

    monkeypatch.setattr(fuzz, "read", faulty)
    with pytest.raises(RuntimeError, match=finding):
        fuzz.run(1, seed=0, folder=tmp_path)
    assert list(tmp_path.glob("finding-*"))


def _refuse_after(cause):
    raise UsageError("got x") from cause


def test_equal_means_every_value(tmp_path):
    value = {"a": torch.tensor([1.0, float("nan")]), "b": [1, (2, float("nan"))]}
    path = tmp_path / "x"
    path.write_bytes(authoring.torch_bytes(value))
    assert fuzz.equal(read(path).value, read(path).value)
    for other in ({"a": value["a"] + 1, "b": value["b"]}, {"a": value["a"], "b": [1, (3, 4.0)]}, {"a": value["a"]}):
        path.write_bytes(authoring.torch_bytes(other))
        assert not fuzz.equal(read(path).value, value)
