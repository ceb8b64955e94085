"""`gansegctl run`"""

from __future__ import annotations

import os
from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("preset", metavar="PRESET|FILE.toml")
@options.generator(help="Generator file to use in place of the preset's own.")
@options.painted_masks
@options.out("Folder for all results: dataset, student.safetensors and eval.")
@click.option("--until", type=click.Choice(["generate", "annotate", "distill"]), help="Stop after this stage.")
@options.device
@options.task
@options.json_flag
@options.dry_run
def command(
    preset: str,
    generator: str | None,
    masks: str | None,
    out: Path,
    until: str | None,
    device: str,
    task_text: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Run all stages of one TOML file: its tables [generate], [annotate], [distill] and [eval]. Finished work is kept.

    Without masks, the command stops after it has written the exemplars. Paint them, and run it again with --masks.

    Most presets name a published generator and do not contain it: download it, and pass the file as --generator.

    Under torchrun, all processes train the student together; the stages before must be done already.
    """
    from gansegctl.contracts import result_of
    from gansegctl.pipeline.distill.stage import torchrun_ranks
    from gansegctl.pipeline.run import read_plan, run

    plan = read_plan(preset)
    if generator is not None:
        plan = plan.with_generator(generator)
    if masks is not None:
        plan = plan.with_masks(masks)
    if dry_run:
        console.emit(plan.describe(), as_json)
        return
    device = options.pick_device(device)
    if until == "generate" or task_text:
        task = options.pick_task(task_text)
        console.emit(console.follow(run(plan, out, device, until=until or "", task=task, say=console.say)), as_json)
        return
    with torchrun_ranks(device, os.environ) as ranks:
        stage = run(plan, out, device, until=until or "", ranks=ranks, say=console.say)
        done = console.follow(stage) if ranks.lead else result_of(stage)
    if ranks.lead:
        console.emit(done, as_json)
