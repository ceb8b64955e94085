"""`gansegctl convert`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("checkpoint", type=options.PATH)
@options.out("The new file: .safetensors for a generator, .onnx for a student.")
@options.json_flag
def command(checkpoint: Path, out: Path, as_json: bool) -> None:
    """Convert another project's CHECKPOINT to a safetensors file, which every command reads and which cannot hold code.

    The conversion is lossless: the new file is read back and compared. Assumptions about what CHECKPOINT does not say
    are stored in the header, with the sha256 of CHECKPOINT.

    With -o NAME.onnx, CHECKPOINT is a student; the file runs in any ONNX runtime and turns images into labels (extra
    `onnx`).
    """
    if out.suffix == ".onnx":
        from gansegctl.pipeline.to_onnx import student_to_onnx

        console.emit(student_to_onnx(checkpoint, out), as_json)
        return
    from gansegctl.pipeline.convert import convert

    console.emit(convert(checkpoint, out), as_json)
