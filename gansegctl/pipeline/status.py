"""How far a dataset is, over all tasks that work on it: read from its files alone, so that it may be asked anywhere."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from gansegctl.store.claims import claims
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import format_seeds
from gansegctl.store.shard import shard_path

RECENT = 64
"""The rate is that of the last so many shards."""


def status_of(folder: Path, now: float | None = None) -> dict[str, Any]:
    """Shards done, running and missing, samples a second, and seconds to go (None where nothing tells).

    running: a row a shard with host, process, task and seconds since the last sign of life. abandoned: shards whose
    process is gone. Errors: DatasetError for no dataset.
    """
    folder = Path(folder)
    manifest = Manifest.read(folder)
    done = set(manifest.done(folder))
    sizes = [len(manifest.shard_seeds(i)) for i in range(len(manifest.shards))]
    open_claims = [c for c in claims(folder) if c.index < len(sizes) and c.index not in done]
    running = [c for c in open_claims if c.alive]
    busy = {c.index for c in running}
    missing = [i for i in range(len(sizes)) if i not in done and i not in busy]
    samples, planned = sum(sizes[i] for i in done), sum(sizes)
    rate = _rate(folder, done, sizes)
    left = planned - samples
    return {
        "dataset": str(folder),
        "stage": manifest.stage,
        "shards": len(sizes),
        "done": len(done),
        "running": [
            {"shard": c.index, "host": c.host, "process": c.pid, "task": c.task, "silent_s": round(c.age, 1)}
            for c in running
        ],
        "missing": len(missing),
        "missing_shards": format_seeds(missing),
        "abandoned": format_seeds([c.index for c in open_claims if not c.alive]),
        "samples": samples,
        "planned": planned,
        "per_second": None if rate is None else round(rate, 3),
        "last_shard_s_ago": _silence(folder, done, time.time() if now is None else now),
        "eta_s": 0 if not left else round(left / rate) if rate and running else None,
    }


def _written(folder: Path, done: set[int]) -> list[tuple[float, int]]:
    """When each shard was finished, in order."""
    times = []
    for i in done:
        with contextlib.suppress(FileNotFoundError):  # a task may just be making it anew
            times.append((shard_path(folder, i).with_suffix(".json").stat().st_mtime, i))
    return sorted(times)


def _rate(folder: Path, done: set[int], sizes: list[int]) -> float | None:
    times = _written(folder, done)[-RECENT:]
    if len(times) < 2 or times[-1][0] <= times[0][0]:
        return None
    return sum(sizes[i] for _, i in times[1:]) / (times[-1][0] - times[0][0])


def _silence(folder: Path, done: set[int], now: float) -> float | None:
    times = _written(folder, done)
    return round(max(0.0, now - times[-1][0]), 1) if times else None
