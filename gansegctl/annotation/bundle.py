"""The exchange bundle: a folder with the pictures to annotate, blank masks to paint, and the classes to paint with.

exemplar-00000042.png        the picture of seed 42
exemplar-00000042.mask.png   its mask: indexed PNG of the same size, all 0 until somebody paints; never overwritten
labels.json                  classes: id = mask value, name, colour
labels.txt · README.txt      the same for reading, and what to do next
exemplars.json               which sample each picture is, sha256 of its pixels, where it comes from
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gansegctl.annotation.masks import folder_labels, is_blank, read_mask
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.labels import LabelMap
from gansegctl.pictures import save_png

FORMAT_VERSION = 1

_README = """Masks to paint
==============

Each exemplar-SEED.png is a picture; exemplar-SEED.mask.png is its mask, blank so far. Paint every mask, at its size,
in any editor, and save it under the same name as PNG. A pixel's class is given in one of three ways:

  indexed   the palette index is the class id (the blank masks are made so; the palette shows the classes' colours)
  grey      the grey value is the class id
  RGB       exactly the class's colour: pencil instead of brush, anti-aliasing off

The classes are listed in labels.txt. Value 255 (white, unless a class is white) marks pixels that nothing learns from.

Then run:

  gansegctl annotate {dataset} --shots {shots} --masks {folder}
"""


@dataclass(frozen=True)
class BundleItem:
    """One picture to annotate. index: its place in the dataset; image uint8 [H,W,c]; mask uint8 [H,W] if any."""

    index: int
    seed: int
    image: np.ndarray
    mask: np.ndarray | None = None


def picture_path(folder: Path, seed: int) -> Path:
    """Where the picture of a seed lies."""
    return Path(folder) / f"exemplar-{seed:08d}.png"


def mask_path(folder: Path, seed: int) -> Path:
    """Where the mask of a seed lies."""
    return Path(folder) / f"exemplar-{seed:08d}.mask.png"


def write_bundle(folder: Path, items: Sequence[BundleItem], labels: LabelMap, provenance: dict[str, Any]) -> list[Path]:
    """Write the bundle, or add to it; returns the paths of the masks. Masks that exist stay as they are.

    provenance: what the pictures come from, kept in exemplars.json; its "dataset" is named in README.txt.
    Errors: UsageError when the folder holds masks for other classes, or painted masks of other pictures.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = _entries(folder)
    hashes = {item.seed: hashlib.sha256(np.ascontiguousarray(item.image).tobytes()).hexdigest() for item in items}
    _check_pictures(folder, kept, hashes)
    if any(folder.glob("exemplar-*.mask.png")):
        labels = _kept_labels(folder, labels)
    for item in items:
        save_png(picture_path(folder, item.seed), item.image)
        if not mask_path(folder, item.seed).exists():
            _save_mask(mask_path(folder, item.seed), item, labels)
        kept[item.seed] = {
            "seed": item.seed,
            "index": item.index,
            "picture": picture_path(folder, item.seed).name,
            "mask": mask_path(folder, item.seed).name,
            "sha256": hashes[item.seed],
        }
    _write_text(folder / "labels.json", json.dumps(labels.to_json(), indent=1, ensure_ascii=False))
    _write_text(folder / "labels.txt", _listing(labels))
    dataset = provenance.get("dataset", "DATASET")
    _write_text(folder / "README.txt", _README.format(dataset=dataset, shots=len(items), folder=folder))
    record = {"format": FORMAT_VERSION, "provenance": provenance, "exemplars": list(kept.values())}
    _write_text(folder / "exemplars.json", json.dumps(record, indent=1))
    return [mask_path(folder, item.seed) for item in items]


def read_masks(
    folder: Path,
    seeds: Sequence[int],
    size: int | tuple[int, int],
    labels: LabelMap,
    allow_blank: bool = False,
) -> dict[int, np.ndarray]:
    """Seed → mask uint8 [H,W] in the ids of `labels`, 255 where ignored. size: (height, width), or a square's side.

    Ids and colours are those of the folder's labels.json, where there is one, and are matched to `labels` by name.
    Errors: UsageError naming the file, for masks that are missing, no PNG, of another size, with values or colours that
    no class has, or blank (one class over the whole picture) unless `allow_blank`.
    """
    folder = Path(folder)
    size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    missing = [mask_path(folder, seed).name for seed in seeds if not mask_path(folder, seed).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UsageError(
            f"got {folder} without {', '.join(missing[:3])}{more}",
            wanted=f"{len(seeds)} masks, one for each chosen seed",
            remedy="paint them; `gansegctl annotate` without --masks writes the bundle to paint in",
        )
    declared = folder_labels(folder / "labels.json", labels)
    masks = {seed: read_mask(mask_path(folder, seed), size, declared) for seed in seeds}
    for seed, mask in masks.items():
        if not allow_blank and is_blank(mask):
            raise UsageError(
                f"got {mask_path(folder, seed)}, one value ({int(mask.flat[0])}) all over",
                wanted="a painted mask",
                remedy=f"paint {picture_path(folder, seed).name} with the classes of labels.txt",
            )
    return masks


def _entries(folder: Path) -> dict[int, dict[str, Any]]:
    """The rows of exemplars.json by seed; none when there is no such file."""
    path = folder / "exemplars.json"
    if not path.is_file():
        return {}
    try:
        return {int(row["seed"]): row for row in json.loads(path.read_text(encoding="utf-8"))["exemplars"]}
    except (ValueError, KeyError, TypeError) as e:
        raise UsageError(f"got {path}: {e!r}", wanted="what this program wrote", remedy="use another folder") from None


def _check_pictures(folder: Path, kept: dict[int, dict[str, Any]], hashes: dict[int, str]) -> None:
    """A mask painted on one picture must not become that of another with the same seed."""
    for seed, sha256 in hashes.items():
        if seed in kept and kept[seed].get("sha256") != sha256 and mask_path(folder, seed).exists():
            raise UsageError(
                f"got {picture_path(folder, seed)}, which shows another picture than seed {seed} does now",
                wanted="a bundle of this dataset",
                remedy="use another folder; the masks in this one belong to its pictures",
            )


def _kept_labels(folder: Path, labels: LabelMap) -> LabelMap:
    """The classes that existing masks were painted with: their ids stay as long as the names are the same."""
    path = folder / "labels.json"
    if not path.is_file():
        return labels
    present = folder_labels(path, labels)
    names = tuple(labels.names[k] for k in present.targets)
    if set(names) != set(labels.names):
        absent = [n for n in labels.names if n not in names]
        raise UsageError(
            f"got {path} without class {absent[0]!r}, and masks painted with it",
            wanted=", ".join(labels.names),
            remedy="use another folder, or add the class to labels.json; " + did_you_mean(absent[0], names),
        )
    if present.ids != tuple(range(len(labels))):
        raise UsageError(f"got {path} with ids {list(present.ids)}", wanted=f"0 to {len(labels) - 1}")
    return LabelMap(names, present.colours)


def _save_mask(path: Path, item: BundleItem, labels: LabelMap) -> None:
    mask = np.zeros(item.image.shape[:2], np.uint8) if item.mask is None else item.mask
    if mask.shape != item.image.shape[:2]:
        raise UsageError(
            f"got a mask of {list(mask.shape)} pixels for seed {item.seed}", wanted=f"{list(item.image.shape[:2])}"
        )
    picture = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    picture.putpalette(labels.flat_palette())
    save_png(path, picture)


def _listing(labels: LabelMap) -> str:
    rows = ["id   colour  class"]
    for row in labels.to_json():
        rows.append("{:3d}  #{:02x}{:02x}{:02x}  {}".format(row["id"], *row["colour"], row["name"]))
    return "\n".join([*rows, "255          (ignored)"])


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)
