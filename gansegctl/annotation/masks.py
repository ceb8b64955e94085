"""One painted mask, from any of the forms in which editors save it, to class ids."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gansegctl.errors import UsageError, did_you_mean
from gansegctl.labels import IGNORE, LabelMap


@dataclass(frozen=True)
class FolderLabels:
    """The classes as a folder declares them: mask value ids[i], shown in colours[i], means class targets[i]."""

    ids: tuple[int, ...]
    colours: tuple[tuple[int, int, int], ...]
    targets: tuple[int, ...]
    names: tuple[str, ...]

    def lookup(self) -> np.ndarray:
        """int16 [256]: folder value → class id, 255 → 255, −1 for undeclared values."""
        table = np.full(256, -1, np.int16)
        table[IGNORE] = IGNORE
        table[list(self.ids)] = self.targets
        return table


def folder_labels(path: Path, labels: LabelMap) -> FolderLabels:
    """Read a labels.json, matched to `labels` by name; `labels` itself when there is no such file.

    Errors: UsageError for a file that cannot be read, a class that `labels` lacks, an id, a name or a colour twice.
    """
    if not path.is_file():
        rows = labels.to_json()
    else:
        try:
            rows = sorted(json.loads(path.read_text(encoding="utf-8")), key=lambda row: row["id"])
            rows = [{"id": int(r["id"]), "name": str(r["name"]), "colour": [int(v) for v in r["colour"]]} for r in rows]
        except (ValueError, KeyError, TypeError) as e:
            raise UsageError(
                f"got {path}: {e!r}",
                wanted='[{"id": 0, "name": "background", "colour": [0, 0, 0]}, …]',
                remedy="delete it to use the dataset's classes",
            ) from None
    for row in rows:
        if row["name"] not in labels.names:
            raise UsageError(
                f"got class {row['name']!r} in {path}",
                wanted="a class of this dataset: " + ", ".join(labels.names),
                remedy=did_you_mean(row["name"], labels.names),
            )
        if not 0 <= row["id"] < IGNORE or len(row["colour"]) != 3 or not all(0 <= v <= 255 for v in row["colour"]):
            raise UsageError(f"got {row} in {path}", wanted="an id from 0 to 254 and three values from 0 to 255")
    for key in ("id", "name"):
        values = [row[key] for row in rows]
        if len(set(values)) != len(values):
            raise UsageError(f"got one {key} twice in {path}", wanted=f"every {key} once")
    return FolderLabels(
        tuple(r["id"] for r in rows),
        tuple(tuple(r["colour"]) for r in rows),
        tuple(labels.index(r["name"]) for r in rows),
        tuple(r["name"] for r in rows),
    )


def is_blank(mask: np.ndarray) -> bool:
    """One value over the whole picture: nobody painted."""
    return bool((mask == mask.flat[0]).all())


def read_mask(path: Path, size: tuple[int, int], declared: FolderLabels) -> np.ndarray:
    """A mask PNG → class ids uint8 [H,W], 255 = ignored. Indexed: by index; grey: by value; RGB: by exact colour.

    An indexed PNG in which an editor has sorted the palette anew (every colour in use is that of a class, but stands at
    another index) is read by colour. Errors: UsageError naming the file.
    """
    picture = _open(path, size)
    if picture.mode == "P":
        index = np.asarray(picture)
        colours = _palette_of(picture)[index]
        if _resorted(index, colours, declared):
            return _by_colour(path, colours, declared)
        return _by_value(path, index, declared)
    if picture.mode in ("LA", "PA", "RGBA"):
        pixels = np.asarray(picture.convert("RGBA"))
        clear = int((pixels[..., 3] < 255).sum())
        if clear:
            raise UsageError(
                f"got {path} with {clear} transparent pixels",
                wanted="opaque pixels",
                remedy="flatten the layers and save without an alpha channel",
            )
        if picture.mode == "LA":
            return _by_value(path, pixels[..., 0], declared)
        return _by_colour(path, pixels[..., :3], declared)
    if picture.mode == "RGB":
        return _by_colour(path, np.asarray(picture), declared)
    return _by_value(path, np.asarray(picture).astype(np.int64), declared)  # 1, L, I;16: values


def _open(path: Path, size: tuple[int, int]) -> Image.Image:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            found = (picture.height, picture.width)
            if found != size:
                raise UsageError(
                    f"got {path}: {found[1]}x{found[0]} pixels (width x height)",
                    wanted=f"{size[1]}x{size[0]}, the size of its picture",
                    remedy="paint on the picture itself, and export without scaling or cropping",
                )
            picture.load()
            return picture.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise UsageError(f"got {path}: {e}", wanted="a whole PNG file", remedy="save the mask as PNG") from None


def _palette_of(picture: Image.Image) -> np.ndarray:
    """uint8 [256,3]; entries that the file leaves out are mid-grey."""
    flat = np.full(768, 128, np.uint8)
    stored = picture.getpalette("RGB") or []
    flat[: len(stored)] = stored
    return flat.reshape(256, 3)


def _resorted(index: np.ndarray, colours: np.ndarray, declared: FolderLabels) -> bool:
    place = dict(zip(declared.colours, declared.ids, strict=True))
    values, first = np.unique(index, return_index=True)
    shown = [tuple(c) for c in colours.reshape(-1, 3)[first].tolist()]
    used = [(v, place.get(c)) for v, c in zip(values.tolist(), shown, strict=True) if v != IGNORE]
    return all(p is not None for _, p in used) and any(p != v for v, p in used)


def _by_value(path: Path, values: np.ndarray, declared: FolderLabels) -> np.ndarray:
    table = declared.lookup()
    inside = (values >= 0) & (values <= 255)
    mask = np.where(inside, table[np.clip(values, 0, 255)], -1)
    if (mask < 0).any():
        wrong, counts = np.unique(values[mask < 0], return_counts=True)
        listed = ", ".join(f"{v} ({n} pixels)" for v, n in list(zip(wrong.tolist(), counts.tolist(), strict=True))[:5])
        raise UsageError(
            f"got {path} with {len(wrong)} undeclared values: {listed}",
            wanted="class ids: " + ", ".join(f"{i} {n}" for i, n in zip(declared.ids, declared.names, strict=True)),
            remedy=f"paint with declared classes, or {IGNORE} for pixels to ignore",
        )
    return mask.astype(np.uint8)


def _by_colour(path: Path, pixels: np.ndarray, declared: FolderLabels) -> np.ndarray:
    """Exact colours only: the nearest class of a blended edge pixel is often neither of its two neighbours."""
    if len(set(declared.colours)) != len(declared.colours):
        raise UsageError(
            f"got {path} in RGB, and classes that share a colour",
            wanted="one colour a class",
            remedy="change labels.json, or save the mask as indexed or grey PNG with class ids",
        )
    packed = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    mask = np.full(packed.shape, -1, np.int16)
    mask[packed == 0xFFFFFF] = IGNORE  # a class of that colour comes after and wins
    for (r, g, b), target in zip(declared.colours, declared.targets, strict=True):
        mask[packed == r * 65536 + g * 256 + b] = target
    if (mask < 0).any():
        wrong, counts = np.unique(packed[mask < 0], return_counts=True)
        order = np.argsort(-counts, kind="stable")[:5]
        listed = ", ".join(f"#{wrong[i]:06x} ({counts[i]} pixels)" for i in order)
        named = zip(declared.colours, declared.names, strict=True)
        known = ", ".join("#{:02x}{:02x}{:02x} {}".format(*colour, name) for colour, name in named)
        raise UsageError(
            f"got {path} with {int((mask < 0).sum())} pixels in {len(wrong)} undeclared colours: {listed}",
            wanted="exact class colours: " + known,
            remedy="blended edges come from anti-aliasing: paint with the pencil, anti-aliasing off, and save as PNG",
        )
    return mask.astype(np.uint8)
