"""`gansegctl annotate`"""

from __future__ import annotations

from pathlib import Path

import click

from gansegctl.cli import console, options


@click.command()
@click.argument("dataset", type=options.PATH)
@options.shots
@options.method
@options.profile
@click.option("--head", metavar="NAME", help="Head of `repurpose`: cnn-s, cnn-m, cnn-l or mlp.")
@options.method_settings
@options.masks
@click.option("--classes", metavar="A,B,…", help="Class names, background first.")
@click.option("--exemplars", metavar="SEEDS", help="Annotate these seeds instead of letting the tool choose.")
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
    exemplars: str | None,
    generator: str | None,
    seed: int,
    device: str,
    task_text: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Fit a segmenter on annotated exemplars and write masks into DATASET.

    Without --masks it chooses the exemplars, writes them to DATASET/exemplars to be painted, and says what to do next.
    With --masks it fits, keeps the segmenter as DATASET/segmenter.safetensors, and labels every sample. With --shots 0
    an unsupervised method (stylemix, segment_in_style, labels4free) labels every sample with classes of its own.
    """
    from gansegctl.config import AnnotateSettings
    from gansegctl.pipeline import annotate as stage
    from gansegctl.pipeline import stages
    from gansegctl.store.schema import parse_seeds

    chosen = options.assignments(assigned) | ({"head": head} if head else {})
    if profile != "fixed" or stage.has_option(method, "profile"):
        chosen = {"profile": profile} | chosen
    settings = AnnotateSettings(shots=shots, method=method, seed=seed, masks=masks or "", options=chosen)
    stage.check_method(settings)
    task = options.pick_task(task_text)
    source = stage.Source.open(dataset, generator, options.pick_device(device))
    if shots == 0:
        if dry_run:
            console.emit({"dataset": str(dataset), "exemplars": [], "method": method, "options": chosen}, as_json)
            return
        console.follow(stage.annotate(source, [], None, settings, task))
        console.emit(stages.describe_dataset(dataset), as_json)
        return
    if masks is None:
        labels = stage.known_labels(None, dataset, classes, source.settings.generator)
        wanted = parse_seeds(exemplars) if exemplars else None
        folder, choice = stage.write_exemplars(source, shots, labels, wanted)
        console.emit({"exemplars": str(folder), "seeds": list(choice.seeds), "why": choice.reason}, as_json)
        console.say(
            f"Paint {folder}/exemplar-*.mask.png with the classes of {folder}/labels.txt, then run:\n"
            f"  gansegctl annotate {dataset} --shots {len(choice.seeds)} --masks {folder}"
        )
        return
    folder = stage.masks_folder(masks, dataset)
    labels = stage.known_labels(folder, dataset, classes, source.settings.generator)
    seeds = stage.exemplar_seeds(folder, shots, parse_seeds(exemplars) if exemplars else None)
    pictures = stage.exemplars_of(source, seeds, folder, labels)
    if dry_run:
        console.emit({"dataset": str(dataset), "exemplars": seeds, "method": method, "options": chosen}, as_json)
        return
    console.follow(stage.annotate(source, pictures, labels, settings, task))
    console.emit(stages.describe_dataset(dataset), as_json)
