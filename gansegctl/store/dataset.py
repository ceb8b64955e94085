"""A torch Dataset over shards: random access, files opened lazily in each worker, chunks read and inflated by us."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import h5py
import torch
from torch import Tensor

from gansegctl.errors import DatasetError
from gansegctl.labels import LabelMap
from gansegctl.store.codec import READ_ERRORS
from gansegctl.store.hdf5 import StoredFields
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import FIELDS, ShardArrays, ShardRecord, parse_seeds
from gansegctl.store.shard import read_shard, shard_path, shard_record, unreadable

OPEN_FILES = 256
"""Files kept open in one process, well under the usual limit of 1,024."""


class ShardDataset(torch.utils.data.Dataset):
    """Item i: {"image": uint8 [H,W,c], "mask": uint8 [H,W], …} for the fields asked for.

    indices: the samples to show, in that order; all when None. partial: take the shards that are finished. open_files:
    how many are kept open, `OPEN_FILES` when None; few are enough to read in order, and each takes some 200 kB.
    May be pickled, and read by forked and spawned workers.
    Errors: DatasetError when a shard of the plan is missing (unless `partial`), damaged, or has no such field.
    """

    def __init__(
        self,
        folder: Path,
        fields: Sequence[str] = ("image", "mask"),
        partial: bool = False,
        indices: Sequence[int] | None = None,
        open_files: int | None = None,
    ) -> None:
        self.folder, self.fields, self.open_files = Path(folder), tuple(fields), open_files or OPEN_FILES
        self.manifest = Manifest.read(self.folder)
        if "mask" in self.fields and self.manifest.stage != "pairs":
            raise DatasetError(f"got {folder} without masks", wanted="pairs", remedy="run `gansegctl annotate` on it")
        if not partial:
            self.manifest.require_whole(self.folder)
        self.shards = self.manifest.done(self.folder)
        self._seeds: list[int] = []
        self.ends: list[int] = []
        for shard in self.shards:
            record = self._record(shard)
            self._seeds += parse_seeds(record.seeds) if record.count else []
            self.ends.append(len(self._seeds))
        total = self.ends[-1] if self.ends else 0
        self.indices = range(total) if indices is None else [int(i) for i in indices]
        outside = [i for i in self.indices if not 0 <= i < total] if indices is not None else []
        if outside:
            raise IndexError(f"got index {outside[0]}; wanted 0 to {total - 1}")
        self._files: dict[int, StoredFields] = {}
        self._process = os.getpid()

    @property
    def labels(self) -> LabelMap | None:
        """The classes, or None before masks are in."""
        return self.manifest.labels

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return self.manifest.generator["resolution"]

    @property
    def channels(self) -> int:
        """Channels of the images: 1 or 3."""
        return self.manifest.generator["channels"]

    @property
    def seeds(self) -> list[int]:
        """The seed of every item."""
        return [self._seeds[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        if not -len(self) <= item < len(self):
            raise IndexError(f"got item {item}; wanted 0 to {len(self) - 1}")
        sample = self.indices[item]
        place = bisect_right(self.ends, sample)
        row = sample - (self.ends[place - 1] if place else 0)
        shard = self.shards[place]
        try:
            stored = self._open(shard)
            return {name: torch.from_numpy(stored.row(name, row)) for name in self.fields}
        except READ_ERRORS as e:
            raise unreadable(shard_path(self.folder, shard), e) from e

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_files": {}}  # handles do not travel to worker processes

    def _open(self, shard: int) -> StoredFields:
        if self._process != os.getpid():  # forked: the handles are the parent's
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            if len(self._files) >= self.open_files:
                self._files.pop(next(iter(self._files))).file.close()
            self._files[shard] = StoredFields(h5py.File(shard_path(self.folder, shard), "r", locking=False))
        return self._files[shard]

    def _record(self, shard: int) -> ShardRecord:
        record = shard_record(self.folder, shard)
        there = record.fields if record else ()
        missing = [name for name in self.fields if name not in there]
        if record is None or missing:
            raise DatasetError(
                f"got {shard_path(self.folder, shard)} without {', '.join(missing) or 'its json'}",
                wanted=f"a dataset with {', '.join(self.fields)}",
                remedy="ask for fields it has" + (f": {', '.join(there)}" if there else ""),
            )
        return record


def open_dataset(folder: Path | str, fields: Sequence[str] | None = None) -> ShardDataset:
    """A dataset that `gansegctl generate` wrote, as a torch Dataset of {"image": uint8 [H,W,c], "mask": uint8 [H,W]}.

    fields: which to read; None: images, and masks where the dataset has them. Errors: as `ShardDataset`.
    """
    folder = Path(folder)
    if fields is None:
        fields = ("image", "mask") if Manifest.read(folder).stage == "pairs" else ("image",)
    return ShardDataset(folder, fields)


def iter_shards(
    folder: Path, partial: bool = False, wanted: Collection[str] = FIELDS
) -> Iterator[tuple[int, ShardArrays]]:
    """Every finished shard in order, the constant-memory way through a dataset. wanted: as `read_shard` takes it.

    Errors: DatasetError before the first one when a shard of the plan is missing (unless `partial`).
    """
    manifest = Manifest.read(Path(folder))
    if not partial:
        manifest.require_whole(folder)
    for index in manifest.done(folder):
        yield index, read_shard(Path(folder), index, wanted)
