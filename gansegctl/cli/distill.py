"""`gansegctl distill`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.out("The student, a .safetensors file.")
@click.option("--arch", default="unet", show_default=True, help="Network of the student.")
@click.option("--epochs", type=options.POSITIVE, default=10, show_default=True, help="Passes over the pairs.")
@click.option("--steps", type=options.POSITIVE, help="Steps instead of epochs.")
@click.option("--batch-size", type=options.POSITIVE, default=32, show_default=True)
@click.option("--lr", type=float, default=4e-3, show_default=True, help="Peak learning rate.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option(
    "--augment",
    type=click.Choice(["full", "light", "none"]),
    default="full",
    show_default=True,
    help="What is varied: pose, light, blur and grain; light: all but pose (mirror only); or nothing.",
)
@click.option(
    "--drop-uncertain", type=float, default=0.0, show_default=True, help="Leave out this share, the least certain."
)
@click.option(
    "--ignore-below", type=int, default=0, show_default=True, help="Do not learn from pixels of less confidence, 0-255."
)
@click.option("--limit", type=options.POSITIVE, help="Use only the first so many pairs.")
@options.seed
@options.device
@options.json_flag
def command(
    dataset: Path,
    out: Path,
    arch: str,
    epochs: int,
    steps: int | None,
    batch_size: int,
    lr: float,
    precision: str,
    augment: str,
    drop_uncertain: float,
    ignore_below: int,
    limit: int | None,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Train a student (U-Net) on the pairs of DATASET: a segmenter that runs without the generator.

    Run again after an interruption, the same command goes on from the last epoch.
    """
    from gansegctl.config import DistillSettings
    from gansegctl.pipeline.distill import distill

    settings = DistillSettings(
        arch, epochs, steps or 0, batch_size, lr, precision, seed, augment, drop_uncertain, ignore_below
    )
    last = console.follow(distill(dataset, out, settings, options.pick_device(device), limit))
    console.emit({"student": str(out)} | (last.facts if last else {}), as_json)
