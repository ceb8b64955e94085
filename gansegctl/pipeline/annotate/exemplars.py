"""Exemplars: the images that go out to be annotated, and their masks that come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansegctl import presets
from gansegctl.annotation.bundle import BundleItem, check_bundle, listed_seeds, mask_path, write_bundle
from gansegctl.annotation.class_names import declared_classes
from gansegctl.annotation.importer import find_masks, read_masks
from gansegctl.config import to_dict
from gansegctl.contracts import Exemplar
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.io.atomic import write_text
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.pipeline.annotate.selection import Choice
from gansegctl.pipeline.annotate.source import EXEMPLARS, Source


def write_exemplars(source: Source, choice: Choice, labels: LabelMap) -> Path:
    """Write what a person needs to paint the chosen samples: DATASET/exemplars, which is returned."""
    images = source.images(choice.seeds)
    latents = source.latents(choice.seeds).float().cpu().numpy()
    items = [
        BundleItem(i, seed, images[i], None, latents[i : i + 1], choice.why(i)) for i, seed in enumerate(choice.seeds)
    ]
    folder = source.folder / EXEMPLARS
    write_bundle(folder, items, labels, provenance(source, choice))
    return folder


def provenance(source: Source, choice: Choice) -> dict[str, Any]:
    """Where the images of a bundle come from, and why these."""
    return {
        "dataset": str(source.folder),
        "generator_sha256": source.generator.sha256,
        "generate": to_dict(source.settings),
        "why": choice.reason,
    }


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
    found = seeds_with_masks(masks, dataset)
    if len(found) < shots:
        raise UsageError(
            f"got {len(found)} masks in {masks}",
            wanted=f"{shots}, one a shot, of images named exemplar-SEED",
            remedy="run `gansegctl annotate` without --masks to write the exemplars, and paint them",
        )
    return found[:shots]


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
    say: Callable[[str], None] = lambda line: None,
) -> list[Exemplar]:
    """The painted masks of these seeds, of any format, with the latents that make their images.

    say: takes each line about what was read from where, and what the user should know of it (overlaps, what was left
    out). Errors: UsageError for what is wrong with a mask, and for one of an image that this dataset does not make.
    """
    size = (source.generator.spec.resolution, source.generator.spec.resolution)
    bundle = _bundle_of(masks, source.folder)
    made = {int(s): source.images([s])[0] for s in seeds}
    read = read_masks(masks, labels, size, seeds, bundle, made.__getitem__)
    for seed, one in read.items():
        check_bundle(bundle, seed, made[seed], source.latents([seed]).float().cpu().numpy())
        for line in (f"seed {seed}: {one.source} ({one.format})", *one.notes):
            say(line)
    for line in _painted({s: read[s].mask for s in seeds}, labels):
        say(line)
    return [Exemplar(source.latents([s]), s, read[s].mask, source.settings.noise) for s in seeds]


def _painted(masks: Mapping[int, np.ndarray], labels: LabelMap) -> Iterator[str]:
    """Notes on the classes in these masks, for the user. UsageError where 255 seems to have meant a class."""
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
    missing = [name for i, name in enumerate(labels.names) if i not in there]
    if missing:
        yield f"no pixel is painted as: {', '.join(missing)}"
