"""The shapes that an annotation file has for one image, drawn on a canvas: the later shape wins, a note says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gansegctl.annotation.class_names import class_of
from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE, LabelMap

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Drawing:
    """mask uint8 [H,W] in class ids, 255 = ignored; notes: what the user should know; image uint8 [H,W(,3)]: the one
    it was painted on, where the file brings it.
    """

    mask: np.ndarray
    notes: tuple[str, ...] = ()
    image: np.ndarray | None = None


Loader = Callable[[LabelMap, Size], Drawing]
"""(classes, size of the image) → the annotation, read and checked against both."""


@dataclass(frozen=True)
class Item:
    """One image's annotation, found but not yet read. name: the image's, as the file has it; format: of FORMATS."""

    name: str
    source: Path
    format: str
    load: Loader


class Canvas:
    """Shapes painted one over the other. file: named in notes and errors."""

    def __init__(self, file: Path | str, size: Size, labels: LabelMap) -> None:
        self.file, self.size, self.labels = file, size, labels
        self.mask = np.zeros(size, np.uint8)
        self.drawn = np.zeros(size, bool)
        self.shapes = 0
        self._over: dict[tuple[int, int], int] = {}
        self._notes: list[str] = []

    def paint(self, region: np.ndarray, label: str, place: str) -> None:
        """Give the pixels of `region` (bool [H,W]) to the class of that label. UsageError for an unknown label."""
        k = class_of(label, self.labels, f"{self.file}: {place}")
        self.shapes += 1
        if not region.any():
            self.note(f"{place} ({label!r}) covers no pixel")
            return
        covered, counts = np.unique(self.mask[region & self.drawn], return_counts=True)
        for other, count in zip(covered.tolist(), counts.tolist(), strict=True):
            if other != k:
                self._over[k, other] = self._over.get((k, other), 0) + count
        self.mask[region] = k
        self.drawn |= region

    def note(self, text: str) -> None:
        """Keep a text for the user, after the file's name."""
        self._notes.append(f"{self.file}: {text}")

    def finish(self, image: np.ndarray | None = None) -> Drawing:
        """The mask; pixels that no shape covers are the first class. UsageError where there are no shapes at all."""
        if not self.shapes:
            raise UsageError(
                f"got {self.file} without a shape",
                wanted="a shape for every class but the background",
                remedy="annotate the image, save, and export again",
            )
        notes = list(self._notes)
        for (over, under), count in self._over.items():
            pair = f"{self._name(over)} covers {count} pixels of {self._name(under)}"
            notes.append(f"{self.file}: {pair}: the later shape wins")
        first, left = self.labels.names[0], int((~self.drawn).sum())
        if left and "background" not in first.lower():
            notes.append(f"{self.file}: {left} pixels that no shape covers became {first!r}, the first class")
        return Drawing(self.mask, tuple(notes), image)

    def _name(self, k: int) -> str:
        return "ignored" if k == IGNORE else repr(self.labels.names[k])


def check_size(found: Size, size: Size, where: str) -> None:
    """UsageError when an annotation says that its image has another size."""
    if found != size:
        raise UsageError(
            f"got {where} for an image of {found[1]}x{found[0]} pixels (width x height)",
            wanted=f"{size[1]}x{size[0]}, the size of the generator's images",
            remedy="annotate the bundle's own PNG, not a scaled, cropped or rotated copy",
        )
