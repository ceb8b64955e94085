"""`gansegctl distill`"""

from __future__ import annotations

import os
from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.out("The student, a .safetensors file.")
@click.option("--arch", default="unet", show_default=True, help="Network of the student: unet or deeplabv3.")
@click.option("--epochs", type=options.POSITIVE, default=10, show_default=True, help="Passes over the pairs.")
@click.option("--steps", type=options.POSITIVE, help="Steps instead of epochs.")
@click.option(
    "--batch-size",
    type=options.POSITIVE,
    default=32,
    show_default=True,
    help="Pairs a step, of all processes together.",
)
@click.option(
    "--accumulate", type=options.POSITIVE, default=1, show_default=True, help="Passes that a step is cut into, to fit."
)
@click.option("--lr", type=float, default=4e-3, show_default=True, help="Peak learning rate.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp64"]), default="fp32", show_default=True)
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
@click.option("--soft", is_flag=True, help="Learn the probabilities of every class, which DATASET must hold.")
@click.option(
    "--temperature",
    type=float,
    default=1.0,
    show_default=True,
    help="With --soft: above 1 the unlikely classes count for more.",
)
@click.option("--limit", type=options.POSITIVE, help="Use only the first so many pairs.")
@click.option("--split", type=int, help="Of an HDF5 file: this value of its `split`; wanted where it has several.")
@click.option(
    "--real",
    type=options.PATH,
    metavar="PATH",
    help="Real annotated images to learn from too: the exemplars of `annotate --real`, or any pairs.",
)
@click.option("--real-split", type=int, help="Of an HDF5 file in --real: this value of its `split`.")
@click.option("--real-share", type=float, default=0.5, show_default=True, help="Of every step: what --real gives.")
@click.option("--half", is_flag=True, help="Store the student as float16.")
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
    accumulate: int,
    lr: float,
    precision: str,
    augment: str,
    drop_uncertain: float,
    ignore_below: int,
    soft: bool,
    temperature: float,
    limit: int | None,
    split: int | None,
    real: Path | None,
    real_split: int | None,
    real_share: float,
    half: bool,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Train a student (U-Net) on the pairs of DATASET: a segmenter that runs without the generator.

    DATASET may also be an HDF5 file with `image`, `mask` and the attribute `classes`, or a folder of NAME.png with
    NAME.mask.png beside it and labels.json. The student takes the images' channels: one where all files are grey.
    Run again after an interruption, the same command goes on from its checkpoint, half a minute back at most; what is
    finished is left alone. On several devices: torchrun --nproc-per-node N -m gansegctl distill DATASET -o STUDENT,
    with the same result.
    """
    import torch

    from gansegctl.config import DistillSettings
    from gansegctl.pipeline.distill.pairs import Annotated
    from gansegctl.pipeline.distill.stage import IN_MEMORY, distill, quietly, ranks

    if real is None and real_split is not None:
        raise click.UsageError("got --real-split without --real; wanted: both")

    settings = DistillSettings(
        arch,
        epochs,
        steps or 0,
        batch_size,
        accumulate,
        lr,
        precision,
        seed,
        augment,
        drop_uncertain,
        ignore_below,
        soft,
        temperature,
    )
    annotated = None if real is None else Annotated(real, real_split, real_share)
    device = options.pick_device(device)
    dtype = torch.float16 if half else torch.float32
    room = IN_MEMORY // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    with ranks(device, os.environ) as these:
        events = distill(dataset, out, settings, device, limit, these, room, split, dtype, annotated)
        last = quietly(events, console.follow if these.lead else None)
        if not these.lead:
            return
    console.emit({"student": str(out)} | (last.facts if last else {}), as_json)
