"""`gansegctl compare`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gansegctl import choices
from gansegctl.cli import console, options
from gansegctl.io.atomic import write_text


@click.command()
@options.generator(required=True)
@click.option(
    "--against",
    required=True,
    metavar="REFERENCE",
    help="Reference segmenter whose masks count as true: a student's file, or a preset that brings one.",
)
@click.option(
    "--method",
    "chosen",
    multiple=True,
    required=True,
    metavar="NAME[:key=value,…]",
    help=f"Method to compare: {options.one_of(choices.METHODS)}; with its settings. Repeatable.",
)
@click.option(
    "--shots",
    multiple=True,
    type=click.IntRange(0, 100),
    default=(1,),
    show_default=True,
    help="Exemplars of a fit. Repeatable.",
)
@click.option("--draws", type=options.POSITIVE, default=5, show_default=True, help="Number of exemplar sets.")
@click.option(
    "--seeds",
    type=options.POSITIVE,
    default=3,
    show_default=True,
    help="Fits per exemplar set, each with its own seed.",
)
@click.option(
    "-n", "--num", type=options.POSITIVE, default=300, show_default=True, help="Number of fresh samples to score on."
)
@click.option(
    "--first-exemplar",
    type=click.IntRange(0, 4_000_000_000),
    default=2_000_000,
    show_default=True,
    help="Seed of the first exemplar; exemplar set d begins at this seed + 100*d. Choose settings on other seeds.",
)
@click.option(
    "--first-sample",
    type=click.IntRange(0, 4_000_000_000),
    default=3_000_000,
    show_default=True,
    help="Seed of the first fresh sample.",
)
@options.truncation
@options.passes(20)
@click.option("--retry", is_flag=True, help="Repeat runs that failed before.")
@options.out("Folder for rows.json, table.md and sheet.png; finished runs in it are kept.")
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
    """Compare several methods on one generator: quality, seconds, memory, and which differences are significant.

    Every method is fitted on the same exemplars (--draws sets of --shots images, with masks of the reference
    segmenter), --seeds times per set, and scored on the same fresh samples. After an interruption, the same command
    resumes. A method that fails does not stop the others; the exit status is then 1.
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
