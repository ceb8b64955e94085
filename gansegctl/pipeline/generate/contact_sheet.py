"""Contact sheets of datasets: what a person looks at before trusting one."""

from __future__ import annotations

import io
from pathlib import Path

from gansegctl.errors import DatasetError
from gansegctl.io.atomic import write_bytes
from gansegctl.store.dataset import iter_shards
from gansegctl.store.manifest import Manifest
from gansegctl.visualize.sheets import contact_sheet

SAMPLES = 24


def write_contact_sheet(folder: Path, name: str = "contact.png") -> Path:
    """The first samples of a dataset (image, mask overlay, confidence) as one PNG in its folder."""
    shown = iter_shards(folder, partial=True, wanted=("mask", "confidence"))
    arrays = next((a for _, a in shown if len(a)), None)
    if arrays is None:
        raise DatasetError(f"got {folder} without a finished shard", wanted="samples to show", remedy="generate some")
    n = min(SAMPLES, len(arrays))
    sheet = contact_sheet(
        list(arrays.image[:n]),
        None if arrays.mask is None else list(arrays.mask[:n]),
        None if arrays.confidence is None else list(arrays.confidence[:n]),
        Manifest.read(folder).labels,
        [f"seed {s}" for s in arrays.seed[:n]],
    )
    path, stream = folder / name, io.BytesIO()
    sheet.save(stream, "PNG")
    write_bytes(path, stream.getvalue())
    return path
