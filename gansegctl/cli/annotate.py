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
@options.masks
@click.option("--classes", metavar="A,B,…", help="Class names, background first.")
@click.option("--exemplars", metavar="SEEDS", help="Annotate these seeds instead of letting the tool choose.")
@options.generator()
@options.seed
@options.device
@options.json_flag
@options.dry_run
def command(
    dataset: Path,
    shots: int,
    method: str,
    profile: str,
    head: str | None,
    masks: str | None,
    classes: str | None,
    exemplars: str | None,
    generator: str | None,
    seed: int,
    device: str,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Fit a segmenter on annotated exemplars and write masks into DATASET.

    Without --masks it chooses the exemplars, writes them to DATASET/exemplars to be painted, and says what to do next.
    With --masks it fits, keeps the segmenter as DATASET/segmenter.safetensors, and labels every sample.
    """
    from gansegctl.config import AnnotateSettings
    from gansegctl.pipeline import annotate as stage
    from gansegctl.pipeline import stages
    from gansegctl.store.schema import parse_seeds

    chosen = {"profile": profile} | ({"head": head} if head else {})
    settings = AnnotateSettings(shots=shots, method=method, seed=seed, masks=masks or "", options=chosen)
    stage.check_method(settings)
    source = stage.Source.open(dataset, generator, options.pick_device(device))
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
    console.follow(stage.annotate(source, pictures, labels, settings))
    console.emit(stages.describe_dataset(dataset), as_json)
