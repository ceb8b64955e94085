"""The stage `export`: a dataset in the layout of another tool, shard by shard, in constant memory, resumable."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np

from gansegctl.contracts import Progress, Stage
from gansegctl.errors import DatasetError, UsageError
from gansegctl.io.atomic import write_bytes
from gansegctl.labels import IGNORE
from gansegctl.pipeline.inputs.generators import grouped
from gansegctl.store.codec import READ_ERRORS
from gansegctl.store.export import get_format
from gansegctl.store.export.base import About, Encoded, Encoding, ExportSettings, Sample
from gansegctl.store.export.card import SHEET, readme
from gansegctl.store.export.selection import Selection, Splits
from gansegctl.store.export.writer import ExportFolder, TarFile
from gansegctl.store.hdf5 import StoredFields
from gansegctl.store.manifest import Manifest
from gansegctl.store.shard import shard_path, unreadable
from gansegctl.visualize.sheets import contact_sheet

THREADS, WINDOW, SHOWN = 4, 16, 24
"""Encoders at work; samples held at a time; samples on the contact sheet."""


def export(dataset: Path, out: Path, settings: ExportSettings) -> Stage[dict[str, Any]]:
    """Write `dataset` into `out` and return the table of its export.json. Killed and run again, equal bytes.

    Errors: DatasetError for a dataset that is unfinished, damaged or without masks, an export begun with other
    settings, and where nothing is kept; UsageError for settings that mean nothing and where no licence is known.
    """
    work = _Export(dataset, out, settings)
    if not work.folder.begin():
        yield from work.shards()
        if not sum(work.tally()[0].values()):
            raise DatasetError(
                f"got no sample of {dataset} that --where and --min-class keep",
                wanted="one or more",
                remedy="loosen them, and choose another -o",
            )
        work.finish()
    work.folder.clean()
    total = len(work.manifest.seeds)
    yield Progress("export", total, total, "samples", {"out": str(out)})
    return work.folder.result()


def licence_to_state(manifest: Manifest, stated: str, dataset: Path) -> str:
    """The dataset's licence, or the one stated for it. UsageError for none, and for two that differ."""
    if not (manifest.licence or stated.strip()):
        raise UsageError(
            f"got {dataset}, whose manifest states no licence",
            wanted="a licence: nobody may use what comes without one",
            remedy="ask the author of the generator, and pass --license TEXT, as in --license CC-BY-4.0",
        )
    if manifest.licence and stated.strip() and manifest.licence != stated.strip():
        raise UsageError(
            f"got --license {stated.strip()}",
            wanted=f"{manifest.licence}, which {dataset} states",
            remedy="leave --license out",
        )
    return manifest.licence or stated.strip()


class _Export:
    def __init__(self, dataset: Path, out: Path, settings: ExportSettings) -> None:
        self.dataset = Path(dataset)
        self.module: ModuleType = get_format(settings.format)
        self.manifest = Manifest.read(self.dataset)
        if self.manifest.labels is None or self.manifest.stage != "pairs":
            raise DatasetError(
                f"got {dataset} without masks", wanted="pairs", remedy="run `gansegctl annotate` on it first"
            )
        self.settings = replace(settings, licence=licence_to_state(self.manifest, settings.licence, self.dataset))
        self.labels = self.manifest.labels
        self.selection = Selection(settings, self.labels)
        self.splits = Splits.parse(settings.split, settings.split_seed)
        palette = settings.mask_png == "palette" if settings.mask_png else self.module.PALETTE
        self.encoding = Encoding(self.labels, palette, settings.polygons, settings.instances)
        self.manifest.require_whole(self.dataset)
        self.indices = range(len(self.manifest.shards))
        name = self.dataset.resolve().name
        self.folder = ExportFolder(Path(out), {"dataset": name, "digest": self.manifest.digest} | asdict(self.settings))

    def shards(self) -> Iterator[Progress]:
        done = 0
        for index in self.indices:
            count = len(self.manifest.shard_seeds(index))
            if not self.folder.through(index):
                yield from self._shard(index, done)
            done += count
            yield Progress("export", done, len(self.manifest.seeds), "samples")

    def _shard(self, index: int, before: int) -> Iterator[Progress]:
        tars: dict[str, TarFile] = {}
        rows: list[dict[str, Any]] = []
        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            try:
                for window in self._samples(index, before):
                    for (_, sample), row in zip(window, pool.map(self._written, window), strict=True):
                        if isinstance(row, Encoded):
                            self._pack(tars, index, sample.split, row)
                        rows.append(self._row(index, sample, row))
                    yield Progress("export", before + window[-1][0] + 1, len(self.manifest.seeds), "samples")
                for tar in tars.values():
                    tar.close()
            except BaseException:
                for tar in tars.values():
                    tar.drop()
                raise
        self.folder.commit(index, rows)

    def _written(self, item: tuple[int, Sample]) -> Encoded | dict[str, Any]:
        encoded = self.module.encode(item[1], self.encoding)
        if self.module.PACKED:
            return encoded
        for name, data in encoded.files:
            self.folder.put(name, data)
        return encoded.row

    def _pack(self, tars: dict[str, TarFile], index: int, split: str, encoded: Encoded) -> None:
        if split not in tars:
            tars[split] = self.folder.tar(split, index)
        for name, data in encoded.files:
            tars[split].add(name, data)

    def _row(self, index: int, sample: Sample, row: Encoded | dict[str, Any]) -> dict[str, Any]:
        about = {
            "stem": sample.stem,
            "split": sample.split,
            "seed": sample.seed,
            "score": sample.score,
            "position": sample.position,
            "shard": index,
            "class_pixels": list(sample.class_pixels),
        }
        return about | (row.row if isinstance(row, Encoded) else row)

    def _samples(self, index: int, before: int) -> Iterator[list[tuple[int, Sample]]]:
        """The samples that are kept, with their row in the shard, a window at a time."""
        path = shard_path(self.dataset, index)
        try:
            with h5py.File(path, "r", locking=False) as f:
                stored = StoredFields(f)
                seeds = f["seed"][:].tolist()
                scores = f["score"][:].tolist() if "score" in f else [None] * len(seeds)
                for rows in grouped(range(len(seeds)), WINDOW):
                    window = []
                    for row in rows:
                        mask = stored.row("mask", row)
                        pixels = _class_pixels(mask, len(self.labels), path)
                        if self.selection.keeps(seeds[row], scores[row], pixels, mask.size):
                            image = stored.row("image", row)
                            split = self.splits.of(seeds[row])
                            stem = f"{seeds[row]:08d}"
                            place = before + row
                            sample = Sample(stem, split, place, seeds[row], scores[row], image, mask, pixels)
                            window.append((row, sample))
                    if window:
                        yield window
        except READ_ERRORS as e:
            raise unreadable(path, e) from e

    def tally(self) -> tuple[dict[str, int], list[int], dict[str, dict[int, int]]]:
        """Samples of each split, pixels of each class, samples of each split and shard; from the rows."""
        counts, pixels = dict.fromkeys(self.splits.names, 0), [0] * len(self.labels)
        by_shard: dict[str, dict[int, int]] = {name: {} for name in self.splits.names}
        for row in self.folder.rows(self.indices):
            split, shard = row["split"], row["shard"]
            counts[split] += 1
            by_shard[split][shard] = by_shard[split].get(shard, 0) + 1
            pixels = [a + b for a, b in zip(pixels, row["class_pixels"], strict=True)]
        return counts, pixels, by_shard

    def finish(self) -> None:
        counts, pixels, by_shard = self.tally()
        packs = self.folder.place_tars(by_shard) if self.module.PACKED else {}
        about = About(
            name=self.dataset.resolve().name,
            licence=self.settings.licence,
            labels=self.labels,
            manifest=self.manifest,
            settings=self.settings,
            splits=self.splits.names,
            palette=self.encoding.palette,
            counts=counts,
            class_pixels=tuple(pixels),
            channels=self.manifest.generator["channels"],
            packs=packs,
        )
        for name, pieces in self.module.index(lambda split: self.folder.rows(self.indices, split), about):
            self.folder.text(name, pieces)
        write_bytes(self.folder.out / SHEET, self._sheet())
        self.folder.text("README.md", [readme(self.module, about)])
        self.folder.finish({"samples": counts, "class_pixels": pixels})

    def _sheet(self) -> bytes:
        shown: list[tuple[np.ndarray, np.ndarray, str]] = []
        before = 0
        for index in self.indices:
            for window in self._samples(index, before):
                shown += [(s.image, s.mask, f"{s.stem} ({s.split})") for _, s in window]
                if len(shown) >= SHOWN:
                    break
            if len(shown) >= SHOWN:
                break
            before += len(self.manifest.shard_seeds(index))
        images, masks, captions = zip(*shown[:SHOWN], strict=True)
        stream = io.BytesIO()
        contact_sheet(images, masks, None, self.labels, captions).save(stream, "PNG")
        return stream.getvalue()


def _class_pixels(mask: np.ndarray, classes: int, path: Path) -> tuple[int, ...]:
    counts = np.bincount(mask.ravel(), minlength=256)
    if counts[classes:IGNORE].any():
        raise DatasetError(
            f"got {path} with a mask value of no class",
            wanted=f"0 to {classes - 1}, or {IGNORE}",
            remedy="see `gansegctl verify`",
        )
    return tuple(int(v) for v in counts[:classes])
