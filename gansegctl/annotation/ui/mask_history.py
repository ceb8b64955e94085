"""One image's mask while it is painted: strokes on it, undo, redo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE


class MaskHistory:
    """mask uint8 [H,W]: a class id, or 255 where nobody has painted. `changes` counts all that was ever done to it."""

    def __init__(self, size: tuple[int, int], classes: int) -> None:
        self.mask = np.full(size, IGNORE, np.uint8)
        self.classes = classes
        self.changes = 0
        self._done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # places, values before, values after
        self._undone: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    @property
    def undoable(self) -> int:
        """Strokes that can be taken back."""
        return len(self._done)

    @property
    def redoable(self) -> int:
        """Strokes that were taken back and can be made again."""
        return len(self._undone)

    @property
    def painted(self) -> float:
        """Share of the pixels that somebody has painted."""
        return float((self.mask != IGNORE).mean())

    def paint(self, value: int, runs: Sequence[int]) -> None:
        """Give the pixels of `runs` (start, length, start, length, …; row by row) the class `value`, 255 to erase."""
        self._check_values([value])
        places = self._places(runs)
        self._do(places, np.full(len(places), value, np.uint8))

    def replace(self, runs: Sequence[int]) -> None:
        """The whole mask at once: `runs` are (value, length, value, length, …) over all pixels."""
        mask = decode(runs, self.mask.size)
        self._check_values(np.unique(mask).tolist())
        places = np.flatnonzero(mask != self.mask.ravel())
        self._do(places, mask[places])

    def undo(self) -> bool:
        """Take back the last stroke. False when there is none."""
        if not self._done:
            return False
        stroke = self._done.pop()
        self.mask.ravel()[stroke[0]] = stroke[1]
        self._undone.append(stroke)
        self.changes += 1
        return True

    def redo(self) -> bool:
        """Make the stroke that was taken back last again. False when there is none."""
        if not self._undone:
            return False
        stroke = self._undone.pop()
        self.mask.ravel()[stroke[0]] = stroke[2]
        self._done.append(stroke)
        self.changes += 1
        return True

    def _do(self, places: np.ndarray, after: np.ndarray) -> None:
        before = self.mask.ravel()[places]
        self.mask.ravel()[places] = after
        self._done.append((places, before, after))
        self._undone.clear()
        self.changes += 1

    def _check_values(self, values: Sequence[int]) -> None:
        for value in values:
            if not _whole(value) or not (0 <= value < self.classes or value == IGNORE):
                raise UsageError(f"got class {value!r}", wanted=f"0 to {self.classes - 1}, or {IGNORE} to erase")

    def _places(self, runs: Sequence[int]) -> np.ndarray:
        if not isinstance(runs, list | tuple) or len(runs) % 2 or not all(_whole(v) for v in runs):
            raise UsageError("got a stroke that is no list of runs", wanted="start, length, start, length, …")
        starts, lengths = list(runs[::2]), list(runs[1::2])
        ends = [s + n for s, n in zip(starts, lengths, strict=True)]
        inside = all(s >= 0 and n >= 1 and e <= self.mask.size for s, n, e in zip(starts, lengths, ends, strict=True))
        if not inside or any(end > start for end, start in zip(ends, starts[1:], strict=False)):
            raise UsageError(
                "got a stroke outside the image, or that overlaps itself", wanted="rising runs of pixels inside it"
            )
        if not starts:
            return np.zeros(0, np.int64)
        return np.concatenate([np.arange(s, e) for s, e in zip(starts, ends, strict=True)])


def encode(mask: np.ndarray) -> list[int]:
    """uint8 [H,W] → value, length, value, length, …; the inverse of `decode`."""
    flat = np.ascontiguousarray(mask).ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    return np.stack([flat[starts].astype(np.int64), lengths], axis=1).ravel().tolist()


def decode(runs: Sequence[int], size: int) -> np.ndarray:
    """value, length, … → uint8 [size]. UsageError unless the runs cover exactly `size` pixels with bytes."""
    fits = isinstance(runs, list | tuple) and len(runs) % 2 == 0 and all(_whole(v) for v in runs)
    if not fits or any(n < 1 for n in runs[1::2]) or sum(runs[1::2]) != size:
        raise UsageError("got a mask that does not cover the image", wanted=f"value, length, … over {size} pixels")
    if any(not 0 <= v <= 255 for v in runs[::2]):
        raise UsageError("got a mask with values beyond a byte", wanted="0 to 255")
    return np.repeat(np.array(runs[::2], np.uint8), runs[1::2])


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
