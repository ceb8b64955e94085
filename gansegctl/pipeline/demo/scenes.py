"""`demo scenes`: renderings of the built-in domain with exact masks, written as a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gansegctl.contracts import Progress, Stage
from gansegctl.demo.scenes import LABELS, batches_of_scenes
from gansegctl.pipeline.generate.plan import plan_shards, samples_a_shard
from gansegctl.pipeline.generate.shards import finish
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import ShardArrays, format_seeds
from gansegctl.store.shard import shard_done, write_shard


def write_scenes(seeds: list[int], out: Path, resolution: int = 64) -> Stage[None]:
    """Render the seeds into OUT; goes on where it was stopped."""
    shards = plan_shards(seeds, samples_a_shard(resolution * resolution * 4))
    manifest = Manifest(
        stage="pairs",
        settings={"generate": {"generator": "demo scenes", "seeds": format_seeds(seeds), "resolution": resolution}},
        generator={"name": "demo scenes", "family": "rules", "sha256": None, "resolution": resolution, "channels": 3},
        shards=Manifest.plan([s.seeds for s in shards]),
        labels=LABELS,
        licence="CC0-1.0",
    )
    manifest.begin(out)
    done = 0
    for shard in shards:
        if not shard_done(out, shard.index, manifest.digest):
            images, masks = [], []
            for image, mask in batches_of_scenes(shard.seeds, resolution):
                images.append(image)
                masks.append(mask)
                yield Progress("scenes", done + sum(map(len, images)), len(seeds), "images")
            arrays = ShardArrays(np.concatenate(images), np.array(shard.seeds, np.uint64), mask=np.concatenate(masks))
            write_shard(out, shard.index, arrays, LABELS, manifest.digest)
        done += len(shard.seeds)
    finish(out)
    yield Progress("scenes", done, len(seeds), "images")
