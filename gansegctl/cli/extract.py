"""`gansegctl extract`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.out("The HDF5 file to write, as in features.h5; an image of the features is written beside it.")
@click.option(
    "--pca",
    type=options.POSITIVE,
    metavar="K",
    show_default="32",
    help="K principal components per pixel; the default kind.",
)
@click.option("--random", type=options.POSITIVE, metavar="K", help="K random projections per pixel, as in 64.")
@click.option("--dense", is_flag=True, help="All channels of every pixel; for small images.")
@click.option("--points", type=options.POSITIVE, metavar="N", help="All channels of N random pixels per image.")
@options.generator(help="The dataset's generator, where it has moved: a preset's name or a checkpoint file.")
@click.option(
    "--batch-size",
    type=options.BatchSize(),
    metavar="N|auto",
    default=16,
    show_default=True,
    help="Samples per batch; auto: as many as memory allows.",
)
@options.device
@options.backend
@options.json_flag
@options.dry_run
def command(
    dataset: Path,
    out: Path,
    pca: int | None,
    random: int | None,
    dense: bool,
    points: int | None,
    generator: str | None,
    batch_size: int | None,
    device: str,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Write the generator's features of every sample of DATASET into one HDF5 file, as float16.

    Choose one of --pca, --random, --dense and --points. The generator runs again from the stored latents; a sample
    whose image does not come out as stored is refused. After an interruption, the same command resumes and writes the
    same bytes.
    """
    from gansegctl.errors import UsageError
    from gansegctl.pipeline.extract import ExtractSettings, extract, plan_extract

    given = [(kind, count) for kind, count in (("pca", pca), ("random", random), ("points", points)) if count]
    given += [("dense", 0)] if dense else []
    if len(given) > 1:
        flags = " and ".join(f"--{kind}" for kind, _ in given)
        raise UsageError(f"got {flags}", wanted="one of --pca, --random, --dense and --points")
    kind, count = given[0] if given else ("pca", 32)
    settings = ExtractSettings(kind, count, batch_size)
    plan = plan_extract(dataset, out, settings, generator, options.pick_device(device))
    console.emit(plan.describe() if dry_run else console.follow(extract(plan)), as_json)
