"""Which seeds fall into which shard and batch: a pure function of the settings, the same on any machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gansegctl.errors import UsageError

SHARD_BYTES = 256_000_000
"""Raw bytes a shard aims at: big enough for few files, small enough to hold twice in memory."""


@dataclass(frozen=True)
class PlannedShard:
    """Shard `index` holds `seeds`, in this order."""

    index: int
    seeds: tuple[int, ...]


def samples_a_shard(bytes_a_sample: int, budget: int = SHARD_BYTES) -> int:
    """How many samples of that raw size a shard holds, at least one and at most 4,096."""
    return max(1, min(4096, budget // max(1, bytes_a_sample)))


def plan_shards(seeds: Sequence[int], shard_size: int) -> list[PlannedShard]:
    """Consecutive runs of `shard_size` seeds. UsageError for no seeds, repeated seeds or a size below 1."""
    if not seeds or shard_size < 1:
        raise UsageError(f"got {len(seeds)} seeds in shards of {shard_size}", wanted="at least one of each")
    if len(set(seeds)) != len(seeds):
        raise UsageError("got a seed twice", wanted="every seed once", remedy="check --seeds for overlapping ranges")
    return [PlannedShard(i // shard_size, tuple(seeds[i : i + shard_size])) for i in range(0, len(seeds), shard_size)]


def batches(seeds: Sequence[int], batch_size: int) -> Iterator[tuple[int, ...]]:
    """Runs of at most `batch_size`, never across shards: the same batches after any interruption."""
    for i in range(0, len(seeds), batch_size):
        yield tuple(seeds[i : i + batch_size])
