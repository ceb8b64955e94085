"""mmsegmentation: img_dir/SPLIT, ann_dir/SPLIT, and what the config must say."""

from __future__ import annotations

from collections.abc import Iterator

from gansegctl.store.export.base import About, Encoded, Encoding, Index, Rows, Sample, image_png, lines

PALETTE, PACKED = False, False


def encode(sample: Sample, encoding: Encoding) -> Encoded:
    """The same stem in both folders of a split."""
    return Encoded(
        (
            (f"img_dir/{sample.split}/{sample.stem}.png", image_png(sample.image)),
            (f"ann_dir/{sample.split}/{sample.stem}.png", encoding.mask_png(sample.mask)),
        )
    )


def index(rows: Rows, about: About) -> Index:
    """Lists of names, and dataset_meta.py to import or paste."""
    for split in about.splits:
        yield f"splits/{split}.txt", lines(row["stem"] for row in rows(split))
    yield "dataset_meta.py", _meta(about)


def _meta(about: About) -> Iterator[str]:
    yield '"""For BaseSegDataset: masks hold class ids, 0 is the first class, 255 is ignored."""\n\n'
    yield f"METAINFO = dict(\n    classes={about.labels.names!r},\n"
    yield f"    palette={[list(c) for c in about.labels.colours]!r},\n)\n"
    yield 'IMG_SUFFIX = ".png"\nSEG_MAP_SUFFIX = ".png"\nREDUCE_ZERO_LABEL = False\nIGNORE_INDEX = 255\n'


def notes(about: About) -> list[str]:
    """How to open it."""
    return [
        "`BaseSegDataset(img_suffix='.png', seg_map_suffix='.png', reduce_zero_label=False, metainfo=METAINFO)` with "
        "`METAINFO` of `dataset_meta.py`. Its default image suffix is `.jpg`; `reduce_zero_label=True`, inherited from "
        "an ADE20K config, would shift every class."
    ]
