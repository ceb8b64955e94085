"""The stage `generate`: seeds → shards of images or, with a segmenter, of image/mask pairs in one pass.

Sample i is a function of (settings, seed i); a shard that is done with these settings is skipped, so the same command
goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gansegctl.config import GenerateSettings
from gansegctl.contracts import Generator, Progress, Segmenter, Stage
from gansegctl.io.atomic import clean_parts
from gansegctl.labels import LabelMap
from gansegctl.pipeline.generate.batch_size import FittingBatch
from gansegctl.pipeline.generate.contact_sheet import write_contact_sheet
from gansegctl.pipeline.generate.filters import Everything, settled
from gansegctl.pipeline.generate.plan import PlannedShard, batches
from gansegctl.pipeline.generate.writer import Committer
from gansegctl.pipeline.inputs.generators import latents_of_seeds
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.runtime.tasks import ALONE, Task
from gansegctl.store.card import write_card
from gansegctl.store.claims import clean_claims, take_claim
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import ShardArrays, ShardRecord, format_seeds
from gansegctl.store.shard import shard_done, shard_record, write_shard


def write_shards(
    manifest: Manifest,
    shards: tuple[PlannedShard, ...],
    out: Path,
    generator: Generator,
    segmenter: Segmenter | None,
    settings: GenerateSettings,
    device: str,
    stage: str,
    task: Task = ALONE,
    halve: bool = True,
    chooser: Everything | None = None,
) -> Stage[None]:
    """Make and commit the shards of this task that are not done with this manifest's settings.

    chooser: what is kept of each shard's samples, and when there are enough.

    A shard that another process works on is left to it, and looked at once more when the others are done. One whose
    batches do not fit into memory is begun again with half of them (halve=False: GansegError), as its attributes say.
    """
    batch, chooser = FittingBatch(settings, halve), chooser or Everything()
    make = partial(make_shard, generator, segmenter, device=device, probabilities=keeps_probabilities(manifest))
    clean_parts(out)
    clean_claims(out)
    todo = [s for s in shards if task.takes(s.index)]
    unit = "pairs" if segmenter else "images"
    total, done, made = sum(len(s.seeds) for s in todo), 0, 0
    busy: dict[str, list[int]] = {}
    with Committer() as committer:
        for _ in range(2):
            left, busy = [], {}
            for place, shard in enumerate(todo):
                if chooser.in_order:
                    chooser.count(committer.wait())
                    if chooser.enough:
                        break
                if shard_done(out, shard.index, manifest.digest):
                    done += len(shard.seeds)
                    chooser.count(shard_record(out, shard.index))
                    continue
                claim = take_claim(out, shard.index, str(task))
                if not claim.ours:
                    busy.setdefault(f"{claim.host} (process {claim.pid})", []).append(shard.index)
                    left.append(shard)
                    if chooser.in_order:
                        left = todo[place:]
                        break
                    continue
                handed_on = False
                try:
                    if shard_done(out, shard.index, manifest.digest):  # between the look and the claim
                        done += len(shard.seeds)
                        chooser.count(shard_record(out, shard.index))
                        continue
                    for step in batch.run(partial(make, shard)):
                        claim.touch()
                        committer.touch()
                        if isinstance(step, ShardArrays):
                            handed_on = True
                            made_with = (generator.sha256, batch.settings)
                            committer.put(claim, _write(out, shard, step, manifest, chooser, *made_with))
                            continue
                        done, made = done + step, made + step
                        yield Progress(stage, done, total, unit, {"made": made} | batch.facts)
                finally:
                    if not handed_on:
                        claim.release()
            todo = left
        committer.wait()
    if busy:
        note = "; ".join(f"shards {format_seeds(shards)} left to {who}" for who, shards in busy.items())
        yield Progress(stage, done, total, unit, {"made": made, "note": note})
    elif not made:
        yield Progress(stage, done, total, "images", {"made": 0})


def keeps_probabilities(manifest: Manifest) -> bool:
    """Whether this dataset's shards hold the probabilities of every class: as who made its masks was asked to."""
    made_by = manifest.settings.get("annotate", manifest.settings.get("generate", {}))
    return manifest.stage == "pairs" and bool(made_by.get("probabilities"))


def _write(
    out: Path,
    shard: PlannedShard,
    arrays: ShardArrays,
    manifest: Manifest,
    chooser: Everything,
    sha256: str,
    settings: GenerateSettings,
) -> Callable[[], ShardRecord]:
    """A function that commits the kept samples, to be called in another thread."""
    attrs = {
        "generator_sha256": sha256,
        "noise": settings.noise,
        "licence": manifest.licence,
        "batch_size": settings.batch_size,
    }
    return partial(
        write_shard,
        out,
        shard.index,
        chooser.choose(shard, arrays),
        manifest.labels,
        manifest.digest,
        attrs,
        codec=settings.codec,
        candidates=format_seeds(list(shard.seeds)) if chooser.chooses else None,
    )


def make_shard(
    generator: Generator,
    segmenter: Segmenter | None,
    shard: PlannedShard,
    settings: GenerateSettings,
    device: str,
    probabilities: bool = False,
) -> Iterator[int | ShardArrays]:
    """Yields the number of samples made after each batch, and the shard's arrays at the end."""
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("image", "latent", "mask", "confidence", "score", "probabilities")
    }
    for seeds in batches(shard.seeds, settings.batch_size):
        ws = latents_of_seeds(
            generator, seeds, settings.truncation, settings.truncation_cutoff, settings.class_index, device
        )
        image, annotation = image_and_mask(generator, ws, seeds, settings.noise, segmenter, probabilities)
        parts["image"].append(image)
        parts["latent"].append(ws.cpu().numpy())
        if annotation is not None:
            parts["mask"].append(annotation.labels.cpu().numpy())
            parts["confidence"].append(annotation.confidence.cpu().numpy())
            parts["score"].append(annotation.score.cpu().numpy().astype(np.float32))
            if annotation.probabilities is not None:
                parts["probabilities"].append((annotation.probabilities.float() * 255).round().byte().cpu().numpy())
        yield len(seeds)
    arrays = {k: np.concatenate(parts.pop(k)) for k in list(parts) if parts[k]}  # one of them twice, not all
    arrays["latent"] = compact_latents(arrays["latent"])
    yield ShardArrays(seed=np.array(shard.seeds, dtype=np.uint64), **arrays)


def compact_latents(ws: np.ndarray) -> np.ndarray:
    """ws [n,num_ws,w] → [n,w] when all slots of every sample are equal, else unchanged."""
    return np.ascontiguousarray(ws[:, 0]) if (ws == ws[:, :1]).all() else ws


def with_segmenter(
    manifest: Manifest, segmenter: dict[str, Any], labels: LabelMap, annotate: dict[str, Any]
) -> Manifest:
    """The manifest of the same samples with masks."""
    settings = manifest.settings | {"annotate": annotate}
    return replace(manifest, stage="pairs", settings=settings, segmenter=segmenter, labels=labels)


def finish(out: Path) -> Manifest | None:
    """Contact sheet, card and, where samples were chosen, which: once every shard is done, by whichever task is last.

    Returns the manifest then, None before. Error: GansegError when no sample was kept.
    """
    manifest = Manifest.read(out)
    final = settled(manifest, out)
    if final is None:
        return None
    if final != manifest:
        final.write(out)
    write_card(out, write_contact_sheet(out).name)
    return final
