"""`gansegctl predict`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("student", type=options.PATH)
@click.argument("images", nargs=-1, required=True, type=options.PATH)
@options.out("Folder for the masks: NAME.mask.png and NAME.overlay.png.")
@options.device
@options.json_flag
def command(student: Path, images: tuple[Path, ...], out: Path, device: str, as_json: bool) -> None:
    """Masks for IMAGES (files and folders) by STUDENT, as indexed PNG in the size of each picture.

    Pictures are resized to the student's size and the probabilities back. Masks that are there are left alone.
    """
    from gansegctl.pipeline.predict import predict

    last = console.follow(predict(student, images, out, options.pick_device(device)))
    console.emit({"masks": str(out), "pictures": last.done if last else 0} | (last.facts if last else {}), as_json)
