"""`gansegctl run`"""

from __future__ import annotations

import os

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("preset", metavar="PRESET|FILE.toml")
@options.generator()
@click.option("--masks", metavar="PATH", help="The masks that were painted since: in place of annotate.masks.")
@options.out("Folder: dataset, segmenter, student and eval go into it.")
@click.option("--until", type=click.Choice(["generate", "annotate", "distill"]), help="Stop after this stage.")
@options.device
@options.task
@options.json_flag
@options.dry_run
def command(
    preset: str,
    generator: str | None,
    masks: str | None,
    out,
    until: str | None,
    device: str,
    task_text: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """All stages from one TOML: tables [generate] [annotate] [distill] [eval]. What is there is not made again.

    Without masks it stops after writing the exemplars, and goes on when run again with --masks. Most presets name a
    published generator without bringing it: download it, and pass the file as --generator. Under torchrun, the
    processes share the training of the student; the stages before it must be done.
    """
    from gansegctl.pipeline.distill.stage import torchrun_ranks
    from gansegctl.pipeline.run import read_plan, run
    from gansegctl.pipeline.runtime.tasks import ALONE

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
        console.emit(run(plan, out, device, console.follow, until or "", task), as_json)
        return
    with torchrun_ranks(device, os.environ) as these:
        done = run(plan, out, device, console.follow, until or "", ALONE, these)
    if these.lead:
        console.emit(done, as_json)
