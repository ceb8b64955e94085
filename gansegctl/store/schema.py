"""What a shard holds: names, shapes and dtypes, and the record that says it is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gansegctl.errors import DatasetError

FORMAT_VERSION = 1
FIELDS = ("image", "seed", "latent", "mask", "confidence", "score")
DTYPES = {
    "image": ("uint8",),
    "seed": ("uint64",),
    "latent": ("float16", "float32"),
    "mask": ("uint8",),
    "confidence": ("uint8",),
    "score": ("float32",),
}


@dataclass
class ShardArrays:
    """image [n,H,W,c] · seed [n] · latent [n,w] or [n,num_ws,w] · mask, confidence [n,H,W] · score [n]; or None."""

    image: np.ndarray
    seed: np.ndarray
    latent: np.ndarray | None = None
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None
    score: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, h, w = self.image.shape[:3]
        shapes = {"image": (n, h, w, self.image.shape[-1]), "mask": (n, h, w), "confidence": (n, h, w)}
        for name, value in self.present().items():
            wanted = shapes.get(name, (n, *value.shape[1:]))
            if value.dtype.name not in DTYPES[name] or value.shape != wanted or not n:
                raise DatasetError(
                    f"got {name} {value.dtype} {list(value.shape)}", wanted=f"{'|'.join(DTYPES[name])} {list(wanted)}"
                )

    def __len__(self) -> int:
        return len(self.image)

    def present(self) -> dict[str, np.ndarray]:
        """The arrays there are, by name, in the order of FIELDS."""
        return {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}


@dataclass(frozen=True)
class ShardRecord:
    """shard-NNNNN.json: written last, and its presence means that the shard is done."""

    index: int
    count: int
    seeds: str
    sha256: str
    bytes: int
    digest: str
    fields: tuple[str, ...]
    class_histogram: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> ShardRecord:
        histogram = row.get("class_histogram")
        fields = {"fields": tuple(row["fields"]), "class_histogram": tuple(histogram) if histogram else None}
        return cls(**(row | fields))


def parse_seeds(text: str) -> list[int]:
    """"0-99,200" → [0, …, 99, 200]. UsageError for anything else."""
    from gansegctl.errors import UsageError

    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise UsageError(f"got seeds {text!r}", wanted="numbers and ranges, as in 0-99,200")
        seeds.extend(range(int(first), int(last or first) + 1))
    return seeds


def format_seeds(seeds: list[int] | np.ndarray) -> str:
    """The inverse of `parse_seeds`, runs joined."""
    runs: list[list[int]] = []
    for s in (int(s) for s in seeds):
        if runs and s == runs[-1][1] + 1:
            runs[-1][1] = s
        else:
            runs.append([s, s])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
