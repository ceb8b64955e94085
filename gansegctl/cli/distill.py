"""`gansegctl distill`"""

from __future__ import annotations

import os
from pathlib import Path

import click

from gansegctl import choices
from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.out("The student, a .safetensors file.")
@click.option(
    "--arch", type=click.Choice(choices.ARCHITECTURES), default="unet", show_default=True, help="The student's network."
)
@click.option("--epochs", type=options.POSITIVE, default=10, show_default=True, help="How often every pair is seen.")
@click.option("--steps", type=options.POSITIVE, help="Training steps, in place of --epochs.")
@click.option(
    "--batch-size",
    type=options.POSITIVE,
    default=32,
    show_default=True,
    help="Pairs per step, over all processes.",
)
@click.option(
    "--accumulate",
    type=options.POSITIVE,
    default=1,
    show_default=True,
    help="Split each batch into this many parts, to use less memory.",
)
@click.option("--lr", type=float, default=4e-3, show_default=True, help="Peak learning rate.")
@click.option(
    "--precision",
    type=click.Choice(choices.STUDENT_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Number format of the training; bf16 is for GPUs.",
)
@click.option(
    "--augment",
    type=click.Choice(choices.VARIATIONS),
    default="full",
    show_default=True,
    help="Random changes of the images. full: pose, mirror, light, blur, grain; light: no change of pose but mirror.",
)
@click.option(
    "--drop-uncertain",
    type=float,
    default=0.0,
    show_default=True,
    help="Leave out this share of the pairs (0 to 1): those whose masks are the least certain.",
)
@click.option(
    "--ignore-below",
    type=int,
    default=0,
    show_default=True,
    help="Ignore pixels whose confidence (0 to 255) is lower.",
)
@click.option("--soft", is_flag=True, help="Learn the class probabilities; DATASET must be made with --probabilities.")
@click.option(
    "--temperature",
    type=float,
    default=1.0,
    show_default=True,
    help="With --soft: a value above 1 gives unlikely classes more weight.",
)
@click.option("--limit", type=options.POSITIVE, help="Use only this many pairs, the first ones.")
@options.split
@click.option(
    "--real",
    type=options.PATH,
    metavar="PATH",
    help="Also learn from these real annotated images: a folder of pairs or an HDF5 file.",
)
@options.real_split
@click.option(
    "--real-share", type=float, default=0.5, show_default=True, help="Share of every batch that --real gives (0 to 1)."
)
@click.option("--half", is_flag=True, help="Store the student as float16.")
@options.seed_of("the training")
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

    DATASET may also be an HDF5 file with `image`, `mask` and the attribute `classes`, or a folder with labels.json and
    with NAME.mask.png beside every NAME.png. The student has as many channels as the images: one where all are grey.

    After an interruption, the same command resumes from its checkpoint; at most half a minute is lost. A finished
    student is left as it is.

    On several devices: torchrun --nproc-per-node N -m gansegctl distill DATASET -o STUDENT. The result is the same.
    """
    import torch

    from gansegctl.config import DistillSettings
    from gansegctl.contracts import result_of
    from gansegctl.pipeline.distill.pairs import Annotated
    from gansegctl.pipeline.distill.stage import IN_MEMORY, distill, torchrun_ranks

    if real is None and real_split is not None:
        raise click.UsageError("got --real-split without --real; wanted: both")

    settings = DistillSettings(
        arch=arch,
        epochs=epochs,
        steps=steps or 0,
        batch_size=batch_size,
        accumulate=accumulate,
        lr=lr,
        precision=precision,
        seed=seed,
        augment=augment,
        drop_uncertain=drop_uncertain,
        ignore_below=ignore_below,
        soft=soft,
        temperature=temperature,
    )
    device = options.pick_device(device)
    with torchrun_ranks(device, os.environ) as ranks:
        stage = distill(
            dataset,
            out,
            settings,
            device,
            limit=limit,
            split=split,
            real=None if real is None else Annotated(real, real_split, real_share),
            dtype=torch.float16 if half else torch.float32,
            ranks=ranks,
            in_memory=IN_MEMORY // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        )
        facts = console.follow(stage) if ranks.lead else result_of(stage)
    if ranks.lead:
        console.emit({"student": str(out)} | facts, as_json)
