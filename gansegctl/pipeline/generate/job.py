"""One job of `generate`: settings, opened networks and the plan of its shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gansegctl import presets
from gansegctl.config import GenerateSettings, to_dict
from gansegctl.contracts import Generator
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.generate.batch_size import MemoryEstimate, estimate
from gansegctl.pipeline.generate.filters import Filter
from gansegctl.pipeline.generate.plan import PlannedShard, plan_shards, samples_a_shard
from gansegctl.pipeline.inputs.generators import check_class
from gansegctl.store.codec import require_codec
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import parse_seeds


@dataclass(frozen=True)
class Job:
    """A resolved run: what `--dry-run` prints and `synthesize` carries out."""

    manifest: Manifest
    shards: tuple[PlannedShard, ...]
    settings: GenerateSettings
    bytes_a_sample: int
    memory: MemoryEstimate
    halve: bool = False  # whether a batch that does not fit is halved, as --batch-size auto allows

    def describe(self) -> dict[str, Any]:
        """Settings, shard plan, and the raw bytes to expect, for people and for `--json`."""
        count = sum(len(s.seeds) for s in self.shards)
        return {
            "settings": to_dict(self.settings),
            "generator": self.manifest.generator,
            "samples": count,
            "shards": len(self.shards),
            "raw_bytes": count * self.bytes_a_sample,
            "memory": self.memory.describe(),
        }


def plan_job(
    generator: Generator,
    settings: GenerateSettings,
    segmenter: dict[str, Any] | None = None,
    labels: LabelMap | None = None,
    taps: Sequence[str] = (),
    halve: bool = False,
) -> Job:
    """Resolve settings into a manifest and a shard plan. Touches no disk. taps: those that the segmenter reads."""
    spec = generator.spec
    check_class(generator, settings.class_index)
    require_codec(settings.codec)
    chooses = Filter(settings, labels if segmenter else None).chooses
    if settings.probabilities and not segmenter:
        raise UsageError(
            "got --probabilities for images without masks", wanted="a segmenter", remedy="pass --segmenter FILE"
        )
    size = spec.resolution**2
    classes = len(labels) if settings.probabilities and labels else 0
    maps = 2 + classes if segmenter else 0  # mask, confidence and one a class
    bytes_a_sample = size * spec.image_channels + 4 * spec.w_dim + maps * size
    shard_size = settings.shard_size or samples_a_shard(bytes_a_sample)
    shards = tuple(plan_shards(parse_seeds(settings.seeds), shard_size))
    seeds = Manifest.plan([s.seeds for s in shards])
    manifest = Manifest(
        stage="pairs" if segmenter else "images",
        settings={"generate": to_dict(settings)},
        generator={
            "name": settings.generator,
            "family": spec.family,
            "sha256": generator.sha256,
            "resolution": spec.resolution,
            "channels": spec.image_channels,
        },
        shards=seeds,
        candidates=seeds if chooses else None,
        labels=labels,
        segmenter=segmenter,
        licence=licence_of(settings.generator),
    )
    return Job(
        manifest, shards, settings, bytes_a_sample, estimate(spec, settings.batch_size, taps, classes=classes), halve
    )


def licence_of(generator: str) -> str:
    """The licence that the preset of this name states, else none."""
    if generator in presets.names():
        return presets.load(generator).get("generator", {}).get("licence", "")
    return ""
