"""How much memory a call needs at its worst, and how much there is."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


def peak_extra(function: Callable[[], object], device: str = "cpu") -> int | None:
    """The bytes of `with_peak`; the result of the call is dropped."""
    return with_peak(function, device)[1]


def with_peak(function: Callable[[], T], device: str = "cpu") -> tuple[T, int | None]:
    """The result of a call, and the bytes it held at its worst beyond those held before, its result included.

    On a GPU by torch's allocator. On Linux by the kernel's own high-water mark of resident memory, which is set back
    first (/proc/self/clear_refs), or where that is refused by reading the resident size every 2 ms. None elsewhere.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = function()
        torch.cuda.synchronize(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    if _resident() is None:
        return function(), None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # else freed memory that the process still holds would hide as much of the next call's
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak_by_sampling(function)
    before = _resident() or 0
    result = function()
    return result, max((_status("VmHWM") or 0) - before, 0)


def how_memory_is_measured(device: str) -> str:
    """For the foot of a table."""
    if torch.device(device).type == "cuda":
        return "peak memory of torch's allocator"
    return "peak of resident memory as the kernel counts it (VmHWM, set back before each call)"


def available_memory(device: str = "cpu") -> int:
    """Bytes that can still be allocated on a device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _peak_by_sampling(function: Callable[[], T]) -> tuple[T, int]:
    before = most = _resident() or 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, _resident() or 0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        result = function()
        most = max(most, _resident() or 0)
    finally:
        done.set()
        watcher.join()
    return result, most - before


def _resident() -> int | None:
    return _status("VmRSS")


def _status(key: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
