"""The file of `gansegctl extract`: plain HDF5, float16, one sample a chunk, uncompressed.

The file is laid out whole before its first sample: every dataset has its size and every sample its place. After that
HDF5 only reads. A sample is bytes written to its place; when they are on disk its seed is written, which says that it
is there. So a process that is killed leaves a file to go on with (an HDF5 writer that is killed leaves one that no
reader opens), and the finished file has the same bytes however often the work was stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from gansegctl.errors import GansegError, UsageError
from gansegctl.io.atomic import explained, part_name, sync_folder
from gansegctl.store.codec import READ_ERRORS

FORMAT = 1
MISSING = np.uint64(2**64 - 1)
"""The seed of a sample that is not there yet."""
LARGEST_CHUNK = 2**32 - 1
"""Bytes of a chunk at most, by the HDF5 format."""
FIELDS = ("features", "points")
"""Datasets of which every sample is a chunk; points only where features are of sampled pixels."""


def unfinished(path: Path) -> Path:
    """Where the file lies until its last sample is written."""
    return path.with_name(path.name + ".part")


def read_record(path: Path) -> dict[str, Any]:
    """The settings that a file, finished or not, was made with. UsageError for a file of another kind."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            record = json.loads(f.attrs["settings"])
    except READ_ERRORS as e:
        raise UsageError(f"got {path}: {e}", wanted="a file of `gansegctl extract`", remedy="choose another -o") from e
    if not isinstance(record, dict):
        raise UsageError(f"got {path}: no settings", wanted="a file of `gansegctl extract`")
    return record


def read_constants(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the small arrays that hold for all samples, by name, which a file has. OSError as the disk says."""
    with h5py.File(path, "r", locking=False) as f:
        return {name: f[name][:] for name in names if name in f}


def lay_out(
    path: Path,
    record: Mapping[str, Any],
    channels: Sequence[Mapping[str, Any]],
    fields: Mapping[str, tuple[tuple[int, ...], str]],
    constants: Mapping[str, np.ndarray],
) -> None:
    """Make the unfinished file of `path`, whole but for its samples; one that is there already stays.

    channels: the table of channels. fields: name → (shape of all samples, dtype), of FIELDS. constants: small arrays
    that hold for all samples. Errors: UsageError for a sample beyond `LARGEST_CHUNK`; GansegError for a folder that
    cannot be written, or too full.
    """
    for shape, dtype in fields.values():
        nbytes = sample_bytes(shape, dtype)
        if nbytes > LARGEST_CHUNK:
            raise UsageError(
                f"got samples of {nbytes:,} bytes",
                wanted=f"at most {LARGEST_CHUNK:,}, the largest chunk of HDF5",
                remedy="take --pca, --random or --points in place of --dense",
            )
    target, draft = unfinished(path), part_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(draft, "w", track_order=False) as f:
            f.attrs["format"] = FORMAT
            f.attrs["settings"] = json.dumps(record, ensure_ascii=False)
            f.attrs["channels"] = json.dumps(list(channels), ensure_ascii=False)
            for name, array in constants.items():
                f.create_dataset(name, data=array, track_times=False)
            count = next(iter(fields.values()))[0][0]
            f.create_dataset("seed", data=np.full(count, MISSING), track_times=False)
            for name, (shape, dtype) in fields.items():
                _reserve(f, name, shape, dtype)
        with contextlib.suppress(FileExistsError):
            _name(draft, target)
        sync_folder(path.parent)
    except OSError as e:
        raise explained(e, path, sum(s[0] * sample_bytes(s, d) for s, d in fields.values())) from e
    finally:
        draft.unlink(missing_ok=True)


def sample_bytes(shape: Sequence[int], dtype: str) -> int:
    """Of one sample of a dataset [n, …]."""
    return int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize


class FeatureFile:
    """An unfinished file that this process, and no other, writes samples to; a context manager.

    committed: how many samples are there, from the first on. Errors: GansegError where another process writes to it,
    and whatever the disk says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._raw = open(unfinished(path), "r+b", buffering=0)  # noqa: SIM115  closed by the context manager
        except OSError as e:
            raise explained(e, path, 0) from e
        self._lock()
        self._layout = h5py.File(unfinished(path), "r", locking=False)
        seeds = self._layout["seed"][:]
        missing = np.flatnonzero(seeds == MISSING)
        self.committed, self.count = int(missing[0]) if len(missing) else len(seeds), len(seeds)
        self._seed_offset = self._layout["seed"].id.get_offset()

    def write(self, first: int, seeds: Sequence[int], arrays: Mapping[str, np.ndarray]) -> None:
        """Commit consecutive samples from number `first` on: name → array [m, …], in the dtype of the file."""
        try:
            for name, array in arrays.items():
                dataset = self._layout[name]
                for i, sample in enumerate(np.ascontiguousarray(array, dataset.dtype)):
                    place = (first + i,) + (0,) * (dataset.ndim - 1)
                    self._put(dataset.id.get_chunk_info_by_coord(place).byte_offset, sample.tobytes())
            os.fsync(self._raw.fileno())
            self._put(self._seed_offset + 8 * first, np.asarray(seeds, np.uint64).tobytes())
        except OSError as e:
            raise explained(e, self.path, sum(a.nbytes for a in arrays.values())) from e
        self.committed = max(self.committed, first + len(seeds))

    def finish(self) -> None:
        """Give the file its name. GansegError where samples are missing, or another file has taken its place."""
        if self.committed < self.count:
            raise GansegError(f"got {self.path} with {self.committed} of {self.count} samples", wanted="all")
        part = unfinished(self.path)
        try:
            os.fsync(self._raw.fileno())
            if os.fstat(self._raw.fileno()).st_ino != part.stat().st_ino:
                raise GansegError(
                    f"got {part} replaced while it was written",
                    wanted="one process a file",
                    remedy="run the same command again",
                )
            os.rename(part, self.path)
            sync_folder(self.path.parent)
        except OSError as e:
            raise explained(e, self.path, 0) from e

    def _put(self, offset: int, data: bytes) -> None:
        self._raw.seek(offset)
        written = 0
        while written < len(data):
            written += self._raw.write(data[written:]) or 0

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            self._raw.close()
            raise GansegError(
                f"got {unfinished(self.path)}, which another process is writing",
                wanted="one process a file",
                remedy="wait for it, or choose another -o",
            ) from e
        except OSError:  # a file system without locks
            return

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._layout.close()
        self._raw.close()


def _reserve(f: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> None:
    """A dataset of one sample a chunk whose chunks have their places from the start, unwritten."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1, *shape[1:]))
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    h5py.h5d.create(f.id, name.encode(), kind, h5py.h5s.create_simple(shape), dcpl=plan)


def _name(draft: Path, target: Path) -> None:
    """Give a file a name that no other has. FileExistsError where one has it."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        os.rename(draft, target)
