"""`gansegctl bench kernels`: every kernel under every backend of a GPU, by the clock of kernels/bench.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from gansegctl.errors import DeviceError, GansegError, UsageError, did_you_mean

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def bench_kernels(
    shapes: Sequence[str], batch: int, precision: str, repeats: int, device: str
) -> Iterator[dict[str, Any]]:
    """One object a kernel and backend: seconds, bytes, share of copy bandwidth, peak memory.

    Errors: DeviceError without a GPU or without Triton, UsageError for an unknown shape or precision, GansegError when
    a kernel disagrees with the reference.
    """
    if torch.device(device).type != "cuda":
        raise DeviceError(
            f"got device {device!r}: kernels are measured on a GPU",
            wanted="--device cuda, on a machine with a CUDA device",
            remedy="`gansegctl bench features` measures the CPU's path",
        )
    if find_spec("triton") is None:
        raise DeviceError("got no Triton", wanted="triton, as torch for CUDA has it", remedy="pip install triton")
    from gansegctl.kernels import bench

    for word, known in ((precision, PRECISIONS), *((shape, bench.SHAPES) for shape in shapes)):
        if word not in known:
            raise UsageError(f"got {word!r}", wanted=" | ".join(known), remedy=did_you_mean(word, known))
    for shape in shapes:
        try:
            rows = bench.measure(shape, batch, PRECISIONS[precision], device, rounds=repeats)
        except RuntimeError as e:
            raise GansegError(str(e), remedy="report it with the output of `gansegctl doctor`") from e
        for row in rows:
            yield row.to_json()
