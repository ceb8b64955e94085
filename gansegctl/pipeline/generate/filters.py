"""Which of a shard's samples are kept (--keep-below), and when there are enough of every class (--until).

The candidates of a shard are those of the plan, whoever makes it. What is kept of them by score follows from the
samples; where a quota ends follows from the shards before, so that such shards are made in order, by one task.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansegctl.config import GenerateSettings, from_dict
from gansegctl.errors import GansegError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.generate.plan import PlannedShard
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import ShardArrays, ShardRecord
from gansegctl.store.shard import shard_record


class Everything:
    """Keeps all."""

    chooses = False
    in_order = False

    @property
    def enough(self) -> bool:
        """Whether no more samples are wanted."""
        return False

    def choose(self, shard: PlannedShard, arrays: ShardArrays) -> ShardArrays:
        """The samples to keep."""
        return arrays

    def count(self, record: ShardRecord | None) -> None:
        """A shard is done."""


class Filter(Everything):
    """The filter that the settings ask for. UsageError for a class that is not there, or a filter without masks."""

    def __init__(self, settings: GenerateSettings, labels: LabelMap | None) -> None:
        self.below = settings.keep_below
        self.chooses = self.below is not None or bool(settings.until)
        self.in_order = bool(settings.until)
        if self.chooses and labels is None:
            raise UsageError(
                f"got {'--keep-below' if self.below is not None else '--until'} for images without masks",
                wanted="a segmenter, whose scores and masks decide",
                remedy="pass --segmenter FILE",
            )
        self.names = labels.names if labels else ()
        self.wanted = {labels.index(name): count for name, count in settings.until.items()} if labels else {}
        self.counts = dict.fromkeys(self.wanted, 0)

    @property
    def enough(self) -> bool:
        """Whether every class that --until names has been seen often enough."""
        return self.in_order and not self.missing()

    def missing(self) -> dict[int, int]:
        """Samples still missing, by class."""
        return {k: n - self.counts[k] for k, n in self.wanted.items() if self.counts[k] < n}

    def choose(self, shard: PlannedShard, arrays: ShardArrays) -> ShardArrays:
        """Those of a low enough score, up to the one that completes the quota. GansegError without scores or masks."""
        if not self.chooses:
            return arrays
        kept = np.arange(len(arrays))
        if arrays.score is None or arrays.mask is None:
            raise GansegError(f"got shard {shard.index} without scores or masks", wanted="both, to filter by")
        if self.below is not None:
            kept = kept[arrays.score < self.below]
        if self.in_order and len(kept):
            full = np.ones(len(kept), bool)  # whether the quota is met with this sample
            for k, wanted in self.wanted.items():
                shows = (arrays.mask[kept] == k).any(axis=(1, 2))
                full &= self.counts[k] + np.cumsum(shows) >= wanted
            if full.any():
                kept = kept[: int(full.argmax()) + 1]
        return rows_of(arrays, kept)

    def count(self, record: ShardRecord | None) -> None:
        """Add what a finished shard shows."""
        for k in self.counts:
            self.counts[k] += record.class_samples[k] if record and record.class_samples else 0


class Known(Everything):
    """Keeps what a finished dataset's manifest says was kept."""

    chooses = True

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def choose(self, shard: PlannedShard, arrays: ShardArrays) -> ShardArrays:
        """The samples to keep."""
        kept = self.manifest.shard_seeds(shard.index)
        return rows_of(arrays, np.flatnonzero(np.isin(arrays.seed, np.array(kept, dtype=np.uint64))))


def rows_of(arrays: ShardArrays, rows: np.ndarray) -> ShardArrays:
    """The samples at `rows`; may be none."""
    return replace(arrays, **{name: value[rows] for name, value in arrays.present().items()})


def settled(manifest: Manifest, folder: Path) -> Manifest | None:
    """The manifest of a finished dataset, None while it is unfinished; of a chosen one, with the seeds that were kept.

    Error: GansegError when none was.
    """
    if manifest.candidates is None:
        return manifest if len(manifest.done(folder)) == len(manifest.shards) else None
    settings = from_dict(GenerateSettings, manifest.settings["generate"], "manifest.settings.generate")
    chosen, kept, looked_at = Filter(settings, manifest.labels), [], 0
    plan = replace(manifest, shards=manifest.candidates)
    for index, seeds in enumerate(manifest.candidates):
        if chosen.enough:
            break
        record = shard_record(folder, index)
        if record is None or (record.digest, record.candidates) != (manifest.digest, seeds):
            return None
        chosen.count(record)
        kept.append(record.seeds)
        looked_at += len(plan.shard_seeds(index))
    final = replace(manifest, shards=tuple(kept))
    facts: dict[str, Any] = {"candidates": looked_at, "kept": len(final.seeds)}
    if not final.seeds:
        raise GansegError(
            f"got none of {looked_at} samples with a score below {settings.keep_below}",
            wanted="some",
            remedy="see scores with `gansegctl generate` without --keep-below, and choose another -o",
        )
    if settings.until:
        facts["shown"] = {chosen.names[k]: n for k, n in chosen.counts.items()}
        facts["missing"] = {chosen.names[k]: n for k, n in chosen.missing().items()}
    return replace(final, facts=manifest.facts | {"choice": facts})
