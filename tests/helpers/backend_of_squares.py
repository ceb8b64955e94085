"""A backend without a generator: images of 12 × 16 pixels, parts of 4 × 4, a segmenter that says what was painted."""

from __future__ import annotations

import numpy as np
from PIL import Image

from gansegctl.annotation.bundle import mask_path
from gansegctl.annotation.ui.backend import Advice, Backend, ExemplarImage, Proposal, Proposals
from gansegctl.labels import LabelMap

LABELS = LabelMap(("background", "face", "hair"), ((0, 0, 0), (200, 100, 50), (10, 20, 250)))
SIZE = (12, 16)
SEEDS = (5, 9)
OFFERED = 70


def image(seed: int) -> ExemplarImage:
    return ExemplarImage(
        seed, np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8), f"because of {seed}"
    )


def parts(seed: int, level: int) -> np.ndarray:
    """Squares of 12, 6 and 4 pixels for the levels 0 to 2."""
    side = (12, 6, 4)[level]
    rows, columns = np.indices(SIZE)
    return ((rows // side) * 16 + columns // side).astype(np.int32)


def split(seed: int, inside: np.ndarray) -> np.ndarray:
    """Left half and right half."""
    columns = np.flatnonzero(inside.any(axis=0))
    right = np.arange(SIZE[1]) > (columns[0] + columns[-1]) // 2
    return np.where(inside, right[None].astype(np.int32), -1).astype(np.int32)


def propose(masks, stale):
    def one(seed):
        labels = np.full(SIZE, seed % 3, np.uint8)
        return Proposal(image(seed), labels, np.full(SIZE, 200, np.uint8), 0.78, "hair")

    advice = (Advice(OFFERED, "different", "it is far away"),)
    return Proposals(tuple(one(s) for s in masks), (one(OFFERED),), advice, 0.01, 0.02)


def backend(**changes) -> Backend:
    return Backend(**{
        "labels": LABELS, "size": SIZE, "image": image, "parts": parts, "split": split, "propose": propose,
        "offered": (OFFERED,), "about": {"dataset": "squares"},
    } | changes)  # fmt: skip


def blank_masks(folder, seeds=SEEDS) -> None:
    for seed in seeds:
        write_mask(folder, seed, np.zeros(SIZE, np.uint8))


def write_mask(folder, seed, mask) -> None:
    image = Image.fromarray(mask)
    image.putpalette(LABELS.flat_palette())
    image.save(mask_path(folder, seed))


def paint(id, runs, value=1, exemplar=0, **more):
    return {"kind": "paint", "id": id, "exemplar": exemplar, "class": value, "runs": runs, "tool": "brush"} | more
