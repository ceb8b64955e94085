"""benchmarks/gpu_check.py: what it says without a GPU, and the tables it writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check as script

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_gpu_it_exits_3_and_writes_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "-o", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "no CUDA device" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_failures_and_speeds_are_in_the_tables():
    facts = {"device": "a GPU", "torch": "2", "triton": "3", "copy_GB_s": 4000.0}
    facts["correctness"] = [{"op": "upsample_sum", "passed": True}, {"op": "squared_norm", "passed": False}]
    text = script.tables(facts)
    assert "2 checks, 1 failed" in text
    assert '- failed: {"op": "squared_norm"' in text
    assert "|" not in text
    speed = {"shape": "s", "batch": 8, "op": "upsample_sum", "backend": "triton", "dtype": "float32"}
    facts["bandwidth"] = [speed | {"seconds": 0.001, "bytes": 2e9, "of_copy": 0.5, "peak_bytes": 3e6}]
    pair = {"resolution": 1024, "batch": 8, "image_s": 0.1, "pair_s": 0.11, "ratio": 1.1, "pairs_per_s": 72.7}
    pair |= {"plain_image_s": 0.15, "precision": "fp16"}
    facts["pairs"] = [pair | {"mask_s": 0.01, "dense_s": None}]
    text = script.tables(facts)
    assert "| s, 8 | upsample_sum | triton | float32 | 1.000 | 2000 | 50% | 3 |" in text
    assert "| 1024 | fp16 | 8 | 150.00 | 100.00 | 110.00 | 1.10 | 73 | 10.00 | out of memory |" in text


def test_a_result_that_is_wrong_does_not_pass(monkeypatch):
    """One op on the CPU: the reference held to itself passes, a shifted copy of it does not."""
    x = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def call(name, inputs):
        return inputs[0] * 2 + (0.1 if name == "triton" else 0.0)

    monkeypatch.setattr(script, "ops", lambda mode, dtype: iter([("doubling", [x], call, False)]))
    monkeypatch.setattr(script.backend, "available", lambda: {"triton": None, "cuda": "not here"})
    monkeypatch.setattr(script, "heads", list)
    monkeypatch.setattr(script, "repeats", list)
    rows = script.correctness()
    assert len(rows) == 9
    assert not any(r["passed"] for r in rows)
    monkeypatch.setattr(script, "ops", lambda mode, dtype: iter([("doubling", [x], lambda n, i: i[0] * 2, False)]))
    assert all(r["passed"] for r in script.correctness())
