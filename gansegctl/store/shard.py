"""One shard: built in memory, compressed in threads, committed by rename, declared done by its json.

The file is plain HDF5 with the stock deflate filter, one sample a chunk. Chunks are deflated outside HDF5 (which would
do it under one global lock) by ISA-L where it is installed, else zlib; any HDF5 reader opens both.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gansegctl.errors import DatasetError
from gansegctl.labels import LabelMap
from gansegctl.store.atomic import write_bytes
from gansegctl.store.schema import FIELDS, FORMAT_VERSION, ShardArrays, ShardRecord, format_seeds

COMPRESSED = ("image", "mask", "confidence")


def _deflate() -> Callable[[bytes], bytes]:
    try:
        from isal import isal_zlib
    except ImportError:
        return lambda data: zlib.compress(data, 1)
    return lambda data: isal_zlib.compress(data, 1)


def _inflate() -> Callable[[bytes], bytes]:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.decompress
    return isal_zlib.decompress


inflate = _inflate()


def shard_path(folder: Path, index: int) -> Path:
    """folder/shard-NNNNN.h5"""
    return folder / f"shard-{index:05d}.h5"


def write_shard(
    folder: Path,
    index: int,
    arrays: ShardArrays,
    labels: LabelMap | None = None,
    digest: str = "",
    attrs: dict[str, Any] | None = None,
    threads: int = 2,
) -> ShardRecord:
    """Commit one shard and its json. Equal input gives equal bytes. Errors: GansegError when it cannot be written."""
    path = shard_path(folder, index)
    record_path = path.with_suffix(".json")
    data = _encoded(arrays, labels, {"digest": digest, "index": index} | (attrs or {}), threads)
    record_path.unlink(missing_ok=True)  # a shard that is being replaced is not done
    write_bytes(path, data)
    histogram = None
    if arrays.mask is not None and labels is not None:
        histogram = tuple(int(v) for v in np.bincount(arrays.mask.ravel(), minlength=256)[: len(labels)])
    record = ShardRecord(
        index,
        len(arrays),
        format_seeds(arrays.seed),
        hashlib.sha256(data).hexdigest(),
        len(data),
        digest,
        tuple(arrays.present()),
        histogram,
    )
    write_bytes(record_path, (json.dumps(record.to_json(), indent=1) + "\n").encode())
    return record


def _encoded(arrays: ShardArrays, labels: LabelMap | None, attrs: dict[str, Any], threads: int) -> bytes:
    deflate = _deflate()
    with (
        h5py.File("shard", "w", driver="core", backing_store=False, track_order=False) as f,
        ThreadPoolExecutor(max_workers=threads) as pool,
    ):
        f.attrs["format"] = FORMAT_VERSION
        if labels is not None:
            f.attrs["labels"] = json.dumps(labels.to_json())
        for key, value in attrs.items():
            f.attrs[key] = value
        for name, array in arrays.present().items():
            if name not in COMPRESSED:
                f.create_dataset(name, data=array, track_times=False)
                continue
            d = f.create_dataset(
                name, array.shape, array.dtype, chunks=(1, *array.shape[1:]), compression="gzip", track_times=False
            )
            for i, chunk in enumerate(pool.map(deflate, (np.ascontiguousarray(a).tobytes() for a in array))):
                d.id.write_direct_chunk((i,) + (0,) * (array.ndim - 1), chunk)
        f.flush()
        return f.id.get_file_image()


def read_shard(folder: Path, index: int) -> ShardArrays:
    """The whole shard in memory. DatasetError when it is missing or cannot be read."""
    path = shard_path(folder, index)
    try:
        with h5py.File(path, "r", locking=False) as f:
            return ShardArrays(**{name: f[name][:] for name in FIELDS if name in f})
    except (OSError, KeyError) as e:
        raise DatasetError(f"got {path}: {e}", wanted="a whole shard", remedy="run the stage that wrote it again") from e


def shard_record(folder: Path, index: int) -> ShardRecord | None:
    """The record of a finished shard, or None when it is not done."""
    path = shard_path(folder, index)
    try:
        record = ShardRecord.from_json(json.loads(path.with_suffix(".json").read_text()))
        return record if path.stat().st_size == record.bytes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shard_done(folder: Path, index: int, digest: str) -> bool:
    """Whether shard `index` is there, whole by its size, and made with the settings of this digest."""
    record = shard_record(folder, index)
    return record is not None and record.digest == digest


def problem_of_shard(folder: Path, index: int) -> str | None:
    """What is wrong with a shard (missing, unfinished, damaged), by its sha256; None when it is whole."""
    path = shard_path(folder, index)
    if not path.exists():
        return "missing"
    record = shard_record(folder, index)
    if record is None:
        return "unfinished: no json, or another size than it says"
    if hashlib.sha256(path.read_bytes()).hexdigest() != record.sha256:
        return "damaged: sha256 differs from its json"
    return None
