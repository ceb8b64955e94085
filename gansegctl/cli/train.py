"""`gansegctl train`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl import choices
from gansegctl.cli import console, options


@click.command()
@click.argument("images", type=options.PATH)
@options.out("The generator, a .safetensors file; OUT.ckpt (checkpoint) and OUT.png (samples) are written beside it.")
@click.option(
    "--resolution", type=click.Choice(choices.RESOLUTIONS), default="64", show_default=True, help="Pixels per side."
)
@click.option("--grey", is_flag=True, help="Train on grey images, with one channel.")
@click.option(
    "--images-seen",
    type=options.POSITIVE,
    default=400_000,
    show_default=True,
    help="Number of images to show in training.",
)
@options.passes(32, "Images")
@click.option("--lr", type=float, default=2.5e-3, show_default=True, help="Learning rate.")
@click.option("--r1", type=float, default=1.0, show_default=True, help="Weight of the R1 penalty.")
@click.option(
    "--channel-base",
    type=options.POSITIVE,
    default=2048,
    show_default=True,
    help="Channels of a layer times its pixels per side.",
)
@click.option(
    "--channel-max", type=options.POSITIVE, default=128, show_default=True, help="Channels of a layer, at most."
)
@click.option("--z-dim", type=options.POSITIVE, default=128, show_default=True, help="Size of the latent z.")
@click.option("--w-dim", type=options.POSITIVE, default=128, show_default=True, help="Size of the latent w.")
@options.split
@click.option("--mirror", is_flag=True, help="Also train on mirrored images.")
@click.option("--upside-down", is_flag=True, help="Also train on images upside down.")
@click.option("--quarter-turns", is_flag=True, help="Also train on images turned by 90, 180 and 270 degrees.")
@click.option(
    "--augment",
    type=click.Choice(choices.AUGMENTATIONS),
    default="none",
    show_default=True,
    help="Augmentation for small sets. diff: with fixed probability; ada: with adapted probability.",
)
@click.option(
    "--augment-p",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Probability of the augmentation; with ada the highest allowed.",
)
@click.option(
    "--lr-decay",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the training, at its end, over which the learning rate falls to a tenth.",
)
@click.option(
    "--grow-from",
    type=options.PATH,
    help="The .ckpt of a run at half the resolution, to start from; the images it has seen count.",
)
@click.option(
    "--precision",
    type=click.Choice(choices.GENERATOR_TRAINING_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Number format of the training; bf16 is for GPUs.",
)
@click.option(
    "--compile", "compiled", is_flag=True, help="Use torch.compile, which pays for wide networks; needs a C++ compiler."
)
@click.option("--checkpoint-every", type=float, default=300.0, show_default=True, help="Seconds between checkpoints.")
@click.option("--half", is_flag=True, help="Store the generator as float16.")
@options.seed_of("the training")
@options.device
@options.json_flag
def command(
    images: Path,
    out: Path,
    resolution: str,
    grey: bool,
    images_seen: int,
    batch_size: int,
    lr: float,
    r1: float,
    channel_base: int,
    channel_max: int,
    z_dim: int,
    w_dim: int,
    split: int | None,
    mirror: bool,
    upside_down: bool,
    quarter_turns: bool,
    augment: str,
    augment_p: float,
    lr_decay: float,
    grow_from: Path | None,
    precision: str,
    compiled: bool,
    checkpoint_every: float,
    half: bool,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Train a small StyleGAN2 on IMAGES: a folder of images, an HDF5 file with `image`, or a dataset.

    This is for domains that have no generator yet, at 32 to 256 px; for larger ones use the official trainers. For
    fewer than 10,000 images pass --augment ada, and the flips and turns that look natural in your domain. After an
    interruption, the same command resumes from OUT.ckpt.

    Where training is slow (a CPU, large images), train at half the resolution first with the same channels, then pass
    its .ckpt to --grow-from, and an --r1 four times as large.
    """
    import torch

    from gansegctl.generators.stylegan2 import StyleGAN2Config
    from gansegctl.generators.training.trainer import TrainSettings
    from gansegctl.pipeline.train import train

    network = StyleGAN2Config(
        resolution=int(resolution),
        image_channels=1 if grey else 3,
        z_dim=z_dim,
        w_dim=w_dim,
        channel_base=channel_base,
        channel_max=channel_max,
    )
    settings = TrainSettings(
        network=network,
        images=images_seen,
        batch_size=batch_size,
        lr=lr,
        r1=r1,
        mirror=mirror,
        upside_down=upside_down,
        quarter_turns=quarter_turns,
        augment=augment,
        augment_p=augment_p,
        lr_decay=lr_decay,
        precision=precision,
        seed=seed,
    )
    stage = train(
        images,
        out,
        settings,
        device=options.pick_device(device),
        checkpoint_every=checkpoint_every,
        split=split,
        compiled=compiled,
        grow_from=grow_from,
        dtype=torch.float16 if half else torch.float32,
    )
    console.emit({"generator": str(out)} | console.follow(stage, interval=60.0), as_json)
