"""The plan is a pure function of the settings."""

from __future__ import annotations

import pytest

from gansegctl.errors import UsageError
from gansegctl.pipeline.generate.plan import batches, plan_shards, samples_a_shard


@pytest.mark.parametrize("count", [1, 7, 10, 11])
@pytest.mark.parametrize("size", [1, 5, 100])
def test_every_seed_is_in_one_shard_in_order(count, size):
    seeds = [3 * i for i in range(count)]
    shards = plan_shards(seeds, size)
    assert [s for shard in shards for s in shard.seeds] == seeds
    assert [s.index for s in shards] == list(range(len(shards)))
    assert all(len(s.seeds) == size for s in shards[:-1])


def test_batches_never_cross_a_shard():
    shards = plan_shards(list(range(10)), 4)
    assert [len(b) for s in shards for b in batches(s.seeds, 3)] == [3, 1, 3, 1, 2]


def test_a_shard_holds_about_its_budget():
    assert samples_a_shard(1_000_000) == 256
    assert samples_a_shard(10**12) == 1
    assert samples_a_shard(1) == 4096


def test_nonsense_is_refused():
    with pytest.raises(UsageError, match="twice"):
        plan_shards([1, 2, 1], 2)
    for seeds, size in (([], 1), ([1], 0)):
        with pytest.raises(UsageError, match="at least one"):
            plan_shards(seeds, size)
