"""Exemplars from real annotated images (Tritrong et al. 2021, section 3.1): each is projected, and its mask taken.

The mask was painted on the image, the features are those of its reconstruction. So an image that the generator
cannot draw is refused, and of one that it can, the pixels that came out otherwise are ignored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gansegctl.contracts import Exemplar, Progress, Stage
from gansegctl.errors import UsageError
from gansegctl.io.image import save_png
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.pipeline.annotate.exemplars import known_labels
from gansegctl.pipeline.annotate.source import EXEMPLARS, REAL_SEEDS, Source
from gansegctl.pipeline.inputs.labelled_sets import AnnotatedImage, annotated_images, classes_of
from gansegctl.pipeline.project.projector import (
    Projector,
    ProjectSettings,
    draw,
    load_projection,
    load_with_record,
    pixel_error,
    save_projection,
)

SMOOTH = 5  # pixels of the window in which the difference of image and reconstruction is averaged


@dataclass(frozen=True)
class RealSettings:
    """Which real images are refused as exemplars, and which of their pixels are ignored."""

    highest_error: float = 30.0  # grey levels (root mean square, of 255); a worse reconstruction is refused
    ignore_above: float = 40.0  # grey levels (mean of a 5×5 window); pixels that differ more are ignored; 0 = none
    most_ignored: float = 0.5  # share of the pixels outside the first class; above it the image is refused, because a
    # large background that came out well must not stand for a figure that did not
    refuse_flagged: bool = True  # also refuse images outside the generator's domain

    def __post_init__(self) -> None:
        if not 0 <= self.most_ignored <= 1:
            raise UsageError(f"got most_ignored {self.most_ignored}", wanted="a share from 0 to 1")
        if self.highest_error <= 0 or self.ignore_above < 0:
            raise UsageError(
                f"got errors {self.highest_error} and {self.ignore_above}", wanted="grey levels above 0, and 0 or more"
            )


@dataclass
class RealExemplars:
    """The outcome of the images looked at: exemplars, their images by name, and why others were refused."""

    exemplars: list[Exemplar] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ignored: list[float] = field(default_factory=list)  # share of each exemplar's pixels
    errors: list[float] = field(default_factory=list)  # grey levels
    refused: dict[str, str] = field(default_factory=dict)

    def table(self) -> list[dict[str, str | float]]:
        """One row an exemplar: name, reconstruction error in grey levels, share of its pixels that is ignored."""
        rows = zip(self.names, self.errors, self.ignored, strict=True)
        return [{"name": n, "error": round(e, 2), "ignored": round(i, 4)} for n, e, i in rows]


@dataclass(frozen=True)
class RealImages:
    """Real annotated images that become exemplars: where they are, how they are projected, what is accepted."""

    path: Path
    split: int | None = None  # of an HDF5 file
    limits: RealSettings = field(default_factory=RealSettings)
    projecting: ProjectSettings = field(default_factory=ProjectSettings)

    def labels(self, dataset: Path, classes: str | None, preset: str) -> LabelMap:
        """Class names: those given, else of the images' labels.json or HDF5 attribute, else as `known_labels`."""
        if classes is None and self.path.is_file() and (named := classes_of(self.path)):
            return LabelMap(named)
        return known_labels(self.path if self.path.is_dir() else None, dataset, classes, preset)

    def project(self, source: Source, labels: LabelMap, shots: int) -> Stage[RealExemplars]:
        """The first `shots` images that the generator of `source` can draw. UsageError where there are fewer.

        Latents, reconstructions and the masks as used are kept in DATASET/exemplars/real.
        """
        spec = source.generator.spec
        images = annotated_images(self.path, labels, spec.resolution, spec.image_channels, self.split)
        projecting = replace(self.projecting, class_index=source.settings.class_index)
        projector = Projector(source.generator, projecting, source.device)
        found = yield from real_exemplars(projector, images, shots, self.limits, source.folder / EXEMPLARS / "real")
        if len(found.exemplars) < shots:
            reasons = "".join(f"\n  {name}: {reason}" for name, reason in found.refused.items())
            raise UsageError(
                f"got {len(found.exemplars)} of {shots} real exemplars that the generator can draw{reasons}",
                wanted=f"{shots}",
                remedy="bring more images, fewer --shots, or allow a higher --real-error",
            )
        return found


def real_exemplars(
    projector: Projector, images: list[AnnotatedImage], shots: int, settings: RealSettings, folder: Path
) -> Stage[RealExemplars]:
    """Project images in their order until `shots` are accepted; latents are kept in `folder` and used again.

    UsageError for noise that is free: an exemplar's features must come from latents alone.
    """
    if projector.settings.inversion.space == "w+n":
        raise UsageError("got --space w+n for exemplars", wanted="w or w+")
    folder.mkdir(parents=True, exist_ok=True)
    found, at, record = RealExemplars(), 0, projector.record()
    while len(found.exemplars) < shots and at < len(images):
        part = images[at : at + min(projector.settings.batch_size, shots - len(found.exemplars))]
        new = [image for image in part if not _is_kept(_latent_file(folder, image), image, record)]
        if new:
            if projector.calibration is None:
                yield from projector.calibrate()
            made = yield from projector.project(np.stack([image.image for image in new]), _progress(found, shots))
            for image, projection in zip(new, made, strict=True):
                save_projection(_latent_file(folder, image), projection, record | {"image": _digest(image)})
        for offset, image in enumerate(part):
            reason = _accept(projector, image, REAL_SEEDS + at + offset, settings, folder, found)
            if reason:
                found.refused[image.name] = reason
        at += len(part)
        yield _progress(found, shots)
    return found


def _progress(found: RealExemplars, shots: int) -> Progress:
    return Progress("project", len(found.exemplars), shots, "exemplars", {"refused": len(found.refused)})


def usable_mask(mask: np.ndarray, image: np.ndarray, drawn: np.ndarray, ignore_above: float) -> np.ndarray:
    """mask [S,S] with 255 where the images [S,S,c] differ by more than `ignore_above` grey levels in a 5×5 mean."""
    if not ignore_above:
        return mask.copy()
    differs = np.abs(image.astype(np.float32) - drawn.astype(np.float32)).mean(axis=2)
    padded = np.pad(differs, SMOOTH // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SMOOTH, SMOOTH))
    return np.where(windows.mean(axis=(2, 3)) > ignore_above, np.uint8(IGNORE), mask)


def _accept(
    projector: Projector, image: AnnotatedImage, seed: int, settings: RealSettings, folder: Path, found: RealExemplars
) -> str:
    """Add a projected image to those found. Returns why it is refused, "" where it is not."""
    projection, noise = load_projection(_latent_file(folder, image)), projector.settings.noise
    drawn, _ = draw(projector.generator, projection, noise, None, projector.device)
    save_png(folder / f"{image.name}.reconstruction.png", drawn)
    error = pixel_error(image.image, drawn)
    if settings.refuse_flagged and projection.flagged:
        return f"outside the generator's domain: {projection.facts['reason']}"
    if error > settings.highest_error:
        return f"reconstruction off by {error:.1f} grey levels, over {settings.highest_error:g}"
    mask = usable_mask(image.mask, image.image, drawn, settings.ignore_above)
    if (mask == IGNORE).all():
        return "no pixel of the reconstruction is near enough"
    figure = (image.mask != 0) & (image.mask != IGNORE)
    lost = float((mask[figure] == IGNORE).mean()) if figure.any() else 0.0
    if lost > settings.most_ignored:
        return f"{100 * lost:.0f} % of what is painted outside the first class came out otherwise"
    save_png(folder / f"{image.name}.mask.png", mask)
    found.exemplars.append(Exemplar(projection.ws.cpu(), seed, mask, noise))
    found.names.append(image.name)
    found.errors.append(error)
    found.ignored.append(float((mask == IGNORE).mean() - (image.mask == IGNORE).mean()))
    return ""


def _latent_file(folder: Path, image: AnnotatedImage) -> Path:
    return folder / f"{image.name}.latent.safetensors"


def _is_kept(path: Path, image: AnnotatedImage, record: dict[str, Any]) -> bool:
    """Whether an earlier run projected the same image under the same settings."""
    return path.exists() and load_with_record(path)[1] == record | {"image": _digest(image)}


def _digest(image: AnnotatedImage) -> str:
    return hashlib.sha256(np.ascontiguousarray(image.image).tobytes()).hexdigest()
