"""webdataset: a tar a shard and split, members of a sample side by side, numbered without gaps."""

from __future__ import annotations

import json

from gansegctl.store.export.base import About, Encoded, Encoding, Index, Rows, Sample, id_table, image_png, pretty

PALETTE, PACKED = False, True


def encode(sample: Sample, encoding: Encoding) -> Encoded:
    """STEM.img.png, STEM.seg.png, STEM.json; the key has no dot in it."""
    facts = {"seed": sample.seed, "score": sample.score, "class_pixels": list(sample.class_pixels)}
    return Encoded(
        (
            (f"{sample.stem}.img.png", image_png(sample.image)),
            (f"{sample.stem}.seg.png", encoding.mask_png(sample.mask)),
            (f"{sample.stem}.json", json.dumps(facts).encode()),
        )
    )


def index(rows: Rows, about: About) -> Index:
    """index.json: the tars of each split with their counts, and the classes."""
    yield "index.json", pretty({"splits": about.packs, "classes": id_table(about.labels)})


def notes(about: About) -> list[str]:
    """How to open it."""
    globs = [
        f"`{split}-{{{0:06d}..{len(packs) - 1:06d}}}.tar`: {about.counts[split]:,} samples"
        for split, packs in about.packs.items()
        if packs
    ]
    return [
        "`webdataset.WebDataset(PATTERN).decode('pil').to_tuple('img.png', 'seg.png', 'json')`, with the patterns",
        *(f"- {g}" for g in globs),
        "",
        "The pixel value of a mask is the class id"
        + (" (indexed: read it with Pillow)." if about.palette else "; `decode('pil')` repeats it in three channels."),
    ]
