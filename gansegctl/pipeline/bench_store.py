"""`gansegctl bench store`: our shard writer and reader against h5py's gzip, on the same pairs."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F

from gansegctl.errors import GansegError
from gansegctl.labels import LabelMap
from gansegctl.pictures import to_uint8
from gansegctl.pipeline.benching import Row, interleaved, median_ratio
from gansegctl.store.schema import ShardArrays
from gansegctl.store.shard import read_shard, shard_path, write_shard

CLASSES = 10
OURS, GZIP_1, GZIP_4 = "shard", "h5py gzip 1", "h5py gzip 4"
PACKED = ("image", "mask", "confidence")


def random_pairs(count: int, size: int, seed: int = 0) -> ShardArrays:
    """Smooth pictures with fine grain, and masks of connected regions: they compress about as generated ones do."""
    stream = torch.Generator().manual_seed(seed)

    def smooth(channels: int) -> torch.Tensor:
        coarse = torch.randn(count, channels, 8, 8, generator=stream)
        return F.interpolate(coarse, (size, size), mode="bicubic")

    grain = torch.randn(count, 3, size, size, generator=stream)
    scores = smooth(CLASSES)
    certain = (scores * 3).softmax(dim=1).amax(dim=1)
    return ShardArrays(
        image=to_uint8((0.4 * smooth(3) + 0.02 * grain).clamp(-1, 1)),
        seed=np.arange(count, dtype=np.uint64),
        latent=np.zeros((count, 512), dtype=np.float32),
        mask=scores.argmax(dim=1).to(torch.uint8).numpy(),
        confidence=(certain * 255).round().to(torch.uint8).numpy(),
        score=(1 - certain).mean(dim=(1, 2)).numpy(),
    )


def bench_store(repeats: int, count: int = 128, size: int = 256, folder: Path | None = None) -> Iterator[Row]:
    """Rows of writing and reading `count` pairs of `size` pixels. `ratio`: the seconds of h5py gzip 4 over this row's.

    Ours is the whole commit: deflate in threads, sha256, fsync, rename, json. h5py: one chunk a sample, no fsync.
    What is read back must be what was written, else GansegError. folder: where to write, the temporary one by default.
    """
    arrays = random_pairs(count, size)
    labels = LabelMap(tuple(f"class{i}" for i in range(CLASSES)))
    raw = sum(a.nbytes for a in arrays.present().values())
    with tempfile.TemporaryDirectory(dir=folder) as made:
        out = Path(made)

        def plain(level: int) -> Path:
            path = out / f"gzip{level}.h5"
            with h5py.File(path, "w") as f:
                for name, array in arrays.present().items():
                    packed = {"chunks": (1, *array.shape[1:]), "compression": "gzip", "compression_opts": level}
                    f.create_dataset(name, data=array, **(packed if name in PACKED else {}))
            return path

        def read_plain(level: int) -> dict[str, np.ndarray]:
            with h5py.File(out / f"gzip{level}.h5", "r") as f:
                return {name: f[name][:] for name in arrays.present()}

        write = {
            GZIP_4: lambda: plain(4),
            GZIP_1: lambda: plain(1),
            OURS: lambda: write_shard(out, 0, arrays, labels, "bench"),
        }
        read = {
            GZIP_4: lambda: read_plain(4),
            GZIP_1: lambda: read_plain(1),
            OURS: lambda: read_shard(out, 0).present(),
        }
        for name, function in write.items():
            function()
            _same(arrays, read[name](), name)
        sizes = {
            GZIP_4: (out / "gzip4.h5").stat().st_size,
            GZIP_1: (out / "gzip1.h5").stat().st_size,
            OURS: shard_path(out, 0).stat().st_size,
        }
        for what, functions in (("write", write), ("read", read)):
            seconds = interleaved(functions, repeats)
            for name, own in seconds.items():
                middle = statistics.median(own)
                note = f"{count / middle:,.0f} pairs/s, file of {sizes[name] / 1e6:.1f} MB"
                ratio = median_ratio(seconds[GZIP_4], own)
                facts = {"pairs": count, "file_bytes": sizes[name], "raw_bytes": raw}
                yield Row(f"{size} px", f"{what} {count} pairs", name, middle, min(own), None, raw, ratio, note, facts)


def _same(wanted: ShardArrays, got: dict[str, np.ndarray], name: str) -> None:
    for key, array in wanted.present().items():
        if key not in got or not np.array_equal(array, got[key]):
            raise GansegError(
                f"got {key} of {name} that is not what was written; no speed is printed", wanted="equal arrays"
            )
