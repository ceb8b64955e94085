"""The fields of a shard: names, shapes and dtypes; and the record that declares it done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gansegctl.errors import DatasetError, UsageError

FORMAT_VERSION = 1
LARGEST_SEED = 2**32 - 1
FIELDS = ("image", "seed", "latent", "mask", "confidence", "score", "probabilities")
DTYPES = {
    "image": ("uint8",),
    "seed": ("uint64",),
    "latent": ("float16", "float32"),
    "mask": ("uint8",),
    "confidence": ("uint8",),
    "score": ("float32",),
    "probabilities": ("uint8",),
}


@dataclass
class ShardArrays:
    """image [n,H,W,c], c = 1 or 3 · seed [n] · latent [n,w] or [n,num_ws,w] · mask, confidence [n,H,W] · score [n] ·
    probabilities [n,K,H,W], 255·p rounded, of K classes.

    n may be 0, where a filter kept none. Errors: DatasetError for another shape or dtype than the format's.
    """

    image: np.ndarray
    seed: np.ndarray
    latent: np.ndarray | None = None
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None
    score: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 4 or self.image.shape[3] not in (1, 3) or (len(self.seed) and not self.image.size):
            raise DatasetError(f"got image {list(self.image.shape)}", wanted="[n, H, W, 1 or 3]")
        n, h, w = self.image.shape[:3]
        shapes = {"image": self.image.shape, "seed": (n,), "mask": (n, h, w), "confidence": (n, h, w), "score": (n,)}
        if self.probabilities is not None:
            shapes["probabilities"] = (n, *self.probabilities.shape[1:2], h, w)
        for name, value in self.present().items():
            wanted = shapes.get(name, (n, *value.shape[1:]))
            if value.dtype.name not in DTYPES[name] or value.shape != wanted or (name == "latent" and value.ndim < 2):
                raise DatasetError(
                    f"got {name} {value.dtype} {list(value.shape)}",
                    wanted=f"{' or '.join(DTYPES[name])} {list(wanted) if name in shapes else f'[{n}, ...]'}",
                )

    def __len__(self) -> int:
        return len(self.image)

    def present(self) -> dict[str, np.ndarray]:
        """The arrays there are, by name, in the order of FIELDS."""
        return {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}


@dataclass(frozen=True)
class ShardRecord:
    """shard-NNNNN.json: written last, and its presence means that the shard is done.

    candidates: the seeds that `seeds` were chosen from, and class_samples: how many of the samples show each class;
    only where a filter chose.
    """

    index: int
    count: int
    seeds: str
    sha256: str
    bytes: int
    digest: str
    fields: tuple[str, ...]
    class_histogram: tuple[int, ...] | None = None
    candidates: str | None = None
    class_samples: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        return {k: v for k, v in row.items() if v is not None or k not in ("candidates", "class_samples")}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> ShardRecord:
        lists = {k: tuple(row[k]) if row.get(k) else None for k in ("class_histogram", "class_samples")}
        return cls(**(row | lists | {"fields": tuple(row["fields"])}))


def parse_seeds(text: str) -> list[int]:
    """`0-99,200` → [0, …, 99, 200]. UsageError for anything else, or a seed that numpy's RandomState does not take."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or not int(first) <= int(last) <= LARGEST_SEED:
            raise UsageError(f"got seeds {text!r}", wanted=f"ranges, as in 0-99,200, up to {LARGEST_SEED}")
        seeds.extend(range(int(first), int(last) + 1))
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
