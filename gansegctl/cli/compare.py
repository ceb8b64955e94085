"""`gansegctl compare`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.atomic import write_text
from gansegctl.cli import console, options


@click.command()
@options.generator(required=True)
@click.option(
    "--against", required=True, metavar="LABELLER", help="The truth: a labeller's file, or a preset with one."
)
@click.option(
    "--method",
    "chosen",
    multiple=True,
    required=True,
    metavar="NAME[:key=value,…]",
    help="A method, with settings of its own; once for each.",
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
@click.option("--batch-size", type=options.POSITIVE, default=20, show_default=True, help="Samples a pass.")
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
    batch_size: int,
    out: Path,
    device: str,
    as_json: bool,
) -> None:
    """Several methods on one generator and one truth: quality, seconds, memory, and who beats whom.

    Each method is fitted on the same exemplars (--draws sets of --shots pictures, annotated by the labeller), --seeds
    times each, and scored on the same fresh samples. Interrupted, the same command goes on where it was.
    """
    from gansegctl.pipeline.compare import ROWS, SHEET, CompareSettings, compare, read_rows
    from gansegctl.pipeline.comparing import COLUMNS, COSTS, markdown, table

    settings = CompareSettings(
        generator, against, chosen, shots, draws, seeds, num, batch_size, first_exemplar, first_sample
    )
    console.follow(compare(settings, out, options.pick_device(device)))
    entries = table(read_rows(out, {}))
    write_text(out / "table.md", markdown(entries))
    if as_json:
        console.emit({"table": entries, "files": [str(out / f) for f in (ROWS, "table.md", SHEET)]}, True)
        return
    rows = [
        (
            e["method"],
            e["shots"],
            e["runs"],
            *(f"{e[c][0]:.3f} ± {e[c][1]:.3f}" for c in COLUMNS),
            e["p"],
            *(e[c] for c in COSTS),
        )
        for e in entries
    ]
    console.table(f"{generator} against {against}", ("method", "shots", "runs", *COLUMNS, "p", *COSTS), rows)
    for name in (ROWS, "table.md", SHEET):
        console.say(f"wrote {out / name}")
