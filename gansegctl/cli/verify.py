"""`gansegctl verify`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@click.option("--repair", "fix", is_flag=True, help="Make damaged and missing shards again from their seeds.")
@options.generator()
@options.segmenter
@options.device
@options.json_flag
def command(
    dataset: Path, fix: bool, generator: str | None, segmenter: Path | None, device: str, as_json: bool
) -> None:
    """Whether every shard of DATASET is there, whole (sha256) and made with its settings. Exit status 4 if not.

    With --repair, bad shards are made again, byte for byte on the same kind of device; exit status 4 if something is
    left. --generator and --segmenter name the files where they have moved.
    """
    from gansegctl.errors import DatasetError
    from gansegctl.pipeline.verify import check, repair

    found = check(dataset)
    facts: dict[str, object] = {"dataset": str(dataset)} | found
    if fix and found["problems"]:
        done = console.follow(repair(dataset, generator, segmenter, options.pick_device(device)))
        facts |= {"found": found["problems"], "repaired": done.repaired, "differing": done.differing}
        found = check(dataset)
        facts |= found
        for name in done.differing:
            console.say(
                f"{name}: made again, but not byte for byte: on another device, or with other libraries, than before"
            )
    console.emit(facts, as_json)
    if problems := found["problems"]:
        raise DatasetError(
            f"got {len(problems)} problems in {dataset}, first {problems[0]}",
            wanted="a whole dataset",
            remedy=f"run `gansegctl verify {dataset} --repair`"
            if not fix
            else "delete files out of plan; what else is left cannot be made from the seeds",
        )
