"""Triton's kernels are tested without a GPU too: in its interpreter, which must be chosen before Triton is imported.

A GPU runs them as compiled. Fresh memory of every kernel is poisoned: an element it forgets stays NaN.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def loop_bounds():
    """Triton before 3.7 takes int() of an array of one for a loop's bound, which NumPy 2.4 refuses."""
    if find_spec("triton") is None or "TRITON_INTERPRET" not in os.environ:
        return
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, *scope):
        patch(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patched


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """NaN in fresh floats, 171 in fresh integers."""
    from gansegctl.kernels import launch

    def empty(shape, dtype, device, format=torch.contiguous_format):
        fresh = torch.empty(tuple(shape), dtype=dtype, device=device, memory_format=format)
        return fresh.fill_(float("nan") if dtype.is_floating_point else 171)

    monkeypatch.setattr(launch, "empty", empty)


@pytest.fixture()
def device() -> torch.device:
    """Where Triton runs here; skips where it is not installed."""
    pytest.importorskip("triton", reason="needs Triton (Linux only)")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture()
def draw(device):
    """Normal numbers of a shape, float64, the same at every call order of a test."""
    stream = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=stream, dtype=torch.float64).to(device)


@pytest.fixture()
def no_worse():
    """Asserts the largest error of `ours` at most twice torch's in the same dtype, and one rounding of the result."""

    def check(ours: torch.Tensor, torchs: torch.Tensor, exact: torch.Tensor) -> None:
        assert ours.shape == exact.shape
        error = (ours.double() - exact).abs().max()
        bound = 2 * (torchs.double() - exact).abs().max() + torch.finfo(ours.dtype).eps * exact.abs().max()
        assert error <= bound, f"{error} is above {bound}"

    return check
