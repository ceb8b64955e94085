"""The classes of a dataset: ordered names, one colour each, matched by name and never by order."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gansegctl.errors import UsageError, did_you_mean

CLUSTER = "segment-{}"
"""The name of a cluster before anybody names it."""
IGNORE = 255
"""The mask value that no loss and no score counts."""


def is_cluster(name: str) -> bool:
    """Whether a class has the name of a cluster that nobody has named: segment-0, segment-1, …"""
    return re.fullmatch(CLUSTER.format(r"\d+"), name) is not None


def default_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` RGB colours, black first, then hues a golden ratio apart so that neighbours in the list differ."""
    colours = [(0, 0, 0)]
    for i in range(count - 1):
        r, g, b = colorsys.hsv_to_rgb((0.03 + i * 0.61803399) % 1.0, 0.75 if i % 2 else 0.55, 0.95 if i % 3 else 0.75)
        colours.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colours[:count])


@dataclass(frozen=True)
class LabelMap:
    """Class names in the order of their mask values (0 = background), and the colour each is shown in.

    Errors: UsageError for repeated or empty names, over 255 classes, or a colour list of another length.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names or any(not n for n in self.names):
            raise UsageError(f"got class names {list(self.names)}", wanted="one non-empty name a class")
        broken = [n for n in self.names if not n.isprintable()]
        if broken:
            raise UsageError(f"got class name {broken[0]!r}", wanted="names without line breaks or control characters")
        repeated = sorted({n for n in self.names if self.names.count(n) > 1})
        if repeated:
            raise UsageError(f"got class names twice: {', '.join(repeated)}", wanted="every name once")
        if len(self.names) > IGNORE:
            raise UsageError(f"got {len(self.names)} classes", wanted=f"at most {IGNORE} (255 marks ignored pixels)")
        colours = self.colours or default_palette(len(self.names))
        if len(colours) != len(self.names):
            raise UsageError(f"got {len(colours)} colours for {len(self.names)} classes", wanted="one colour a class")
        object.__setattr__(self, "colours", tuple(tuple(int(v) for v in c) for c in colours))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_background(self) -> bool:
        """Whether class 0 is what lies around things; not so for clusters that nobody has named (`segments`)."""
        return not is_cluster(self.names[0])

    def index(self, name: str) -> int:
        """The mask value of a class. Error: UsageError with the nearest name."""
        if name not in self.names:
            raise UsageError(
                f"got class {name!r}", wanted="a class of this dataset", remedy=did_you_mean(name, self.names)
            )
        return self.names.index(name)

    def flat_palette(self) -> list[int]:
        """768 numbers for an indexed PNG; unused entries are mid-grey, 255 (ignore) is white."""
        flat = [v for colour in self.colours for v in colour]
        flat += [128] * (768 - len(flat))
        flat[765:] = [255, 255, 255]
        return flat

    def to_json(self) -> list[dict]:
        """`[{"id", "name", "colour"}]`, the form stored in manifests, shards and weights."""
        return [
            {"id": i, "name": n, "colour": list(c)}
            for i, (n, c) in enumerate(zip(self.names, self.colours, strict=True))
        ]

    @classmethod
    def from_json(cls, rows: Sequence[dict]) -> LabelMap:
        """The inverse of `to_json`; rows are ordered by id."""
        rows = sorted(rows, key=lambda r: r["id"])
        return cls(tuple(r["name"] for r in rows), tuple(tuple(r["colour"]) for r in rows))
