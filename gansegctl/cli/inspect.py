"""`gansegctl inspect`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("subject", metavar="GENERATOR|SEGMENTER|STUDENT|DATASET")
@options.json_flag
def command(subject: str, as_json: bool) -> None:
    """Describe a generator (a preset, or a checkpoint of any supported family), segmenter, student or dataset.

    For a checkpoint: its family, sizes, taps and digests, what was skipped, and what it does not say. Nothing in the
    file is executed.
    """
    from gansegctl.pipeline.inspect import inspect

    console.emit(inspect(Path(subject)), as_json)
