"""The stage `compare`: methods x shots x exemplars x seeds on one generator and one truth, resumable run by run.

Every method sees the same exemplars and is scored on the same fresh samples. The truth is a labeller, whose masks are
also the exemplars': a person's mask would differ from it by about the labeller's own error. A method that fails is
told in its row, and the others are measured all the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gansegctl import methods
from gansegctl.config import from_dict
from gansegctl.contracts import Exemplar, Generator, Method, Progress, Segmenter
from gansegctl.errors import GansegError, UsageError
from gansegctl.evaluate import confusion
from gansegctl.evaluate.coverage import gain
from gansegctl.evaluate.matching import are_segments, match_segments, overlap_of
from gansegctl.evaluate.report import Report, score
from gansegctl.io.atomic import write_bytes, write_text
from gansegctl.io.digest import file_digest
from gansegctl.io.image import save_png
from gansegctl.io.run_folder import read_record, require_same
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.compare.table import measured, table
from gansegctl.pipeline.evaluate import truth_path
from gansegctl.pipeline.generate.batch_size import is_out_of_memory
from gansegctl.pipeline.inputs.generators import grouped, latents_of_seeds, open_generator
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.runtime.memory import peak_extra
from gansegctl.students.student import Student, predict_masks
from gansegctl.visualize.sheets import overlay, panel_sheet

ROWS, SHEET = "rows.json", "sheet.png"
SHOWN = 6  # samples on the sheet
SCORES = ("miou", "wiou_tritrong", "wiou_tritrong_foreground", "wiou_manerikar", "pixel_accuracy", "trimap_miou")
BEFORE = {"truncation": 1.0}  # what rows.json means where it was written without these
LONGEST = 600  # characters of an error that are kept

Job = tuple[str, int, int, int]
"""Method, shots, draw, seed: what names a row."""


@dataclass(frozen=True)
class CompareSettings:
    """methods: "NAME" or "NAME:key=value,…". Exemplars of draw d are `shots` seeds from first_exemplar + 100·d on.

    truncation: psi of exemplars and samples alike, 1 = none. Errors: UsageError for values out of range, or a method or
    setting that there is not.
    """

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
    truncation: float = 1.0

    def __post_init__(self) -> None:
        for name in ("draws", "seeds", "num", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}", wanted="at least 1")
        if not math.isfinite(self.truncation):
            raise UsageError(f"got truncation {self.truncation}", wanted="a number, 1 for none")
        if not self.methods or not self.shots or min(self.shots) < 0 or max(self.shots) > 100:
            raise UsageError(f"got methods {self.methods}, shots {self.shots}", wanted="one method, 0 to 100 shots")
        for text in self.methods:
            parse_method(text)


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """ "repurpose:head=mlp,steps=100" → name and options, checked against the method's own settings.

    A comma parts options only before the next `name=`, so that "hidden=128,64" and "hidden=[128,64]" are one option.
    Errors: UsageError for an unknown method or setting, or a value of the wrong type.
    """
    name, _, rest = text.partition(":")
    options = {}
    for part in filter(None, re.split(r",\s*(?=[A-Za-z_]\w*=)", rest.strip(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"got {part!r} in {text!r}", wanted="key=value")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    from_dict(methods.get(name).settings_type, options, name)
    return name, options


class SettingsChanged(UsageError):
    """A method is fitted with other settings than those of its finished rows: its defaults are not what they were."""


class Bench:
    """The generator, the truth of the fresh samples, and exemplars by draw; made once for all runs."""

    def __init__(self, settings: CompareSettings, device: str = "cpu") -> None:
        self.settings, self.device = settings, device
        self.generator: Generator = open_generator(settings.generator, device)
        path, kind = truth_path(settings.against)
        if kind != "student":
            raise UsageError(f"got {settings.against}", wanted="a labeller: a student's file, or a preset with one")
        self.labeller = Student.load(path, device)
        self.truth_digest = file_digest(path)
        self.samples = list(range(settings.first_sample, settings.first_sample + settings.num))
        images, masks = [], []
        for batch in grouped(self.samples, settings.batch_size):
            image, _ = image_and_mask(self.generator, self._ws(batch), batch, "const", None)
            images.append(image)
            masks.append(predict_masks(self.labeller, image))
        self.images, self.masks = np.concatenate(images), np.concatenate(masks)

    def _ws(self, seeds: Sequence[int]) -> torch.Tensor:
        return latents_of_seeds(self.generator, seeds, self.settings.truncation, device=self.device)

    def exemplars(self, draw: int, shots: int) -> list[Exemplar]:
        """The first `shots` of a draw, annotated by the labeller."""
        first = self.settings.first_exemplar + 100 * draw
        seeds = list(range(first, first + shots))
        if not seeds:
            return []
        ws = self._ws(seeds)
        image, _ = image_and_mask(self.generator, ws, seeds, "const", None)
        masks = predict_masks(self.labeller, image)
        return [Exemplar(ws[i : i + 1], s, masks[i]) for i, s in enumerate(seeds)]

    def run(
        self, text: str, shots: int, draw: int, seed: int, known: str | None = None
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Fit and score once → a row, and the masks uint8 [n,H,W] of the samples that the sheet shows.

        known: the `settings_digest` of finished rows of this method and number of shots, if they have one. Errors:
        SettingsChanged, before anything is scored, where this fit's is another; those of the method.
        """
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
            result["settings"] = settings_digest(segmenter)
            if known and result["settings"] and result["settings"] != known:
                raise SettingsChanged(
                    f"got {text} at {shots} shots fitted with other settings than in its finished rows "
                    f"(digest {result['settings']}, theirs {known}): its defaults have changed since",
                    wanted="rows of one method that were all fitted with the same settings",
                    remedy=f"delete those rows of {text} from {ROWS}, or choose another -o",
                )
            result["scored"] = self._score(segmenter)

        peak = peak_extra(fit_and_score, self.device)
        report, foreground, masks, seconds, alone = result["scored"]
        row = {"method": text, "shots": shots, "draw": draw, "seed": seed, "settings_digest": result["settings"]}
        row |= {name: float(report.scores[name]) for name in SCORES}
        row["foreground_miou"] = foreground
        row["gain_10"] = gain_10(report)
        row["iou"] = {n: float(v) for n, v in zip(labels.names, report.iou, strict=True)}
        row["fit_seconds"] = round(result["fit_seconds"], 2)
        # What a mask takes beyond its image; unknown where noise of the clock hides it.
        row["masks_per_second"] = round(len(self.samples) / (seconds - alone), 1) if seconds > alone else float("nan")
        row["pair_over_image"] = round(seconds / alone, 3)
        row["peak_mb"] = float("nan") if peak is None else round(peak / 2**20, 1)
        row["parameters"] = parameters_of(result["segmenter"])
        return row, masks

    def _score(self, segmenter: Segmenter) -> tuple[Report, float, np.ndarray, float, float]:
        """Report, fg/bg mIoU, masks to show, seconds of all pairs and, each batch beside them, of images alone."""
        labels, parts, doubts, seconds, alone = self.labeller.labels, [], [], 0.0, 0.0
        for batch in grouped(self.samples, self.settings.batch_size):
            ws = self._ws(batch)
            began = time.perf_counter()
            _, annotation = image_and_mask(self.generator, ws, batch, "const", segmenter)
            seconds += time.perf_counter() - began
            began = time.perf_counter()
            image_and_mask(self.generator, ws, batch, "const", None)
            alone += time.perf_counter() - began
            parts.append(annotation.labels.cpu().numpy())
            doubts.append(None if annotation.score is None else annotation.score.float().cpu().numpy())
        masks, own, foreground = np.concatenate(parts), segmenter.labels, None
        if own.names != labels.names:
            if are_segments(own):  # background too has no name, so the truth says for two parts which is which
                two = (self.masks > 0).astype(np.uint8)
                split = match_segments(overlap_of(masks, two, len(own), 2)).astype(np.uint8)[masks]
                foreground = float(confusion.mean_iou(overlap_of(two, split, 2, 2)))
            taken = taken_for(own, labels, overlap_of(masks, self.masks, len(own), len(labels)))
            masks = taken.astype(np.uint8)[masks]
        uncertainty = None if any(d is None for d in doubts) else np.concatenate(doubts)
        report = score([(masks, self.masks, None, uncertainty)], labels, bootstrap=0, worst=0)
        if uncertainty is None or not np.isfinite(uncertainty).all() or np.ptp(uncertainty) == 0:
            report.coverage = None  # it tells no sample from another
        if foreground is None:
            foreground = float(report.scores["foreground_miou"])
        return report, foreground, masks[:SHOWN], seconds, alone


def taken_for(own: LabelMap, truth: LabelMap, overlap: np.ndarray) -> np.ndarray:
    """The class of the truth that each of a segmenter's classes counts as, int64 [k]; overlap [k,K]: common pixels.

    By name where it has names; segments without names as `match_segments` says. Of background and foreground, the
    first is the truth's first class; foreground, which is none of its classes, counts as the other one that it has the
    highest IoU with. Errors: UsageError for other names than those of the truth.
    """
    if are_segments(own):
        return match_segments(overlap)
    if set(own.names) <= set(truth.names):
        return np.array([truth.index(name) for name in own.names])
    if own.names != ("background", "foreground") or len(truth) < 2:
        raise UsageError(
            f"got classes {', '.join(own.names)}",
            wanted=f"those of the truth: {', '.join(truth.names)}",
            remedy="use the class names of the truth",
        )
    common = overlap[1, 1:]
    union = overlap[1].sum() + overlap[:, 1:].sum(0) - common
    return np.array([0, 1 + int((common / np.maximum(union, 1)).argmax())])


def gain_10(report: Report) -> float | None:
    """Points of mIoU won by keeping the most certain 90 % of the samples; None where nothing says how sure they are."""
    points = 100 * gain(report.coverage, 0.1) if report.coverage else float("nan")
    return None if math.isnan(points) else points


def settings_digest(segmenter: Segmenter) -> str | None:
    """12 hex digits that name the settings a segmenter was fitted with, defaults included; None for one without."""
    settings = getattr(segmenter, "settings", None)
    if settings is None:
        return None
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def parameters_of(segmenter: Segmenter) -> int:
    """Numbers that the segmenter stores; 0 for one without."""
    tensors = getattr(segmenter, "tensors", None)
    return sum(t.numel() for t in tensors().values()) if tensors else 0


def compare(settings: CompareSettings, out: Path, device: str = "cpu", retry: bool = False) -> Iterator[Progress]:
    """Run what is not in OUT/rows.json yet; every row is kept as soon as it is measured. OUT/sheet.png at the end.

    A run that fails, or that memory is too small for, becomes a row {method, shots, draw, seed, failed}, and the next
    one follows. retry: runs that failed before are made again. Errors: UsageError when OUT was begun with another
    generator, truth, samples or truncation, or a method's finished rows were fitted with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(settings, device)
    head = {
        "generator": bench.generator.sha256,
        "against": bench.truth_digest,
        "samples": [settings.first_sample, settings.num],
        "first_exemplar": settings.first_exemplar,
        "truncation": settings.truncation,
    }
    rows = {_key(r): r for r in read_rows(out, head)}
    done = {job for job, row in rows.items() if not (retry and "failed" in row)}
    jobs = jobs_of(settings)
    for i, job in enumerate(jobs):
        if job not in done:
            row, masks = _measure(bench, job, list(rows.values()))
            rows[job] = row
            if masks is not None and job[2] == job[3] == 0:  # before its row, which says that all of it is there
                stream = io.BytesIO()
                np.savez_compressed(stream, masks=masks)
                write_bytes(out / _sheet_name(*job[:2]), stream.getvalue())
            write_text(out / ROWS, json.dumps(head | {"rows": list(rows.values())}, indent=1) + "\n")
        facts = {k: v for k, v in rows[job].items() if k in ("method", "shots", "miou")}
        if "failed" in rows[job]:
            facts["note"] = "failed: " + rows[job]["failed"].split("\n")[0]
        yield Progress("compare", i + 1, len(jobs), "runs", facts)
    _write_sheet(bench, out, list(rows.values()))


def jobs_of(settings: CompareSettings) -> list[Job]:
    """All runs that the settings ask for, each once, in the order they are made."""
    jobs = [
        (text, shots, draw, seed)
        for shots in settings.shots
        for draw in range(settings.draws)
        for seed in range(settings.seeds)
        for text in settings.methods
        if fits(methods.get(parse_method(text)[0]), shots)
    ]
    return list(dict.fromkeys(jobs))


def failed_runs(settings: CompareSettings, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the rows that the settings ask for, those without scores."""
    asked = set(jobs_of(settings))
    return [r for r in rows if "failed" in r and _key(r) in asked]


def _measure(bench: Bench, job: Job, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], np.ndarray | None]:
    """A row of scores and the masks to show, or one that says why there are none."""
    known = (r.get("settings_digest") for r in rows if _key(r)[:2] == job[:2])
    try:
        return bench.run(*job, known=next(filter(None, known), None))
    except Exception as e:
        if isinstance(e, SettingsChanged) or not (isinstance(e, GansegError) or is_out_of_memory(e)):
            raise
        text = str(e) if isinstance(e, GansegError) else f"{type(e).__name__}: {e}"
        return dict(zip(("method", "shots", "draw", "seed"), job, strict=True)) | {"failed": text[:LONGEST]}, None


def read_rows(out: Path, head: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows measured before. UsageError when they belong to something else."""
    path = out / ROWS
    if not path.exists():
        return []
    before = BEFORE | read_record(path)
    rows = before.pop("rows", [])
    require_same(before, head, path, remedy="choose another -o, or delete it")
    return rows


def fits(method: Method, shots: int) -> bool:
    """Whether a method can be run with that many exemplars."""
    takes = method.needs | getattr(method, "takes", frozenset())
    return shots > 0 if "exemplars" in method.needs else shots == 0 or "exemplars" in takes


def _key(row: dict[str, Any]) -> Job:
    return row["method"], row["shots"], row["draw"], row["seed"]


def _sheet_name(text: str, shots: int) -> str:
    plain = "".join(c if c.isalnum() else "-" for c in text)
    return f"masks-{plain}-{shots}.npz"


def _write_sheet(bench: Bench, out: Path, measurements: Sequence[dict[str, Any]]) -> None:
    """One row a method and number of shots in the order of `table`, one column a sample; the truth first.

    Shown is the first run of each, with whatever command it was made.
    """
    labels, shown = bench.labeller.labels, bench.images[:SHOWN]
    rows = [("truth", bench.masks[:SHOWN])]
    first = {_key(r)[:2] for r in measured(measurements) if r["draw"] == r["seed"] == 0}
    for entry in table(measurements):
        text, shots = entry["method"], entry["shots"]
        path = out / _sheet_name(text, shots)
        if (text, shots) in first and path.exists():
            with np.load(path) as stored:
                rows.append((f"{text}, {shots} shots", stored["masks"]))
    panels = [[overlay(image, mask, labels) for image, mask in zip(shown, masks, strict=False)] for _, masks in rows]
    headings = [f"seed {s}" for s in bench.samples[: len(shown)]]
    legend = list(zip(labels.names, labels.colours, strict=True))
    save_png(out / SHEET, panel_sheet([list(shown), *panels], headings, ["images", *(n for n, _ in rows)], legend))
