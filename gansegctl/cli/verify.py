"""`gansegctl verify`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.json_flag
def command(dataset: Path, as_json: bool) -> None:
    """Whether every shard of DATASET is there, whole (sha256) and made with its settings. Exit status 4 if not."""
    from gansegctl.errors import DatasetError
    from gansegctl.store.manifest import problems_of_dataset

    problems = problems_of_dataset(dataset)
    console.emit({"dataset": str(dataset), "problems": problems}, as_json)
    if problems:
        raise DatasetError(
            f"got {len(problems)} problems in {dataset}, first {problems[0]}",
            wanted="a whole dataset",
            remedy="delete the damaged shards and run the command that made the dataset again",
        )
