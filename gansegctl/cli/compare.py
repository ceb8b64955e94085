"""`gansegctl compare`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gansegctl.cli import console, options
from gansegctl.io.atomic import write_text


@click.command()
@options.generator(required=True)
@click.option(
    "--against",
    required=True,
    metavar="REFERENCE",
    help="The truth: a student's file, or a preset with a reference segmenter.",
)
@click.option(
    "--method",
    "chosen",
    multiple=True,
    required=True,
    metavar="NAME[:key=value,…]",
    help="A method, with settings of its own, values as JSON or plain text; once for each.",
)
@click.option("--shots", multiple=True, type=click.IntRange(0, 100), default=(1,), show_default=True)
@click.option("--draws", type=options.POSITIVE, default=5, show_default=True, help="Sets of exemplars.")
@click.option("--seeds", type=options.POSITIVE, default=3, show_default=True, help="Fits a set of exemplars.")
@click.option("-n", "--num", type=options.POSITIVE, default=300, show_default=True, help="Fresh samples to score on.")
@click.option(
    "--first-exemplar",
    type=click.IntRange(0, 4_000_000_000),
    default=2_000_000,
    show_default=True,
    help="Seed; draw d begins 100*d later. Settings of a method are chosen on others than it is judged on.",
)
@click.option(
    "--first-sample",
    type=click.IntRange(0, 4_000_000_000),
    default=3_000_000,
    show_default=True,
    help="Seed of the first.",
)
@options.truncation
@click.option("--batch-size", type=options.POSITIVE, default=20, show_default=True, help="Samples a pass.")
@click.option("--retry", is_flag=True, help="Measure again what failed before.")
@options.out("Folder for rows.json, table.md and sheet.png; what is measured there already is kept.")
@options.device
@options.backend
@options.json_flag
def command(
    generator: str,
    against: str,
    chosen: tuple[str, ...],
    shots: tuple[int, ...],
    draws: int,
    seeds: int,
    num: int,
    first_exemplar: int,
    first_sample: int,
    truncation: float,
    batch_size: int,
    retry: bool,
    out: Path,
    device: str,
    as_json: bool,
) -> None:
    """Several methods on one generator and one truth: quality, seconds, memory, and who beats whom.

    Each method is fitted on the same exemplars (--draws sets of --shots images, annotated by the reference segmenter),
    --seeds times each, and scored on the same fresh samples. Interrupted, the same command goes on where it was. A
    method that fails does not stop the others; the exit status is then 1.
    """
    from gansegctl.errors import GansegError
    from gansegctl.pipeline.compare.measure import CompareSettings
    from gansegctl.pipeline.compare.stage import ROWS, SHEET, compare, failed_runs
    from gansegctl.pipeline.compare.table import COLUMNS, COSTS, failures, markdown, summary

    settings = CompareSettings(
        generator, against, chosen, shots, draws, seeds, num, batch_size, first_exemplar, first_sample, truncation
    )
    rows = console.follow(compare(settings, out, options.pick_device(device), retry))
    entries, files = summary(rows), [out / name for name in (ROWS, "table.md", SHEET)]
    write_text(out / "table.md", markdown(entries, failures(rows)))
    if as_json:
        found = {"table": entries, "failed": failures(rows), "files": [str(f) for f in files]}
        console.emit(found, True)
    else:
        _show(f"{generator} against {against}", entries, COLUMNS, COSTS)
        for file in files:
            console.say(f"wrote {file}")
    failed = failures(failed_runs(settings, rows))
    if failed:
        raise GansegError(
            "got runs that failed:\n" + "\n".join(f"  {line}" for line in failed),
            wanted=f"scores of every run; the others are measured, and in {out / ROWS}",
            remedy="remove the cause, then run the same command with --retry",
        )


def _show(title: str, entries: list[dict[str, Any]], scores: tuple[str, ...], costs: tuple[str, ...]) -> None:
    """The table on the terminal. entries: as `compare.table.summary` makes them; scores, costs: the columns."""
    rows = [
        (
            e["method"],
            e["shots"],
            e["runs"],
            *(f"{e[c][0]:.3f} ± {e[c][1]:.3f}" for c in scores),
            e["p"],
            *(e[c] for c in costs),
        )
        for e in entries
    ]
    console.table(title, ("method", "shots", "runs", *scores, "p", *costs), rows)
