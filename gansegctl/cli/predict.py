"""`gansegctl predict`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("student", type=options.PATH)
@click.argument("images", nargs=-1, required=True, type=options.PATH)
@options.out("Folder for the results, with the same subfolders as the images.")
@click.option(
    "--tile",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="PIXELS",
    help="Segment in overlapping windows of this side, each resized to the student's size; 0: the whole image at once.",
)
@click.option(
    "--write",
    "outputs",
    default="mask,overlay",
    show_default=True,
    metavar="A,B,…",
    help="Files to write: mask (indexed PNG), grey (class ids), confidence (255 = sure), overlay.",
)
@options.passes(16, "Images of one size")
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
    """Segment IMAGES (files and folders) with STUDENT. Each mask has the size of its image.

    Images are resized to the student's size, and the probabilities back; with --tile, large images are segmented in
    windows. Existing results are kept. A file that cannot be read is named and skipped; the exit status is then 1.
    """
    from gansegctl.pipeline.inputs.images import raise_refused
    from gansegctl.pipeline.predict import PredictSettings, predict

    settings = PredictSettings(tile, tuple(o.strip() for o in outputs.split(",") if o.strip()), batch_size)
    done = console.follow(predict(student, images, out, options.pick_device(device), settings))
    facts = {"masks": str(out), "images": done.images, "skipped": done.skipped, "refused": done.refused}
    console.emit(facts, as_json)
    raise_refused(done)
