"""`gansegctl train`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("images", type=options.PATH)
@options.out("The generator, a .safetensors file; OUT.ckpt and OUT.png (samples) beside it.")
@click.option("--resolution", type=click.Choice(["32", "64", "128", "256"]), default="64", show_default=True)
@click.option("--grey", is_flag=True, help="One image channel.")
@click.option("--images-seen", type=options.POSITIVE, default=400_000, show_default=True, help="Images to train on.")
@click.option("--batch-size", type=options.POSITIVE, default=32, show_default=True)
@click.option("--lr", type=float, default=2.5e-3, show_default=True)
@click.option("--r1", type=float, default=1.0, show_default=True, help="Weight of the R1 penalty.")
@click.option(
    "--channel-base", type=options.POSITIVE, default=2048, show_default=True, help="Channels x pixels of a side."
)
@click.option("--channel-max", type=options.POSITIVE, default=128, show_default=True)
@click.option("--z-dim", type=options.POSITIVE, default=128, show_default=True)
@click.option("--w-dim", type=options.POSITIVE, default=128, show_default=True)
@click.option("--split", type=int, help="Of an HDF5 file: this value of its `split`; wanted where it has several.")
@click.option("--mirror", is_flag=True, help="Also show mirrored images.")
@click.option("--upside-down", is_flag=True, help="Also show images upside down.")
@click.option("--quarter-turns", is_flag=True, help="Also show images turned by 90, 180 and 270 degrees.")
@click.option(
    "--augment",
    type=click.Choice(["none", "diff", "ada"]),
    default="none",
    show_default=True,
    help="Of what the discriminator sees: with fixed probability, or as much as it needs (ada); for small sets.",
)
@click.option(
    "--augment-p", type=click.FloatRange(0, 1), default=0.6, show_default=True, help="diff: as is; ada: at most."
)
@click.option("--lr-decay", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Final share of the run.")
@click.option(
    "--grow-from",
    type=options.PATH,
    help="The .ckpt of a run at half the resolution: begin with what it learned. What it has seen counts.",
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile: for wide networks; wants a C++ compiler.")
@click.option("--checkpoint-every", type=float, default=300.0, show_default=True, help="Seconds.")
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

    For domains that have no generator yet, at 32 to 256 px; for large ones use the official trainers. Below some
    10,000 images take --augment ada, and the flips and turns that show an image as it could be. Run again, the same
    command goes on from OUT.ckpt.

    Few images a second (a CPU, large images)? Train at half the resolution first, with the same channels, and
    --grow-from its .ckpt, --r1 four times as large.
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
    events = train(
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
    last = console.follow(events, interval=60.0)
    console.emit({"generator": str(out)} | (last.facts if last else {}), as_json)
