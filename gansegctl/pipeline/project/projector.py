"""Real images to latents and back. The generator, its latent space and the measure of likeness are made once."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Generator, Progress, Segmenter, Stage
from gansegctl.errors import UsageError
from gansegctl.generators.inversion.latent_space import LatentSpace
from gansegctl.generators.inversion.out_of_domain import LEAST, Calibration, Verdict, joined, varied_samples
from gansegctl.generators.inversion.perceptual import choose_perceptual
from gansegctl.generators.inversion.search import Inversion, InversionSettings, Inverted, check_noise_maps, synthesize
from gansegctl.io.digest import file_digest
from gansegctl.io.image import from_uint8, to_uint8
from gansegctl.io.tensors import FileKind
from gansegctl.pipeline.inputs.generators import check_class
from gansegctl.pipeline.inputs.images import image_files, load_images, splits_of

FIELDS = {"facts": dict, "record": dict}
FILE = FileKind("gansegctl.latents", "projected latents", "delete {path}: it is made again", FIELDS)


@dataclass(frozen=True)
class ProjectSettings:
    """The settings that determine a projection; verdicts are described in `generators.inversion.out_of_domain`."""

    inversion: InversionSettings = field(default_factory=InversionSettings)
    perceptual: str = "auto"  # of choices.MEASURES
    discriminator: str = ""  # file, for the measure of that name
    noise: str = "const"  # const | none
    class_index: int | None = None  # of a conditional generator
    calibration: int = 32  # images that verdicts are measured against, 0 = no verdicts
    known: str = ""  # file or folder of these images; "" = the generator's own samples
    batch_size: int = 8  # images at once

    def __post_init__(self) -> None:
        if self.noise not in ("const", "none"):
            raise UsageError(
                f"got --noise {self.noise}", wanted="const | none", remedy="a real image has no seed; see --space w+n"
            )
        if self.batch_size < 1:
            raise UsageError(f"got --batch-size {self.batch_size}", wanted="at least 1")
        if self.calibration and self.calibration < LEAST:
            raise UsageError(f"got --calibration {self.calibration}", wanted=f"{LEAST} or more, or 0 for no verdicts")


@dataclass
class Projection:
    """One image: ws [1,num_ws,w], maps [1,1,r,r] a layer or None, and numbers about it as JSON values."""

    ws: Tensor
    maps: list[Tensor] | None
    facts: dict[str, Any]

    @property
    def flagged(self) -> bool | None:
        """Whether it lies outside the generator's domain; None where nobody asked."""
        return self.facts.get("flagged")


class Projector:
    """Holds what all images share. Errors: UsageError for settings that the generator cannot serve."""

    def __init__(self, generator: Generator, settings: ProjectSettings, device: str = "cpu") -> None:
        check_class(generator, settings.class_index)
        if settings.inversion.space == "w+n":
            check_noise_maps(generator)
        spec = generator.spec
        path = Path(settings.discriminator) if settings.discriminator else None
        self.measure = choose_perceptual(settings.perceptual, path, spec.resolution, spec.image_channels, device)
        self.generator, self.settings, self.device = generator, settings, device
        samples, class_index = settings.inversion.samples, settings.class_index
        self.latent_space = LatentSpace.of(generator, samples, settings.noise, class_index, device)
        self.calibration: Calibration | None = None

    def record(self) -> dict[str, Any]:
        """All that a projection depends on, as JSON values: those of one record can lie in one folder."""
        table = asdict(self.settings)
        del table["batch_size"], table["discriminator"]
        path = self.settings.discriminator
        digest = file_digest(path) if path else ""
        table["known"] = digest_of_images(Path(self.settings.known)) if self.settings.known else ""
        table |= {"generator": self.generator.sha256, "perceptual": self.measure.name, "discriminator": digest}
        return json.loads(json.dumps(table))

    def calibrate(self) -> Stage[None]:
        """Invert images of the domain, so that `project` can flag others; nothing without `calibration` or `known`."""
        s = self.settings
        if s.known:
            spec = self.generator.spec
            known, count = Path(s.known), max(s.calibration, LEAST)
            images = load_images(known, spec.resolution, spec.image_channels)[:count]
            source = f"images of {known.name}"
            if splits := splits_of(known):  # nothing learns from them, so no choice is asked for
                source += f" (its first {len(images)}, whatever of its splits {', '.join(map(str, splits))})"
            target = _tensor(images, self.device)
        elif s.calibration:
            target = varied_samples(self.generator, s.calibration, self.latent_space.class_vector, self.device)
            source = "its own samples"
        else:
            return
        batches: list[Inverted] = []
        at = Progress("calibrate", 0, len(target))
        for batch in target.split(s.batch_size):
            batches.append((yield from self._invert(batch, at)))
            at = replace(at, done=at.done + len(batch))
        self.calibration = Calibration.of(joined(batches), source)
        yield at

    def project(self, images: np.ndarray, at: Progress) -> Stage[list[Projection]]:
        """images uint8 [N,H,W,c] of the generator's size → N projections. Events are `at`, with the step beside."""
        began = time.perf_counter()
        inverted = yield from self._invert(_tensor(images, self.device), at)
        projections = []
        verdicts: list[Verdict | None] = [None] * len(images)
        if self.calibration is not None:
            verdicts = list(self.calibration.judge(inverted))
        seconds = (time.perf_counter() - began) / len(images)
        for i, verdict in enumerate(verdicts):
            maps = None if inverted.maps is None else [m[i : i + 1] for m in inverted.maps]
            facts: dict[str, Any] = {
                name: float(getattr(inverted, name)[i]) for name in ("error", "start_error", "nearest", "distance")
            }
            facts |= {"steps": int(inverted.steps[i]), "seconds": round(seconds, 2)}
            if verdict is not None:
                facts |= {"flagged": verdict.flagged, "score": round(verdict.score, 3), "reason": verdict.reason}
            projections.append(Projection(inverted.ws[i : i + 1], maps, facts))
        return projections

    def _invert(self, target: Tensor, at: Progress) -> Stage[Inverted]:
        job = Inversion(self.generator, target, self.latent_space, self.measure, self.settings.inversion)
        steps = job.run()
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return end.value
            yield replace(at, facts=at.facts | {"step": f"{step}/{job.total_steps}"})


def digest_of_images(path: Path) -> str:
    """sha256 of a file, or of a folder's images and their names: what lies there now, wherever it lies."""
    if path.is_file():
        return file_digest(path)
    of_all = hashlib.sha256()
    for file in image_files(path):
        of_all.update(file.relative_to(path).as_posix().encode() + b"\0" + bytes.fromhex(file_digest(file)))
    return of_all.hexdigest()


@torch.no_grad()
def draw(
    generator: Generator, projection: Projection, noise: str, segmenter: Segmenter | None = None, device: str = "cpu"
) -> tuple[np.ndarray, Annotation | None]:
    """The reconstruction uint8 [H,W,c] and, from the very activations that made it, what the segmenter says of it."""
    maps = None if projection.maps is None else [m.to(device) for m in projection.maps]
    taps = segmenter.taps if segmenter else ()
    synthesis = synthesize(generator, projection.ws.to(device), noise, maps, taps)
    synthesis.ws, synthesis.noise, synthesis.seeds = projection.ws.to(device), noise, (0,)
    annotation = segmenter.predict(generator, synthesis) if segmenter else None
    return to_uint8(synthesis.image)[0], annotation


def pixel_error(image: np.ndarray, drawn: np.ndarray) -> float:
    """Root mean square difference of two uint8 images, in grey levels (0 to 255)."""
    return float(np.sqrt(np.mean((image.astype(np.float32) - drawn.astype(np.float32)) ** 2)))


def save_projection(path: Path, projection: Projection, record: dict[str, Any]) -> None:
    """One safetensors file: ws [num_ws,w], noise.i [r,r], and in its header the facts and the record."""
    tensors = {"ws": projection.ws[0]} | {f"noise.{i}": m[0, 0] for i, m in enumerate(projection.maps or ())}
    FILE.write(path, tensors, {"facts": projection.facts, "record": record})


def load_projection(path: Path) -> Projection:
    """The inverse of `save_projection`. UsageError for a damaged file, or another kind of file."""
    return load_with_record(path)[0]


def load_with_record(path: Path) -> tuple[Projection, dict[str, Any]]:
    """A projection and the record it was saved with. Errors as `load_projection`."""
    header, tensors = FILE.read(path)
    if "ws" not in tensors or any(f"noise.{i}" not in tensors for i in range(len(tensors) - 1)):
        raise UsageError(
            f"got {path} with the tensors {', '.join(sorted(tensors)[:5]) or 'none'}",
            wanted="ws, and noise.0, noise.1 … of its layers",
            remedy=FILE.remedy.format(path=path),
        )
    maps = [tensors[f"noise.{i}"][None, None] for i in range(len(tensors) - 1)]
    return Projection(tensors["ws"][None], maps or None, header["facts"]), header["record"]


def _tensor(images: np.ndarray, device: str) -> Tensor:
    """uint8 [N,H,W,c] → float [N,c,H,W] in [-1,1]."""
    return from_uint8(torch.from_numpy(np.ascontiguousarray(images))).contiguous().to(device)
