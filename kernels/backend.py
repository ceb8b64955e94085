"""Which backends this build has; an explicit choice is never replaced by another."""

from __future__ import annotations

BACKENDS = ("auto", "reference", "triton", "cuda")


def available() -> dict[str, str | None]:
    """Backend → None when it can run, else why it cannot."""
    missing = "this version has no kernel of this backend; the reference runs on every device that torch does"
    return {"reference": None, "triton": missing, "cuda": missing}


def pick(backend: str) -> str:
    """The backend that runs. ValueError for an unknown one, or one that was asked for and cannot run."""
    if backend not in BACKENDS:
        raise ValueError(f"got backend {backend!r}; wanted one of {', '.join(BACKENDS)}")
    if backend == "auto":
        return "reference"
    reason = available()[backend]
    if reason:
        raise ValueError(f"got backend {backend!r}, which cannot run here: {reason}; pass --backend auto")
    return backend
