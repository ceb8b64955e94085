"""`gansegctl annotate`"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.shots
@options.method
@options.profile
@click.option("--head", metavar="NAME", help="Head of `repurpose`: cnn-s, cnn-m, cnn-l, mlp or official.")
@options.method_settings
@options.masks
@click.option("--classes", metavar="A,B,…", help="Class names, background first.")
@click.option(
    "--choose",
    type=click.Choice(["k-medoids", "spread", "uncertainty", "random"]),
    default="k-medoids",
    show_default=True,
    help="How the exemplars are chosen; uncertainty asks a segmenter.",
)
@options.segmenter
@click.option("--exemplars", metavar="SEEDS", help="Annotate these seeds instead of letting the tool choose.")
@click.option("--real", type=options.PATH, metavar="PATH", help="Real annotated images as exemplars, by projection.")
@click.option(
    "--real-split",
    type=int,
    metavar="VALUE",
    help="Of an HDF5 file in --real: this value of its `split`; wanted where it has several.",
)
@click.option(
    "--real-error",
    type=float,
    default=30.0,
    show_default=True,
    help="Grey levels (root mean square) above which a reconstruction is refused.",
)
@click.option("--real-steps", type=options.POSITIVE, default=200, show_default=True, help="Of a projection, at most.")
@click.option(
    "--real-calibration",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Own samples to tell foreign images by, which are refused; 0 = judge by --real-error alone.",
)
@click.option("--ui", is_flag=True, help="Paint on a local page; fit and label when you press Finish.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the page; else any that is free.")
@options.probabilities
@options.generator()
@options.seed
@options.device
@options.backend
@options.task
@options.json_flag
@options.dry_run
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

    Without --masks it chooses the exemplars, writes them to DATASET/exemplars to be painted, and says what to do next.
    With --masks, a folder or file of PNG, labelme, CVAT, Label Studio or COCO masks, it fits, keeps the segmenter as
    DATASET/segmenter.safetensors, and labels every sample. With --shots 0 an unsupervised method (stylemix,
    segment_in_style, labels4free) labels every sample with classes of its own.
    With --real the exemplars are real images with masks beside them, projected as by `project`; those that the
    generator cannot draw are refused.
    With --ui (extra `ui`) the exemplars are painted on a page of this machine: regions of the generator's features to
    click on, and what a segmenter makes of every stroke; "Finish" there goes on as --masks does.
    """
    from gansegctl.config import AnnotateSettings
    from gansegctl.errors import UsageError
    from gansegctl.pipeline.annotate import stage
    from gansegctl.pipeline.annotate.exemplars import (
        exemplar_seeds,
        exemplars_of,
        known_labels,
        masks_folder,
        seeds_with_masks,
        write_exemplars,
    )
    from gansegctl.pipeline.annotate.source import Source
    from gansegctl.pipeline.inspect import describe_dataset
    from gansegctl.store.schema import format_seeds, parse_seeds

    if head and method != "repurpose":
        raise UsageError(f"got --head with --method {method}", wanted="--method repurpose, whose heads these are")
    chosen = options.assignments(assigned) | ({"head": head} if head else {})
    if profile != "fixed" or stage.has_option(method, "profile"):
        chosen = {"profile": profile} | chosen
    settings = AnnotateSettings(shots, method, seed, masks or "", chosen, probabilities)
    stage.check_method(settings)
    task = options.pick_task(task_text)
    source = Source.open(dataset, generator, options.pick_device(device))
    if ui and (masks is not None or real is not None or not shots or dry_run or task.count > 1):
        raise click.UsageError("got --ui with --masks, --real, --shots 0, --dry-run or --task; wanted: one of them")
    if shots == 0:
        if dry_run:
            console.emit({"dataset": str(dataset), "exemplars": [], "method": method, "options": chosen}, as_json)
            return
        console.follow(stage.annotate(source, [], None, settings, task))
        console.emit(describe_dataset(dataset), as_json)
        return
    if real is not None:
        from gansegctl.generators.inversion.search import InversionSettings
        from gansegctl.pipeline.annotate.real_images import RealExemplars, RealSettings, annotate_real, real_labels
        from gansegctl.pipeline.project.projector import ProjectSettings

        if masks is not None or exemplars or ui:
            raise click.UsageError("got --real with --masks, --exemplars or --ui; wanted: one of them")
        settings = replace(settings, masks=str(real))
        labels = real_labels(real, dataset, classes, source.settings.generator)
        found = RealExemplars()
        projecting = ProjectSettings(
            InversionSettings(steps=real_steps),
            class_index=source.settings.class_index,
            calibration=real_calibration,
        )
        limits = RealSettings(real_error)
        events = annotate_real(source, real, labels, settings, limits, found, real_split, task, dry_run, projecting)
        console.follow(events)
        for name, reason in found.refused.items():
            console.say(f"refused {name}: {reason}")
        console.emit({"exemplars": found.table()} | ({} if dry_run else describe_dataset(dataset)), as_json)
        return
    if ui:
        from gansegctl.pipeline.annotate import ui as annotating_ui

        labels = known_labels(None, dataset, classes, source.settings.generator)
        wanted = parse_seeds(exemplars) if exemplars else None
        folder, choice = write_exemplars(source, shots, labels, wanted, choose, segmenter, seed)
        opened = "Paint here, and press Finish (over SSH forward the port first: ssh -L):\n  {}".format
        seeds = annotating_ui.paint(source, folder, choice, labels, port or 0, lambda url: console.say(opened(url)))
        masks, shots, exemplars = str(folder), len(seeds), ",".join(map(str, seeds))
        settings = replace(settings, masks=masks, shots=shots)
    if masks is None:
        labels = known_labels(None, dataset, classes, source.settings.generator)
        wanted = parse_seeds(exemplars) if exemplars else None
        folder, choice = write_exemplars(source, shots, labels, wanted, choose, segmenter, seed)
        why = {s: choice.why(i) for i, s in enumerate(choice.seeds)}
        told = {"exemplars": str(folder), "seeds": list(choice.seeds), "why": choice.reason, "reasons": why}
        console.emit(told, as_json)
        console.say(
            f"Paint {folder}/exemplar-*.mask.png with the classes of {folder}/labels.txt, or annotate the images in\n"
            f"labelme, CVAT, Label Studio or another tool ({folder}/README.txt), then run:\n"
            f"  gansegctl annotate {dataset} --shots {len(choice.seeds)} --masks {folder}"
        )
        return
    folder = masks_folder(masks, dataset)
    unused = [] if exemplars else seeds_with_masks(folder, dataset)[shots:]
    if unused and Path(masks).exists():  # a preset brings a choice of them
        console.say(f"{shots + len(unused)} masks and --shots {shots}: not used are seeds {format_seeds(unused)}")
    labels = known_labels(folder, dataset, classes, source.settings.generator)
    seeds = exemplar_seeds(folder, shots, parse_seeds(exemplars) if exemplars else None, dataset)
    images = exemplars_of(source, seeds, folder, labels, console.say)
    if dry_run:
        console.emit({"dataset": str(dataset), "exemplars": seeds, "method": method, "options": chosen}, as_json)
        return
    console.follow(stage.annotate(source, images, labels, settings, task))
    console.emit(describe_dataset(dataset), as_json)
