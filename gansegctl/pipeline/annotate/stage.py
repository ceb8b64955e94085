"""The stage `annotate`: choose exemplars, take their masks, fit a method, write masks into every shard."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gansegctl import methods, presets
from gansegctl.annotation.bundle import BundleItem, check_bundle, listed_seeds, mask_path, write_bundle
from gansegctl.annotation.class_names import declared_classes
from gansegctl.annotation.importer import find_masks, read_masks
from gansegctl.config import AnnotateSettings, GenerateSettings, from_dict, to_dict
from gansegctl.contracts import Exemplar, Generator, Progress, Segmenter
from gansegctl.errors import DatasetError, UsageError, did_you_mean
from gansegctl.io.atomic import write_text
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.methods.base import segmenter_file as files
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.annotate.selection import Choice, choose_exemplars
from gansegctl.pipeline.generate.plan import PlannedShard
from gansegctl.pipeline.generate.shards import finish, with_segmenter, write_shards
from gansegctl.pipeline.inputs.generators import latents_of_seeds, open_generator
from gansegctl.pipeline.labelling import picture_and_mask
from gansegctl.pipeline.runtime.tasks import ALONE, Task
from gansegctl.store.manifest import Manifest
from gansegctl.visualize.sheets import overlay, save_png

SEGMENTER = "segmenter.safetensors"
EXEMPLARS = "exemplars"
POLL = 2.0  # seconds between two looks for the segmenter of the first task

LARGEST_SHARD = 2_000_000_000
"""Bytes of probabilities in a shard at most; it is in memory two or three times while it is written."""

REAL_SEEDS = 4_200_000_000
"""Exemplars of real pictures are numbered from here on: no sample that anybody generates has such a seed."""


@dataclass
class Source:
    """A dataset's generator and how its samples were made, so that they can be made again."""

    folder: Path
    manifest: Manifest
    settings: GenerateSettings
    generator: Generator
    device: str = "cpu"

    @classmethod
    def open(cls, folder: Path, generator: str | None = None, device: str = "cpu") -> Source:
        """Read the manifest and load the generator it names (or `generator`, which must have the same sha256)."""
        manifest = Manifest.read(folder)
        settings = from_dict(GenerateSettings, manifest.settings["generate"], "manifest.settings.generate")
        try:
            loaded = open_generator(generator or settings.generator, device, settings.precision)
        except UsageError as e:
            if generator:
                raise
            remedy = "where the generator has moved, pass it as --generator FILE"
            raise UsageError(f"{e.got}; {folder} was made with it", wanted=e.wanted, remedy=remedy) from e
        if loaded.sha256 != manifest.generator["sha256"]:
            raise DatasetError(
                f"got a generator with sha256 {loaded.sha256[:12]}…",
                wanted=f"{manifest.generator['sha256'][:12]}…, which made {folder}",
                remedy="pass that file as --generator",
            )
        return cls(folder, manifest, settings, loaded, device)

    def latents(self, seeds: Sequence[int]) -> torch.Tensor:
        """ws [N,num_ws,w] of these seeds, as the dataset was made."""
        s = self.settings
        return latents_of_seeds(self.generator, seeds, s.truncation, s.truncation_cutoff, s.class_index, self.device)

    def pictures(self, seeds: Sequence[int]) -> np.ndarray:
        """uint8 [N,H,W,c], rendered again."""
        return picture_and_mask(self.generator, self.latents(seeds), seeds, self.settings.noise, None)[0]


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


def write_exemplars(
    source: Source,
    shots: int,
    labels: LabelMap,
    wanted: Sequence[int] | None = None,
    how: str = "k-medoids",
    segmenter: Path | None = None,
    seed: int = 0,
) -> tuple[Path, Choice]:
    """Choose `shots` samples (or take the wanted) and write what a person needs to paint: DATASET/exemplars.

    how, segmenter, seed: as `choosing.choose_exemplars` takes them.
    """
    choice = (
        Choice(tuple(wanted), "asked for")
        if wanted
        else choose_exemplars(source, source.manifest.seeds, shots, how, segmenter, seed)
    )
    pictures = source.pictures(choice.seeds)
    latents = source.latents(choice.seeds).float().cpu().numpy()
    items = [
        BundleItem(i, seed, pictures[i], None, latents[i : i + 1], choice.why(i)) for i, seed in enumerate(choice.seeds)
    ]
    folder = source.folder / EXEMPLARS
    provenance = {
        "dataset": str(source.folder),
        "generator_sha256": source.generator.sha256,
        "generate": to_dict(source.settings),
        "why": choice.reason,
    }
    write_bundle(folder, items, labels, provenance)
    return folder, choice


def _masks_of(preset: str) -> dict[str, Any] | None:
    """The table of the painted exemplars that a preset brings, if it does."""
    brought = presets.load(preset).get("exemplars", {})
    return brought if "seeds" in brought else None


def masks_folder(name_or_folder: str, dataset: Path) -> Path:
    """A folder or file of masks as it is; the masks that a preset brings are copied to DATASET/exemplars-NAME.

    UsageError when there is neither.
    """
    path = Path(name_or_folder)
    if path.exists():
        return path
    brought = _masks_of(name_or_folder) if name_or_folder in presets.names() else None
    if not brought:
        raise UsageError(
            f"got --masks {name_or_folder}",
            wanted="a folder or file of painted masks, or a preset that brings its own",
            remedy=did_you_mean(name_or_folder, [n for n in presets.names() if _masks_of(n)]),
        )
    folder = dataset / f"{EXEMPLARS}-{name_or_folder}"
    folder.mkdir(exist_ok=True)
    for seed in brought["seeds"]:
        name = mask_path(folder, seed).name
        if not (folder / name).exists():
            shutil.copyfile(presets.resource(f"{name_or_folder}-{name}"), folder / name)
    order = {"exemplars": [{"seed": seed} for seed in brought["seeds"]]}
    write_text(folder / "exemplars.json", json.dumps(order) + "\n")
    labels = folder / "labels.json"
    if not labels.exists():
        named = LabelMap(tuple(brought["classes"]), tuple(tuple(c) for c in brought.get("colours", ())))
        write_text(labels, json.dumps(named.to_json()))
    return folder


def seeds_with_masks(masks: Path, dataset: Path | None = None) -> list[int]:
    """Seeds of the masks in a folder or file of any format, in the order of the bundle's exemplars.json, then by size.

    The bundle is the masks' folder or, where that holds none, DATASET/exemplars.
    """
    return list(find_masks(masks, _bundle_of(masks, dataset)).items)


def _bundle_of(masks: Path, dataset: Path | None) -> Path:
    folder = masks if masks.is_dir() else masks.parent
    return folder if dataset is None or listed_seeds(folder) else dataset / EXEMPLARS


def exemplar_seeds(
    masks: Path, shots: int, wanted: Sequence[int] | None = None, dataset: Path | None = None
) -> list[int]:
    """The seeds whose masks are used: those wanted, else the first `shots` that have one. UsageError for too few."""
    if wanted:
        return list(wanted)
    there = seeds_with_masks(masks, dataset)
    if len(there) < shots:
        raise UsageError(
            f"got {len(there)} masks in {masks}",
            wanted=f"{shots}, one a shot, of pictures named exemplar-SEED",
            remedy="run `gansegctl annotate` without --masks to write the exemplars, and paint them",
        )
    return there[:shots]


def known_labels(
    masks: Path | None, dataset: Path, classes: str | None, preset: str, brought: Mapping[str, Any] | None = None
) -> LabelMap:
    """Class names: those given, else of the masks' folder, else of the exemplars begun, else of the preset.

    brought: the table [exemplars] of the user's own file in place of a preset. UsageError when nobody names them.
    """
    if classes:
        return LabelMap(tuple(c.strip() for c in classes.split(",")))
    beside = masks.parent if masks is not None and masks.is_file() else masks
    for folder in (beside, dataset / EXEMPLARS):
        if folder is not None and (folder / "labels.json").is_file():
            return declared_classes(folder / "labels.json")
    if not brought and preset in presets.names():
        brought = presets.load(preset).get("exemplars")
    if brought and "classes" in brought:
        return LabelMap(tuple(brought["classes"]), tuple(tuple(c) for c in brought.get("colours", ())))
    raise UsageError("got no class names", wanted="--classes background,…", remedy="name the classes, background first")


def exemplars_of(
    source: Source,
    seeds: Sequence[int],
    masks: Path,
    labels: LabelMap,
    say: Callable[[str], None] | None = None,
) -> list[Exemplar]:
    """The painted masks of these seeds, of any format, with the latents that make their pictures.

    say: told what was read from where, and what the user should know of it (overlaps, what was left out). Errors:
    UsageError for what is wrong with a mask, and for one of a picture that this dataset does not make.
    """
    size = (source.generator.spec.resolution, source.generator.spec.resolution)
    bundle = _bundle_of(masks, source.folder)
    made = {int(s): source.pictures([s])[0] for s in seeds}
    read = read_masks(masks, labels, size, seeds, bundle, made.__getitem__)
    for seed, one in read.items():
        check_bundle(bundle, seed, made[seed], source.latents([seed]).float().cpu().numpy())
        for line in (f"seed {seed}: {one.source} ({one.format})", *one.notes) if say else ():
            say(line)
    for line in _painted({s: read[s].mask for s in seeds}, labels):
        if say:
            say(line)
    return [Exemplar(source.latents([s]), s, read[s].mask, source.settings.noise) for s in seeds]


def _painted(masks: Mapping[int, np.ndarray], labels: LabelMap) -> Iterator[str]:
    """What the user should know of the classes in these masks. UsageError where 255 seems to have meant a class."""
    there = set(np.unique(np.concatenate([m.ravel() for m in masks.values()])).tolist())
    if IGNORE in there and len(there) <= 2:
        raise UsageError(
            f"got masks with the values {', '.join(map(str, sorted(there)))} only; 255 means ignored, so that nothing "
            "is left to tell apart",
            wanted="class ids: " + ", ".join(f"{i} {name}" for i, name in enumerate(labels.names)),
            remedy=f"write {min(1, len(labels) - 1)}, not 255, for {labels.names[min(1, len(labels) - 1)]}",
        )
    for seed, mask in masks.items():
        ignored = float((mask == IGNORE).mean())
        if ignored:
            yield f"seed {seed}: {ignored:.1%} of the pixels are 255, ignored"
    lacking = [name for i, name in enumerate(labels.names) if i not in there]
    if lacking:
        yield f"no pixel is painted as: {', '.join(lacking)}"


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
    """Write every shard anew with masks, each picture made again in the very pass that its mask comes from."""
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
    """sha256 of its mask; of a real picture, whose seed does not say what it shows, of its latents too."""
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
            wanted="a dataset of pictures, or one with all its samples",
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
        picture = picture_and_mask(source.generator, e.ws.to(source.device), [e.seed], e.noise, None)[0][0]
        save_png(source.folder / EXEMPLARS / f"exemplar-{e.seed:08d}.overlay.png", overlay(picture, e.mask, labels))
    yield Progress("fit", 1, 1, "segmenter", {"segmenter": str(path)})
    yield from label_dataset(source, segmenter, path, record, len(exemplars), task)
