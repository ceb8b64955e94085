"""`gansegctl convert`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("checkpoint", type=options.PATH)
@options.out("The generator, a new .safetensors file.")
@options.json_flag
def command(checkpoint: Path, out: Path, as_json: bool) -> None:
    """Another project's CHECKPOINT to a safetensors file that every command reads and that cannot hold code.

    Lossless: the file is read back and compared before it counts. What the checkpoint does not say and was assumed is
    kept in the header, with the sha256 of CHECKPOINT.
    """
    from gansegctl.pipeline.converting import convert

    console.emit(convert(checkpoint, out), as_json)
