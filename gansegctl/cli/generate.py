"""`gansegctl generate`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@options.generator(required=True)
@options.num
@options.seeds
@options.out("The dataset: a new folder, or one to go on with.")
@options.segmenter
@options.batch_size
@click.option("--shard-size", type=options.POSITIVE, help="Samples a shard; by default about 256 MB.")
@options.truncation
@options.truncation_cutoff
@options.noise
@options.class_index
@options.device
@options.json_flag
@options.dry_run
def command(
    generator: str,
    num: int | None,
    seeds: str | None,
    out: Path,
    segmenter: Path | None,
    batch_size: int,
    shard_size: int | None,
    truncation: float,
    truncation_cutoff: int | None,
    noise: str,
    class_index: int | None,
    device: str,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Images, or with --segmenter image/mask pairs in one pass, from a generator into a dataset of HDF5 shards.

    Run again, the same command goes on where it was stopped.
    """
    from gansegctl.pipeline import stages

    device = options.pick_device(device)
    settings = stages.GenerateSettings(
        generator=generator,
        seeds=options.pick_seeds(num, seeds),
        truncation=truncation,
        truncation_cutoff=truncation_cutoff,
        class_index=class_index,
        noise=noise,
        batch_size=batch_size,
        shard_size=shard_size or 0,
    )
    job, network, fitted = stages.plan_generate(settings, segmenter, device)
    if dry_run:
        console.emit(job.describe(), as_json)
        return
    console.follow(stages.synthesize(job, out, network, fitted, device))
    console.emit(stages.describe_dataset(out), as_json)
