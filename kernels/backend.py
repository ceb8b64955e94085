"""Which backends this machine has; an explicit choice is never replaced by another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = ("auto", "reference", "triton", "cuda")
_preferred = "auto"


def prefer(backend: str) -> None:
    """What "auto" means from now on in this process: that backend, and no other, or "auto" again.

    Errors: ValueError for an unknown backend, or one that cannot run on this machine.
    """
    global _preferred
    if backend not in BACKENDS:
        raise ValueError(f"got backend {backend!r}; wanted one of {', '.join(BACKENDS)}")
    reason = None if backend == "auto" else available()[backend]
    if reason:
        raise ValueError(f"got backend {backend!r}, which cannot run here: {reason}; pass --backend auto")
    _preferred = backend


def preferred() -> str:
    """What `prefer` said last; "auto" at first."""
    return _preferred


def interpreted() -> bool:
    """Whether Triton runs in its interpreter (TRITON_INTERPRET=1): on a CPU, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def available() -> dict[str, str | None]:
    """Backend → None when it can run on this machine, else why it cannot."""
    return {"reference": None, "triton": _why_no_triton(), "cuda": _why_no_cuda()}


def pick(backend: str, tensors: Sequence[Tensor] = (), cannot: dict[str, str] | None = None) -> str:
    """The backend that runs on `tensors`; `cannot`: backend → why it cannot do this call.

    "auto" is what was preferred; else triton where all tensors lie on a CUDA device and it can do the call; else the
    reference.
    Errors: ValueError for an unknown backend, or one that was asked for and cannot run.
    """
    if backend not in BACKENDS:
        raise ValueError(f"got backend {backend!r}; wanted one of {', '.join(BACKENDS)}")
    cannot = cannot or {}
    backend = _preferred if backend == "auto" else backend
    if backend == "auto":
        on_gpu = bool(tensors) and all(t.is_cuda for t in tensors)
        runs = on_gpu and "triton" not in cannot and not interpreted() and _why_no_triton() is None
        return "triton" if runs else "reference"
    reason = available()[backend] or cannot.get(backend) or _why_not_there(backend, tensors)
    if reason:
        raise ValueError(f"got backend {backend!r}, which cannot run here: {reason}; pass --backend auto")
    return backend


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
    if backend == "reference":
        return None
    elsewhere = sorted({str(t.device) for t in tensors if not t.is_cuda})
    if not elsewhere or (backend == "triton" and interpreted()):
        return None
    return f"the tensors lie on {', '.join(elsewhere)}, not on a CUDA device"


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
