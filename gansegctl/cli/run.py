"""`gansegctl run`"""

from __future__ import annotations

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("preset", metavar="PRESET|FILE.toml")
@options.out("Folder: dataset, segmenter, student and eval go into it.")
@options.device
@options.json_flag
@options.dry_run
def command(preset: str, out, device: str, as_json: bool, dry_run: bool) -> None:
    """All stages from one TOML: tables [generate] [annotate] [distill] [eval]. What is there is not made again.

    Without masks it stops after writing the exemplars, and says what to do next.
    """
    from gansegctl.pipeline.running import read_plan, run

    plan = read_plan(preset)
    if dry_run:
        console.emit(plan.describe(), as_json)
        return
    console.emit(run(plan, out, options.pick_device(device), console.follow), as_json)
