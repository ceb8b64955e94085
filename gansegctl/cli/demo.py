"""`gansegctl demo`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.group()
def command() -> None:
    """The built-in domain: rendered portraits (no photographs), with exact masks of ten classes."""


@command.command()
@options.num
@options.seeds
@click.option("--resolution", type=click.IntRange(32, 256), default=64, show_default=True, help="Pixels per side.")
@options.out("Folder of the new dataset.")
@options.json_flag
def scenes(num: int | None, seeds: str | None, resolution: int, out: Path, as_json: bool) -> None:
    """Write rendered portraits with their exact masks, as a dataset."""
    from gansegctl.pipeline.demo.scenes import write_scenes
    from gansegctl.pipeline.inspect import describe_dataset
    from gansegctl.store.schema import parse_seeds

    console.follow(write_scenes(parse_seeds(options.pick_seeds(num, seeds)), out, resolution))
    console.emit(describe_dataset(out), as_json)


@command.command()
@options.out("Folder for all results of the demo.")
@options.json_flag
def run(out: Path, as_json: bool) -> None:
    """Run the whole job on the built-in domain: generate, annotate --shots 1, distill and eval; print the scores."""
    from gansegctl.pipeline.demo.run import COLUMNS, run_demo

    result = console.follow(run_demo(out, console.say))
    if as_json:
        console.emit(result.to_json(), True)
        return
    console.table(f"demo, one annotated image ({out})", COLUMNS, result.rows())
    console.say(result.legend())
    for file in result.files:
        console.say(f"wrote {file}")
