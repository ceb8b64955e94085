"""The stage `annotate`: choose exemplars, take their masks, fit a method, write masks into every shard.

`annotate_dataset` is the whole of it, as `gansegctl annotate`, `run` and `demo run` call it; `annotate` is the part
after the exemplars.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from gansegctl import methods
from gansegctl.choices import PROFILES
from gansegctl.config import AnnotateSettings, from_dict, to_dict
from gansegctl.contracts import Exemplar, Progress, Segmenter, Stage
from gansegctl.errors import UsageError
from gansegctl.io.digest import file_digest
from gansegctl.io.image import save_png
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.annotate.exemplars import (
    exemplar_seeds,
    exemplars_of,
    known_labels,
    masks_folder,
    seeds_with_masks,
    write_exemplars,
)
from gansegctl.pipeline.annotate.real_images import RealExemplars, RealImages
from gansegctl.pipeline.annotate.selection import Choice, choose_exemplars
from gansegctl.pipeline.annotate.source import EXEMPLARS, REAL_SEEDS, SEGMENTER, Source
from gansegctl.pipeline.annotate.ui import paint
from gansegctl.pipeline.generate.plan import PlannedShard
from gansegctl.pipeline.generate.shards import finish, with_segmenter, write_shards
from gansegctl.pipeline.inspect import describe_dataset
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.runtime.tasks import ALONE, Task
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import format_seeds
from gansegctl.visualize.sheets import overlay

POLL = 2.0  # seconds between two looks for the segmenter of the first task

LARGEST_SHARD = 2_000_000_000
"""Bytes of probabilities in a shard at most; it is in memory two or three times while it is written."""

PAINT = "Paint here, and press Finish (over SSH forward the port first: ssh -L):\n  {}"


@dataclass(frozen=True)
class ExemplarRequest:
    """Which exemplars are wanted, and where their masks and class names come from."""

    seeds: tuple[int, ...] = ()  # these samples, in place of a choice
    choose: str = "k-medoids"  # of choices.SELECTIONS
    segmenter: Path | None = None  # for the choice "uncertainty"
    classes: str | None = None  # names by commas, background first
    preset: str = ""  # whose class names hold where nobody else says any; "" = the generator's name
    table: Mapping[str, Any] = field(default_factory=dict)  # [exemplars] of the user's own file, in place of a preset's
    real: RealImages | None = None  # real annotated images in place of samples
    ui: bool = False  # paint on a local page, and go on when it is finished
    port: int = 0  # of the page; 0 = any that is free

    def check(self, settings: AnnotateSettings, task: Task, dry_run: bool) -> None:
        """UsageError for wishes that exclude each other."""
        if self.ui and (settings.masks or self.real or not settings.shots or dry_run or task.count > 1):
            raise UsageError("got --ui with --masks, --real, --shots 0, --dry-run or --task", wanted="one of them")
        if self.real and (settings.masks or self.seeds or not settings.shots):
            raise UsageError("got --real with --masks, --exemplars or --shots 0", wanted="one of them")

    def labels(self, masks: Path | None, source: Source) -> LabelMap:
        """Class names, as `known_labels` finds them."""
        return known_labels(masks, source.folder, self.classes, self.preset or source.settings.generator, self.table)

    def choice(self, source: Source, settings: AnnotateSettings) -> Choice:
        """The samples to annotate."""
        if self.seeds:
            return Choice(self.seeds, "asked for")
        seeds = source.manifest.seeds
        return choose_exemplars(source, seeds, settings.shots, self.choose, self.segmenter, settings.seed)


@dataclass(frozen=True)
class AnnotateResult:
    """The result of `annotate_dataset`. settings: as they were carried out. seeds: of the exemplars."""

    dataset: Path
    settings: AnnotateSettings
    seeds: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()  # what was read, and what the user should know of it
    to_paint: tuple[Path, Choice] | None = None  # the folder of exemplars that wait for their masks
    real: RealExemplars | None = None
    labelled: bool = False  # whether the dataset has its masks

    def describe(self) -> dict[str, Any]:
        """The state of the dataset; of a dry run, its plan."""
        if self.to_paint is not None:
            folder, choice = self.to_paint
            reasons = {s: choice.why(i) for i, s in enumerate(choice.seeds)}
            return {"exemplars": str(folder), "seeds": list(self.seeds), "why": choice.reason, "reasons": reasons}
        images = {"exemplars": self.real.table()} if self.real else {}
        if self.labelled:
            return images | describe_dataset(self.dataset)
        asked = {"method": self.settings.method, "options": self.settings.options}
        return images or {"dataset": str(self.dataset), "exemplars": list(self.seeds)} | asked


def annotate_dataset(
    dataset: Path,
    settings: AnnotateSettings,
    request: ExemplarRequest | None = None,
    *,
    generator: str | None = None,
    device: str = "cpu",
    task: Task = ALONE,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Stage[AnnotateResult]:
    """From a dataset of images to one of pairs, or to the exemplars that a person has to paint first.

    Without shots: fit without exemplars. With real images: project them. Else with masks: fit on them. Else write the
    chosen exemplars to DATASET/exemplars, and stop there, or let them be painted on a page and go on. dry_run: no
    fit and no masks. say: takes each line of talk when it is known. Errors: UsageError for what does not go together,
    before any work; DatasetError for another generator than the dataset's.
    """
    request, settings = request or ExemplarRequest(), with_profile(settings)
    check_method(settings)
    request.check(settings, task, dry_run)
    source = Source.open(dataset, generator, device)
    result = AnnotateResult(dataset, settings)
    exemplars: Sequence[Exemplar] = ()
    labels: LabelMap | None = None
    if settings.shots and request.real is not None:
        settings = replace(settings, masks=str(request.real.path))
        labels = request.real.labels(dataset, request.classes, request.preset or source.settings.generator)
        real = yield from request.real.project(source, labels, settings.shots)
        for name, reason in real.refused.items():
            say(f"refused {name}: {reason}")
        exemplars, result = real.exemplars, replace(result, real=real)
    elif settings.shots:
        if not settings.masks:
            labels, choice = request.labels(None, source), request.choice(source, settings)
            if dry_run:
                return replace(result, seeds=choice.seeds)
            folder = write_exemplars(source, choice, labels)
            if not request.ui:
                return replace(result, seeds=choice.seeds, to_paint=(folder, choice))
            seeds = paint(source, folder, choice, labels, request.port, lambda url: say(PAINT.format(url)))
            settings, request = replace(settings, masks=str(folder), shots=len(seeds)), replace(request, seeds=seeds)
        exemplars, labels, notes = _painted_exemplars(source, settings, request, say)
        result = replace(result, notes=notes)
    result = replace(result, settings=settings, seeds=tuple(e.seed for e in exemplars))
    if dry_run:
        return result
    yield from annotate(source, exemplars, labels, settings, task)
    return replace(result, labelled=True)


def _painted_exemplars(
    source: Source, settings: AnnotateSettings, request: ExemplarRequest, say: Callable[[str], None]
) -> tuple[list[Exemplar], LabelMap, tuple[str, ...]]:
    """The exemplars whose masks `settings.masks` names, their classes, and all that was said of them."""
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        say(line)

    folder = masks_folder(settings.masks, source.folder)
    unused = [] if request.seeds else seeds_with_masks(folder, source.folder)[settings.shots :]
    if unused and Path(settings.masks).exists():  # a preset brings more masks than are needed
        count = settings.shots + len(unused)
        note(f"{count} masks and --shots {settings.shots}: not used are seeds {format_seeds(unused)}")
    labels = request.labels(folder, source)
    seeds = exemplar_seeds(folder, settings.shots, request.seeds, source.folder)
    return exemplars_of(source, seeds, folder, labels, note), labels, tuple(notes)


def with_profile(settings: AnnotateSettings) -> AnnotateSettings:
    """The same settings, in which the method's profile stands also where it is the default."""
    known = {f.name for f in fields(methods.get(settings.method).settings_type)}
    if "profile" not in known or "profile" in settings.options:
        return settings
    return replace(settings, options={"profile": PROFILES[0]} | settings.options)


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
    if settings.shots and not {"exemplars"} & (method.needs | method.takes):
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
) -> Stage[None]:
    """Write every shard anew with masks, each image made again in the very pass that its mask comes from."""
    about: dict[str, Any] = {"method": segmenter.method, "shots": shots, "sha256": file_digest(path)}
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
    if manifest.segmenter is None or before != now or not path.is_file():
        return False
    return file_digest(path) == manifest.segmenter["sha256"]


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
) -> Stage[None]:
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
    if labels is not None:
        _write_overlays(source, exemplars, labels)
    yield Progress("fit", 1, 1, "segmenter", {"segmenter": str(path)})
    yield from label_dataset(source, segmenter, path, record, len(exemplars), task)


def _write_overlays(source: Source, exemplars: Sequence[Exemplar], labels: LabelMap) -> None:
    """The exemplars with their masks on them, to look at: DATASET/exemplars/exemplar-SEED.overlay.png."""
    (source.folder / EXEMPLARS).mkdir(exist_ok=True)
    for e in exemplars:
        image = image_and_mask(source.generator, e.ws.to(source.device), [e.seed], e.noise, None)[0][0]
        save_png(source.folder / EXEMPLARS / f"exemplar-{e.seed:08d}.overlay.png", overlay(image, e.mask, labels))
