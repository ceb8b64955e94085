"""`gansegctl sbatch`"""

from __future__ import annotations

import re
from pathlib import Path

import click

from gansegctl.cli import options


def _a_time(context: click.Context, option: click.Parameter, value: str) -> str:
    """A time limit as sbatch takes it."""
    if not re.fullmatch(r"\d+(:[0-5]?\d(:[0-5]?\d)?)?|\d+-\d+(:[0-5]?\d){0,2}", value, re.ASCII):
        raise click.BadParameter(f"got {value!r}; wanted minutes, H:M:S or D-H, as in 04:00:00")
    return value


@click.command()
@click.argument("preset", metavar="PRESET|FILE.toml")
@options.generator(help="Generator file to use in place of the preset's own.")
@options.painted_masks
@options.out("Folder for all results: dataset, student and logs.")
@click.option("--tasks", type=options.POSITIVE, default=8, show_default=True, help="Array tasks of the stage generate.")
@click.option(
    "--parallel",
    type=options.POSITIVE,
    help="Array tasks that run at the same time; by default as many as the cluster allows.",
)
@click.option(
    "--time", callback=_a_time, default="04:00:00", show_default=True, metavar="H:M:S", help="Time limit per job."
)
@click.option(
    "--gres", default="gpu:1", show_default=True, metavar="GRES", help="Generic resources per job; '' for none."
)
@click.option("--cpus", type=options.POSITIVE, default=4, show_default=True, help="CPU cores per job.")
@click.option(
    "--ranks",
    type=options.POSITIVE,
    default=1,
    show_default=True,
    help="GPUs of the stage distill, by torchrun on one node.",
)
@click.option("--mem", default="", metavar="SIZE", help="Memory per job, as in 32G.")
@click.option("--partition", default="", metavar="NAME", help="Slurm partition.")
@click.option("--account", default="", metavar="NAME", help="Slurm account.")
@click.option(
    "--setup",
    default="",
    metavar="SHELL",
    help="Shell line to run before each stage, as in 'source .venv/bin/activate'.",
)
def command(
    preset: str,
    generator: str | None,
    masks: str | None,
    out: Path,
    tasks: int,
    parallel: int | None,
    time: str,
    gres: str,
    cpus: int,
    ranks: int,
    mem: str,
    partition: str,
    account: str,
    setup: str,
) -> None:
    """Print a Slurm script for all stages of PRESET. Save it to a file and run that file with bash.

    The script submits generation as an array whose tasks are requeued when their time is up, and annotation and
    distillation as jobs that wait for the stage before. The same file is the script of each job.
    """
    from gansegctl.pipeline.run import read_plan
    from gansegctl.pipeline.sbatch import Resources, batch_script

    plan = read_plan(preset)
    if Path(preset).suffix == ".toml":
        preset = str(Path(preset).resolve())
    if generator is not None and Path(generator).exists():
        generator = str(Path(generator).resolve())
    if masks is not None:
        masks = str(Path(masks).resolve()) if Path(masks).exists() else masks
        plan = plan.with_masks(masks)
    asked = Resources(tasks, parallel or 0, time, gres, cpus, mem, partition, account, ranks, setup)
    click.echo(batch_script(plan, preset, out.resolve(), asked, generator, masks), nl=False)
