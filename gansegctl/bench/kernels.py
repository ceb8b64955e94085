"""`gansegctl bench kernels`: seconds, bytes and bandwidth of every op, beside a plain copy on the same device.

Speeds are given only for results that agree with the reference. Bytes are those an op must move: its inputs read once
and its outputs written once; what a backend moves beyond that lowers its share of the copy's bandwidth.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gansegctl import kernels
from gansegctl.bench.common import SHAPES, disagreement, levels_of
from gansegctl.errors import DeviceError, UsageError, did_you_mean
from gansegctl.kernels import backend as backends
from gansegctl.pipeline.runtime.memory import with_peak

Result = Tensor | tuple[Tensor, ...]
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

UNITS, CLASSES, POINTS = 128, 12, 4096
"""First-layer units, classes and sampled pixels of the measured calls."""

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Case:
    """One call: `run` takes a backend; `bytes` it must move."""

    op: str
    run: Callable[[str], Result]
    bytes: int


@dataclass(frozen=True)
class Timing:
    """One measured call. of_copy: its bytes a second over those of a copy; peak_bytes: allocated beyond its inputs."""

    op: str
    backend: str
    shape: str
    batch: int
    dtype: str
    seconds: float
    bytes: int
    of_copy: float
    peak_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and text."""
        return asdict(self)


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
    for word, known in ((precision, tuple(PRECISIONS)), *((shape, tuple(SHAPES)) for shape in shapes)):
        if word not in known:
            raise UsageError(f"got {word!r}", wanted=" | ".join(known), remedy=did_you_mean(word, known))
    for shape in shapes:
        for timing in measure(shape, batch, PRECISIONS[precision], device, rounds=repeats):
            yield timing.to_json()


def activations(shape: str, batch: int, dtype: torch.dtype, device: torch.device | str) -> list[Tensor]:
    """Random activations of a shape of SHAPES: [batch,C_i,h_i,h_i] each, channels-last on a GPU."""
    device = torch.device(device)
    stream = torch.Generator(device).manual_seed(0)
    form = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return [
        torch.randn(batch, c, r, r, generator=stream, device=device).to(dtype, memory_format=form)
        for r, c, _ in levels_of(shape)[1]
    ]


def cases(shape: str, batch: int, dtype: torch.dtype, device: torch.device | str) -> Iterator[Case]:
    """Every op on the activations of a shape. Sums and heads start from products at native size, as in a pyramid."""
    side = levels_of(shape)[0]
    size, levels = (side, side), activations(shape, batch, dtype, device)
    device = levels[0].device
    stream = torch.Generator(device).manual_seed(1)
    pixels = batch * size[0] * size[1]

    def draw(*dimensions: int) -> Tensor:
        return torch.randn(*dimensions, generator=stream, device=device).to(dtype)

    item = levels[0].element_size()
    read = _bytes(levels)
    yield Case(
        "upsample_concat",
        lambda b: kernels.upsample_concat(levels, size, backend=b),
        read + pixels * sum(x.shape[1] for x in levels) * item,
    )
    natives = sorted({x.shape[2] for x in levels})
    sums = [draw(batch, UNITS, r, r).to(memory_format=torch.channels_last) for r in natives]
    bias = draw(UNITS)
    yield Case(
        "upsample_sum",
        lambda b: kernels.upsample_sum(sums, size, bias=bias, slope=0.0, backend=b),
        _bytes(sums) + pixels * UNITS * item,
    )
    layers = [(draw(1, CLASSES, UNITS) / UNITS**0.5, draw(1, CLASSES))]
    yield Case(
        "pixel_head",
        lambda b: kernels.pixel_head(sums, size, layers, bias=bias, per_pixel=False, backend=b),
        _bytes(sums) + 2 * pixels,
    )
    middle = levels[len(levels) // 2]
    yield Case("squared_norm", lambda b: kernels.squared_norm(middle, size, backend=b), _bytes([middle]) + 4 * pixels)
    labels = torch.randint(0, CLASSES, (batch, *size), generator=stream, device=device, dtype=torch.uint8)
    yield Case(
        "segment_pool_labels",
        lambda b: kernels.segment_pool_labels(labels, [middle], CLASSES, backend=b),
        _bytes([middle]) + pixels,
    )
    limits = torch.tensor([batch, *size], device=device)
    points = torch.randint(0, 2**31, (POINTS, 3), generator=stream, device=device) % limits
    wide = levels[-1]
    after = (draw(batch, wide.shape[1]), draw(wide.shape[1]), draw(1, 1, wide.shape[2] - 1, wide.shape[3] - 1))
    fir = torch.outer(*[torch.tensor([0.25, 0.75, 0.75, 0.25], device=device).to(dtype)] * 2)
    yield Case(
        "filter_activate",  # on a copy, since the reference writes over what it is given; the copy counts as moved
        lambda b: kernels.filter_activate(wide.clone(), *after, fir, (1, 1), 2**0.5, backend=b),
        4 * _bytes([wide]),
    )
    yield Case(
        "gather_points",
        lambda b: kernels.gather_points(middle, points, size, backend=b),
        5 * POINTS * middle.shape[1] * item,
    )


def measure(
    shape: str,
    batch: int,
    dtype: torch.dtype,
    device: torch.device | str,
    names: Sequence[str] | None = None,
    rounds: int = 10,
    ops: Sequence[str] | None = None,
) -> list[Timing]:
    """Every op of a shape under each backend that can run it here (`names`: only these).

    Errors: ValueError for a backend that was named and cannot run; GansegError when a result does not agree with the
    reference, of which no speed is given then.
    """
    device = torch.device(device)
    elsewhere = ("cpu",) if device.type == "cuda" else ("triton",)
    chosen = names or [n for n, why in backends.available().items() if not why and n not in elsewhere]
    copy = copy_bandwidth(device)
    rows = []
    for case in cases(shape, batch, dtype, device):
        if ops and case.op not in ops:
            continue
        wanted = case.run("reference")
        for name in chosen:
            if name == "cuda" and case.op != "upsample_concat":
                continue
            call = partial(case.run, name)
            got, peak = with_peak(call, str(device)) if device.type == "cuda" else (call(), None)
            difference = largest_difference(got, wanted)
            if difference > TOLERANCE[dtype]:
                what = f"results of {case.op} by {name} and by the reference"
                raise disagreement(what, f"by {difference:.2g} of their range", f"at most {TOLERANCE[dtype]}")
            del got
            took = seconds(call, device, rounds)
            share = case.bytes / took / copy
            kind = str(dtype).removeprefix("torch.")
            rows.append(Timing(case.op, name, shape, batch, kind, took, case.bytes, share, peak))
    return rows


def largest_difference(got: Result, wanted: Result) -> float:
    """The largest difference over the largest magnitude; of uint8 labels the share that differ by more than one."""
    if isinstance(got, tuple) or isinstance(wanted, tuple):
        return max(largest_difference(a, b) for a, b in zip(got, wanted, strict=True))
    if wanted.dtype == torch.uint8:
        return float(((got.int() - wanted.int()).abs() > 1).float().mean())
    scale = max(float(wanted.abs().max()), 1e-12)
    return float((got.float() - wanted.float()).abs().max()) / scale


def copy_bandwidth(device: torch.device | str, size: int | None = None) -> float:
    """Bytes read and written a second by a copy of `size` bytes (default: 1 GiB on a GPU, 128 MiB on a CPU).

    By the clock of the kernels, so that a kernel's share of it is one of equals.
    """
    device = torch.device(device)
    size = size or (2**30 if device.type == "cuda" else 2**27)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, 10)


def seconds(function: Callable[[], object], device: torch.device | str, rounds: int = 10) -> float:
    """The median of `rounds` runs after two to warm up: CUDA events with the L2 cache flushed, or a clock."""
    device = torch.device(device)
    for _ in range(2):
        function()
    if device.type != "cuda":
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return statistics.median(times)
    flush = torch.empty(2**28, dtype=torch.uint8, device=device)  # several times the L2 of any device so far
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
    for began, ended in events:
        flush.zero_()
        began.record()
        function()
        ended.record()
    torch.cuda.synchronize(device)
    return statistics.median(a.elapsed_time(b) for a, b in events) / 1e3


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)
