"""A torch Dataset over shards: random access, files opened lazily in each worker, chunks read and inflated by us."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from gansegctl.errors import DatasetError
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import ShardArrays
from gansegctl.store.shard import COMPRESSED, inflate, read_shard, shard_done, shard_path


class ShardDataset(torch.utils.data.Dataset):
    """Item i: {"image": uint8 [H,W,c], "mask": uint8 [H,W], …} for the fields asked for.

    Errors: DatasetError when a shard of the plan is missing (unless `partial`), or has no such field.
    """

    def __init__(self, folder: Path, fields: Sequence[str] = ("image", "mask"), partial: bool = False) -> None:
        self.folder, self.fields = Path(folder), tuple(fields)
        self.manifest = Manifest.read(self.folder)
        if "mask" in self.fields and self.manifest.stage != "pairs":
            raise DatasetError(f"got {folder} without masks", wanted="pairs", remedy="run `gansegctl annotate` on it")
        done = [i for i in range(len(self.manifest.shards)) if shard_done(self.folder, i, self.manifest.digest)]
        if len(done) < len(self.manifest.shards) and not partial:
            missing = sorted(set(range(len(self.manifest.shards))) - set(done))
            raise DatasetError(
                f"got {folder} with {len(missing)} of {len(self.manifest.shards)} shards missing, first {missing[0]}",
                wanted="a finished dataset",
                remedy="run the command that made it again: it goes on where it stopped",
            )
        self.shards = done
        self.ends = list(np.cumsum([len(self.manifest.shard_seeds(i)) for i in done]))
        self._files: dict[int, h5py.File] = {}

    @property
    def labels(self):
        """The classes, or None before masks are in."""
        return self.manifest.labels

    @property
    def seeds(self) -> list[int]:
        """The seed of every item."""
        return [s for i in self.shards for s in self.manifest.shard_seeds(i)]

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.ends else 0

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        item = item + len(self) if item < 0 else item
        if not 0 <= item < len(self):
            raise IndexError(f"got item {item}; wanted 0 to {len(self) - 1}")
        place = bisect_right(self.ends, item)
        row = item - (int(self.ends[place - 1]) if place else 0)
        f = self._open(self.shards[place])
        return {name: torch.from_numpy(_row(f[name], name, row)) for name in self.fields}

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_files": {}}  # handles do not travel to worker processes

    def _open(self, shard: int) -> h5py.File:
        if shard not in self._files:
            self._files[shard] = h5py.File(shard_path(self.folder, shard), "r", locking=False)
        return self._files[shard]


def _row(dataset: h5py.Dataset, name: str, row: int) -> np.ndarray:
    if name not in COMPRESSED:
        return np.array(dataset[row])
    _, chunk = dataset.id.read_direct_chunk((row,) + (0,) * (dataset.ndim - 1))
    return np.frombuffer(bytearray(inflate(chunk)), dtype=dataset.dtype).reshape(dataset.shape[1:])


def iter_shards(folder: Path, partial: bool = False) -> Iterator[tuple[int, ShardArrays]]:
    """Every finished shard in order, whole; the constant-memory way through a dataset."""
    manifest = Manifest.read(Path(folder))
    for index in range(len(manifest.shards)):
        if shard_done(Path(folder), index, manifest.digest):
            yield index, read_shard(Path(folder), index)
        elif not partial:
            raise DatasetError(
                f"got {folder} with shard {index} missing",
                wanted="a finished dataset",
                remedy="run the command that made it again: it goes on where it stopped",
            )
