"""The stage `compare`: methods x shots x exemplars x seeds on one generator and one truth, resumable run by run.

Every method sees the same exemplars and is scored on the same fresh samples. The truth is a labeller, whose masks are
also the exemplars': a person's mask would differ from it by about the labeller's own error.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gansegctl import methods
from gansegctl.atomic import write_bytes, write_text
from gansegctl.config import from_dict
from gansegctl.contracts import Exemplar, Generator, Progress, Segmenter
from gansegctl.errors import UsageError
from gansegctl.evaluate import confusion
from gansegctl.evaluate.matching import match_segments, overlap_of
from gansegctl.evaluate.report import Report, score
from gansegctl.pictures import overlay, panel_sheet, save_png
from gansegctl.pipeline.adversary import beyond_generator
from gansegctl.pipeline.distill import predict_masks
from gansegctl.pipeline.evaluate import truth_path
from gansegctl.pipeline.labelling import picture_and_mask
from gansegctl.pipeline.opening import grouped, latents_of_seeds, open_generator
from gansegctl.pipeline.peak import peak_extra
from gansegctl.students.student import Student

ROWS, SHEET = "rows.json", "sheet.png"
SHOWN = 6  # samples on the sheet
SCORES = ("miou", "wiou_tritrong", "wiou_manerikar", "pixel_accuracy", "trimap_miou")


@dataclass(frozen=True)
class CompareSettings:
    """methods: "NAME" or "NAME:key=value,…". Exemplars of draw d are `shots` seeds from first_exemplar + 100·d on."""

    generator: str
    against: str
    methods: tuple[str, ...]
    shots: tuple[int, ...] = (1,)
    draws: int = 5
    seeds: int = 3
    num: int = 300
    batch_size: int = 20
    first_exemplar: int = 2_000_000
    first_sample: int = 3_000_000

    def __post_init__(self) -> None:
        for name in ("draws", "seeds", "num", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}", wanted="at least 1")
        if not self.methods or not self.shots or min(self.shots) < 0 or max(self.shots) > 100:
            raise UsageError(f"got methods {self.methods}, shots {self.shots}", wanted="one method, 0 to 100 shots")
        for text in self.methods:
            parse_method(text)


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """ "repurpose:head=mlp,steps=100" → name and options, checked against the method's own settings."""
    name, _, rest = text.partition(":")
    options = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"got {part!r} in {text!r}", wanted="key=value")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    from_dict(methods.get(name).settings_type, options, name)
    return name, options


class Bench:
    """The generator, the truth of the fresh samples, and exemplars by draw; made once for all runs."""

    def __init__(self, settings: CompareSettings, device: str = "cpu") -> None:
        self.settings, self.device = settings, device
        self.generator: Generator = open_generator(settings.generator, device)
        path, kind = truth_path(settings.against)
        if kind != "student":
            raise UsageError(f"got {settings.against}", wanted="a labeller: a student's file, or a preset with one")
        self.labeller = Student.load(path, device)
        self.truth_digest = methods.digest(path)
        self.samples = list(range(settings.first_sample, settings.first_sample + settings.num))
        pictures, masks = [], []
        for batch in grouped(self.samples, settings.batch_size):
            image, _ = picture_and_mask(self.generator, self._ws(batch), batch, "const", None)
            pictures.append(image)
            masks.append(predict_masks(self.labeller, image))
        self.pictures, self.masks = np.concatenate(pictures), np.concatenate(masks)

    def _ws(self, seeds: Sequence[int]) -> torch.Tensor:
        return latents_of_seeds(self.generator, seeds, device=self.device)

    def exemplars(self, draw: int, shots: int) -> list[Exemplar]:
        """The first `shots` of a draw, annotated by the labeller."""
        first = self.settings.first_exemplar + 100 * draw
        seeds = list(range(first, first + shots))
        if not seeds:
            return []
        ws = self._ws(seeds)
        image, _ = picture_and_mask(self.generator, ws, seeds, "const", None)
        masks = predict_masks(self.labeller, image)
        return [Exemplar(ws[i : i + 1], s, masks[i]) for i, s in enumerate(seeds)]

    def run(self, text: str, shots: int, draw: int, seed: int) -> tuple[dict[str, Any], np.ndarray]:
        """Fit and score once → a row, and the masks of the samples that the sheet shows."""
        name, options = parse_method(text)
        method, labels = methods.get(name), self.labeller.labels
        exemplars = self.exemplars(draw, shots)
        settings = from_dict(method.settings_type, options, name)
        given = beyond_generator(method, self.generator, settings)
        result: dict[str, Any] = {}

        def fit_and_score() -> None:
            began = time.perf_counter()
            segmenter = method.fit(self.generator, exemplars, labels if exemplars else None, settings, seed, **given)
            result.update(segmenter=segmenter, fit_seconds=time.perf_counter() - began)
            result["scored"] = self._score(segmenter)

        peak = peak_extra(fit_and_score, self.device)
        report, foreground, masks, seconds, alone = result["scored"]
        row = {"method": text, "shots": shots, "draw": draw, "seed": seed}
        row |= {name: float(report.scores[name]) for name in SCORES}
        row["foreground_miou"] = foreground
        row["iou"] = {n: float(v) for n, v in zip(labels.names, report.iou, strict=True)}
        row["fit_seconds"] = round(result["fit_seconds"], 2)
        # What a mask takes beyond its picture; unknown where noise of the clock hides it.
        row["masks_per_second"] = round(len(self.samples) / (seconds - alone), 1) if seconds > alone else float("nan")
        row["pair_over_image"] = round(seconds / alone, 3)
        row["peak_mb"] = float("nan") if peak is None else round(peak / 2**20, 1)
        row["parameters"] = parameters_of(result["segmenter"])
        return row, masks

    def _score(self, segmenter: Segmenter) -> tuple[Report, float, np.ndarray, float, float]:
        """Report, fg/bg mIoU, masks to show, seconds of all pairs and, each batch beside them, of pictures alone."""
        labels, parts, seconds, alone = self.labeller.labels, [], 0.0, 0.0
        for batch in grouped(self.samples, self.settings.batch_size):
            ws = self._ws(batch)
            began = time.perf_counter()
            _, annotation = picture_and_mask(self.generator, ws, batch, "const", segmenter)
            seconds += time.perf_counter() - began
            began = time.perf_counter()
            picture_and_mask(self.generator, ws, batch, "const", None)
            alone += time.perf_counter() - began
            parts.append(annotation.labels.cpu().numpy())
        masks, count = np.concatenate(parts), len(segmenter.labels)
        foreground = None
        if segmenter.labels.names != labels.names:  # classes of its own: the truth names them, for these scores only
            two = (self.masks > 0).astype(np.uint8)
            split = match_segments(overlap_of(masks, two, count, 2)).astype(np.uint8)[masks]
            foreground = float(confusion.mean_iou(overlap_of(two, split, 2, 2)))
            masks = match_segments(overlap_of(masks, self.masks, count, len(labels))).astype(np.uint8)[masks]
        report = score([(masks, self.masks)], labels, bootstrap=0, worst=0)
        if foreground is None:
            foreground = foreground_miou(report.confusion)
        return report, foreground, masks[:SHOWN], seconds, alone


def foreground_miou(matrix: np.ndarray) -> float:
    """mIoU of the first class (background) against all others together."""
    two = np.array([[matrix[0, 0], matrix[0, 1:].sum()], [matrix[1:, 0].sum(), matrix[1:, 1:].sum()]])
    return float(confusion.mean_iou(two))


def parameters_of(segmenter: Segmenter) -> int:
    """Numbers that the segmenter stores; 0 for one without."""
    tensors = getattr(segmenter, "tensors", None)
    return sum(t.numel() for t in tensors().values()) if tensors else 0


def compare(settings: CompareSettings, out: Path, device: str = "cpu") -> Iterator[Progress]:
    """Run what is not in OUT/rows.json yet; every row is kept as soon as it is measured. OUT/sheet.png at the end.

    Errors: UsageError when OUT was begun with another generator, truth or samples.
    """
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(settings, device)
    head = {
        "generator": bench.generator.sha256,
        "against": bench.truth_digest,
        "samples": [settings.first_sample, settings.num],
        "first_exemplar": settings.first_exemplar,
    }
    rows = read_rows(out, head)
    done = {_key(r) for r in rows}
    jobs = [
        (text, shots, draw, seed)
        for shots in settings.shots
        for draw in range(settings.draws)
        for seed in range(settings.seeds)
        for text in settings.methods
        if _fits(text, shots)
    ]
    for i, job in enumerate(jobs):
        if job not in done:
            row, masks = bench.run(*job)
            rows.append(row)
            if job[2] == job[3] == 0:  # before its row, which says that all of it is there
                stream = io.BytesIO()
                np.savez_compressed(stream, masks=masks)
                write_bytes(out / _sheet_name(job), stream.getvalue())
            write_text(out / ROWS, json.dumps(head | {"settings": asdict(settings), "rows": rows}, indent=1) + "\n")
        facts = {k: v for k, v in next(r for r in rows if _key(r) == job).items() if k in ("method", "shots", "miou")}
        yield Progress("compare", i + 1, len(jobs), "runs", facts)
    _write_sheet(bench, out, [j for j in jobs if j[2] == j[3] == 0])


def read_rows(out: Path, head: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows measured before. UsageError when they belong to something else."""
    path = out / ROWS
    if not path.exists():
        return []
    data = json.loads(path.read_text())
    differs = [k for k, v in head.items() if data.get(k) != v]
    if differs:
        k = differs[0]
        raise UsageError(
            f"got {path}, begun with {k} {data.get(k)}, now {head[k]}",
            wanted="the same",
            remedy="choose another -o, or delete it",
        )
    return data["rows"]


def _fits(text: str, shots: int) -> bool:
    """Whether a method can be run with that many exemplars."""
    method = methods.get(parse_method(text)[0])
    takes = method.needs | getattr(method, "takes", frozenset())
    return shots > 0 if "exemplars" in method.needs else shots == 0 or "exemplars" in takes


def _key(row: dict[str, Any]) -> tuple:
    return row["method"], row["shots"], row["draw"], row["seed"]


def _sheet_name(job: tuple) -> str:
    plain = "".join(c if c.isalnum() else "-" for c in job[0])
    return f"masks-{plain}-{job[1]}.npz"


def _write_sheet(bench: Bench, out: Path, jobs: Sequence[tuple]) -> None:
    """One row a method and number of shots, one column a sample; the truth first."""
    labels, shown = bench.labeller.labels, bench.pictures[:SHOWN]
    rows = [("truth", bench.masks[:SHOWN])]
    for job in jobs:
        path = out / _sheet_name(job)
        if path.exists():
            with np.load(path) as stored:
                rows.append((f"{job[0]}, {job[1]} shots", stored["masks"]))
    panels = [[overlay(image, mask, labels) for image, mask in zip(shown, masks, strict=False)] for _, masks in rows]
    headings = [f"seed {s}" for s in bench.samples[: len(shown)]]
    legend = list(zip(labels.names, labels.colours, strict=True))
    save_png(out / SHEET, panel_sheet([list(shown), *panels], headings, ["pictures", *(n for n, _ in rows)], legend))
