"""RGB PNG: each pixel has exactly the colour of its class; other colours are told apart by their cause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gansegctl.annotation.class_names import FolderLabels
from gansegctl.annotation.safe_png import opaque
from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE

WHITE = (255, 255, 255)
BLEND = 6.0  # levels off the line between two class colours: rounding and gamma of editors
MOST = 4096  # of the undeclared colours are looked at
BLENDS = 0.9  # of the undeclared pixels: then edges were smoothed


def read(path: Path | str, image: Image.Image, declared: FolderLabels) -> np.ndarray:
    """Class ids uint8 [H,W]; white is ignored unless a class is white. UsageError for other colours."""
    pixels = opaque(path, image) if image.mode == "RGBA" else np.asarray(image)
    return by_colour(path, pixels, declared)


def by_colour(
    path: Path | str, pixels: np.ndarray, declared: FolderLabels, ignored: tuple[int, int, int] | None = WHITE
) -> np.ndarray:
    """uint8 [H,W,3] → class ids uint8 [H,W], exact colours only: the class nearest to a blended edge pixel is often
    neither of its two neighbours. UsageError for two classes of one colour, smoothed edges, and other colours.
    """
    if len(set(declared.colours)) != len(declared.colours):
        raise UsageError(
            f"got {path} in RGB, and classes that share a colour",
            wanted="one colour a class",
            remedy="change labels.json, or save the mask as indexed or grey PNG with class ids",
        )
    packed = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    mask = np.full(packed.shape, -1, np.int16)
    if ignored is not None:
        mask[packed == _pack(ignored)] = IGNORE  # a class of that colour comes after and wins
    for colour, target in zip(declared.colours, declared.targets, strict=True):
        mask[packed == _pack(colour)] = target
    if (mask < 0).any():
        raise _undeclared(path, packed, mask, declared, ignored)
    return mask.astype(np.uint8)


def _undeclared(
    path: Path | str,
    packed: np.ndarray,
    mask: np.ndarray,
    declared: FolderLabels,
    ignored: tuple[int, int, int] | None,
) -> UsageError:
    wrong, counts = np.unique(packed[mask < 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    listed = ", ".join(f"#{wrong[i]:06x} ({counts[i]} pixels)" for i in order)
    named = zip(declared.colours, declared.names, strict=True)
    known = ", ".join(f"#{_pack(colour):06x} {name}" for colour, name in named)
    got = f"got {path} with {int((mask < 0).sum())} pixels in {len(wrong)} undeclared colours: {listed}"
    used = [c for c in (*declared.colours, *([ignored] if ignored else ())) if (packed == _pack(c)).any()]
    most = np.argsort(-counts, kind="stable")[:MOST]
    blended = _blends(wrong[most], np.array(used, float).reshape(-1, 3))
    if counts[most][blended].sum() >= BLENDS * counts[most].sum():
        return UsageError(
            got + "; all but few lie between two class colours: smoothed edges",
            wanted="exact class colours: " + known,
            remedy="blended edges come from anti-aliasing: paint with the pencil, anti-aliasing and feathering off, "
            "scale with nearest neighbour, and save as PNG",
        )
    worst = np.array([wrong[order[0]] >> 16, wrong[order[0]] >> 8 & 255, wrong[order[0]] & 255], float)
    nearest = int(np.square(np.array(declared.colours, float) - worst).sum(axis=1).argmin())
    return UsageError(
        got,
        wanted="exact class colours: " + known,
        remedy=f"did you mean #{_pack(declared.colours[nearest]):06x} ({declared.names[nearest]}) for "
        f"#{wrong[order[0]]:06x}? Paint with the colours of labels.txt, or white for pixels to ignore",
    )


def _blends(wrong: np.ndarray, used: np.ndarray) -> np.ndarray:
    """bool per packed colour: near the line between two of the colours [n,3] in use."""
    colours = np.stack([wrong >> 16, wrong >> 8 & 255, wrong & 255], axis=1).astype(float)
    found = np.zeros(len(wrong), bool)
    for i in range(len(used)):
        for j in range(i):
            along = used[i] - used[j]
            share = np.clip((colours - used[j]) @ along / max(along @ along, 1.0), 0.0, 1.0)
            off = colours - used[j] - share[:, None] * along
            found |= np.square(off).sum(axis=1) <= BLEND**2
    return found


def _pack(colour: tuple[int, int, int]) -> int:
    return colour[0] * 65536 + colour[1] * 256 + colour[2]
