"""`gansegctl generate`: plan a dataset, and write its shards."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from gansegctl import methods
from gansegctl.config import GenerateSettings
from gansegctl.contracts import Generator, Progress, Segmenter, Stage
from gansegctl.errors import DeviceError, GansegError, UsageError
from gansegctl.io.digest import file_digest
from gansegctl.methods.base.segmenter_file import read_header
from gansegctl.pipeline.generate.batch_size import resolve_batch
from gansegctl.pipeline.generate.filters import Filter
from gansegctl.pipeline.generate.job import Job, plan_job
from gansegctl.pipeline.generate.shards import finish, write_shards
from gansegctl.pipeline.inputs.generators import open_generator
from gansegctl.pipeline.runtime.tasks import ALONE, Task
from gansegctl.store.schema import parse_seeds


def synthesize(
    job: Job,
    out: Path,
    generator: Generator,
    segmenter: Segmenter | None = None,
    device: str = "cpu",
    task: Task = ALONE,
) -> Stage[None]:
    """Write every shard of the job that is this task's and not done; yields progress once a batch.

    Errors: those of `Manifest.begin` for the folder; GansegError when the disk refuses, when nothing is kept, and, once
    the dataset is whole, when its seeds do not suffice for --until; UsageError for --until with several tasks.
    """
    chooser = Filter(job.settings, job.manifest.labels)
    if chooser.in_order and task.count > 1:
        raise UsageError(
            f"got --until in task {task}" + (f" (by {task.source})" if task.source else ""),
            wanted="one task: where a quota ends follows from the shards before",
            remedy="leave --until out and select with `gansegctl export --min-class`, or run it as one task",
        )
    there = job.manifest.begin(out)
    job = replace(job, manifest=replace(job.manifest, licence=there.licence))  # one licence a dataset: the first one's
    if there.stage == "pairs" and job.manifest.stage == "images":
        yield Progress("generate", len(there.seeds), len(there.seeds), "images", {"note": "annotated already"})
        return
    yield from write_shards(
        job.manifest, job.shards, out, generator, segmenter, job.settings, device, "generate", task, job.halve, chooser
    )
    final = finish(out)
    missing = final.facts.get("choice", {}).get("missing") if final else None
    if missing:
        raise GansegError(
            f"got {out}, whole, with all {len(parse_seeds(job.settings.seeds))} seeds used up",
            wanted=", ".join(f"{n} more samples with {name}" for name, n in missing.items()),
            remedy="take it as it is, or ask for more seeds with another -o",
        )


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
    header = read_header(segmenter)
    if header.get("generator") not in (network.sha256, None, ""):
        raise UsageError(
            f"got {segmenter}, fitted on another generator ({header['generator'][:12]}…)",
            wanted=f"one fitted on {settings.generator} ({network.sha256[:12]}…)",
        )
    about = {
        "method": fitted.method,
        "sha256": file_digest(segmenter),
        "shots": json.loads(header.get("facts", "{}")).get("exemplars"),
    }
    if automatic is not None:
        settings = resolve_batch(settings, network, fitted, device, automatic)
    job = plan_job(network, settings, about, fitted.labels, fitted.taps, automatic is not None)
    return job, network, fitted
