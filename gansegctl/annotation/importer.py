"""Masks in any format: found, matched to the images that they belong to, checked, and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gansegctl.annotation.bundle import image_path, listed_seeds, mask_path
from gansegctl.annotation.canvas import Item, Size
from gansegctl.annotation.detect_format import WANTED, items_of
from gansegctl.annotation.mask_png import is_blank
from gansegctl.annotation.safe_png import open_png
from gansegctl.annotation.same_image import check_belongs
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

_SEED = re.compile(r"exemplar-(\d{8,20})(?!\d)")
_MASK_FORMATS = ("palette", "grey", "rgb", "png")


@dataclass(frozen=True)
class PaintedMask:
    """mask uint8 [H,W] in class ids, 255 = ignored; the file and the format it is from; what the user should know."""

    mask: np.ndarray
    source: Path
    format: str
    notes: tuple[str, ...] = ()


LOSSY = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Formats that are not read as masks, most of them because they change values."""


@dataclass
class Found:
    """Annotations by the seed of their image, unread, in the order of the bundle; what was left out, as notes."""

    items: dict[int, list[Item]]
    notes: list[str]


def find_masks(paths: Path | Sequence[Path], bundle: Path | None = None) -> Found:
    """Which images there are annotations for, in files or folders of any format. Nothing is decoded yet.

    Images are known by `exemplar-SEED` in their names. An annotation of an image called otherwise is taken when it
    is the only one and the bundle (by default: the folder itself) has only one image; in a larger file it is left
    out. Errors: UsageError for what is not there, of no known format, damaged, or of no image of ours.
    """
    paths = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
    items, notes = [], []
    for path in paths:
        more_items, more_notes = items_of(path)
        items += more_items
        notes += more_notes
    folders = [bundle] if bundle else [p if p.is_dir() else p.parent for p in paths]
    listed = list(dict.fromkeys(seed for folder in folders for seed in listed_seeds(folder)))
    found: dict[int, list[Item]] = {}
    unnamed = []
    for item in items:
        named = _SEED.search(item.name) or _SEED.search(item.source.name)
        if named:
            found.setdefault(int(named[1]), []).append(item)
        else:
            unnamed.append(item)
    if unnamed and not found:
        if len(unnamed) > 1 or len(listed) != 1:
            names = ", ".join(repr(i.name) for i in unnamed[:3])
            raise UsageError(
                f"got {unnamed[0].source} with annotations of {names}, which name no exemplar",
                wanted="images called exemplar-SEED.png, as the bundle calls them",
                remedy="annotate the bundle's own images, and do not rename them in the tool",
            )
        found[listed[0]] = unnamed
        notes.append(f"{unnamed[0].source} taken as the mask of seed {listed[0]}, the only exemplar")
    elif unnamed:
        notes += [f"{i.source} left out: {i.name!r} is no exemplar" for i in unnamed[:3]]
    order = {seed: i for i, seed in enumerate(listed)}
    return Found({s: found[s] for s in sorted(found, key=lambda s: (order.get(s, len(order)), s))}, notes)


def read_masks(
    paths: Path | Sequence[Path],
    labels: LabelMap,
    size: int | Size,
    seeds: Sequence[int] | None = None,
    bundle: Path | None = None,
    images: Callable[[int], np.ndarray] | None = None,
    allow_blank: bool = False,
) -> dict[int, PaintedMask]:
    """Seed → mask in the ids of `labels`, from files or folders of any format; labels are matched by name.

    size: (height, width), or a square's side. seeds: those wanted, else all found. bundle: the folder with
    exemplars.json, when it is another. images: seed → uint8 [H,W,c] that its latent makes, compared with the image
    that the annotation brings. Errors: UsageError naming the file, and the place in it, for all that can be wrong.
    """
    size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    found = find_masks(paths, bundle)
    wanted = list(found.items) if seeds is None else [int(s) for s in seeds]
    missing = [mask_path(Path(), s).name for s in wanted if s not in found.items]
    if missing or not wanted:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        remedy = "paint them; `gansegctl annotate` without --masks writes the bundle to paint in"
        raise UsageError(
            f"got {_named(paths)} without {', '.join(missing[:3]) or 'any mask'}{more}",
            wanted=f"{len(wanted) or 'some'} masks, one for each chosen seed: {WANTED}",
            remedy=_as_png(paths) or _renamed(paths) or remedy,
        )
    read = {}
    for i, seed in enumerate(wanted):
        item = _only_item(found.items[seed], seed, size)
        drawing = item.load(labels, size)
        if images is not None and drawing.image is not None:
            check_belongs(drawing.image, images(seed), str(item.source), seed)
        if not allow_blank and is_blank(drawing.mask):
            raise UsageError(
                f"got {item.source}, one value ({int(drawing.mask.flat[0])}) all over",
                wanted="a painted mask",
                remedy=_as_png(paths) or f"paint {image_path(Path(), seed).name} with the classes of labels.txt",
            )
        notes = (*(() if i else found.notes), *drawing.notes)
        read[seed] = PaintedMask(drawing.mask, item.source, item.format, notes)
    return read


def _as_png(paths: Path | Sequence[Path]) -> str:
    """The remedy for an image in these folders that is no mask for its format alone; "" where there is none."""
    other = [f.name for f in _files_in(paths) if f.suffix.lower() in LOSSY]
    return f"masks are not read from {other[0]}: export PNG, which changes no value" if other else ""


def _renamed(paths: Path | Sequence[Path]) -> str:
    """The remedy for PNG files that name no exemplar; "" where there is none."""
    other = [f.name for f in _files_in(paths) if f.suffix.lower() == ".png" and not _SEED.search(f.name)]
    return f"call masks {mask_path(Path(), 42).name}, with their seeds, and not {other[0]}" if other else ""


def _files_in(paths: Path | Sequence[Path]) -> list[Path]:
    """The files in those that are folders."""
    folders = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    return sorted(f for folder in folders if folder.is_dir() for f in folder.iterdir())


def _only_item(items: list[Item], seed: int, size: Size) -> Item:
    """A blank mask gives way to what was brought beside it. UsageError for two annotations of one image."""
    if len(items) > 1:
        items = [i for i in items if i.format not in _MASK_FORMATS or not _unpainted(i.source, size)] or items[:1]
    if len(items) > 1:
        files = " and ".join(dict.fromkeys(str(i.source) for i in items))
        raise UsageError(
            f"got {len(items)} masks of seed {seed}: {files}",
            wanted="one",
            remedy="move all but the one that holds into another folder, or pass that file as --masks",
        )
    return items[0]


def _unpainted(path: Path, size: Size) -> bool:
    try:
        return not np.asarray(open_png(path, size)).any()
    except UsageError:
        return False


def _named(paths: Path | Sequence[Path]) -> str:
    return str(paths) if isinstance(paths, str | Path) else ", ".join(str(p) for p in paths)
