"""Boxes of objects, as a detector or a file gives them, for stylemix."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansegctl.contracts import Synthesis
from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE, LabelMap


def instances(count: int) -> LabelMap:
    """Classes of things that boxes were drawn about: background, instance-1, instance-2, …"""
    return LabelMap(("background", *(f"instance-{i + 1}" for i in range(count))))


Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are the first column and row that lie outside."""


Detector = Callable[[Synthesis], Sequence[Any]]
"""A function that finds boxes: N images → N lists of [left, top, right, bottom] in pixels."""


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
    rows: list[Box] = []
    try:
        for box in boxes:
            left, top, right, bottom = (round(float(value)) for value in box)
            rows.append((left, top, right, bottom))
    except (TypeError, ValueError, OverflowError):  # other counts, and round of nan and inf, are of these
        raise UsageError(f"got boxes {boxes!r:.80} for seed {seed}", wanted="[[left, top, right, bottom], …]") from None
    for left, top, right, bottom in rows:
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise UsageError(
                f"got box {[left, top, right, bottom]} for seed {seed}",
                wanted=f"0 ≤ left < right ≤ {width} and 0 ≤ top < bottom ≤ {height}, in pixels of the image",
            )
    if len(rows) >= IGNORE:
        raise UsageError(
            f"got {len(rows)} boxes for seed {seed}",
            wanted=f"at most {IGNORE - 1}: a mask has {IGNORE} values, one of them the background",
            remedy="leave the boxes of the smallest things out",
        )
    return rows


def of_instances(shares: Sequence[Tensor], boxes: Sequence[Box], votes: Tensor) -> Tensor:
    """Shares of each box's pixels [P] → of the whole image's, written into votes [1+instances,H,W] of zeros."""
    best = torch.zeros_like(votes[0])
    owner = torch.zeros_like(best, dtype=torch.int64)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    for j in sorted(range(len(boxes)), key=areas.__getitem__):
        left, top, right, bottom = boxes[j]
        window = np.s_[top:bottom, left:right]
        share = shares[j].view(bottom - top, right - left).to(best)
        more = share > best[window]
        owner[window] = owner[window].masked_fill(more, j + 1)
        best[window] = torch.maximum(best[window], share)
    votes.scatter_(0, owner[None], best[None])
    votes[0] = 1 - best
    return votes
