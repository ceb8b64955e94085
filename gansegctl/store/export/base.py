"""The types that every export format takes and returns."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from gansegctl.errors import UsageError
from gansegctl.io.image import indexed
from gansegctl.labels import LabelMap
from gansegctl.store.manifest import Manifest

IMAGE_LEVEL = 1
"""PNG effort for images: three times as fast as Pillow's default for a tenth more bytes."""


@dataclass(frozen=True)
class ExportSettings:
    """The settings that determine the files of an export: see `gansegctl export --help`."""

    format: str
    where: str = ""
    min_class: tuple[str, ...] = ()
    split: str = "train=1"
    split_seed: int = 0
    mask_png: str = ""  # palette | grey; "" = the format's habit
    polygons: bool = False
    instances: bool = False
    licence: str = ""

    def __post_init__(self) -> None:
        if self.mask_png not in ("", "palette", "grey"):
            raise UsageError(f"got mask_png {self.mask_png!r}", wanted="palette | grey")
        if (self.polygons or self.instances) and self.format != "coco":
            raise UsageError(f"got --polygons or --instances for {self.format}", wanted="--format coco")


@dataclass(frozen=True)
class Sample:
    """One pair: image uint8 [H,W,c], mask uint8 [H,W]; class_pixels: pixels of each class, ignored ones left out."""

    stem: str
    split: str
    position: int  # in the dataset, before anything was filtered
    seed: int
    score: float | None
    image: np.ndarray
    mask: np.ndarray
    class_pixels: tuple[int, ...]


@dataclass(frozen=True)
class Encoding:
    """How samples are encoded: the classes, and whether masks are indexed (palette) or grey."""

    labels: LabelMap
    palette: bool
    polygons: bool = False
    instances: bool = False

    def mask_png(self, mask: np.ndarray) -> bytes:
        """The mask as PNG; the pixel values are the class ids either way."""
        return _png(indexed(mask, self.labels.flat_palette()) if self.palette else Image.fromarray(mask), 6)


@dataclass(frozen=True)
class Encoded:
    """files: path below the export (or member of the tar) and content. row: what the index files say of the sample."""

    files: tuple[tuple[str, bytes], ...]
    row: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """Facts of the whole export, for its index files and its card."""

    name: str
    licence: str
    labels: LabelMap
    manifest: Manifest
    settings: ExportSettings
    splits: tuple[str, ...]
    palette: bool
    counts: dict[str, int]  # samples of each split
    class_pixels: tuple[int, ...]
    channels: int
    packs: dict[str, list[dict[str, Any]]]  # tars of each split, where there are any


Rows = Callable[[str], Iterator[dict[str, Any]]]
"""The rows of one split in the order of the dataset, streamed; may be called again."""

Index = Iterator[tuple[str, Iterator[str]]]
"""Files to write at the end: path below the export, and its text in pieces."""


def image_png(image: np.ndarray) -> bytes:
    """uint8 [H,W,1 or 3] → PNG."""
    return _png(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), IMAGE_LEVEL)


def _png(image: Image.Image, level: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=level)
    return stream.getvalue()


def lines(texts: Iterator[str]) -> Iterator[str]:
    """Each text with a newline."""
    return (f"{t}\n" for t in texts)


def pretty(table: Any) -> Iterator[str]:
    """JSON for people, as one piece."""
    yield json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def id_table(labels: LabelMap) -> dict[str, str]:
    """`{"0": "background", …}`, as transformers and datasets want it."""
    return {str(i): n for i, n in enumerate(labels.names)}
