"""The shots of `make bench-real`: annotated exemplars from real images through projection, or from labelled samples."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gansegctl.contracts import Exemplar, Result, Stage
from gansegctl.errors import GansegError, UsageError
from gansegctl.labels import IGNORE
from gansegctl.pipeline.annotate.real_images import RealExemplars, real_exemplars
from gansegctl.pipeline.annotate.source import REAL_SEEDS
from gansegctl.pipeline.inputs.generators import latents_of_seeds
from gansegctl.pipeline.inputs.labelled_sets import AnnotatedImage
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.project.projector import Projector, load_projection
from gansegctl.pipeline.project.stage import calibrate
from gansegctl.students.student import predict_masks

if TYPE_CHECKING:
    from benchmarks.real.plan import Measured

FIRST_EXEMPLAR = 2_000_000


class Shots:
    """The exemplars of a bench: each set is made once, for all methods, and where that fails also once."""

    def __init__(self, bench: Measured) -> None:
        self.bench = bench
        self.made: dict[tuple, tuple[list[Exemplar], dict] | GansegError] = {}
        self._projector: Projector | None = None

    def units(self, draw: int) -> list[list[int]]:
        """The units of shots, in the draw's order: images, or of each patient some slices, evenly apart."""
        order = self.bench.order(draw)
        if self.bench.plan.unit == "image":
            return [[int(i)] for i in order]
        found = []
        for patient in dict.fromkeys(self.bench.train.group[order].tolist()):
            slices = np.flatnonzero(self.bench.train.group == patient)
            apart = np.linspace(0, len(slices) - 1, min(self.bench.plan.slices, len(slices)))
            found.append(slices[apart.round().astype(int)].tolist())
        return found

    def exemplars(self, generator, source: str, shots: int, draw: int) -> tuple[list[Exemplar], dict]:
        """Annotated exemplars, and what making them took: once for all methods, and where it fails also once."""
        key = (source, shots, draw)
        if key not in self.made:
            make = {"real": self._real, "chosen": self._chosen, "sampled": self._sampled}[source]
            try:
                self.made[key] = make(generator, shots, draw)
            except GansegError as e:
                self.made[key] = e
        if isinstance(found := self.made[key], GansegError):
            raise found
        return found

    def _sampled(self, generator, shots: int, draw: int) -> tuple[list[Exemplar], dict]:
        reference, began = self.bench.supervised(0, 0), time.perf_counter()
        count = shots if self.bench.plan.unit == "image" else shots * self.bench.plan.slices
        seeds = list(range(FIRST_EXEMPLAR + 1000 * draw, FIRST_EXEMPLAR + 1000 * draw + count))
        ws = latents_of_seeds(generator, seeds, device=self.bench.device)
        image, _ = image_and_mask(generator, ws, seeds, "const", None)
        masks = predict_masks(reference, image)
        found = [Exemplar(ws[i : i + 1], s, masks[i]) for i, s in enumerate(seeds)]
        return found, {"seconds_of_exemplars": round(time.perf_counter() - began, 1)}

    def _real(self, generator, shots: int, draw: int) -> tuple[list[Exemplar], dict]:
        """The first `shots` units of which the generator can draw an image. UsageError for too few of 10 + 5·shots."""
        units, found = self.units(draw)[: 10 + 5 * shots], _Projected()
        while len(found.units) < shots and found.looked_at < len(units):
            at = found.looked_at
            found.add(units[at : at + shots - len(found.units)], self._project(generator, units, at, shots, found))
        return self._as_shots(found, list(range(len(found.units))), shots)

    def _chosen(self, generator, shots: int, draw: int) -> tuple[list[Exemplar], dict]:
        """Of the first `candidates` those that show the most classes in their usable masks, then the best drawn ones.

        What a person sees at a glance, who is to annotate few images and is free to choose.
        """
        each = self.bench.plan.slices if self.bench.plan.unit == "patient" else 1
        units, found = self.units(draw)[: max(shots, self.bench.plan.candidates // each)], _Projected()
        found.add(units, self._project(generator, units, 0, len(units), found))
        ranks = []
        for place, unit in enumerate(found.units):
            shown = set(np.unique(np.concatenate([e.mask.ravel() for e, _, _ in unit])).tolist()) - {IGNORE}
            ranks.append((-len(shown), statistics.mean(error for _, error, _ in unit), place))
        return self._as_shots(found, [place for *_, place in sorted(ranks)][:shots], shots)

    def _project(self, generator, units: list[list[int]], at: int, wanted: int, found: _Projected) -> RealExemplars:
        """The verdicts on the next units' images; `found` gets the seconds they took."""
        if self._projector is None:
            settings = self.bench.plan.project
            if settings.calibration:  # verdicts by what real training images cost, not by the generator's own samples
                settings = replace(settings, known=str(self.bench.images()))
            self._projector = Projector(generator, settings, self.bench.device)
            for _ in calibrate(self._projector, self.bench.folder / "calibration.json"):
                pass
        bench, folder = self.bench, self.bench.folder / "projected"
        part = units[at : at + wanted - len(found.units)]
        images = [AnnotatedImage(f"{i:06d}", bench.train.image[i], bench.train.mask[i]) for unit in part for i in unit]
        judged = _printed(real_exemplars(self._projector, images, len(images), bench.plan.limits, folder))
        found.seconds += sum(seconds_of(folder / f"{p.name}.latent.safetensors") for p in images)
        return judged

    def _as_shots(self, found: _Projected, places: list[int], shots: int) -> tuple[list[Exemplar], dict]:
        if len(places) < shots:
            reasons = "".join(f"\n  {name}: {reason}" for name, reason in list(found.refused.items())[:3])
            raise UsageError(
                f"got {len(places)} of {shots} {self.bench.plan.unit}s that the generator can draw; "
                f"of {found.looked_at} looked at, {len(found.refused)} images were refused{reasons}",
                wanted=f"{shots}",
                remedy="train longer (--images), or ask for fewer --shots",
            )
        taken = [image for place in places for image in found.units[place]]
        exemplars = [replace(e, seed=REAL_SEEDS + i) for i, (e, _, _) in enumerate(taken)]
        ignored = [float((e.mask == IGNORE).mean()) for e, _, _ in taken]
        facts = {"chosen": [int(name) for _, _, name in taken], "refused": len(found.refused)}
        facts |= {"looked_at": found.looked_at, "error": statistics.mean(error for _, error, _ in taken)}
        return exemplars, facts | {"ignored": statistics.mean(ignored), "seconds_of_exemplars": round(found.seconds, 1)}


def _printed(stage: Stage[Result]) -> Result:
    """Run a stage to its end, with a line for every step of it."""
    done = -1
    while True:
        try:
            event = next(stage)
        except StopIteration as end:
            return end.value
        if event.done != done:
            print(f"{event.stage}: {event.done}/{event.total}", event.facts, flush=True)
        done = event.done


@dataclass
class _Projected:
    """Units (images, patients) of which something was accepted, each as (exemplar, error, name) an image."""

    units: list[list[tuple[Exemplar, float, str]]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    looked_at: int = 0
    seconds: float = 0.0

    def add(self, units: list[list[int]], what: RealExemplars) -> None:
        accepted = {
            name: (e, error, name) for e, error, name in zip(what.exemplars, what.errors, what.names, strict=True)
        }
        for unit in units:
            if found := [accepted[f"{i:06d}"] for i in unit if f"{i:06d}" in accepted]:
                self.units.append(found)
        self.refused |= what.refused
        self.looked_at += len(units)


def seconds_of(latent: Path) -> float:
    """Seconds that the projection of an image took, in whichever run it was made."""
    return float(load_projection(latent).facts["seconds"]) if latent.exists() else 0.0
