"""`gansegctl verify`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@click.option("--repair", "fix", is_flag=True, help="Make damaged and missing shards again from their seeds.")
@options.generator(help="The generator of DATASET, where its file has moved.")
@options.segmenter
@options.device
@options.json_flag
def command(
    dataset: Path, fix: bool, generator: str | None, segmenter: Path | None, device: str, as_json: bool
) -> None:
    """Check that every shard of DATASET exists, is undamaged (sha256) and was made with its settings.

    The exit status is 4 if something is wrong. With --repair, bad shards are made again, byte for byte on the same kind
    of device; the exit status is 4 if problems remain. --generator and --segmenter name files that have moved.
    """
    from gansegctl.errors import DatasetError
    from gansegctl.pipeline.verify import check, repair

    found = check(dataset)
    facts: dict[str, object] = {"dataset": str(dataset), **found}
    if fix and found["problems"]:
        done = console.follow(repair(dataset, generator, segmenter, options.pick_device(device)))
        facts |= {"found": found["problems"], "repaired": done.repaired, "differing": done.differing}
        found = check(dataset)
        facts |= found
        for name in done.differing:
            console.say(f"{name}: made again, but with other bytes: the device or the libraries differ")
    console.emit(facts, as_json)
    if problems := found["problems"]:
        raise DatasetError(
            f"got {len(problems)} problems in {dataset}, first {problems[0]}",
            wanted="a whole dataset",
            remedy=f"run `gansegctl verify {dataset} --repair`"
            if not fix
            else "delete files that are not part of the plan; other problems cannot be repaired from the seeds",
        )
