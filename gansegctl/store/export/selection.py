"""Which samples are exported, and into which split: functions of the sample alone, the same in any order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gansegctl.errors import DatasetError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.store.export.base import ExportSettings
from gansegctl.store.export.condition import Condition


@dataclass(frozen=True)
class Splits:
    """Names, and the share of the samples at which each ends. A seed's place follows from itself and `seed` alone."""

    names: tuple[str, ...]
    ends: tuple[float, ...]
    seed: int = 0

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Splits:
        """`train=0.9,val=0.1`. UsageError for repeated or odd names, and shares that do not add up to 1."""
        names, ends, total = [], [], 0.0
        for part in text.split(","):
            name, _, share = (t.strip() for t in part.partition("="))
            if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or not re.fullmatch(r"\d+\.?\d*|\.\d+", share):
                raise UsageError(f"got --split {text}", wanted="names and shares, as in train=0.9,val=0.1")
            total += float(share)
            names.append(name)
            ends.append(total)
        if len(set(names)) != len(names) or abs(total - 1) > 1e-6:
            raise UsageError(f"got --split {text}, in all {total:g}", wanted="every name once and shares that add to 1")
        return cls(tuple(names), tuple(ends), seed)

    def of(self, seed: int) -> str:
        """The split of one seed."""
        digest = hashlib.sha256(f"{self.seed}:{seed}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return next((n for n, end in zip(self.names, self.ends, strict=True) if place < end), self.names[-1])


class Selection:
    """--where and --min-class together. Errors: UsageError for what cannot be read, or names no class."""

    def __init__(self, settings: ExportSettings, labels: LabelMap) -> None:
        self.labels = labels
        self.condition = Condition(settings.where, labels.names) if settings.where.strip() else None
        self.least = [self._least(text) for text in settings.min_class]

    def _least(self, text: str) -> tuple[int, int]:
        name, colon, number = text.rpartition(":")
        if not colon or not number.isdecimal():
            raise UsageError(f"got --min-class {text}", wanted="a class and a number of pixels, as in eyes:100")
        return self.labels.index(name), int(number)

    def keeps(self, seed: int, score: float | None, class_pixels: Sequence[int], pixels: int) -> bool:
        """Whether a sample of so many pixels in all, and of each class, is exported."""
        if any(class_pixels[k] < n for k, n in self.least):
            return False
        if self.condition is None:
            return True
        if score is None and "score" in self.condition.names:
            raise DatasetError(
                "got a shard without scores", wanted="the score that --where asks for", remedy="leave score out"
            )
        values = {f"class:{n}": class_pixels[k] / pixels for k, n in enumerate(self.labels.names)}
        return self.condition.keeps(values | {"seed": seed, "score": 0.0 if score is None else score})
