"""`gansegctl extract`: the generator's features of every pixel of a dataset, in one HDF5 file.

The features are those that `annotate` reads: the generator runs again from the stored latents and noise, and an image
that does not come out as it is stored is refused. What is written of the hypercolumn is a projection to a few
directions, the values at some pixels, or, for small images, all of it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gansegctl.contracts import Progress, Stage
from gansegctl.errors import DatasetError, GansegError, UsageError
from gansegctl.features.components import Projection, pixel_statistics, principal_components, random_projection
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.io.image import save_png, to_uint8
from gansegctl.io.run_folder import require_same
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.generate.batch_size import choose_batch, halved, is_out_of_memory
from gansegctl.pipeline.runtime.memory import available_memory
from gansegctl.store.dataset import ShardDataset
from gansegctl.store.feature_file import FeatureFile, lay_out, read_constants, read_record, sample_bytes, unfinished
from gansegctl.store.schema import format_seeds
from gansegctl.visualize.sheets import panel_sheet

KINDS = ("pca", "random", "dense", "points")
FITTED = 32
"""Samples, spread over the dataset, on whose pixels directions are fitted."""
SHOWN = 36
"""Samples, spread over the dataset, in the image beside the file."""
ROUNDING = 2
"""Grey levels by which an image made again may differ: batches of other sizes and other devices round differently."""


@dataclass(frozen=True)
class ExtractSettings:
    """The kept part of a hypercolumn, and the number of samples made at once."""

    kind: str = "pca"  # pca: principal components, random: random directions, dense: all of it, points: some pixels
    count: int = 32  # components, directions, or pixels of an image; 0 for dense
    batch_size: int | None = 16  # samples per batch; None: as many as memory allows

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.count < 1) != (self.kind == "dense"):
            raise UsageError(
                f"got {self.count} of {self.kind!r}", wanted=f"1 or more of {', '.join(KINDS)}; 0 of dense"
            )


@dataclass(frozen=True)
class Extraction:
    """One run, planned: the opened dataset, what is written where, and the record that names it."""

    source: Source
    dataset: ShardDataset
    seeds: list[int]
    out: Path
    kind: str
    count: int
    batch_size: int
    record: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images."""
        return self.dataset.resolution, self.dataset.resolution

    @property
    def width(self) -> int:
        """Channels of the hypercolumn."""
        return sum(tap.channels for tap in self.source.generator.spec.taps)

    @property
    def channels(self) -> list[dict[str, Any]]:
        """The table of channels: which tap each range of the hypercolumn's channels is, and its resolution."""
        rows, first = [], 0
        for tap in self.source.generator.spec.taps:
            rows.append({"tap": tap.name, "resolution": tap.resolution, "first": first, "end": first + tap.channels})
            first += tap.channels
        return rows

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Datasets of the file: name → (shape, dtype)."""
        n = len(self.dataset)
        if self.kind == "points":
            return {"features": ((n, self.count, self.width), "float16"), "points": ((n, self.count, 2), "uint16")}
        return {"features": ((n, self.width if self.kind == "dense" else self.count, *self.size), "float16")}

    @property
    def bytes(self) -> int:
        """Of all samples."""
        return sum(shape[0] * sample_bytes(shape, dtype) for shape, dtype in self.fields.values())

    def describe(self) -> dict[str, Any]:
        """The object that `--dry-run` prints."""
        shape = list(self.fields["features"][0])
        return {"features": str(self.out), "kind": self.kind, "shape": shape, "dtype": "float16", "bytes": self.bytes}


def plan_extract(
    folder: Path, out: Path, settings: ExtractSettings, generator: str | None = None, device: str = "cpu"
) -> Extraction:
    """Open what `extract` needs, and check all that can be checked before the generator runs.

    Errors: those of `Source.open` and `ShardDataset`; UsageError for more components than channels, more pixels than
    an image has, or a file at `out` that was made with other settings; GansegError where the disk has no room.
    """
    source = Source.open(folder, generator, device)
    dataset = ShardDataset(folder, ("image", "latent"), open_files=2)
    spec, pixels = source.generator.spec, dataset.resolution**2
    width = sum(t.channels for t in spec.taps)
    most = {"pca": width, "random": width, "points": pixels, "dense": 0}[settings.kind]
    if settings.count > most:
        of = "pixels an image" if settings.kind == "points" else "channels"
        raise UsageError(f"got --{settings.kind} {settings.count}", wanted=f"at most {most}: there are {most} {of}")
    begun = next((read_record(path) for path in (out, unfinished(out)) if path.exists()), None)
    batch = settings.batch_size or (begun or {}).get("batch_size")
    batch = batch or choose_batch(spec, [t.name for t in spec.taps], available_memory(device))
    ranges = format_seeds(dataset.seeds)
    generate = {k: v for k, v in dataset.manifest.settings.get("generate", {}).items() if k != "generator"}
    record = {
        "kind": settings.kind,
        "count": settings.count,
        "batch_size": batch,
        "generator": source.generator.sha256,
        "generate": generate,
        "seeds": ranges if len(ranges) < 200 else "sha256 " + hashlib.sha256(ranges.encode()).hexdigest(),
    }
    plan = Extraction(source, dataset, dataset.seeds, out, settings.kind, settings.count, batch, record)
    if begun is not None:
        require_same(begun, record, out)
    else:
        _require_room(plan)
    return plan


def extract(plan: Extraction) -> Stage[dict[str, Any]]:
    """Write the file and the image beside it; facts of both. Stopped and run again, it goes on, to the same bytes.

    Errors: DatasetError for an image that does not come out as it is stored; GansegError where a feature is too large
    for float16, memory does not suffice for a batch, or the disk refuses.
    """
    total, image = len(plan.dataset), plan.out.with_suffix(".png")
    facts = plan.describe() | {"image": str(image)}
    if plan.out.exists() and image.exists():
        yield Progress("extract", total, total, "samples", {"note": "extracted already"})
        return facts
    written, shown = yield from _directions(plan)
    if not plan.out.exists():
        yield from _write(plan, written)
    yield Progress("show", 0, 1, "image")
    save_png(image, _sheet(plan, shown))
    yield Progress("show", 1, 1, "image", {"image": str(image)})
    explained = None if written is None else written.explained
    return facts | ({} if explained is None else {"explained": round(float(explained.sum()), 4)})


def _directions(plan: Extraction) -> Stage[tuple[Projection | None, Projection]]:
    """The projection of the features (None: they are not projected), and the three components that are shown."""
    begun = next((path for path in (plan.out, unfinished(plan.out)) if path.exists()), None)
    known = read_constants(begun, ("mean", "weight", "explained")) if begun else {}
    kept = Projection(**{k: torch.from_numpy(v) for k, v in known.items()}) if known else None
    if plan.kind == "pca" and kept is not None:
        return kept, kept.first(3)
    samples = _spread(len(plan.dataset), FITTED)
    yield Progress("fit", 0, len(samples), "samples")
    pyramids = (p for batch in _batches(samples, plan.batch_size) for p in _pyramids(plan, batch))
    statistics = pixel_statistics(pyramids)
    components = principal_components(statistics, plan.count if plan.kind == "pca" else min(3, plan.width))
    yield Progress("fit", len(samples), len(samples), "samples")
    drawn = kept or random_projection(statistics, plan.count) if plan.kind == "random" else None
    return components if plan.kind == "pca" else drawn, components.first(3)


def _write(plan: Extraction, projection: Projection | None) -> Iterator[Progress]:
    """Every sample that is not in the unfinished file yet."""
    constants = {k: v.numpy() for k, v in vars(projection).items() if v is not None} if projection else {}
    lay_out(plan.out, plan.record, plan.channels, plan.fields, constants)
    total, seeds = len(plan.dataset), plan.seeds
    with FeatureFile(plan.out) as file:
        for first, end in pairwise([0, *plan.dataset.ends]):  # batches as the shards were made, so that images agree
            for batch in _batches(range(first, end), plan.batch_size):
                if batch[-1] < file.committed:
                    continue
                made = zip(batch, _pyramids(plan, batch), strict=True)
                rows = [_rows(plan, pyramid, seeds[i], projection) for i, pyramid in made]
                arrays = {name: np.stack([row[name] for row in rows]) for name in plan.fields}
                file.write(batch[0], [seeds[i] for i in batch], arrays)
                yield Progress("extract", batch[-1] + 1, total, "samples")
        file.finish()


def _rows(plan: Extraction, pyramid: FeaturePyramid, seed: int, projection: Projection | None) -> dict[str, np.ndarray]:
    """The fields of one sample: float16 features, and the pixels where they are of some."""
    if plan.kind == "points":
        points = sampled_pixels(seed, plan.size, plan.count)
        places = torch.from_numpy(np.insert(points, 0, 0, axis=1)).to(pyramid.levels[0].device)
        return {"features": _half(pyramid.at(places)), "points": points.astype(np.uint16)}
    return {"features": _half((pyramid.dense() if projection is None else projection.of(pyramid))[0])}


def sampled_pixels(seed: int, size: tuple[int, int], count: int) -> np.ndarray:
    """`count` pixels of an image as (row, column), int64 [count,2], in reading order; drawn from the sample's seed."""
    places = np.random.RandomState([seed, 1]).permutation(size[0] * size[1])[:count]
    return np.stack(np.divmod(np.sort(places), size[1]), axis=1).astype(np.int64)


def _half(values: Tensor) -> np.ndarray:
    made = values.to(torch.float16)
    if not bool(made.isfinite().all()):
        raise GansegError(
            f"got a feature of {float(values.float().abs().max()):.3g}",
            wanted="at most 65504, the largest float16",
            remedy="take --pca, which brings features to a common centre",
        )
    return made.cpu().numpy()


@torch.no_grad()
def _pyramids(plan: Extraction, samples: Sequence[int]) -> Iterator[FeaturePyramid]:
    """The activations of these samples, one after another, all made in one pass from what is stored.

    DatasetError where an image is not the stored one.
    """
    source, rows = plan.source, [plan.dataset[i] for i in samples]
    latents = torch.stack([row["latent"] for row in rows]).float().to(source.device)
    slots = source.generator.spec.num_ws
    ws = latents if latents.ndim == 3 else latents[:, None].expand(-1, slots, -1).contiguous()
    seeds = [plan.seeds[i] for i in samples]
    try:
        made = source.generator.synthesize(ws, source.settings.noise, None, seeds)
        images = to_uint8(made.image)
    except Exception as e:
        if is_out_of_memory(e):
            halved(e, plan.batch_size, allowed=False)
        raise
    for seed, image, row in zip(seeds, images, rows, strict=True):
        apart = int(np.abs(image.astype(np.int16) - row["image"].numpy().astype(np.int16)).max())
        if apart > ROUNDING:
            raise DatasetError(
                f"got sample {seed}, whose image made again differs from the stored one by up to {apart} of 255",
                wanted="the same image",
                remedy="extract on the device, and with the gansegctl, that made the dataset",
            )
    for i in range(len(samples)):
        yield made.pyramid[i : i + 1]


@torch.no_grad()
def _sheet(plan: Extraction, components: Projection) -> Image.Image:
    """A sheet of samples beside the first three components of their features, as red, green and blue."""
    samples = _spread(len(plan.dataset), SHOWN)
    maps: list[np.ndarray] = []
    for batch in _batches(samples, plan.batch_size):
        for pyramid in _pyramids(plan, batch):
            maps.append(components.of(pyramid)[0].float().cpu().numpy())
    images = [plan.dataset[i]["image"].numpy() for i in samples]
    panels = [list(pair) for pair in zip(images, colours(np.stack(maps)), strict=True)]
    captions = [f"seed {plan.seeds[i]}" for i in samples]
    return panel_sheet(panels, ["image", "features"], captions, columns=6)


def colours(maps: np.ndarray) -> np.ndarray:
    """Maps [N,1…3,H,W] → uint8 [N,H,W,3]: of each map the 1st to the 99th percentile over all samples is 0 to 255.

    A component has no sign: it is shown the way round in which most pixels are bright.
    """
    low, high = np.percentile(maps, (1, 99), axis=(0, 2, 3), keepdims=True)
    scaled = np.clip((maps - low) / np.maximum(high - low, 1e-12), 0, 1)
    dark = np.median(scaled, axis=(0, 2, 3), keepdims=True) < 0.5
    missing = np.full((len(maps), 3 - maps.shape[1], *maps.shape[2:]), 0.5)
    shown = np.concatenate([np.where(dark, 1 - scaled, scaled), missing], axis=1)
    return np.rint(255 * shown).astype(np.uint8).transpose(0, 2, 3, 1)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 … count − 1, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most)).round()})


def _batches(samples: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for i in range(0, len(samples), size):
        yield samples[i : i + size]


def _require_room(plan: Extraction) -> None:
    there = next(p for p in (plan.out.parent, *plan.out.parent.parents, Path()) if p.exists())
    free = shutil.disk_usage(there).free
    if plan.bytes > free:
        raise GansegError(
            f"got {plan.bytes:,} bytes of features to write to {plan.out}",
            wanted=f"at most {free:,}, which are free there",
            remedy="take fewer components or points, or another disk",
        )
