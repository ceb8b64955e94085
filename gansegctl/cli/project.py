"""`gansegctl project`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl import choices
from gansegctl.cli import console, options


@click.command()
@click.argument("images", nargs=-1, required=True, type=options.PATH)
@options.generator(required=True)
@options.out("Folder for NAME.latent.safetensors, NAME.reconstruction.png, NAME.json and, with --segmenter, masks.")
@options.segmenter
@click.option(
    "--space",
    type=click.Choice(choices.SPACES),
    default="w+",
    show_default=True,
    help="Latents to search. w: one style vector; w+: one per layer; w+n: also the noise maps.",
)
@click.option(
    "--steps",
    type=options.POSITIVE,
    default=200,
    show_default=True,
    help="Optimisation steps, at most; images that no longer improve stop early.",
)
@click.option(
    "--samples",
    type=options.POSITIVE,
    default=512,
    show_default=True,
    help="Random samples among which the start of the search is chosen.",
)
@click.option(
    "--perceptual",
    type=click.Choice(choices.MEASURES),
    default="auto",
    show_default=True,
    help="Perceptual distance; auto: the discriminator where one is given, else image gradients.",
)
@click.option(
    "--discriminator",
    metavar="FILE",
    default="",
    help="A discriminator: OUT.ckpt of `gansegctl train`, or a checkpoint that holds one.",
)
@click.option(
    "--calibration",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Generated samples that images are compared with, to flag images of another domain; 0: flag none.",
)
@click.option(
    "--known",
    metavar="PATH",
    default="",
    help="Compare with images from this folder or file of the domain instead of generated samples.",
)
@options.noise
@options.class_index
@options.passes(8, "Images")
@options.device
@options.backend
@options.json_flag
def command(
    images: tuple[Path, ...],
    generator: str,
    out: Path,
    segmenter: Path | None,
    space: str,
    steps: int,
    samples: int,
    perceptual: str,
    discriminator: str,
    calibration: int,
    known: str,
    noise: str,
    class_index: int | None,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Find the latents of real IMAGES (files and folders) by inversion of a generator; with --segmenter, masks too.

    Each image is centre-cropped to a square and resized to the generator's size. Images outside the generator's domain
    are flagged: their masks mean little. Existing results are kept. A file that cannot be read is named and skipped;
    the exit status is then 1.
    """
    from gansegctl.generators.inversion.search import InversionSettings
    from gansegctl.pipeline.inputs.images import raise_refused
    from gansegctl.pipeline.project.projector import ProjectSettings
    from gansegctl.pipeline.project.stage import project, results

    settings = ProjectSettings(
        inversion=InversionSettings(space=space, steps=steps, samples=samples),
        perceptual=perceptual,
        discriminator=discriminator,
        noise=noise,
        class_index=class_index,
        calibration=calibration,
        known=known,
        batch_size=batch_size,
    )
    done = console.follow(project(images, generator, out, settings, segmenter, options.pick_device(device)))
    found = results(out, images)
    flagged = {name: facts["reason"] for name, facts in found.items() if facts.get("flagged")}
    for name, reason in flagged.items():
        console.say(f"warning: {name} lies outside the generator's domain: {reason}")
    count = max(len(found), 1)
    facts = {
        "projections": str(out),
        "images": done.images,
        "skipped": done.skipped,
        "mean_error": sum(f["error"] for f in found.values()) / count,
        "mean_pixel_error": sum(f["pixel_error"] for f in found.values()) / count,
        "seconds_a_image": sum(f["seconds"] for f in found.values()) / count,
        "flagged": flagged,
        "refused": done.refused,
    }
    console.emit(facts, as_json)
    raise_refused(done)
