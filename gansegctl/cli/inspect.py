"""`gansegctl inspect`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("subject", metavar="GENERATOR|SEGMENTER|STUDENT|DATASET")
@options.json_flag
def command(subject: str, as_json: bool) -> None:
    """What a generator (preset, or a checkpoint of any family), segmenter, student or dataset is.

    Of a checkpoint: its family, sizes, taps, digests, what was skipped in it and what it does not say. Nothing in it is
    executed.
    """
    from gansegctl.pipeline.inspect import inspect

    console.emit(inspect(Path(subject)), as_json)
