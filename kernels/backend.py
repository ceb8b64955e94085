"""Which backends there are and which this machine has; an explicit choice is never replaced by another.

reference: the definitions (reference.py), slow, for checks. cpu: strips of rows that stay in cache (cpu_ops.py).
torch: plain torch on any device (torch_ops.py). triton: kernels for GPUs (triton_ops.py). cuda: upsample_concat.cu.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = ("auto", "reference", "cpu", "torch", "triton", "cuda")
_preferred = "auto"


def prefer(backend: str) -> None:
    """Set the meaning of "auto" from now on in this process: that backend, and no other, or "auto" again.

    Errors: ValueError for an unknown backend, or one that cannot run on this machine.
    """
    global _preferred
    _check_name(backend)
    reason = None if backend == "auto" else available()[backend]
    if reason:
        raise _cannot_run(backend, reason)
    _preferred = backend


def preferred() -> str:
    """The backend that `prefer` set last; "auto" at first."""
    return _preferred


def interpreted() -> bool:
    """Whether Triton runs in its interpreter (TRITON_INTERPRET=1): on a CPU, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def available() -> dict[str, str | None]:
    """Backend → None when it can run on this machine, else why it cannot."""
    return {"reference": None, "cpu": None, "torch": None, "triton": _why_no_triton(), "cuda": _why_no_cuda()}


def pick(backend: str, tensors: Sequence[Tensor] = (), cannot: dict[str, str] | None = None) -> str:
    """The backend that runs on `tensors`; `cannot`: backend → why it cannot do this call.

    "auto" is what was preferred; else cpu where all tensors lie on the CPU, triton where all lie on a CUDA device and
    it can do the call, and torch anywhere else.
    Errors: ValueError for an unknown backend, or one that was asked for and cannot run.
    """
    _check_name(backend)
    cannot = cannot or {}
    backend = _preferred if backend == "auto" else backend
    if backend == "auto":
        if all(t.is_cpu for t in tensors):
            return "cpu"
        on_gpu = all(t.is_cuda for t in tensors)
        runs = on_gpu and "triton" not in cannot and not interpreted() and _why_no_triton() is None
        return "triton" if runs else "torch"
    reason = available()[backend] or cannot.get(backend) or _why_not_there(backend, tensors)
    if reason:
        raise _cannot_run(backend, reason)
    return backend


def _check_name(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"got backend {backend!r}; wanted one of {', '.join(BACKENDS)}")


def _cannot_run(backend: str, reason: str) -> ValueError:
    return ValueError(f"got backend {backend!r}, which cannot run here: {reason}; pass --backend auto")


def _why_no_triton() -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton; Linux only)"
    if interpreted() or _gpus():
        return None
    return "Triton needs a CUDA device and torch sees none (TRITON_INTERPRET=1 runs it on the CPU, for tests)"


def _why_no_cuda() -> str | None:
    if not _gpus():
        return "CUDA kernels need a CUDA device and torch sees none"
    from gansegctl.kernels import build

    return build.why_not_built()


def _why_not_there(backend: str, tensors: Sequence[Tensor]) -> str | None:
    if backend in ("reference", "torch") or (backend == "triton" and interpreted()):
        return None
    wanted = "the CPU" if backend == "cpu" else "a CUDA device"
    elsewhere = sorted({str(t.device) for t in tensors if not (t.is_cpu if backend == "cpu" else t.is_cuda)})
    return f"the tensors lie on {', '.join(elsewhere)}, not on {wanted}" if elsewhere else None


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
