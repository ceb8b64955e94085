"""The stage `train`: images of a domain → a small StyleGAN2, with checkpoints and sample sheets on the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gansegctl.contracts import Generator, Stage
from gansegctl.errors import UsageError
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.training.trainer import Trainer, TrainSettings
from gansegctl.generators.weights import read_header, save_generator
from gansegctl.io.atomic import clean_parts
from gansegctl.io.image import save_png, to_uint8
from gansegctl.pipeline.inputs.images import check_split, load_images
from gansegctl.visualize.sheets import image_grid

SAMPLE_SEEDS = range(64)


def train(
    source: Path,
    out: Path,
    settings: TrainSettings,
    *,
    device: str = "cpu",
    checkpoint_every: float = 300.0,
    report_every: float = 60.0,
    dtype: torch.dtype = torch.float32,
    split: int | None = None,
    compiled: bool = False,
    grow_from: Path | None = None,
) -> Stage[dict[str, Any]]:
    """Train on the images in `source` (of an HDF5 file: with this `split`) and write `out` (.safetensors), the
    averaged generator.

    Beside it: `out`.ckpt (resumed from when present, removed by nobody) and `out`.png, 64 samples at psi 0.7, both
    renewed every `checkpoint_every` seconds and at the end. grow_from: the `.ckpt` of a run at half the resolution, to
    begin with what it learned; a run that has one of its own goes on from that. Errors: UsageError for a file of
    several splits of which none was chosen, and what `load_images` and `Trainer` say. Returns the facts of the last
    progress; none where nothing was left to do.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"got -o {out}", wanted="a name ending in .safetensors")
    check_split(source, split, "pass --split {}")
    out.parent.mkdir(parents=True, exist_ok=True)
    clean_parts(out.parent, out.stem)
    net = settings.network
    images = load_images(source, net.resolution, net.image_channels, split)
    trainer = Trainer(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), settings, device, compiled)
    checkpoint = out.with_suffix(".ckpt")
    if checkpoint.exists():
        trainer.resume(checkpoint)
    elif grow_from is not None:
        trainer.grow_from(grow_from)
    saved = time.monotonic()
    facts: dict[str, Any] = {}
    for progress in trainer.run(report_every):
        finished = progress.done >= progress.total
        if finished or time.monotonic() - saved >= checkpoint_every:
            # The checkpoint last: killed in between, the next run has something left to do, and writes both again.
            _write(trainer, out, len(images), dtype)
            trainer.save(checkpoint)
            saved = time.monotonic()
        facts = progress.facts
        yield progress
    if _images_of(out) != trainer.images_seen:  # the checkpoint was complete already, the generator is not of it
        _write(trainer, out, len(images), dtype)
    return facts


def _images_of(out: Path) -> int | None:
    """Images that the generator in `out` was trained on, as it says; None where there is none."""
    return read_header(out).get("facts", {}).get("images_seen") if out.exists() else None


def _write(trainer: Trainer, out: Path, images: int, dtype: torch.dtype) -> None:
    facts = {
        "images_seen": trainer.images_seen,
        "training_images": images,
        "seconds": round(trainer.seconds),
        "device": str(trainer.device),
        "batch_size": trainer.settings.batch_size,
        "r1": trainer.settings.r1,
        "lr": trainer.settings.lr,
        "augment": trainer.settings.augment,
        "compiled": trainer.compiled,
        "shown": [n for n in ("mirror", "upside_down", "quarter_turns") if getattr(trainer.settings, n)],
        "seed": trainer.settings.seed,
    }
    if trainer.grown_at >= 0:
        facts["grown_at"] = trainer.grown_at
    save_generator(trainer.average, out, facts, dtype)
    save_png(out.with_suffix(".png"), sample_sheet(trainer.average, trainer.device))


@torch.no_grad()
def sample_sheet(generator: Generator, device: torch.device | str = "cpu", truncation: float = 0.7) -> Image.Image:
    """64 fixed seeds at psi 0.7 as one image."""
    z = z_of_seeds(SAMPLE_SEEDS, generator.spec.z_dim).to(device)
    c = None
    if generator.spec.c_dim:  # classes in turn
        c = torch.eye(generator.spec.c_dim, device=device)[torch.arange(len(z)) % generator.spec.c_dim]
    image = generator.synthesize(generator.map(z, c, truncation), taps=()).image
    return image_grid(to_uint8(image), columns=8)
