"""`gansegctl convert`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("checkpoint", type=options.PATH)
@options.out("A new file: .safetensors of a generator, .onnx of a student.")
@options.json_flag
def command(checkpoint: Path, out: Path, as_json: bool) -> None:
    """Another project's CHECKPOINT to a safetensors file that every command reads and that cannot hold code.

    Lossless: the file is read back and compared before it counts. What the checkpoint does not say and was assumed is
    kept in the header, with the sha256 of CHECKPOINT.

    With -o X.onnx, CHECKPOINT is a student, and the file takes images and gives labels in any ONNX runtime (extra
    `onnx`).
    """
    if out.suffix == ".onnx":
        from gansegctl.pipeline.to_onnx import student_to_onnx

        console.emit(student_to_onnx(checkpoint, out), as_json)
        return
    from gansegctl.pipeline.convert import convert

    console.emit(convert(checkpoint, out), as_json)
