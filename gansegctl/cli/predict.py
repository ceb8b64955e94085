"""`gansegctl predict`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("student", type=options.PATH)
@click.argument("images", nargs=-1, required=True, type=options.PATH)
@options.out("Folder for the masks: NAME.mask.png and what --write names, in the folders the images came from.")
@click.option(
    "--tile",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="PIXELS",
    help="Label in overlapping windows of this side, each resized to the student's size; 0 = the whole image.",
)
@click.option(
    "--write",
    "outputs",
    default="mask,overlay",
    show_default=True,
    metavar="A,B,…",
    help="mask (indexed PNG), grey (class ids), confidence (255 = sure), overlay.",
)
@click.option("--batch-size", type=options.POSITIVE, default=16, show_default=True, help="Images of one size a pass.")
@options.device
@options.json_flag
def command(
    student: Path,
    images: tuple[Path, ...],
    out: Path,
    tile: int,
    outputs: str,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Masks for IMAGES (files and folders) by STUDENT, in the size of each image.

    Images are resized to the student's size and the probabilities back, or labelled in windows (--tile). What is
    there is left alone. A file that cannot be read is refused by name; all others are done, and the exit status is 1.
    """
    from gansegctl.pipeline.inputs.images import raise_refused
    from gansegctl.pipeline.predict import PredictSettings, predict

    settings = PredictSettings(tile, tuple(o.strip() for o in outputs.split(",") if o.strip()), batch_size)
    done = console.follow(predict(student, images, out, options.pick_device(device), settings))
    facts = {"masks": str(out), "images": done.images, "skipped": done.skipped, "refused": done.refused}
    console.emit(facts, as_json)
    raise_refused(done)
