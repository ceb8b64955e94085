"""`gansegctl demo`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.group()
def command() -> None:
    """The built-in domain: portraits drawn by rule (never photographs), with exact masks of ten classes."""


@command.command()
@options.num
@options.seeds
@click.option("--resolution", type=click.IntRange(32, 256), default=64, show_default=True)
@options.out("The labelled set, a dataset.")
@options.json_flag
def scenes(num: int | None, seeds: str | None, resolution: int, out: Path, as_json: bool) -> None:
    """Write renderings with their exact masks."""
    from gansegctl.pipeline.demo.scenes import write_scenes
    from gansegctl.pipeline.inspect import describe_dataset
    from gansegctl.store.schema import parse_seeds

    console.follow(write_scenes(parse_seeds(options.pick_seeds(num, seeds)), out, resolution))
    console.emit(describe_dataset(out), as_json)


@command.command()
@options.out("Folder of the demo.")
@options.json_flag
def run(out: Path, as_json: bool) -> None:
    """The main job on the built-in domain: generate, annotate --shots 1, distill, eval, and one table of scores."""
    from gansegctl.pipeline.demo.run import COLUMNS, run_demo

    result = run_demo(out, console.follow, console.say)
    if as_json:
        console.emit(result.to_json(), True)
        return
    console.table(f"demo, one annotated image ({out})", COLUMNS, result.rows())
    console.say(result.legend())
    for file in result.files:
        console.say(f"wrote {file}")
