"""A dataset of masks with holes and ignored pixels, and exports of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from helpers.datasets import draw, plan
from helpers.shapes import smooth_mask

from gansegctl.contracts import result_of
from gansegctl.labels import LabelMap
from gansegctl.pipeline.export import export
from gansegctl.store.export.base import ExportSettings
from gansegctl.store.manifest import Manifest
from gansegctl.store.shard import write_shard

LABELS = LabelMap(("background", "face", "left ear", "hair: 'long'"))
SIZE = 48
SEEDS = (0, 1, 2, 3, 4, 5, 40, 9)


def make(folder: Path, channels: int = 3, licence: str = "CC-BY-4.0") -> Path:
    """Three shards, eight pairs."""
    m = plan(("0-3", "4-5", "40,9"))
    generator = m.generator | {"resolution": SIZE, "channels": channels}
    manifest = replace(m, generator=generator, labels=LABELS, licence=licence)
    manifest.begin(folder)
    for i in range(3):
        seeds = manifest.shard_seeds(i)
        arrays = replace(draw(seeds, SIZE, channels), mask=np.stack([smooth_mask(s, SIZE) for s in seeds]))
        write_shard(folder, i, arrays, LABELS, manifest.digest)
    return folder


def put(dataset: Path, out: Path, form: str, **changes) -> Path:
    """Export and return the folder."""
    table = result_of(export(dataset, out, ExportSettings(form, **changes)))
    assert table == json.loads((out / "export.json").read_text())
    return out


def image_of(seed: int, channels: int = 3) -> np.ndarray:
    """uint8 [H,W,c] as `make` put it in."""
    return draw([seed], SIZE, channels).image[0]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below, by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def digest_of(dataset: Path) -> str:
    """The settings digest of a dataset."""
    return Manifest.read(dataset).digest
