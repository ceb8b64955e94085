"""`gansegctl eval`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("subject", type=options.PATH)
@click.option(
    "--against",
    required=True,
    metavar="TRUTH",
    help="True masks: a dataset, HDF5 file, folder of pairs, or reference segmenter (a student's file or a preset).",
)
@options.generator(help="Generator whose samples a segmenter is scored on: a preset's name, or a checkpoint file.")
@options.num
@options.seeds
@click.option("--split", type=int, help="For an HDF5 file: score only the rows with this value of `split`.")
@click.option(
    "--trimap",
    type=options.POSITIVE,
    default=3,
    show_default=True,
    help="Width of the band around class boundaries, in pixels.",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Bootstrap resamples for confidence intervals; 0: no intervals.",
)
@options.out("Folder for report.json and its images; by default SUBJECT-eval.", required=False)
@options.device
@options.json_flag
def command(
    subject: Path,
    against: str,
    generator: str | None,
    num: int | None,
    seeds: str | None,
    split: int | None,
    trimap: int,
    bootstrap: int,
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Score SUBJECT (a dataset, segmenter or student) against true masks: IoU per class, mIoU, weighted and trimap IoU.

    A segmenter is scored on fresh samples of --generator: -n of them, or those of --seeds.
    """
    from gansegctl.config import EvalSettings
    from gansegctl.evaluate.report import CLASS_COLUMNS, SCORE_COLUMNS
    from gansegctl.pipeline.evaluate import evaluate, write_report
    from gansegctl.store.schema import parse_seeds

    settings = EvalSettings(trimap, bootstrap, num or 300)
    chosen = parse_seeds(seeds) if seeds else None
    report = evaluate(subject, against, settings, generator, chosen, split, options.pick_device(device))
    folder = out or subject.with_name(subject.stem + "-eval")
    files = write_report(report, folder)
    if as_json:
        console.emit(report.to_json() | {"files": [str(f) for f in files]}, True)
        return
    classes = [(name, *values) for name, values in report.class_rows()]
    console.table(f"{subject} against {against}: {report.images} images", ("class", *CLASS_COLUMNS), classes)
    console.table("", ("measure", *SCORE_COLUMNS), [(name, *values) for name, values in report.rows()])
    for file in files:
        console.say(f"wrote {file}")
