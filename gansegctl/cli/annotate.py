"""`gansegctl annotate`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl import choices
from gansegctl.cli import console, options

PAINT = """Paint {0}/exemplar-*.mask.png with the classes of {0}/labels.txt, or annotate the images in
labelme, CVAT, Label Studio or another tool ({0}/README.txt), then run:
  gansegctl annotate {1} --shots {2} --masks {0}"""


@click.command()
@click.argument("dataset", type=options.PATH)
@options.shots
@options.method
@options.profile
@click.option("--head", metavar="NAME", help=f"Network of the method repurpose: {options.one_of(choices.HEADS)}.")
@options.method_settings
@options.masks
@click.option("--classes", metavar="A,B,…", help="Class names, background first.")
@click.option(
    "--choose",
    type=click.Choice(choices.SELECTIONS),
    default="k-medoids",
    show_default=True,
    help="How exemplars are chosen. k-medoids: the samples that stand for most others; spread: the most different; "
    "uncertainty: those that a segmenter is least sure of; random: by --seed.",
)
@options.segmenter
@click.option("--exemplars", metavar="SEEDS", help="Annotate the samples of these seeds, instead of a choice.")
@click.option(
    "--real",
    type=options.PATH,
    metavar="PATH",
    help="Use real annotated images as exemplars (a folder of pairs or an HDF5 file); they are projected first.",
)
@options.real_split
@click.option(
    "--real-error",
    type=float,
    default=30.0,
    show_default=True,
    help="Refuse a real image whose reconstruction is off by more grey levels (root mean square, of 255).",
)
@click.option(
    "--real-steps", type=options.POSITIVE, default=200, show_default=True, help="Steps of a projection, at most."
)
@click.option(
    "--real-calibration",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Generated samples that real images are compared with, to refuse images of another domain; 0: do not compare.",
)
@click.option("--ui", is_flag=True, help="Paint on a local page; fit and label when Finish is pressed there.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the page; by default any free one.")
@options.probabilities
@options.generator(help="The generator of DATASET, where its file has moved.")
@options.seed_of("the fit")
@options.device
@options.backend
@options.task
@options.dry_run
@options.json_flag
def command(
    dataset: Path,
    shots: int,
    method: str,
    profile: str,
    head: str | None,
    assigned: tuple[str, ...],
    masks: str | None,
    classes: str | None,
    choose: str,
    segmenter: Path | None,
    exemplars: str | None,
    real: Path | None,
    real_split: int | None,
    real_error: float,
    real_steps: int,
    real_calibration: int,
    ui: bool,
    port: int | None,
    probabilities: bool,
    generator: str | None,
    seed: int,
    device: str,
    task_text: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Fit a segmenter on annotated exemplars and write masks into DATASET.

    Without --masks, the command chooses the exemplars, writes them to DATASET/exemplars, and says how to paint them.

    With --masks (PNG, labelme, CVAT, Label Studio or COCO), it fits the method, saves DATASET/segmenter.safetensors,
    and labels every sample.

    With --shots 0, an unsupervised method (stylemix, segment_in_style, labels4free) labels every sample with classes
    of its own.

    With --real, the exemplars are real images with masks beside them. They are projected as by `gansegctl project`;
    images that the generator cannot draw are refused.

    With --ui (extra `ui`), the exemplars are painted on a page of this machine: it offers regions to click on, and
    shows what a segmenter learns from every stroke. Finish goes on as --masks does.
    """
    from gansegctl.config import AnnotateSettings
    from gansegctl.errors import UsageError
    from gansegctl.generators.inversion.search import InversionSettings
    from gansegctl.pipeline.annotate.real_images import RealImages, RealSettings
    from gansegctl.pipeline.annotate.stage import ExemplarRequest, annotate_dataset
    from gansegctl.pipeline.project.projector import ProjectSettings
    from gansegctl.store.schema import parse_seeds

    if head and method != "repurpose":
        raise UsageError(f"got --head with --method {method}", wanted="--method repurpose, whose heads these are")
    chosen = options.assignments(assigned) | ({"head": head} if head else {})
    if profile != "fixed":
        chosen = {"profile": profile} | chosen
    projecting = ProjectSettings(InversionSettings(steps=real_steps), calibration=real_calibration)
    stage = annotate_dataset(
        dataset,
        AnnotateSettings(shots, method, seed, masks or "", chosen, probabilities),
        ExemplarRequest(
            seeds=tuple(parse_seeds(exemplars)) if exemplars else (),
            choose=choose,
            segmenter=segmenter,
            classes=classes,
            real=RealImages(real, real_split, RealSettings(real_error), projecting) if real else None,
            ui=ui,
            port=port or 0,
        ),
        generator=generator,
        device=options.pick_device(device),
        task=options.pick_task(task_text),
        dry_run=dry_run,
        say=console.say,
    )
    result = console.follow(stage)
    console.emit(result.describe(), as_json)
    if result.to_paint is not None:
        console.say(PAINT.format(result.to_paint[0], dataset, len(result.seeds)))
