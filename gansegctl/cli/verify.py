"""`gansegctl verify`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@click.option("--repair", "mend", is_flag=True, help="Make what is not whole from its seeds again.")
@options.generator()
@options.segmenter
@options.device
@options.json_flag
def command(
    dataset: Path, mend: bool, generator: str | None, segmenter: Path | None, device: str, as_json: bool
) -> None:
    """Whether every shard of DATASET is there, whole (sha256) and made with its settings. Exit status 4 if not.

    With --repair, bad shards are made again, byte for byte on the same kind of device; exit status 4 if something is
    left. --generator and --segmenter name the files where they have moved.
    """
    from gansegctl.errors import DatasetError
    from gansegctl.pipeline import verify as repairing

    told: dict = {"dataset": str(dataset)} | repairing.check(dataset)
    if mend and told["problems"]:
        last = console.follow(repairing.repair(dataset, generator, segmenter, options.pick_device(device)))
        told |= {"found": told["problems"]} | (last.facts if last else {}) | repairing.check(dataset)
        for name in told.get("differing", ()):
            console.say(
                f"{name}: made again, but not byte for byte: on another device, or with other libraries, than before"
            )
    console.emit(told, as_json)
    if told["problems"]:
        raise DatasetError(
            f"got {len(told['problems'])} problems in {dataset}, first {told['problems'][0]}",
            wanted="a whole dataset",
            remedy=f"run `gansegctl verify {dataset} --repair`"
            if not mend
            else "delete files out of plan; what else is left cannot be made from the seeds",
        )
