"""YOLO segmentation: a text file an image, one row a polygon, class 0 = the first class after the background."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from gansegctl.labels import LabelMap
from gansegctl.store.export.base import About, Encoded, Encoding, Index, Rows, Sample, image_png
from gansegctl.store.export.contours import polygons

PALETTE, PACKED = False, False
INSET = 0.05
"""Pixels: trainers cut the corners to integers and fill including the border, so they must lie in the last pixels."""


def encode(sample: Sample, encoding: Encoding) -> Encoded:
    """images/SPLIT/STEM.png and labels/SPLIT/STEM.txt, empty where nothing but background is in the image."""
    return Encoded(
        (
            (f"images/{sample.split}/{sample.stem}.png", image_png(sample.image)),
            (f"labels/{sample.split}/{sample.stem}.txt", "".join(_rows(sample.mask, encoding.labels)).encode()),
        )
    )


def _rows(mask: np.ndarray, labels: LabelMap) -> Iterator[str]:
    height, width = mask.shape
    first = int(labels.has_background)
    for k in range(first, len(labels)):
        for polygon in polygons(mask == k, INSET):
            numbers = (f"{x / width:.6f} {y / height:.6f}" for x, y in polygon)
            yield f"{k - first} {' '.join(numbers)}\n"


def index(rows: Rows, about: About) -> Index:
    """data.yaml, whose paths are relative to itself."""
    yield "data.yaml", _yaml(about)


def _yaml(about: About) -> Iterator[str]:
    there = [s for s in about.splits if about.counts[s]]
    train = "train" if "train" in there or not there else there[0]
    val = next((s for s in there if s in ("val", "valid", "validation")), train)
    yield f"train: images/{train}\nval: images/{val}{'' if val != train else '  # there is no other split'}\n"
    for split in there:
        if split not in (train, val):
            yield f"{split}: images/{split}\n"
    yield "names:\n"
    for k, name in enumerate(about.labels.names[int(about.labels.has_background) :]):
        yield f"  {k}: {json.dumps(name, ensure_ascii=False)}\n"


def notes(about: About) -> list[str]:
    """How to open it."""
    return [
        "Train with `data=data.yaml`. "
        + (
            f"YOLO has no background: a row starts with the class id minus 1, `{about.labels.names[0]}` has no rows, "
            if about.labels.has_background
            else "A row starts with the class id; no class is background, "
        )
        + "and ignored pixels have none. One row a connected part; holes are joined to the outside by a slit."
    ]
