"""Exemplars from real annotated images (Tritrong et al. 2021, section 3.1): each is projected, and its mask taken.

The mask was painted on the image, the features are those of its reconstruction. So an image that the generator
cannot draw is refused, and of one that it can, the pixels that came out otherwise are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gansegctl.config import AnnotateSettings
from gansegctl.contracts import Exemplar, Generator, Progress
from gansegctl.errors import UsageError
from gansegctl.io.image import save_png
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.pipeline.annotate.exemplars import known_labels
from gansegctl.pipeline.annotate.source import EXEMPLARS, REAL_SEEDS, Source
from gansegctl.pipeline.annotate.stage import annotate
from gansegctl.pipeline.inputs.labelled_sets import AnnotatedImage, annotated_images, classes_of
from gansegctl.pipeline.project.projector import (
    Projection,
    Projector,
    ProjectSettings,
    draw,
    load_projection,
    load_with_record,
    pixel_error,
    save_projection,
)
from gansegctl.pipeline.runtime.tasks import ALONE, Task

SMOOTH = 5  # pixels of the window in which the difference of image and reconstruction is averaged


@dataclass(frozen=True)
class RealSettings:
    """highest_error: grey levels (root mean square, of 255) above which a reconstruction is refused. ignore_above: grey
    levels (mean of a 5×5 window) above which a pixel of an accepted one is ignored; 0 = none is. most_ignored: share of
    what is painted in other classes than the first above which ignored pixels refuse the image: a large background
    that came out well must not stand for a figure that did not. refuse_flagged: also refuse what lies outside the
    generator's world."""

    highest_error: float = 30.0
    ignore_above: float = 40.0
    most_ignored: float = 0.5
    refuse_flagged: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.most_ignored <= 1:
            raise UsageError(f"got most_ignored {self.most_ignored}", wanted="a share from 0 to 1")
        if self.highest_error <= 0 or self.ignore_above < 0:
            raise UsageError(
                f"got errors {self.highest_error} and {self.ignore_above}", wanted="grey levels above 0, and 0 or more"
            )


@dataclass
class RealExemplars:
    """What became of the images looked at: exemplars, their images by name, and why others were refused."""

    exemplars: list[Exemplar] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ignored: list[float] = field(default_factory=list)  # share of each exemplar's pixels
    errors: list[float] = field(default_factory=list)  # grey levels
    refused: dict[str, str] = field(default_factory=dict)

    def table(self) -> list[dict[str, str | float]]:
        """One row an exemplar: name, reconstruction error in grey levels, share of its pixels that is ignored."""
        rows = zip(self.names, self.errors, self.ignored, strict=True)
        return [{"name": n, "error": round(e, 2), "ignored": round(i, 4)} for n, e, i in rows]


def real_labels(source: Path, dataset: Path, classes: str | None, preset: str) -> LabelMap:
    """Class names: those given, else of the images' labels.json or HDF5 attribute, else as `annotate` finds them."""
    if classes is None and source.is_file() and (named := classes_of(source)):
        return LabelMap(named)
    return known_labels(source if source.is_dir() else None, dataset, classes, preset)


def annotate_real(
    source: Source,
    real: Path,
    labels: LabelMap,
    settings: AnnotateSettings,
    limits: RealSettings,
    into: RealExemplars,
    split: int | None = None,
    task: Task = ALONE,
    dry_run: bool = False,
    projecting: ProjectSettings | None = None,
) -> Iterator[Progress]:
    """The stage `annotate` with real exemplars: project, judge, fit, and label the dataset (not with `dry_run`).

    Latents, reconstructions and the masks as used are kept in DATASET/exemplars/real.
    """
    spec = source.generator.spec
    images = annotated_images(real, labels, spec.resolution, spec.image_channels, split)
    projecting = projecting or ProjectSettings(class_index=source.settings.class_index)
    projector = Projector(source.generator, projecting, source.device)
    folder = source.folder / EXEMPLARS / "real"
    yield from real_exemplars(projector, images, settings.shots, limits, folder, into)
    if not dry_run:
        yield from annotate(source, into.exemplars, labels, settings, task)


def real_exemplars(
    projector: Projector,
    images: list[AnnotatedImage],
    shots: int,
    settings: RealSettings,
    folder: Path,
    into: RealExemplars,
    least: int | None = None,
) -> Iterator[Progress]:
    """Project images in their order until `shots` are accepted; latents are kept in `folder` and used again.

    Errors: UsageError when fewer than `least` (`shots` when None) are accepted, saying what is wrong with the others,
    and for noise that is free: an exemplar's features must come from latents alone.
    """
    if projector.settings.inversion.space == "w+n":
        raise UsageError("got --space w+n for exemplars", wanted="w or w+")
    folder.mkdir(parents=True, exist_ok=True)
    generator, batch = projector.generator, projector.settings.batch_size
    at, record = 0, projector.record()
    while len(into.exemplars) < shots and at < len(images):
        part = images[at : at + min(batch, shots - len(into.exemplars))]
        known = [_kept(folder / f"{p.name}.latent.safetensors", p, record) for p in part]
        missing = [p for p, k in zip(part, known, strict=True) if k is None]
        if missing:
            if projector.calibration is None:
                yield from projector.calibrate()
            facts = {"refused": len(into.refused)}
            event = Progress("project", len(into.exemplars), shots, "exemplars", facts)
            made = yield from projector.project(np.stack([p.image for p in missing]), event)
            for image, projection in zip(missing, made, strict=True):
                path = folder / f"{image.name}.latent.safetensors"
                save_projection(path, projection, record | {"image": _digest(image)})
        for offset, image in enumerate(part):
            projection = load_projection(folder / f"{image.name}.latent.safetensors")
            _judge(generator, projection, projector, image, REAL_SEEDS + at + offset, settings, folder, into)
        at += len(part)
        yield Progress("project", len(into.exemplars), shots, "exemplars", {"refused": len(into.refused)})
    if len(into.exemplars) < (shots if least is None else least):
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in into.refused.items())
        raise UsageError(
            f"got {len(into.exemplars)} of {shots} real exemplars that the generator can draw{reasons}",
            wanted=f"{shots}",
            remedy="bring more images, fewer --shots, or allow a higher --real-error",
        )


def usable_mask(mask: np.ndarray, image: np.ndarray, drawn: np.ndarray, ignore_above: float) -> np.ndarray:
    """mask [S,S] with 255 where the images [S,S,c] differ by more than `ignore_above` grey levels in a 5×5 mean."""
    if not ignore_above:
        return mask.copy()
    differs = np.abs(image.astype(np.float32) - drawn.astype(np.float32)).mean(axis=2)
    padded = np.pad(differs, SMOOTH // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SMOOTH, SMOOTH))
    return np.where(windows.mean(axis=(2, 3)) > ignore_above, np.uint8(IGNORE), mask)


def _judge(
    generator: Generator,
    projection: Projection,
    projector: Projector,
    image: AnnotatedImage,
    seed: int,
    settings: RealSettings,
    folder: Path,
    into: RealExemplars,
) -> None:
    noise = projector.settings.noise
    drawn, _ = draw(generator, projection, noise, None, projector.device)
    save_png(folder / f"{image.name}.reconstruction.png", drawn)
    error = pixel_error(image.image, drawn)
    if settings.refuse_flagged and projection.flagged:
        into.refused[image.name] = f"outside the generator's world: {projection.facts['reason']}"
        return
    if error > settings.highest_error:
        into.refused[image.name] = f"reconstruction off by {error:.1f} grey levels, over {settings.highest_error:g}"
        return
    mask = usable_mask(image.mask, image.image, drawn, settings.ignore_above)
    if (mask == IGNORE).all():
        into.refused[image.name] = "no pixel of the reconstruction is near enough"
        return
    figure = (image.mask != 0) & (image.mask != IGNORE)
    lost = float((mask[figure] == IGNORE).mean()) if figure.any() else 0.0
    if lost > settings.most_ignored:
        into.refused[image.name] = f"{100 * lost:.0f} % of what is painted outside the first class came out otherwise"
        return
    save_png(folder / f"{image.name}.mask.png", mask)
    into.exemplars.append(Exemplar(projection.ws.cpu(), seed, mask, noise))
    into.names.append(image.name)
    into.errors.append(error)
    into.ignored.append(float((mask == IGNORE).mean() - (image.mask == IGNORE).mean()))


def _kept(path: Path, image: AnnotatedImage, record: dict) -> Projection | None:
    """What an earlier run projected, if it was the same image under the same settings."""
    if not path.exists():
        return None
    projection, before = load_with_record(path)
    return projection if before == record | {"image": _digest(image)} else None


def _digest(image: AnnotatedImage) -> str:
    return hashlib.sha256(np.ascontiguousarray(image.image).tobytes()).hexdigest()
