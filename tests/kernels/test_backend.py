"""Who computes: what is available and why not, and what auto means."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
import torch

from gansegctl import kernels
from gansegctl.kernels import backend


class OnGpu:
    """What `pick` looks at of a tensor on a GPU."""

    is_cuda, is_cpu, device = True, False, "cuda:0"


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


def test_auto_is_triton_on_a_gpu_and_cpu_on_a_cpu(monkeypatch):
    monkeypatch.setattr(backend, "_gpus", lambda: 1)
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert backend.pick("auto", [OnGpu(), OnGpu()]) == "triton"
    assert backend.pick("auto", [torch.ones(1)]) == "cpu"
    assert backend.pick("auto") == "cpu"
    assert backend.pick("triton", [OnGpu()]) == "triton"
    with pytest.raises(ValueError, match="too deep"):
        backend.pick("triton", [OnGpu()], {"triton": "too deep"})
    with pytest.raises(ValueError, match="lie on cpu, not on a CUDA device"):
        backend.pick("triton", [OnGpu(), torch.ones(1)])


def test_auto_is_plain_torch_where_triton_cannot(monkeypatch):
    monkeypatch.setattr(backend, "_gpus", lambda: 1)
    monkeypatch.setattr(backend, "find_spec", lambda name: object())
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert backend.pick("auto", [OnGpu(), torch.ones(1)]) == "torch"
    assert backend.pick("auto", [OnGpu()], {"triton": "too deep"}) == "torch"
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert backend.pick("auto", [OnGpu()]) == "torch"


def test_the_cpu_backend_is_refused_on_a_gpu_and_torch_and_reference_run_anywhere():
    with pytest.raises(ValueError, match=r"lie on cuda:0, not on the CPU; pass --backend auto"):
        backend.pick("cpu", [OnGpu(), torch.ones(1)])
    for name in ("torch", "reference"):
        assert backend.pick(name, [OnGpu()]) == backend.pick(name, [torch.ones(1)]) == name


def test_every_op_takes_a_backend_and_refuses_an_unknown_one():
    x, points = torch.ones(1, 2, 2, 2), torch.zeros(1, 3, dtype=torch.int64)
    calls = {
        "upsample_concat": ([x], (4, 4)),
        "upsample_sum": ([x], (4, 4)),
        "conv_upsampled": (x, torch.ones(1, 2, 3, 3), (4, 4)),
        "squared_norm": (x, (4, 4)),
        "segment_pool": (torch.ones(1, 1, 4, 4), [x]),
        "segment_pool_labels": (torch.zeros(1, 4, 4, dtype=torch.uint8), [x], 2),
        "project": ([x], torch.ones(1, 2), (4, 4)),
        "conv": ([x], torch.ones(1, 2, 3, 3), (4, 4)),
        "perceptron": ([x], [(torch.ones(1, 2), torch.ones(1))], (4, 4)),
        "classify": ([x], [[(torch.ones(3, 2), torch.ones(3))]], (4, 4)),
        "gather_points": (x, points, (4, 4)),
        "pixel_head": ([x], (4, 4)),
        "filter_activate": (x, torch.ones(1, 2), torch.ones(2)),
    }
    assert set(calls) == set(kernels.__all__)
    for name, arguments in calls.items():
        with pytest.raises(ValueError, match="wanted one of"):
            getattr(kernels, name)(*arguments, backend="metal")


def test_every_torch_backend_has_every_op():
    for name in ("reference", "cpu_ops", "torch_ops"):
        module = import_module(f"gansegctl.kernels.{name}")
        assert all(callable(getattr(module, op)) for op in kernels.__all__), name


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
    backend.prefer("cpu")
    with pytest.raises(ValueError, match="lie on cuda:0"):
        backend.pick("auto", [OnGpu()])
    backend.prefer("triton")
    with pytest.raises(ValueError, match="too deep"):
        backend.pick("auto", [OnGpu()], {"triton": "too deep"})
    with pytest.raises(ValueError, match="lie on cpu"):
        backend.pick("auto", [torch.ones(1)])
    backend.prefer("auto")
    assert backend.pick("auto", [OnGpu()], {"triton": "too deep"}) == "torch"


def test_a_backend_that_cannot_run_is_not_preferred(as_before, monkeypatch):
    monkeypatch.setattr(backend, "_gpus", lambda: 0)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    for name, why in (("cuda", "CUDA device"), ("triton", "triton|Triton"), ("metal", "wanted one of")):
        with pytest.raises(ValueError, match=why):
            backend.prefer(name)
    assert backend.preferred() == "auto"
