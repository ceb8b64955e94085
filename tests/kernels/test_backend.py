"""Who computes: what is available and why not, and what auto means."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gansegctl import kernels
from gansegctl.kernels import backend


class OnGpu:
    """What `pick` looks at of a tensor on a GPU."""

    is_cuda, device = True, "cuda:0"


def test_triton_says_why_it_cannot_run(monkeypatch):
    monkeypatch.setattr(backend, "_gpus", lambda: 0)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    assert "CUDA device" in backend.available()["triton"]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.available()["triton"] is None
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert "not installed" in backend.available()["triton"]
    with pytest.raises(ValueError, match="pip install triton"):
        backend.pick("triton", [OnGpu()])


def test_auto_is_triton_on_a_gpu_and_the_reference_elsewhere(monkeypatch):
    monkeypatch.setattr(backend, "_gpus", lambda: 1)
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert backend.pick("auto", [OnGpu(), OnGpu()]) == "triton"
    assert backend.pick("auto", [OnGpu(), torch.ones(1)]) == "reference"
    assert backend.pick("auto", [OnGpu()], {"triton": "too deep"}) == "reference"
    assert backend.pick("auto") == "reference"
    assert backend.pick("triton", [OnGpu()]) == "triton"
    with pytest.raises(ValueError, match="too deep"):
        backend.pick("triton", [OnGpu()], {"triton": "too deep"})
    with pytest.raises(ValueError, match="lie on cpu"):
        backend.pick("triton", [OnGpu(), torch.ones(1)])
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert backend.pick("auto", [OnGpu()]) == "reference"


def test_every_op_takes_a_backend_and_refuses_an_unknown_one():
    x, points = torch.ones(1, 2, 2, 2), torch.zeros(1, 3, dtype=torch.int64)
    calls = {
        "upsample_concat": ([x], (4, 4)),
        "upsample_sum": ([x], (4, 4)),
        "conv_upsampled": (x, torch.ones(1, 2, 3, 3), (4, 4)),
        "squared_norm": (x, (4, 4)),
        "segment_pool": (torch.ones(1, 1, 4, 4), x),
        "segment_pool_labels": (torch.zeros(1, 4, 4, dtype=torch.uint8), x, 2),
        "gather_points": (x, points, (4, 4)),
        "pixel_head": ([x], (4, 4)),
        "filter_activate": (x, torch.ones(1, 2), torch.ones(2)),
    }
    assert set(calls) == set(kernels.__all__)
    for name, arguments in calls.items():
        with pytest.raises(ValueError, match="wanted one of"):
            getattr(kernels, name)(*arguments, backend="metal")


def test_importing_the_kernels_imports_no_triton():
    code = "import sys, torch, gansegctl.kernels, gansegctl.kernels.reference; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture()
def as_before():
    """Whatever a test prefers, the next one finds "auto"."""
    yield
    backend.prefer("auto")


def test_what_is_preferred_is_what_auto_means(as_before, monkeypatch):
    monkeypatch.setattr(backend, "_gpus", lambda: 1)
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    backend.prefer("reference")
    assert backend.preferred() == "reference" and backend.pick("auto", [OnGpu()]) == "reference"
    backend.prefer("triton")
    with pytest.raises(ValueError, match="too deep"):
        backend.pick("auto", [OnGpu()], {"triton": "too deep"})
    with pytest.raises(ValueError, match="lie on cpu"):
        backend.pick("auto", [torch.ones(1)])
    backend.prefer("auto")
    assert backend.pick("auto", [OnGpu()], {"triton": "too deep"}) == "reference"


def test_a_backend_that_cannot_run_is_not_preferred(as_before, monkeypatch):
    monkeypatch.setattr(backend, "_gpus", lambda: 0)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    for name, why in (("cuda", "CUDA device"), ("triton", "triton|Triton"), ("metal", "wanted one of")):
        with pytest.raises(ValueError, match=why):
            backend.prefer(name)
    assert backend.preferred() == "auto"
