"""The stage `project`: image files → latents, reconstruction, error, verdict and, with a segmenter, masks.

OUT/NAME.latent.safetensors · NAME.reconstruction.png · NAME.json (error, verdict, crop), and with a segmenter
NAME.mask.png · NAME.confidence.png · NAME.overlay.png, all of the centred square of the image at the generator's
size. OUT/projection.json is what they depend on, OUT/calibration.json what the verdicts were measured against.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansegctl import methods
from gansegctl.contracts import Progress, Segmenter, Stage
from gansegctl.errors import UsageError
from gansegctl.generators.inversion.out_of_domain import Calibration
from gansegctl.io import run_folder
from gansegctl.io.atomic import write_text
from gansegctl.io.digest import file_digest
from gansegctl.io.image import indexed, save_png
from gansegctl.pipeline.inputs.generators import grouped, open_generator
from gansegctl.pipeline.inputs.images import Outcome, named_images, read_or_refuse, square_of
from gansegctl.pipeline.project.projector import (
    Projection,
    Projector,
    ProjectSettings,
    draw,
    load_projection,
    pixel_error,
    save_projection,
)
from gansegctl.visualize.sheets import overlay

RECORD, CALIBRATION = "projection.json", "calibration.json"


def project(
    images: Sequence[Path],
    generator: str,
    out: Path,
    settings: ProjectSettings | None = None,
    segmenter: Path | None = None,
    device: str = "cpu",
) -> Stage[Outcome]:
    """Project what is not in OUT yet, and label what has no mask of this segmenter yet.

    A file that cannot be read is refused, and the others are done. Errors: UsageError for two images of one name, none
    at all, a segmenter of another generator, or an OUT begun with other settings.
    """
    settings = settings or ProjectSettings()
    files, refused = named_images(images), dict[str, str]()
    projector = Projector(open_generator(generator, device), settings, device)
    record = projector.record()
    run_folder.begin(out, record, RECORD)
    fitted = None
    if segmenter is not None:
        fitted = methods.load(segmenter)
        fitted.check_generator(projector.generator)
    digest = file_digest(segmenter) if segmenter is not None else ""
    todo = [name for name in files if not (out / f"{name}.json").exists()]
    skipped = len(files) - len(todo)
    flagged = sum(bool((_facts(out / name) or {}).get("flagged")) for name in files)
    yield Progress("project", skipped, len(files), "images", {"skipped": skipped})
    if todo:
        yield from calibrate(projector, out / CALIBRATION)
    done = skipped
    for names in grouped(todo, settings.batch_size):
        squares = {n: square for n in names if (square := _square(files[n], projector, refused))}
        found: list[Projection] = []
        if squares:
            targets = np.stack([target for target, _ in squares.values()])
            found = yield from projector.project(targets, Progress("project", done, len(files)))
        for (name, (target, size)), projection in zip(squares.items(), found, strict=True):
            _write(out / name, size, target, projection, projector, fitted, digest, str(files[name]), record)
            flagged += bool(projection.flagged)
        done += len(names)
        facts = {"skipped": skipped, "flagged": flagged, "refused": len(refused)}
        yield Progress("project", done, len(files), "images", facts)
    for name, file in files.items() if fitted else ():
        stored = _facts(out / name)
        if stored is None or stored.get("segmenter") == digest:
            continue
        if square := _square(file, projector, refused):
            projection = load_projection(_beside(out / name, ".latent.safetensors"))
            _write(out / name, square[1], square[0], projection, projector, fitted, digest, str(file), record)
    facts = {"skipped": skipped, "flagged": flagged, "refused": len(refused)}
    yield Progress("project", done, len(files), "images", facts)
    return Outcome(len(files), skipped, refused)


def results(out: Path, images: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The facts in NAME.json of every image that is done, by name."""
    found = {name: _facts(out / name) for name in named_images(images)}
    return {name: facts for name, facts in found.items() if facts is not None}


def _square(file: Path, projector: Projector, refused: dict[str, str]) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The image's centred square at the generator's size, and the (height, width) of the image, which is not kept.

    None for a file that is refused.
    """
    spec = projector.generator.spec
    image = read_or_refuse(file, spec.image_channels, refused)
    return None if image is None else (square_of(image, spec.resolution), (image.shape[0], image.shape[1]))


def calibrate(projector: Projector, path: Path) -> Stage[None]:
    """Calibrate, or read what an earlier run measured from `path`, which lies in a folder of one record only."""
    if path.exists():
        projector.calibration = Calibration.from_json(json.loads(path.read_text()))
        return
    yield from projector.calibrate()
    if projector.calibration is not None:
        _write_json(path, projector.calibration.to_json())


def _write(
    stem: Path,
    size: tuple[int, int],
    target: np.ndarray,
    projection: Projection,
    projector: Projector,
    segmenter: Segmenter | None,
    digest: str,
    source: str,
    record: dict[str, Any],
) -> None:
    """Everything of one image of that (height, width), NAME.json last: its presence means that it is done."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    drawn, annotation = draw(projector.generator, projection, projector.settings.noise, segmenter, projector.device)
    projection.facts["pixel_error"] = round(pixel_error(target, drawn), 3)
    save_projection(_beside(stem, ".latent.safetensors"), projection, record)
    save_png(_beside(stem, ".reconstruction.png"), drawn)
    if segmenter is not None and annotation is not None:
        labels = annotation.labels[0].cpu().numpy()
        save_png(_beside(stem, ".overlay.png"), overlay(target, labels, segmenter.labels))
        save_png(_beside(stem, ".confidence.png"), annotation.confidence[0].cpu().numpy())
        save_png(_beside(stem, ".mask.png"), indexed(labels, segmenter.labels.flat_palette()))
    h, w = size
    side = min(h, w)
    crop = [(w - side) // 2, (h - side) // 2, side, side]  # left, top, width, height in the image
    _write_json(_beside(stem, ".json"), {"source": source, "crop": crop} | projection.facts | {"segmenter": digest})


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _facts(stem: Path) -> dict[str, Any] | None:
    path = _beside(stem, ".json")
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as e:
        raise UsageError(f"got {path}: {e}", wanted="what project wrote", remedy="delete it: it is made again") from e


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")
