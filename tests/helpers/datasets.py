"""Small datasets: striped masks, noisy images, everything drawn from the sample's seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gansegctl.labels import LabelMap
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import ShardArrays
from gansegctl.store.shard import write_shard

LABELS = LabelMap(("background", "face", "hair"))


def draw(seeds, size: int = 16, channels: int = 3, masks: bool = True) -> ShardArrays:
    """The arrays of a shard that holds these seeds."""
    streams = [np.random.default_rng(s) for s in seeds]
    image = np.stack([r.integers(0, 256, (size, size, channels), dtype=np.uint8) for r in streams])
    latent = np.stack([r.standard_normal(8, dtype=np.float32) for r in streams])
    seed = np.array(list(seeds), dtype=np.uint64)
    if not masks:
        return ShardArrays(image, seed, latent)
    mask = np.stack([np.repeat((np.arange(size, dtype=np.uint8) + s) % 3, size).reshape(size, size) for s in seeds])
    confidence = np.stack([r.integers(0, 256, (size, size), dtype=np.uint8) for r in streams])
    return ShardArrays(
        image, seed, latent, mask.astype(np.uint8), confidence, np.float32([r.random() for r in streams])
    )


def plan(shards=("0-3", "4-7", "20,9"), masks: bool = True, **generate) -> Manifest:
    """A manifest of a small dataset."""
    return Manifest(
        stage="pairs" if masks else "images",
        settings={"generate": {"generator": "toy", "truncation": 0.7, "noise": "const"} | generate},
        generator={"name": "toy", "family": "stylegan2", "sha256": "ab" * 32, "resolution": 16, "channels": 3},
        shards=tuple(shards),
        labels=LABELS if masks else None,
        segmenter={"method": "repurpose", "shots": 1, "sha256": "cd" * 32} if masks else None,
        licence="CC0-1.0",
    )


def fill(folder: Path, manifest: Manifest, only=None) -> list[int]:
    """Begin or resume, write what is not done, return the shards written."""
    there = manifest.begin(folder)
    done = there.done(folder)
    todo = [i for i in range(len(manifest.shards)) if i not in done and (only is None or i in only)]
    for i in todo:
        arrays = draw(manifest.shard_seeds(i), masks=manifest.stage == "pairs")
        write_shard(folder, i, arrays, manifest.labels, manifest.digest)
    return todo
