"""The stage `project`: image files → latents, reconstruction, error, verdict and, with a segmenter, masks.

OUT/NAME.latent.safetensors · NAME.reconstruction.png · NAME.json (error, verdict, crop), and with a segmenter
NAME.mask.png · NAME.confidence.png · NAME.overlay.png, all of the centred square of the image at the generator's
size. OUT/projection.json is what they depend on, OUT/calibration.json what the verdicts were measured against.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gansegctl import methods
from gansegctl.contracts import Progress, Segmenter
from gansegctl.errors import GansegError, UsageError
from gansegctl.generators.inversion.out_of_domain import Calibration
from gansegctl.io.atomic import write_text
from gansegctl.io.image import save_png
from gansegctl.pipeline.inputs.generators import grouped, open_generator
from gansegctl.pipeline.inputs.images import named_images, read_or_refuse, square_of
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
    refused: dict[str, str] | None = None,
) -> Iterator[Progress]:
    """Project what is not in OUT yet, and label what has no mask of this segmenter yet.

    refused: is filled with why a file was left out, by its path; nothing stops at one. Errors: UsageError for two
    images of one name, none at all, a segmenter of another generator, or an OUT begun with other settings.
    """
    settings, refused = settings or ProjectSettings(), {} if refused is None else refused
    files = named_images(images)
    projector = Projector(open_generator(generator, device), settings, device)
    record = projector.record()
    begin(out, record)
    judge = None
    if segmenter is not None:
        judge = methods.load(segmenter)
        judge.check_generator(projector.generator)
    digest = methods.digest(segmenter) if segmenter is not None else ""
    todo = [name for name in files if not (out / f"{name}.json").exists()]
    skipped = len(files) - len(todo)
    flagged = sum(bool((_facts(out / name) or {}).get("flagged")) for name in files)
    yield Progress("project", skipped, len(files), "images", {"skipped": skipped})
    if todo:
        yield from calibrate(projector, out / CALIBRATION)
    done = skipped
    for names in grouped(todo, settings.batch_size):
        read = {n: t for n in names for t in _squares(files[n], projector, refused)}
        found: list[Projection] = []
        if read:
            for step, total in projector.project(np.stack([t for t, _ in read.values()]), found):
                yield Progress("project", done, len(files), "images", {"step": f"{step}/{total}"})
        for (name, (target, size)), projection in zip(read.items(), found, strict=True):
            _write(out / name, size, target, projection, projector, judge, digest, str(files[name]), record)
            flagged += bool(projection.flagged)
        done += len(names)
        facts = {"skipped": skipped, "flagged": flagged, "refused": len(refused)}
        yield Progress("project", done, len(files), "images", facts)
    for name, file in files.items() if judge else ():
        facts = _facts(out / name)
        if facts is None or facts.get("segmenter") == digest:
            continue
        for target, size in _squares(file, projector, refused):
            projection = load_projection(_beside(out / name, ".latent.safetensors"))
            _write(out / name, size, target, projection, projector, judge, digest, str(file), record)
    facts = {"skipped": skipped, "flagged": flagged, "refused": len(refused)}
    yield Progress("project", done, len(files), "images", facts)


def results(out: Path, images: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What NAME.json says of every image that has one."""
    found = {name: _facts(out / name) for name in named_images(images)}
    return {name: facts for name, facts in found.items() if facts is not None}


def _squares(file: Path, projector: Projector, refused: dict[str, str]) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """The image's centred square at the generator's size, and the image's (height, width): it is not kept."""
    spec = projector.generator.spec
    images = read_or_refuse(file, spec.image_channels, refused)
    return [(square_of(p, spec.resolution), (p.shape[0], p.shape[1])) for p in images]


def begin(out: Path, record: dict[str, Any]) -> None:
    """Start a folder, or go on with one of the same record. UsageError, naming the difference, for any other."""
    path = out / RECORD
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_json(path, record)
            return
        before = json.loads(path.read_text())
    except OSError as e:
        raise GansegError(f"got {out}: {e.strerror}", wanted="a folder that can be written") from e
    except ValueError as e:
        raise UsageError(f"got {path}: {e}", wanted="what project wrote", remedy="choose another -o") from e
    differs = [k for k in record if before.get(k) != record[k]]
    if differs:
        raise UsageError(
            f"got {out}, begun with {differs[0]} {before.get(differs[0])}",
            wanted=f"{record[differs[0]]}, as now",
            remedy="choose another -o, or use the settings it was begun with",
        )


def calibrate(projector: Projector, path: Path) -> Iterator[Progress]:
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
    if annotation is not None:
        labels = annotation.labels[0].cpu().numpy()
        mask = Image.fromarray(labels)
        mask.putpalette(segmenter.labels.flat_palette())
        save_png(_beside(stem, ".overlay.png"), overlay(target, labels, segmenter.labels))
        save_png(_beside(stem, ".confidence.png"), annotation.confidence[0].cpu().numpy())
        save_png(_beside(stem, ".mask.png"), mask)
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


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")
