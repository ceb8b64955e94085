"""The stage `predict`: a student on image files of any kind and size; what cannot be read is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gansegctl.choices import OUTPUTS
from gansegctl.contracts import Progress, Stage
from gansegctl.errors import UsageError
from gansegctl.io import run_folder
from gansegctl.io.digest import file_digest
from gansegctl.io.image import indexed, save_png
from gansegctl.pipeline.inputs.images import Outcome, named_images, read_or_refuse
from gansegctl.students.large_images import label_image
from gansegctl.students.student import Student
from gansegctl.visualize.sheets import overlay

RECORD = "predict.json"
FILES = {"mask": ".mask.png", "grey": ".mask-grey.png", "confidence": ".confidence.png", "overlay": ".overlay.png"}
SMALL = 1 << 20  # pixels up to which images of one size go through the network together
ROOM = 256 << 20  # bytes of the probabilities of one such pass, as float32: a few times that is held at its height
SHOWN = 2048  # pixels of an overlay's longer side at most: it is for looking at


@dataclass(frozen=True)
class PredictSettings:
    """tile: side in pixels of the windows an image is labelled in, 0 = all of it resized. outputs: of OUTPUTS."""

    tile: int = 0
    outputs: tuple[str, ...] = ("mask", "overlay")
    batch_size: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(dict.fromkeys(self.outputs)))
        unknown = [o for o in self.outputs if o not in OUTPUTS]
        if unknown or not self.outputs:
            raise UsageError(f"got outputs {', '.join(self.outputs) or 'none'}", wanted=", ".join(OUTPUTS))
        if self.tile < 0 or self.batch_size < 1:
            raise UsageError(
                f"got --tile {self.tile}, --batch-size {self.batch_size}", wanted="0 or more, and 1 or more"
            )


def predict(
    student: Path,
    images: Sequence[Path],
    out: Path,
    device: str = "cpu",
    settings: PredictSettings | None = None,
) -> Stage[Outcome]:
    """Write the outputs of every image below OUT, in the folders it came from; finished ones are skipped.

    A file that cannot be read, or is too large for memory, is refused, and the others are done. Errors: UsageError for
    two images of one name, none at all, or an OUT begun with another student or tile.
    """
    settings = settings or PredictSettings()
    model = Student.load(student, device)
    files, refused = named_images(images), dict[str, str]()
    record = {"student": file_digest(student), "tile": settings.tile}  # masks of two must not lie side by side
    run_folder.begin(out, record, RECORD, notes={"outputs": settings.outputs}, indent=None)
    skipped = 0
    pending: list[tuple[str, np.ndarray]] = []

    def flush() -> None:
        _label(model, pending, out, settings, refused, files)
        pending.clear()

    for i, (name, file) in enumerate(files.items()):
        if all((out / (name + FILES[o])).exists() for o in settings.outputs):
            skipped += 1
        elif (image := read_or_refuse(file, model.channels, refused)) is not None:
            if pending and image.shape != pending[-1][1].shape:
                flush()
            pending.append((name, image))
            if len(pending) >= _images_a_pass(image, model, settings):
                flush()
        if i + 1 == len(files):
            flush()
        yield Progress("predict", i + 1, len(files), "images", {"skipped": skipped, "refused": len(refused)})
    return Outcome(len(files), skipped, refused)


def _images_a_pass(image: np.ndarray, model: Student, settings: PredictSettings) -> int:
    """How many images of this size go through the network together; 0 for one that `label_image` is for."""
    pixels = image.shape[0] * image.shape[1]
    if settings.tile or pixels > SMALL:
        return 0
    return min(settings.batch_size, ROOM // (4 * pixels * len(model.labels)))


def _label(
    model: Student,
    images: list[tuple[str, np.ndarray]],
    out: Path,
    settings: PredictSettings,
    refused: dict[str, str],
    files: dict[str, Path],
) -> None:
    """Label and write images of one size, or one of any."""
    if not images:
        return
    try:
        if _images_a_pass(images[0][1], model, settings):
            found = model.predict(torch.from_numpy(np.stack([p for _, p in images])))
            rows = list(zip(found.labels.cpu().numpy(), found.confidence.cpu().numpy(), strict=True))
        else:
            rows = [label_image(model, p, settings.tile) for _, p in images]
    except (MemoryError, torch.OutOfMemoryError) as e:
        for name, image in images:
            refused[str(files[name])] = f"{image.shape[1]}x{image.shape[0]} pixels are more than memory holds ({e})"
        return
    for (name, image), (labels, confidence) in zip(images, rows, strict=True):
        _write(out / name, image, labels, confidence, model, settings)


def _write(
    stem: Path,
    image: np.ndarray,
    labels: np.ndarray,
    confidence: np.ndarray,
    model: Student,
    settings: PredictSettings,
) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind in sorted(settings.outputs, key=lambda o: o == "mask"):  # the mask last
        path = stem.with_name(stem.name + FILES[kind])
        if kind == "mask":
            save_png(path, indexed(labels, model.labels.flat_palette()))
        elif kind == "overlay":
            save_png(path, _overlay(image, labels, model))
        else:
            save_png(path, labels if kind == "grey" else confidence)


def _overlay(image: np.ndarray, labels: np.ndarray, model: Student) -> np.ndarray:
    """Every n-th pixel where the image is larger than a screen."""
    n = -(-max(labels.shape) // SHOWN)
    return overlay(np.ascontiguousarray(image[::n, ::n]), np.ascontiguousarray(labels[::n, ::n]), model.labels)
