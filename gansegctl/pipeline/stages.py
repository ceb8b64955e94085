"""What the commands call: each stage with its arguments resolved from names, files and flags."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from gansegctl import methods
from gansegctl.config import GenerateSettings
from gansegctl.contracts import Generator, Segmenter
from gansegctl.errors import DeviceError, UsageError
from gansegctl.methods.base import segmenter_file as files
from gansegctl.pipeline.generate.batch_size import resolve_batch
from gansegctl.pipeline.generate.shards import Job, plan_job, synthesize
from gansegctl.pipeline.inputs.generators import open_generator
from gansegctl.store.manifest import Manifest
from gansegctl.store.shard import shard_record

__all__ = ["GenerateSettings", "describe_dataset", "plan_generate", "synthesize"]


def plan_generate(
    settings: GenerateSettings, segmenter: Path | None, device: str, automatic: Path | None = None
) -> tuple[Job, Generator, Segmenter | None]:
    """Load what `generate` needs and plan it. UsageError for a segmenter of another generator.

    automatic: the dataset's folder when the batch size is to be chosen, and halved where it does not fit.
    """
    network = open_generator(settings.generator, device, settings.precision)
    if settings.compile:
        if not network.mapping.w_avg.is_cuda and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise DeviceError("got --compile on a CPU", wanted="a C++ compiler", remedy="leave --compile out")
        network.compile_synthesis()
    if segmenter is None:
        if automatic is not None:
            settings = resolve_batch(settings, network, None, device, automatic)
        return plan_job(network, settings, halve=automatic is not None), network, None
    fitted = methods.load(segmenter)
    header = files.read_header(segmenter)
    if header.get("generator") not in (network.sha256, None, ""):
        raise UsageError(
            f"got {segmenter}, fitted on another generator ({header['generator'][:12]}…)",
            wanted=f"one fitted on {settings.generator} ({network.sha256[:12]}…)",
        )
    about = {
        "method": fitted.method,
        "sha256": files.digest(segmenter),
        "shots": json.loads(header.get("facts", "{}")).get("exemplars"),
    }
    if automatic is not None:
        settings = resolve_batch(settings, network, fitted, device, automatic)
    job = plan_job(network, settings, about, fitted.labels, fitted.taps, automatic is not None)
    return job, network, fitted


def describe_dataset(folder: Path) -> dict[str, Any]:
    """What a dataset is: counts, sizes, provenance."""
    manifest = Manifest.read(folder)
    records = [r for r in (shard_record(folder, i) for i in range(len(manifest.shards))) if r]
    done = [r for r in records if r.digest == manifest.digest]
    return {
        "dataset": str(folder),
        "stage": manifest.stage,
        "samples": sum(r.count for r in done),
        "planned": len(manifest.seeds),
        "shards": len(done),
        "bytes": sum(r.bytes for r in done),
        "classes": list(manifest.labels.names) if manifest.labels else None,
        "generator": manifest.generator,
        "segmenter": manifest.segmenter,
        "digest": manifest.digest,
        "licence": manifest.licence,
    } | ({"choice": manifest.facts["choice"]} if "choice" in manifest.facts else {})
