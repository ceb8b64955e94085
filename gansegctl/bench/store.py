"""`gansegctl bench store`: our shard writer and reader against h5py's gzip and a folder of PNG, on the same pairs."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from gansegctl.bench.common import Row, interleaved, median_ratio
from gansegctl.demo.scenes import LABELS, render
from gansegctl.errors import GansegError
from gansegctl.pipeline.generate.writer import Committer
from gansegctl.pipeline.runtime.memory import peak_extra
from gansegctl.store.claims import take_claim
from gansegctl.store.dataset import ShardDataset
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import ShardArrays
from gansegctl.store.shard import read_shard, shard_path, write_shard

CLASSES = len(LABELS)
OURS, GZIP_1, GZIP_4 = "shard", "h5py gzip 1", "h5py gzip 4"
PNG_FOLDER = "PNG folder"
PNG_ENDS = {"image": ".png", "mask": ".mask.png"}
PACKED = ("image", "mask", "confidence")


def drawn_pairs(count: int, size: int, seed: int = 0) -> ShardArrays:
    """Portraits of the demo with grain of one grey level, their masks, and confidences that fall towards borders.

    With the grain ISA-L packs the images to 0.71 of their bytes at level 1, as it does crops of photographs (0.72).
    size: 32-256, else UsageError.
    """
    image, mask = render(range(seed, seed + count), size)
    stream = torch.Generator().manual_seed(seed)
    image = (image.float() + torch.randn(image.shape, generator=stream)).round().clamp(0, 255).to(torch.uint8)
    shares = F.one_hot(mask.long(), CLASSES).permute(0, 3, 1, 2).float()
    shares = F.interpolate(F.avg_pool2d(shares, 4), scale_factor=4, mode="bilinear")
    certain = F.avg_pool2d(shares, 5, 1, 2, count_include_pad=False).amax(dim=1)  # [n, size, size]
    return ShardArrays(
        image=image.numpy(),
        seed=np.arange(seed, seed + count, dtype=np.uint64),
        latent=np.zeros((count, 512), dtype=np.float32),
        mask=mask.numpy(),
        confidence=(certain * 255).round().to(torch.uint8).numpy(),
        score=(1 - certain).mean(dim=(1, 2)).numpy(),
    )


def bench_store(
    repeats: int, count: int = 128, size: int = 256, folder: Path | None = None, many: int = 0
) -> Iterator[Row]:
    """Rows of writing `count` pairs of `size` pixels, of reading them whole, and one by one in random order.

    Ours is the whole commit: deflate in threads, sha256, fsync, rename, json. h5py: one chunk a sample, no fsync.
    Random reads: a DataLoader over our shard and over a folder of PNG. `ratio`: the seconds of the first row of the
    group over this row's. folder: where to write, the temporary one by default. many: rows too of the memory to write
    1,000 pairs and `many`, as `generate` does. GansegError where a path reads back other arrays than were written.
    """
    arrays = drawn_pairs(count, size)
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
            OURS: lambda: write_shard(out, 0, arrays, LABELS, "bench"),
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
            yield from _rows(f"{size} px", f"{what} {count} pairs", functions, repeats, raw, sizes, count)
        yield from _random_reads(out, arrays, repeats, raw, sizes[OURS])
        for pairs in (1000, many) if many else ():
            yield _memory(out, arrays, pairs)


def _rows(
    shape: str,
    operation: str,
    functions: Mapping[str, Callable[[], object]],
    repeats: int,
    raw: int,
    sizes: dict[str, int],
    count: int,
) -> Iterator[Row]:
    seconds = interleaved(functions, repeats)
    first = next(iter(seconds.values()))
    for name, own in seconds.items():
        middle = statistics.median(own)
        note = f"{count / middle:,.0f} pairs/s, {sizes[name] / 1e6:.1f} MB on disk"
        facts = {"pairs": count, "file_bytes": sizes[name], "raw_bytes": raw}
        yield Row(shape, operation, name, middle, min(own), None, raw, median_ratio(first, own), note, facts)


class PngFolder(torch.utils.data.Dataset):
    """Pairs as most people keep them: NAME.png and NAME.mask.png, as Pillow writes and reads them."""

    def __init__(self, folder: Path, arrays: ShardArrays) -> None:
        folder.mkdir()
        self.stems = [folder / f"{i:06d}" for i in range(len(arrays))]
        for stem, image, mask in zip(self.stems, arrays.image, arrays.present()["mask"], strict=True):
            Image.fromarray(image).save(stem.with_suffix(".png"))
            Image.fromarray(mask).save(stem.with_suffix(".mask.png"))

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        read = {name: Image.open(self.stems[i].with_suffix(end)) for name, end in PNG_ENDS.items()}
        return {name: torch.from_numpy(np.array(image)) for name, image in read.items()}


def _random_reads(out: Path, arrays: ShardArrays, repeats: int, raw: int, shard_bytes: int) -> Iterator[Row]:
    """A DataLoader in random order over a folder of PNG and over a dataset of one shard, in this process."""
    size = arrays.image.shape[1]
    dataset, generator = out / "dataset", {"name": "drawn", "sha256": None, "resolution": size, "channels": 3}
    manifest = Manifest("pairs", {}, generator, Manifest.plan([tuple(arrays.seed.tolist())]), LABELS)
    manifest.begin(dataset)
    write_shard(dataset, 0, arrays, LABELS, manifest.digest)
    png = PngFolder(out / "png", arrays)
    sources: dict[str, torch.utils.data.Dataset] = {PNG_FOLDER: png, OURS: ShardDataset(dataset)}
    sizes = {PNG_FOLDER: sum(p.stat().st_size for p in (out / "png").iterdir()), OURS: shard_bytes}

    def read_all(source: torch.utils.data.Dataset) -> None:
        stream = torch.Generator().manual_seed(0)
        for _ in torch.utils.data.DataLoader(source, batch_size=16, shuffle=True, generator=stream):
            pass

    for name, source in sources.items():
        for i in {0, len(arrays) - 1}:
            _same(arrays, {k: v.numpy() for k, v in source[i].items()}, name, i)
    functions = {name: partial(read_all, source) for name, source in sources.items()}
    yield from _rows(f"{size} px", f"read {len(arrays)} at random", functions, repeats, raw, sizes, len(arrays))


def _memory(out: Path, arrays: ShardArrays, pairs: int) -> Row:
    """The memory to write `pairs` of them, shard after shard in the background, as `generate` does."""

    def write_many() -> None:
        with Committer() as committer:
            for index in range(math.ceil(pairs / len(arrays))):
                fresh = replace(arrays, **{k: arrays.present()[k].copy() for k in ("image", "mask")})  # as if just made
                claim = take_claim(out, index)
                committer.put(claim, partial(write_shard, out, index, fresh, LABELS, "many"))
                if index > 1:  # the shard before the last is on disk: room is kept for the next
                    shard_path(out, index - 2).unlink()

    began = time.perf_counter()
    peak = peak_extra(write_many)
    seconds, size = time.perf_counter() - began, arrays.image.shape[1]
    note = f"{pairs / seconds:,.0f} pairs/s in shards of {len(arrays)}"
    return Row(f"{size} px", f"write {pairs:,} pairs", OURS, seconds, seconds, peak, None, None, note)


def _same(wanted: ShardArrays, got: dict[str, np.ndarray], name: str, row: int | None = None) -> None:
    """GansegError unless what was read (of one row: a sample) is what was written."""
    for key in wanted.present() if row is None else ("image", "mask"):
        array = wanted.present()[key] if row is None else wanted.present()[key][row]
        if key not in got or not np.array_equal(array, got[key]):
            raise GansegError(
                f"got {key} of {name} that is not what was written; no speed is printed", wanted="equal arrays"
            )
