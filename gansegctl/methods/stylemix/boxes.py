"""Boxes of objects, as a detector or a file gives them, for stylemix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE, LabelMap


def instances(count: int) -> LabelMap:
    """Classes of things that boxes were drawn about: background, instance-1, instance-2, …"""
    return LabelMap(("background", *(f"instance-{i + 1}" for i in range(count))))


Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are the first column and row that lie outside."""


def read_boxes(source: str | Mapping[str, Any], side: int) -> dict[str, list[list[int]]]:
    """{seed: [[left, top, right, bottom], …]} of a JSON file, or as a table → the same, checked, in whole pixels.

    side: of the images. The table is as JSON has it. Errors: UsageError for a missing file or another content, a seed
    that is no number, or as `check_boxes`.
    """
    table: Any = source
    if isinstance(source, str):
        try:
            table = json.loads(Path(source).read_text(encoding="utf-8"))
        except OSError as e:
            raise UsageError(f"got boxes {source}: {e.strerror}", wanted="a JSON file of boxes by seed") from None
        except ValueError as e:
            raise UsageError(f"got boxes {source}: no JSON ({e})", wanted="a JSON file of boxes by seed") from None
    if not isinstance(table, Mapping):
        raise UsageError(f"got boxes as a {type(table).__name__}", wanted="{seed: [[left, top, right, bottom], …]}")
    wrong = [key for key in table if not (str(key).isascii() and str(key).isdecimal())]
    if wrong:
        raise UsageError(f"got boxes of {wrong[0]!r}", wanted="the number of a seed")
    return {str(int(seed)): [list(b) for b in check_boxes(int(seed), x, side, side)] for seed, x in table.items()}


def check_boxes(seed: int, boxes: Any, height: int, width: int) -> list[Box]:
    """The boxes of one image, rounded to whole pixels.

    UsageError for what is no list of four numbers each, for a box without pixels or beyond the image, and for more
    boxes than a mask has values.
    """
    try:
        rows = [tuple(round(float(value)) for value in box) for box in boxes]
    except (TypeError, ValueError, OverflowError):  # round of nan and inf are of these
        rows = [()]
    for box in rows:
        if len(box) != 4:
            raise UsageError(f"got boxes {boxes!r:.80} for seed {seed}", wanted="[[left, top, right, bottom], …]")
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise UsageError(
                f"got box {list(box)} for seed {seed}",
                wanted=f"0 ≤ left < right ≤ {width} and 0 ≤ top < bottom ≤ {height}, in pixels of the image",
            )
    if len(rows) >= IGNORE:
        raise UsageError(
            f"got {len(rows)} boxes for seed {seed}",
            wanted=f"at most {IGNORE - 1}: a mask has {IGNORE} values, one of them the background",
            remedy="leave the boxes of the smallest things out",
        )
    return rows
