"""Real images to latents and back: one generator, its world, its measure and what belongs to it, made once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gansegctl import methods
from gansegctl.contracts import Annotation, Generator, Progress, Segmenter
from gansegctl.errors import UsageError
from gansegctl.generators.inversion.latent_space import World
from gansegctl.generators.inversion.out_of_domain import LEAST, Calibration, Verdict, joined, varied_samples
from gansegctl.generators.inversion.perceptual import choose_perceptual
from gansegctl.generators.inversion.search import Inversion, InversionSettings, Inverted, check_noise_maps, synthesize
from gansegctl.io.atomic import write_bytes
from gansegctl.io.image import to_uint8
from gansegctl.pipeline.inputs.generators import check_class, grouped
from gansegctl.pipeline.inputs.images import image_files, load_images, splits_of

KIND = "gansegctl.latents"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ProjectSettings:
    """What determines a projection. calibration: own samples a verdict is measured against, 0 = no verdicts; known:
    images to measure it against instead; both as described in `generators.offdomain`."""

    inversion: InversionSettings = field(default_factory=InversionSettings)
    perceptual: str = "auto"
    discriminator: str = ""
    noise: str = "const"
    class_index: int | None = None
    calibration: int = 32
    known: str = ""
    batch_size: int = 8

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
        """Whether it lies outside the generator's world; None where nobody asked."""
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
        self.world = World.of(generator, settings.inversion.samples, settings.noise, settings.class_index, device)
        self.calibration: Calibration | None = None

    def record(self) -> dict[str, Any]:
        """What a projection depends on, as JSON values: two with the same record can lie in one folder."""
        table = asdict(self.settings)
        del table["batch_size"], table["discriminator"]
        path = self.settings.discriminator
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
        table["known"] = digest_of_images(Path(self.settings.known)) if self.settings.known else ""
        table |= {"generator": self.generator.sha256, "perceptual": self.measure.name, "discriminator": digest}
        return json.loads(json.dumps(table))

    def calibrate(self) -> Iterator[Progress]:
        """Invert what belongs, so that `project` can judge. Nothing to do with `calibration` 0 and no `known`."""
        s = self.settings
        if s.known:
            spec = self.generator.spec
            known, count = Path(s.known), max(s.calibration, LEAST)
            images = load_images(known, spec.resolution, spec.image_channels)[:count]
            source = f"images of {known.name}"
            if splits := splits_of(known):  # nothing learns from them, so a choice is not asked for, but said
                source += f" (its first {len(images)}, whatever of its splits {', '.join(map(str, splits))})"
            target = _tensor(images, self.device)
        elif s.calibration:
            target = varied_samples(self.generator, s.calibration, self.world.class_vector, self.device)
            source = "its own samples"
        else:
            return
        parts: list[Inverted] = []
        for batch in grouped(target, s.batch_size):
            for step, total in self._invert(batch, parts):
                done = sum(len(p.error) for p in parts)
                yield Progress("calibrate", done, len(target), "images", {"step": f"{step}/{total}"})
        self.calibration = Calibration.of(joined(parts), source)
        yield Progress("calibrate", len(target), len(target), "images")

    def project(self, images: np.ndarray, into: list[Projection]) -> Iterator[tuple[int, int]]:
        """images uint8 [N,H,W,c] of the generator's size; appends N projections. Yields (step, of how many)."""
        began, parts = time.perf_counter(), []
        yield from self._invert(_tensor(images, self.device), parts)
        inverted = parts[0]
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
            into.append(Projection(inverted.ws[i : i + 1], maps, facts))

    def _invert(self, target: Tensor, parts: list[Inverted]) -> Iterator[tuple[int, int]]:
        job = Inversion(self.generator, target, self.world, self.measure, self.settings.inversion)
        for step in job.run():
            yield step, job.total_steps
        parts.append(job.result)


def digest_of_images(path: Path) -> str:
    """sha256 of a file, or of a folder's images and their names: what lies there now, wherever it lies."""
    if path.is_file():
        return methods.digest(path)
    of_all = hashlib.sha256()
    for file in image_files(path):
        of_all.update(file.relative_to(path).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
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
    tensors = {"ws": projection.ws[0].detach().cpu().contiguous()}
    for i, m in enumerate(projection.maps or ()):
        tensors[f"noise.{i}"] = m[0, 0].detach().cpu().contiguous()
    header = {"kind": KIND, "format": FORMAT_VERSION, "facts": projection.facts, "record": record}
    write_bytes(path, save(tensors, {"gansegctl": json.dumps(header, sort_keys=True)}))


def load_projection(path: Path) -> Projection:
    """The inverse of `save_projection`. UsageError for a damaged file, or another kind of file."""
    try:
        with safe_open(str(path), "pt") as f:
            header = json.loads((f.metadata() or {}).get("gansegctl", "{}"))
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (OSError, SafetensorError, ValueError) as e:
        raise UsageError(f"got {path}: {e}", wanted=KIND, remedy=f"delete {path}: it is made again") from e
    if header.get("kind") != KIND or header.get("format", 0) > FORMAT_VERSION or "ws" not in tensors:
        raise UsageError(f"got {path}: {header.get('kind', 'no header of gansegctl')}", wanted=KIND)
    count = len(tensors) - 1
    maps = [tensors[f"noise.{i}"][None, None] for i in range(count)] if count else None
    return Projection(tensors["ws"][None], maps, header["facts"])


def _tensor(images: np.ndarray, device: str) -> Tensor:
    """uint8 [N,H,W,c] → float [N,c,H,W] in [-1,1]."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous().to(device)
