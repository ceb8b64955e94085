"""One shard: built in memory, compressed in threads, committed by rename, declared done by its json.

The file is plain HDF5, by default with the stock deflate filter, one sample a chunk. Chunks are packed outside HDF5,
which would do it under one global lock. Built in memory because HDF5 on a full disk ends the process, and a killed
writer leaves files that open without an error and lack samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gansegctl.errors import DatasetError, GansegError
from gansegctl.io.atomic import write_bytes
from gansegctl.io.digest import file_digest
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.store.codec import READ_ERRORS
from gansegctl.store.hdf5 import StoredFields, write_field
from gansegctl.store.schema import FIELDS, FORMAT_VERSION, ShardArrays, ShardRecord, format_seeds


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
    codec: str = "deflate",
    candidates: str | None = None,
) -> ShardRecord:
    """Commit one shard and its json. Equal input gives equal bytes.

    codec: how images, masks and confidences are packed (codec.py). candidates: the seeds that these samples were
    chosen from, where not all were kept.
    Errors: GansegError when it cannot be written, or another process wrote the same shard with other content;
    DatasetError for mask values that name no class.
    """
    path = shard_path(folder, index)
    record_path = path.with_suffix(".json")
    about = {"digest": digest, "index": index} | ({} if candidates is None else {"candidates": candidates})
    counting: Future[tuple[int, ...]] | None = None
    with ThreadPoolExecutor(max_workers=1) as beside:  # counting beside packing, hashing beside the disk
        if arrays.mask is not None and labels is not None:
            counting = beside.submit(class_histogram, arrays.mask, labels)
        data = _encoded(str(path), arrays, labels, about | (attrs or {}), threads, codec)
        histogram = counting.result() if counting else None
        hashing = beside.submit(lambda: hashlib.sha256(data).hexdigest())
        inode = write_bytes(path, data, retire=record_path)  # a shard that is being replaced is not done
        sha256 = hashing.result()
    record = ShardRecord(
        index,
        len(arrays),
        format_seeds(arrays.seed),
        sha256,
        len(data),
        digest,
        tuple(arrays.present()),
        histogram,
        candidates,
        None if candidates is None or arrays.mask is None or labels is None else class_samples(arrays.mask, labels),
    )
    write_bytes(record_path, _record_text(record))
    if path.stat().st_ino != inode and file_digest(path) != record.sha256:
        record_path.unlink(missing_ok=True)  # it vouches for a file that is no longer there
        raise GansegError(
            f"got {path} replaced with other content while it was written",
            wanted="one process a shard",
            remedy="give each process its own --task i/n, then run the same command again",
        )
    return record


def class_histogram(mask: np.ndarray, labels: LabelMap) -> tuple[int, ...]:
    """Pixels of each class in mask uint8 [n,H,W]; IGNORE is not counted. DatasetError for a value of no class."""
    import torch  # its counting lets other threads run, numpy's does not

    counts = torch.bincount(torch.from_numpy(np.ascontiguousarray(mask)).view(-1), minlength=256).tolist()
    stray = [v for v in range(len(labels), IGNORE) if counts[v]]
    if stray:
        raise DatasetError(f"got mask value {stray[0]}", wanted=f"0 to {len(labels) - 1}, or {IGNORE} for ignored")
    return tuple(counts[: len(labels)])


def class_samples(mask: np.ndarray, labels: LabelMap) -> tuple[int, ...]:
    """Samples of mask uint8 [n,H,W] that show each class, with one pixel or more."""
    return tuple(int((mask == k).any(axis=(1, 2)).sum()) for k in range(len(labels)))


def _encoded(
    name: str, arrays: ShardArrays, labels: LabelMap | None, attrs: dict[str, Any], threads: int, codec: str
) -> bytes:
    """The file's bytes. name: of the file in memory, which HDF5 opens once in a process; it is not in the bytes."""
    with (
        h5py.File(name, "w", driver="core", backing_store=False, track_order=False) as f,
        ThreadPoolExecutor(max_workers=threads) as pool,
    ):
        f.attrs["format"] = FORMAT_VERSION
        if labels is not None:
            f.attrs["labels"] = json.dumps(labels.to_json())
        for key, value in attrs.items():
            f.attrs[key] = value
        if codec != "deflate":
            f.attrs["codec"] = codec
        for field, array in arrays.present().items():
            write_field(f, field, array, codec, pool)
        f.flush()
        return f.id.get_file_image()


def read_shard(folder: Path, index: int, wanted: Collection[str] = FIELDS) -> ShardArrays:
    """The shard in memory, of its fields those that are wanted, with images and seeds in any case.

    DatasetError when it is missing or cannot be read.
    """
    path = shard_path(folder, index)
    names = [name for name in FIELDS if name in ("image", "seed", *wanted)]
    try:
        with h5py.File(path, "r", locking=False) as f:
            fields = StoredFields(f)
            return ShardArrays(**{name: fields.whole(name) for name in names if name in fields})
    except READ_ERRORS as e:
        raise unreadable(path, e) from e


def unreadable(path: Path, cause: Exception) -> DatasetError:
    """The error for a shard that cannot be read."""
    if "lock" in str(cause):  # HDF5 opens a file twice in a process in one way only
        return DatasetError(
            f"got {path}, which this process has open already: {cause}",
            wanted="one way of opening it",
            remedy="close the other handle, or open it with h5py.File(…, locking=False)",
        )
    return DatasetError(
        f"got {path}: {cause}",
        wanted="a whole shard",
        remedy="see with `gansegctl verify` what else is damaged, remove those shards, and run the stage again",
    )


def shard_record(folder: Path, index: int) -> ShardRecord | None:
    """The record of a finished shard, or None when it is not done."""
    path = shard_path(folder, index)
    try:
        record = ShardRecord.from_json(json.loads(path.with_suffix(".json").read_text()))
        return record if record.index == index and path.stat().st_size == record.bytes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shard_done(folder: Path, index: int, digest: str, seeds: str | None = None) -> bool:
    """Whether shard `index` is there, whole by its size, made with the settings of this digest (and of these seeds, or
    chosen from them)."""
    record = shard_record(folder, index)
    return record is not None and record.digest == digest and seeds in (None, record.seeds, record.candidates)


def problem_of_shard(folder: Path, index: int) -> str | None:
    """The fault of a shard (missing, unfinished, damaged); None when it is whole.

    The file is checked by its sha256, and its json by all it says of the file.
    """
    path = shard_path(folder, index)
    if not path.exists():
        return "missing"
    if not path.with_suffix(".json").exists():
        return "unfinished: it has no json"
    record = shard_record(folder, index)
    if record is None:
        return "damaged: its json cannot be read, or is of a file of another size or number"
    try:
        if file_digest(path) != record.sha256:
            return "damaged: sha256 differs from its json"
        whole = path.with_suffix(".json").read_bytes() == _record_text(record) and _matches(record, path)
        return None if whole else "damaged: its json differs from what the file holds"
    except OSError as e:
        return f"damaged: {e.strerror or e}"
    except READ_ERRORS as e:  # of the right sha256 and yet no shard: the json was made for it
        return f"damaged: {e}"


def _matches(record: ShardRecord, path: Path) -> bool:
    """Whether a record is the one that `write_shard` would write for this file."""
    with h5py.File(path, "r", locking=False) as f:
        stored = StoredFields(f)
        fields = tuple(name for name in FIELDS if name in stored)
        labels, candidates = json.loads(f.attrs.get("labels", "[]")), f.attrs.get("candidates")
        histogram: tuple[int, ...] | None = None
        samples: tuple[int, ...] | None = None
        if labels and "mask" in stored:
            pixels = [np.bincount(stored.row("mask", i).ravel(), minlength=256) for i in range(stored.count())]
            counts = np.array(pixels, np.int64).reshape(-1, 256)[:, : len(labels)]  # [n, K]
            histogram = tuple(counts.sum(axis=0).tolist())
            samples = tuple((counts > 0).sum(axis=0).tolist())
        seeds = f["seed"][:]
        recorded = (record.index, record.count, record.seeds, record.digest, record.fields, record.class_histogram)
        found = (int(f.attrs["index"]), len(seeds), format_seeds(seeds), f.attrs["digest"], fields, histogram)
        chosen = (candidates, None if candidates is None else samples)
        return (*recorded, record.candidates, record.class_samples) == (*found, *chosen)


def _record_text(record: ShardRecord) -> bytes:
    return (json.dumps(record.to_json(), indent=1) + "\n").encode()
