"""`gansegctl generate`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl import choices
from gansegctl.cli import console, options


@click.command()
@options.generator(required=True)
@options.num
@options.seeds
@options.out("Folder of the dataset: a new one, or one to resume.")
@options.segmenter
@options.batch_size
@click.option("--shard-size", type=options.POSITIVE, help="Samples per shard; by default about 256 MB of samples.")
@click.option(
    "--codec",
    type=click.Choice(choices.CODECS),
    default="deflate",
    show_default=True,
    help="Compression of shards; any HDF5 reader opens deflate and none.",
)
@click.option(
    "--keep-below", type=float, metavar="SCORE", help="With --segmenter: keep only pairs with a lower (better) score."
)
@click.option(
    "--until",
    multiple=True,
    metavar="CLASS:COUNT",
    help="With --segmenter: stop when COUNT pairs show the class. Repeatable; needs all of them.",
)
@options.probabilities
@options.truncation
@options.truncation_cutoff
@options.noise
@options.class_index
@options.precision
@click.option(
    "--license",
    "--licence",
    "licence",
    metavar="TEXT",
    help="License of the generator, stored in the dataset.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the generator first; takes minutes, and is faster on long runs.",
)
@options.device
@options.backend
@options.task
@options.json_flag
@options.dry_run
def command(
    generator: str,
    num: int | None,
    seeds: str | None,
    out: Path,
    segmenter: Path | None,
    batch_size: int | None,
    shard_size: int | None,
    codec: str,
    keep_below: float | None,
    until: tuple[str, ...],
    probabilities: bool,
    truncation: float,
    truncation_cutoff: int | None,
    noise: str,
    class_index: int | None,
    precision: str,
    compiled: bool,
    licence: str | None,
    device: str,
    task_text: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Make a dataset of HDF5 shards with a generator: images, or with --segmenter image/mask pairs in one pass.

    After an interruption, the same command resumes. Several processes can work on one dataset, each with its own
    --task i/n; by default the variables of Slurm, torchrun, Kubernetes, AWS Batch, PBS, SGE, LSF or Open MPI say it.

    With --keep-below or --until, -n or --seeds name the candidates. --until needs a single task.
    """
    from dataclasses import replace

    from gansegctl.config import GenerateSettings
    from gansegctl.pipeline.generate.stage import plan_generate, synthesize
    from gansegctl.pipeline.inspect import describe_dataset

    task = options.pick_task(task_text)
    device = options.pick_device(device)
    settings = GenerateSettings(
        generator=generator,
        seeds=options.pick_seeds(num, seeds),
        truncation=truncation,
        truncation_cutoff=truncation_cutoff,
        class_index=class_index,
        noise=noise,
        batch_size=batch_size or 1,  # of "auto" the plan makes a number
        shard_size=shard_size or 0,
        codec=codec,
        keep_below=keep_below,
        until=options.quotas(until),
        precision=precision,
        compile=compiled,
        probabilities=probabilities,
    )
    automatic = out if batch_size is None else None
    job, network, fitted = plan_generate(settings, segmenter, device, automatic)
    if licence is not None:
        job = replace(job, manifest=replace(job.manifest, licence=licence))
    if dry_run:
        console.emit(job.describe() | ({"task": str(task)} if task.count > 1 else {}), as_json)
        return
    console.say(job.memory.describe())
    console.follow(synthesize(job, out, network, fitted, device, task))
    console.emit(describe_dataset(out), as_json)
