"""The exchange bundle: a folder with the images to annotate, blank masks to paint, and the classes to paint with.

exemplar-00000042.png          the image of seed 42
exemplar-00000042.mask.png     its mask: indexed PNG of the same size, all 0 until somebody paints; never overwritten
exemplar-00000042.latent.npy   w+ after truncation, float32 [1,num_ws,w]: what the image was made from
labels.json                    classes: id = mask value, name, colour
labels.txt · README.txt        the same for reading, and what to do next in each tool
labels.gpl · labelme-labels.txt · cvat-labels.json · label-studio.xml     the same as each tool takes it
exemplars.json                 which sample each image is and why it was chosen, sha256 of its pixels and its latent,
                               where it comes from
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gansegctl.annotation import tool_files
from gansegctl.annotation.class_names import folder_labels
from gansegctl.annotation.mask_png import is_blank, read_mask
from gansegctl.annotation.same_image import same_image
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.io.atomic import write_bytes, write_text
from gansegctl.io.image import read_image, save_png
from gansegctl.labels import LabelMap

FORMAT_VERSION = 1


@dataclass(frozen=True)
class BundleItem:
    """One image to annotate. index: its place in the dataset; image uint8 [H,W,c]; mask uint8 [H,W] if any.

    latent: float32 [1,num_ws,w] that makes it, if known. why: the reason for which it was chosen.
    """

    index: int
    seed: int
    image: np.ndarray
    mask: np.ndarray | None = None
    latent: np.ndarray | None = None
    why: str = ""


def image_path(folder: Path, seed: int) -> Path:
    """Where the image of a seed lies."""
    return Path(folder) / f"exemplar-{seed:08d}.png"


def mask_path(folder: Path, seed: int) -> Path:
    """Where the mask of a seed lies."""
    return Path(folder) / f"exemplar-{seed:08d}.mask.png"


def latent_path(folder: Path, seed: int) -> Path:
    """Where the latent of a seed lies."""
    return Path(folder) / f"exemplar-{seed:08d}.latent.npy"


def listed_seeds(folder: Path) -> list[int]:
    """The seeds in a folder's exemplars.json, in its order; none where there is no such file."""
    return list(_entries(Path(folder)))


def write_bundle(folder: Path, items: Sequence[BundleItem], labels: LabelMap, provenance: dict[str, Any]) -> list[Path]:
    """Write the bundle, or add to it; returns the paths of the masks. Masks that exist stay as they are.

    provenance: what the images come from, kept in exemplars.json; its "dataset" is named in README.txt.
    Errors: UsageError when the folder holds masks for other classes, or painted masks of other images.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = _entries(folder)
    hashes = {item.seed: _sha256(item.image) for item in items}
    _check_images(folder, kept, {item.seed: item.image for item in items}, hashes)
    if any(folder.glob("exemplar-*.mask.png")):
        labels = _kept_labels(folder, labels)
    for item in items:
        save_png(image_path(folder, item.seed), item.image)
        if not mask_path(folder, item.seed).exists():
            _save_mask(mask_path(folder, item.seed), item, labels)
        kept[item.seed] = kept.get(item.seed, {}) | {
            "seed": item.seed,
            "index": item.index,
            "image": image_path(folder, item.seed).name,
            "mask": mask_path(folder, item.seed).name,
            "sha256": hashes[item.seed],
        }
        if item.why:
            kept[item.seed]["why"] = item.why
        if item.latent is not None:
            kept[item.seed] |= _save_latent(latent_path(folder, item.seed), item.latent)
    write_text(folder / "labels.json", json.dumps(labels.to_json(), indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "labels.txt", tool_files.listing(labels) + "\n")
    write_text(folder / "labels.gpl", tool_files.gimp_palette(labels) + "\n")
    write_text(folder / "labelme-labels.txt", tool_files.labelme_labels(labels) + "\n")
    write_text(folder / "cvat-labels.json", tool_files.cvat_labels(labels) + "\n")
    write_text(folder / "label-studio.xml", tool_files.label_studio_config(labels) + "\n")
    about = {"dataset": provenance.get("dataset", "DATASET"), "shots": len(items), "folder": folder}
    write_text(folder / "README.txt", tool_files.README.format(first=labels.names[0], **about) + "\n")
    record = {"format": FORMAT_VERSION, "provenance": provenance, "exemplars": list(kept.values())}
    write_text(folder / "exemplars.json", json.dumps(record, indent=1) + "\n")
    return [mask_path(folder, item.seed) for item in items]


def saved_masks(
    folder: Path,
    seeds: Sequence[int],
    size: int | tuple[int, int],
    labels: LabelMap,
    allow_blank: bool = False,
) -> dict[int, np.ndarray]:
    """The masks as the bundle keeps them, exemplar-SEED.mask.png; `importer.read_masks` takes every format.

    Seed → mask uint8 [H,W] in the ids of `labels`, 255 where ignored. size: (height, width), or a square's side.

    Ids and colours are those of the folder's labels.json, where there is one, and are matched to `labels` by name.
    Errors: UsageError naming the file, for masks that are missing, no PNG, of another size, with values or colours that
    no class has, or blank (one class over the whole image) unless `allow_blank`.
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
                remedy=f"paint {image_path(folder, seed).name} with the classes of labels.txt",
            )
    return masks


def check_bundle(folder: Path, seed: int, image: np.ndarray, latent: np.ndarray) -> None:
    """UsageError unless the bundle's image and latent of a seed are those that the dataset makes of it now.

    image uint8 [H,W,c] and latent [1,num_ws,w] made now. Rounding apart: another device rounds otherwise. A bundle
    that holds neither hash nor latent of the seed says nothing.
    """
    row = _entries(Path(folder)).get(seed, {})
    remedy = "use the masks with the dataset that their bundle was written for, or write a new bundle and paint it"
    stored = latent_path(folder, seed)
    if "latent" in row and stored.is_file():
        try:
            kept = np.load(stored, allow_pickle=False)
        except (OSError, ValueError, EOFError) as e:
            raise UsageError(f"got {stored}: {e}", wanted="a .npy file", remedy="write the bundle again") from None
        if kept.shape != latent.shape or np.abs(kept.astype(np.float64) - latent).max() > 1e-2:
            raise UsageError(
                f"got {stored}, another latent than this dataset's seed {seed} has",
                wanted="a bundle of the same generator, truncation and class",
                remedy=remedy,
            )
    if "sha256" not in row or _sha256(image) == row["sha256"] or _shown_alike(Path(folder), seed, row, image):
        return
    raise UsageError(
        f"got {Path(folder) / 'exemplars.json'}, whose seed {seed} is another image than this dataset makes",
        wanted="a bundle of the same generator, truncation and noise",
        remedy=remedy,
    )


def _shown_alike(folder: Path, seed: int, row: dict[str, Any], image: np.ndarray) -> bool:
    """Whether the image file is the one that was written, and `image` the same but for another device's rounding."""
    path = image_path(folder, seed)
    if not path.is_file():
        return False
    shown = read_image(path, 1 if image.shape[-1] == 1 else 3)
    return _sha256(shown) == row.get("sha256") and same_image(shown, image)


def _sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _save_latent(path: Path, latent: np.ndarray) -> dict[str, str]:
    latent = np.ascontiguousarray(latent, np.float32)
    stream = io.BytesIO()
    np.save(stream, latent, allow_pickle=False)
    write_bytes(path, stream.getvalue())
    return {"latent": path.name, "latent_sha256": _sha256(latent)}


def _entries(folder: Path) -> dict[int, dict[str, Any]]:
    """The rows of exemplars.json by seed; none when there is no such file."""
    path = folder / "exemplars.json"
    if not path.is_file():
        return {}
    try:
        return {int(row["seed"]): row for row in json.loads(path.read_text(encoding="utf-8"))["exemplars"]}
    except (ValueError, KeyError, TypeError) as e:
        raise UsageError(f"got {path}: {e!r}", wanted="what this program wrote", remedy="use another folder") from None


def _check_images(
    folder: Path, kept: dict[int, dict[str, Any]], images: dict[int, np.ndarray], hashes: dict[int, str]
) -> None:
    """A mask painted on one image must not become that of another with the same seed."""
    for seed, sha256 in hashes.items():
        if seed in kept and kept[seed].get("sha256") != sha256 and mask_path(folder, seed).exists():
            if _shown_alike(folder, seed, kept[seed], images[seed]):
                continue
            raise UsageError(
                f"got {image_path(folder, seed)}, which shows another image than seed {seed} does now",
                wanted="a bundle of this dataset",
                remedy="use another folder; the masks in this one belong to its images",
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
    image = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
    image.putpalette(labels.flat_palette())
    save_png(path, image)
