"""`gansegctl export`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options

FORMATS = ("png", "coco", "yolo", "voc", "mmseg", "hf", "webdataset")  # of store.export, which costs an import to ask


@click.command()
@click.argument("dataset", type=options.PATH)
@click.option("--format", "form", required=True, type=click.Choice(FORMATS), help="The layout.")
@options.out("A new folder, or an export to go on with.")
@click.option(
    "--where", default="", metavar="CONDITION", help="Keep samples for which it holds, as in 'score<0.2 and eyes>0.01'."
)
@click.option("--min-class", multiple=True, metavar="CLASS:PIXELS", help="Keep samples with so many pixels of a class.")
@click.option("--split", default="train=1", show_default=True, metavar="NAME=SHARE,…", help="As in train=0.9,val=0.1.")
@click.option(
    "--split-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, other parts."
)
@click.option(
    "--mask-png", type=click.Choice(["palette", "grey"]), help="Indexed or 8-bit grey; else as the format likes it."
)
@click.option("--polygons", is_flag=True, help="coco: polygons instead of run lengths.")
@click.option("--instances", is_flag=True, help="coco: an annotation a connected part instead of one a class.")
@click.option(
    "--license", "--licence", "licence", default="", metavar="TEXT", help="The licence, where the dataset states none."
)
@options.json_flag
def command(
    dataset: Path,
    form: str,
    out: Path,
    where: str,
    min_class: tuple[str, ...],
    split: str,
    split_seed: int,
    mask_png: str | None,
    polygons: bool,
    instances: bool,
    licence: str,
    as_json: bool,
) -> None:
    """Write the pairs of DATASET in the layout of another tool, with a card that states licence and provenance.

    In conditions stand score, seed and class names (their share of the image, 0 to 1; quote names with spaces),
    joined by and, or, not and parentheses. A sample's split follows from its seed, whatever else is kept.
    Run again, the same command goes on where it was stopped, and ends in the same bytes.
    """
    from gansegctl.pipeline.export import export
    from gansegctl.store.export.base import ExportSettings

    settings = ExportSettings(
        form, where, min_class, split, split_seed, mask_png or "", polygons, instances, licence.strip()
    )
    table = console.follow(export(dataset, out, settings))
    console.emit({"out": str(out)} | {key: table[key] for key in ("format", "samples", "licence")}, as_json)
