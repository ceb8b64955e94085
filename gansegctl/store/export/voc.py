"""Pascal VOC: indexed masks in the dataset's own colours."""

from __future__ import annotations

from gansegctl.store.export.base import About, Encoded, Encoding, Index, Rows, Sample, image_png, lines

PALETTE, PACKED = True, False


def encode(sample: Sample, encoding: Encoding) -> Encoded:
    """JPEGImages/STEM.png (the folder's name is the convention; images stay lossless) and SegmentationClass/."""
    return Encoded(
        (
            (f"JPEGImages/{sample.stem}.png", image_png(sample.image)),
            (f"SegmentationClass/{sample.stem}.png", encoding.mask_png(sample.mask)),
        )
    )


def index(rows: Rows, about: About) -> Index:
    """ImageSets/Segmentation, and labelmap.txt as CVAT reads it (`name:r,g,b::`, so that `:` in a name becomes `_`)."""
    for split in about.splits:
        yield f"ImageSets/Segmentation/{split}.txt", lines(row["stem"] for row in rows(split))
    classes = zip(about.labels.names, about.labels.colours, strict=True)
    table = (f"{name.replace(':', '_')}:{','.join(map(str, colour))}::" for name, colour in classes)
    yield "labelmap.txt", lines(t for t in ("# label:color_rgb:parts:actions", *table))


def notes(about: About) -> list[str]:
    """How to open it."""
    return [
        "Images are PNG although the folder is called `JPEGImages`; tell a reader that expects `.jpg`.",
        "The pixel value of a mask is the class id, 255 is ignored. There are no objects, so no `SegmentationObject`.",
    ]
