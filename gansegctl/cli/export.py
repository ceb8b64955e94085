"""`gansegctl export`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl import choices
from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@click.option("--format", "form", required=True, type=click.Choice(choices.FORMATS), help="Layout to write.")
@options.out("Folder of the export: a new one, or one to resume.")
@click.option(
    "--where",
    default="",
    metavar="CONDITION",
    help="Keep the samples that satisfy it, as in 'score<0.2 and eyes>0.01'.",
)
@click.option(
    "--min-class", multiple=True, metavar="CLASS:PIXELS", help="Keep samples with at least so many pixels of a class."
)
@click.option(
    "--split",
    default="train=1",
    show_default=True,
    metavar="NAME=SHARE,…",
    help="Splits and their shares, as in train=0.9,val=0.1.",
)
@click.option(
    "--split-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the splits; another seed assigns the samples differently.",
)
@click.option(
    "--mask-png",
    type=click.Choice(choices.MASK_PNGS),
    help="Masks as indexed PNG (palette) or as class ids in 8-bit grey; by default as the format expects.",
)
@click.option("--polygons", is_flag=True, help="For coco: polygons instead of run lengths.")
@click.option(
    "--instances", is_flag=True, help="For coco: one annotation per connected region, instead of one per class."
)
@click.option(
    "--license",
    "--licence",
    "licence",
    default="",
    metavar="TEXT",
    help="License of the data, where the dataset states none.",
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
    """Write the pairs of DATASET in the layout of another tool, with a card that states license and provenance.

    A CONDITION compares score, seed and class names (each stands for its share of the image, 0 to 1; quote names with
    spaces), joined by and, or, not and parentheses.

    The split of a sample depends on its seed alone. After an interruption, the same command resumes and writes the
    same bytes.
    """
    from gansegctl.pipeline.export import export
    from gansegctl.store.export.base import ExportSettings

    settings = ExportSettings(
        form, where, min_class, split, split_seed, mask_png or "", polygons, instances, licence.strip()
    )
    table = console.follow(export(dataset, out, settings))
    console.emit({"out": str(out)} | {key: table[key] for key in ("format", "samples", "licence")}, as_json)
