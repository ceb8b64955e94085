"""COCO's run lengths: pixels column by column, runs of 0 and 1 in turn, the first of 0; and their text form.

The text is 5 bits a character, least first, bit 5 = more to come, offset 48; from the fourth run on, each number is the
difference to the one two before it. Checked against pycocotools in
tests/store/test_export_readers.py.
"""

from __future__ import annotations

import numpy as np


def encode(region: np.ndarray) -> list[int]:
    """bool [H,W] → run lengths, which add up to H·W."""
    flat = np.asarray(region, bool).ravel(order="F")
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], turns, [flat.size]))).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def decode(runs: list[int], height: int, width: int) -> np.ndarray:
    """Run lengths → bool [H,W]. ValueError when one is negative or they do not add up to H·W."""
    if any(run < 0 for run in runs):
        raise ValueError(f"got a run of {min(runs)} pixels; wanted 0 or more")
    if sum(runs) != height * width:
        raise ValueError(f"got runs of {sum(runs)} pixels; wanted {height * width}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((height, width), order="F")


def to_text(runs: list[int]) -> str:
    """Run lengths → COCO's compressed counts."""
    text = []
    for i, value in enumerate(runs):
        value -= runs[i - 2] if i > 2 else 0
        while True:
            bits, value = value & 31, value >> 5
            last = value == (-1 if bits & 16 else 0)
            text.append(chr(48 + (bits if last else bits | 32)))
            if last:
                break
    return "".join(text)


def from_text(text: str) -> list[int]:
    """The inverse of `to_text`. ValueError for other characters, text cut short, and numbers beyond 64 bits."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"got the character {character!r}; wanted those from '0' to 'o'")
        if shift > 60:
            raise ValueError(f"got a run length of over 64 bits after {len(runs)} runs")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError(f"got text that ends within run length {len(runs)}")
    return runs


def box(region: np.ndarray) -> list[int]:
    """[x, y, width, height] of a region that is not empty."""
    ys, xs = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]
