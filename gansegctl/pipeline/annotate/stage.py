"""The stage `annotate`: choose exemplars, take their masks, fit a method, write masks into every shard."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from gansegctl import methods
from gansegctl.config import AnnotateSettings, from_dict, to_dict
from gansegctl.contracts import Exemplar, Progress, Segmenter
from gansegctl.errors import UsageError
from gansegctl.io.image import save_png
from gansegctl.labels import LabelMap
from gansegctl.methods.base import segmenter_file as files
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.annotate.source import EXEMPLARS, REAL_SEEDS, SEGMENTER, Source
from gansegctl.pipeline.generate.plan import PlannedShard
from gansegctl.pipeline.generate.shards import finish, with_segmenter, write_shards
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.runtime.tasks import ALONE, Task
from gansegctl.store.manifest import Manifest
from gansegctl.visualize.sheets import overlay

POLL = 2.0  # seconds between two looks for the segmenter of the first task

LARGEST_SHARD = 2_000_000_000
"""Bytes of probabilities in a shard at most; it is in memory two or three times while it is written."""


def has_option(method: str, name: str) -> bool:
    """Whether the method of that name has such a setting."""
    return name in {f.name for f in fields(methods.get(method).settings_type)}


def check_method(settings: AnnotateSettings) -> None:
    """UsageError for an unknown method, unknown options, or shots or masks that do not fit it; before any work."""
    method = methods.get(settings.method)
    from_dict(method.settings_type, settings.options, "options")
    if "exemplars" in method.needs and settings.shots < 1:
        free = [name for name in methods.METHODS if "exemplars" not in methods.get(name).needs]
        raise UsageError(
            f"got --shots 0 for {settings.method}",
            wanted="--shots 1 or more",
            remedy=f"or take a method that needs no exemplars: {', '.join(free)}",
        )
    if settings.shots and not {"exemplars"} & (method.needs | getattr(method, "takes", frozenset())):
        raise UsageError(
            f"got --shots {settings.shots} for {settings.method}, which reads no exemplars",
            wanted="--shots 0",
            remedy=f"pass --method {settings.method} --shots 0",
        )
    if not settings.shots and settings.masks:
        raise UsageError("got --masks with --shots 0", wanted="one or the other", remedy="leave --masks out")


def fit(
    source: Source, exemplars: Sequence[Exemplar], labels: LabelMap | None, settings: AnnotateSettings
) -> Segmenter:
    """Fit the method on the exemplars, or with none (labels None) one that needs none; by name what else it needs."""
    method = methods.get(settings.method)
    options = from_dict(method.settings_type, settings.options, "options")
    given = beyond_generator(method, source.generator, options)
    return method.fit(source.generator, exemplars, labels, options, settings.seed, **given)


def label_dataset(
    source: Source, segmenter: Segmenter, path: Path, record: dict[str, Any], shots: int, task: Task = ALONE
) -> Iterator[Progress]:
    """Write every shard anew with masks, each image made again in the very pass that its mask comes from."""
    about: dict[str, Any] = {"method": segmenter.method, "shots": shots, "sha256": files.digest(path)}
    manifest = with_segmenter(source.manifest, about, segmenter.labels, record)
    manifest.write(source.folder)
    shards = tuple(PlannedShard(i, tuple(manifest.shard_seeds(i))) for i in range(len(manifest.shards)))
    yield from write_shards(
        manifest, shards, source.folder, source.generator, segmenter, source.settings, source.device, "annotate", task
    )
    finish(source.folder)


def fitted_before(source: Source, path: Path, record: dict[str, Any]) -> bool:
    """Whether `path` is the segmenter of an earlier run with these settings and these masks: then it is used again."""
    manifest = Manifest.read(source.folder)
    before, now = (
        {k: v for k, v in r.items() if k != "probabilities"}  # what is kept does not change what is fitted
        for r in (manifest.settings.get("annotate", {}), json.loads(json.dumps(record)))
    )
    same = manifest.segmenter is not None and before == now
    return same and path.is_file() and files.digest(path) == manifest.segmenter["sha256"]


def _check_room(source: Source, classes: int) -> None:
    """UsageError where a shard with the probabilities of all classes would not fit into memory as shards should."""
    largest = max(len(source.manifest.shard_seeds(i)) for i in range(len(source.manifest.shards)))
    a_sample = classes * source.generator.spec.resolution**2
    if largest * a_sample > LARGEST_SHARD:
        raise UsageError(
            f"got --probabilities of {classes} classes for shards of {largest} samples, "
            f"{largest * a_sample / 1e9:.1f} GB each in memory",
            wanted=f"at most {LARGEST_SHARD / 1e9:.0f} GB",
            remedy=f"generate with --shard-size {max(1, LARGEST_SHARD // (2 * a_sample))}, or fit on a few samples and "
            "run `gansegctl generate --segmenter FILE --probabilities`, which plans for them",
        )


def digest_of(exemplar: Exemplar) -> str:
    """sha256 of its mask; of a real image, whose seed does not say what it shows, of its latents too."""
    content = np.ascontiguousarray(exemplar.mask).tobytes()
    if exemplar.seed >= REAL_SEEDS:
        content += np.ascontiguousarray(exemplar.ws.cpu().numpy()).tobytes()
    return hashlib.sha256(content).hexdigest()


def annotate(
    source: Source,
    exemplars: Sequence[Exemplar],
    labels: LabelMap | None,
    settings: AnnotateSettings,
    task: Task = ALONE,
) -> Iterator[Progress]:
    """Fit, save the segmenter as DATASET/segmenter.safetensors, and write masks into the dataset.

    Of several tasks the first fits; the others wait for its segmenter, so that all masks come from one.
    """
    if source.manifest.candidates is not None:
        raise UsageError(
            f"got {source.folder}, whose samples were chosen by the masks that they have",
            wanted="a dataset of images, or one with all its samples",
            remedy="make one with `gansegctl generate` without --keep-below and --until",
        )
    if settings.probabilities and labels is not None:
        _check_room(source, len(labels))
    path = source.folder / SEGMENTER
    masks = {str(e.seed): digest_of(e) for e in exemplars}
    record = to_dict(settings) | {"exemplars": masks}
    while task.index and not fitted_before(source, path, record):
        yield Progress("fit", 0, 1, "segmenter", {"waiting": f"for task 0/{task.count} to fit"})
        time.sleep(POLL)
    if fitted_before(source, path, record):
        yield Progress("fit", 1, 1, "segmenter", {"segmenter": str(path), "fitted": "before"})
        yield from label_dataset(source, methods.load(path), path, record, len(exemplars), task)
        return
    yield Progress("fit", 0, 1, "segmenter", {"method": settings.method, "shots": len(exemplars)})
    segmenter = fit(source, exemplars, labels, settings)
    segmenter.save(path)
    for e in exemplars:
        (source.folder / EXEMPLARS).mkdir(exist_ok=True)
        image = image_and_mask(source.generator, e.ws.to(source.device), [e.seed], e.noise, None)[0][0]
        save_png(source.folder / EXEMPLARS / f"exemplar-{e.seed:08d}.overlay.png", overlay(image, e.mask, labels))
    yield Progress("fit", 1, 1, "segmenter", {"segmenter": str(path)})
    yield from label_dataset(source, segmenter, path, record, len(exemplars), task)
