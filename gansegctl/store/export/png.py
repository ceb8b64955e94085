"""Two folders of PNG with the same names, and a table."""

from __future__ import annotations

import json

from gansegctl.store.export.base import About, Encoded, Encoding, Index, Rows, Sample, image_png, lines, pretty

PALETTE, PACKED = True, False


def encode(sample: Sample, encoding: Encoding) -> Encoded:
    """images/STEM.png and masks/STEM.png."""
    return Encoded(
        (
            (f"images/{sample.stem}.png", image_png(sample.image)),
            (f"masks/{sample.stem}.png", encoding.mask_png(sample.mask)),
        )
    )


def index(rows: Rows, about: About) -> Index:
    """classes.json, a list of names a split, and samples.jsonl with seed, score and pixels of each class."""
    yield "classes.json", pretty(about.labels.to_json())
    for split in about.splits:
        yield f"splits/{split}.txt", lines(row["stem"] for row in rows(split))
    keys = ("stem", "split", "seed", "score", "class_pixels")
    every = (row for split in about.splits for row in rows(split))
    yield "samples.jsonl", lines(json.dumps({k: row[k] for k in keys}) for row in every)


def notes(about: About) -> list[str]:
    """How to open it."""
    kind = "indexed (mode P, colours of classes.json)" if about.palette else "8-bit grey"
    return [
        f"`images/STEM.png` belongs to `masks/STEM.png`. Masks are {kind}: the pixel value is the class id.",
        "Read indexed masks with Pillow and do not `.convert()` them; OpenCV returns their colours.",
    ]
