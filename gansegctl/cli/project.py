"""`gansegctl project`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("images", nargs=-1, required=True, type=options.PATH)
@options.generator(required=True)
@options.out("Folder for NAME.latent.safetensors, NAME.reconstruction.png, NAME.json and, with --segmenter, masks.")
@options.segmenter
@click.option("--space", type=click.Choice(["w", "w+", "w+n"]), default="w+", show_default=True, help="n: with noise.")
@click.option("--steps", type=options.POSITIVE, default=200, show_default=True, help="At most; it stops early.")
@click.option("--samples", type=options.POSITIVE, default=512, show_default=True, help="To choose a start from.")
@click.option(
    "--perceptual",
    type=click.Choice(["auto", "gradients", "discriminator", "lpips"]),
    default="auto",
    show_default=True,
    help="What looks alike; auto = the discriminator where one is given, else gradients.",
)
@click.option("--discriminator", metavar="FILE", default="", help="OUT.ckpt of `gansegctl train`, or a snapshot.")
@click.option(
    "--calibration",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Own samples that off-domain verdicts are measured against; 0 = no verdicts.",
)
@click.option("--known", metavar="PATH", default="", help="As many images of the domain to measure them by instead.")
@options.noise
@options.class_index
@click.option("--batch-size", type=options.POSITIVE, default=8, show_default=True, help="Images at once.")
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
    """Latents for real IMAGES (files and folders), by inversion of a generator; with --segmenter also their masks.

    An image is centre-cropped to a square and resized to the generator's size. Images outside the generator's world
    are flagged: their masks mean little. What is there is left alone; a file that cannot be read is refused by name.
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
        console.say(f"warning: {name} lies outside the generator's world: {reason}")
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
