"""How many labels a generator saves on real pictures: k shots and a student against a U-Net on annotated pictures.

For each data set: a generator is trained on the train split's pictures alone; shots are real training pictures through
projection, or samples labelled by a labeller (the U-Net trained on the whole train split: stated, an upper bound for a
person's care); every method labels fresh samples; a student learns from those and is scored on the test split. The same
U-Net, with the same augmentation and steps, learns from 5, 10, 50, 200 and all real annotated training pictures, and
from the very pictures of the real shots.

Everything lies in WORK/NAME-RESOLUTION and is made once; every score is kept in rows.json as soon as it is measured,
below what it was measured with: other settings are refused there. A method that fails is a row too, and the others go
on. Curves and tables go into docs/. Nothing of the data, and nothing trained on it, is to be committed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from page_blocks import fill

from gansegctl import methods
from gansegctl.atomic import clean_parts, write_bytes, write_text
from gansegctl.config import from_dict
from gansegctl.contracts import Exemplar, Method
from gansegctl.errors import GansegError, UsageError
from gansegctl.evaluate.curves import labels_to_match, learning_curve
from gansegctl.evaluate.report import score
from gansegctl.generators.inversion import InversionSettings
from gansegctl.generators.stylegan2 import StyleGAN2Config
from gansegctl.generators.train import TrainSettings
from gansegctl.generators.weights import read_header
from gansegctl.labels import LabelMap
from gansegctl.pictures import save_png
from gansegctl.pipeline.adversary import beyond_generator
from gansegctl.pipeline.annotate import REAL_SEEDS
from gansegctl.pipeline.distill import predict_masks
from gansegctl.pipeline.evaluate import aligned
from gansegctl.pipeline.labelling import picture_and_mask
from gansegctl.pipeline.opening import grouped, latents_of_seeds, open_generator
from gansegctl.pipeline.projector import Projector, ProjectSettings
from gansegctl.pipeline.real_exemplars import AnnotatedPicture, RealExemplars, RealSettings, real_exemplars
from gansegctl.pipeline.train import train
from gansegctl.students.student import Student
from gansegctl.students.training import Pairs, StudentSettings, StudentTraining

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
FIRST_EXEMPLAR, FIRST_SAMPLE = 2_000_000, 3_000_000
ROWS = "rows.json"
DETERMINING = ("unit", "slices", "samples", "student_steps", "network", "training", "project", "limits", "options")
"""Of a plan: what a row depends on beside the data and the resolution, and what does not show in the row."""
REAL, SAME = "supervised on real pictures", "supervised on the real shots"
TOLD = 600  # characters of a failure that are kept


@dataclass(frozen=True)
class Plan:
    """What is measured on one file. unit "patient": a shot is `slices` annotated slices of one patient."""

    name: str
    data: Path
    work: Path
    resolution: int = 0  # 0 = the file's; else pictures are reduced by means of whole blocks
    unit: str = "picture"
    slices: int = 4
    shots: tuple[int, ...] = (1, 5, 10)
    sources: tuple[str, ...] = ("real", "sampled")
    methods: tuple[str, ...] = tuple(methods.METHODS)
    options: dict = field(default_factory=dict)  # method → settings of its own
    supervised: tuple[int, ...] = (1, 5, 10, 50, 200, 0)  # 0 = all
    draws: int = 3
    samples: int = 5000
    student_steps: int = 1500
    network: dict = field(default_factory=lambda: {"channel_base": 2048, "channel_max": 128})
    training: dict = field(default_factory=lambda: {"images": 300_000, "augment": "ada", "lr_decay": 0.2})
    project: ProjectSettings = field(default_factory=ProjectSettings)
    limits: RealSettings = field(default_factory=RealSettings)
    device: str = "cpu"
    compiled: bool = False


PLANS = {"lpc64": {}, "acdc128": {"unit": "patient"}}


@dataclass
class Split:
    """Pictures uint8 [N,H,W,c], masks uint8 [N,H,W] and, where a picture is of somebody, of whom."""

    image: np.ndarray
    mask: np.ndarray
    group: np.ndarray


def load(plan: Plan) -> tuple[Split, Split, LabelMap]:
    """The train and the test split, at the plan's resolution. UsageError where it does not divide the file's."""
    with h5py.File(plan.data, "r") as f:
        image, mask, split = f["image"][:], f["mask"][:], f["split"][:]
        group = f["patient"][:] if "patient" in f else np.arange(len(split))
        labels = LabelMap(tuple(json.loads(f.attrs["classes"])))
    side = image.shape[1]
    if plan.resolution and plan.resolution != side:
        if side % plan.resolution:
            raise UsageError(f"got --resolution {plan.resolution}", wanted=f"a divisor of the file's {side}")
        step = side // plan.resolution
        blocks = image.reshape(len(image), plan.resolution, step, plan.resolution, step, -1)
        image = np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
        mask = mask[:, step // 2 :: step, step // 2 :: step]
    return *(Split(image[split == v], mask[split == v], group[split == v]) for v in (0, 1)), labels


class Bench:
    """One data set. Rows are measured once; `row(key)` says whether one is there.

    retry: measure again what failed. Errors: UsageError for a folder that was begun with another plan.
    """

    def __init__(self, plan: Plan, retry: bool = False) -> None:
        self.plan, self.device = plan, plan.device
        self.train, self.test, self.labels = load(plan)
        plan.work.mkdir(parents=True, exist_ok=True)
        self.path = plan.work / ROWS
        with plan.data.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        determining = {k: v for k, v in asdict(plan).items() if k in DETERMINING}
        head = {"data": digest, "resolution": self.train.image.shape[1]} | determining
        self.head: dict[str, Any] = json.loads(json.dumps(head))
        self.rows = [r for r in self._begun() if not (retry and "failed" in r)]
        self._write()  # before any other file: whatever lies in the folder is of this head
        self.shown: dict[tuple, tuple[list[Exemplar], dict] | GansegError] = {}

    def _begun(self) -> list[dict]:
        """The rows measured before, if they were with this plan."""
        clean_parts(self.plan.work)
        if not self.path.exists():
            if any(self.plan.work.iterdir()):
                raise UsageError(
                    f"got {self.plan.work} with files but no {ROWS}",
                    wanted="an empty folder, or one that says what its files were made with",
                    remedy="delete it, or choose another --work",
                )
            return []
        data = json.loads(self.path.read_text())
        before = dict(flat(data.get("head", {}))) if isinstance(data, dict) else {}
        now = dict(flat(self.head))
        differs = [k for k in before | now if before.get(k) != now.get(k)]
        if differs:
            was = "".join(f"\n  {k}: {before.get(k, 'not said')}, now {now.get(k, 'not said')}" for k in differs)
            raise UsageError(
                f"got {self.path}, begun with other settings{was}",
                wanted="the same",
                remedy="use the settings it was begun with, choose another --work, or delete the folder",
            )
        return data["rows"]

    def row(self, **key) -> dict | None:
        return next((r for r in self.rows if all(r.get(k) == v for k, v in key.items())), None)

    def keep(self, row: dict) -> None:
        self.rows.append(row)
        self._write()
        print(json.dumps({k: v for k, v in row.items() if k not in ("iou", "dice")}), flush=True)

    def _write(self) -> None:
        write_text(self.path, json.dumps({"head": self.head, "rows": self.rows}, indent=1) + "\n")

    def attempt(self, measure: Callable[[], Any], **key) -> None:
        """Make the row with this key, if it is not there. One that fails is kept with why, and the others go on."""
        if self.row(**key) is not None:
            return
        try:
            measure()
        except (GansegError, MemoryError, torch.OutOfMemoryError) as e:
            text = str(e) or type(e).__name__
            self.keep(key | {"failed": text if len(text) <= TOLD else text[:TOLD] + " …"})

    def pictures(self) -> Path:
        """The train split's pictures, without their masks and without the test split's."""
        path = self.plan.work / "pictures.h5"
        if not path.exists():
            stream = io.BytesIO()
            with h5py.File(stream, "w") as f:
                f["image"] = self.train.image
            write_bytes(path, stream.getvalue())
        return path

    def generator(self):
        """Trained on the train split's pictures; resumes from its checkpoint."""
        plan, path = self.plan, self.plan.work / "generator.safetensors"
        if self.row(kind="generator") is None:
            side, channels = self.train.image.shape[1], self.train.image.shape[3]
            network = StyleGAN2Config(resolution=side, image_channels=channels, **plan.network)
            settings = TrainSettings(network=network, **plan.training)
            for event in train(self.pictures(), path, settings, device=self.device, compiled=plan.compiled):
                print(f"train: {event.done}/{event.total}", event.facts, flush=True)
            facts = read_header(path)["facts"]  # of all runs that it took
            self.keep({"kind": "generator", "images": facts["images_seen"], "seconds": facts["seconds"]})
        return open_generator(str(path), self.device)

    def fit_student(self, path: Path, image: np.ndarray, mask: np.ndarray, labels: LabelMap, seed: int) -> Student:
        """The U-Net of all lines of the curve: same augmentation, same steps."""
        if not path.exists():
            steps, batch = self.plan.student_steps, 32
            settings = StudentSettings(steps=steps, batch_size=batch, seed=seed, validation=0.0)
            pairs = Pairs(torch.from_numpy(image.copy()), torch.from_numpy(mask.copy()))
            training = StudentTraining(pairs, labels, settings, self.device)
            for _ in training.run(path.with_suffix(".ckpt")):
                pass
            training.student.save(path)
            path.with_suffix(".ckpt").unlink(missing_ok=True)
        return Student.load(path, self.device)

    def scores(self, student: Student) -> dict:
        """On the whole test split: mIoU, of foreground too, IoU and Dice per class.

        Clusters without names are matched by `aligned`; masks in two parts score the truth in two, and say so.
        """
        batches = [slice(i, i + 50) for i in range(0, len(self.test.image), 50)]
        rows = ((predict_masks(student, self.test.image[b]), self.test.mask[b], self.test.image[b]) for b in batches)
        rows, labels, matched = aligned(rows, student.labels, self.labels)
        report = score(rows, labels, bootstrap=0, worst=0)
        iou = {n: float(v) for n, v in zip(labels.names, report.iou, strict=True)}
        dice = {n: 2 * v / (1 + v) for n, v in iou.items()}
        row = {name: float(report.scores[name]) for name in ("miou", "foreground_miou")}
        row |= {"mean_dice": float(np.nanmean(list(dice.values()))), "iou": iou, "dice": dice}
        row |= {"two_class": True} if labels.names != self.labels.names else {}
        return row | ({"matched": matched} if matched else {})

    def order(self, draw: int) -> np.ndarray:
        """The training pictures of a draw, from which its baselines and its shots are both taken."""
        return np.random.RandomState(draw).permutation(len(self.train.image))

    def learned(self, name: str, indices: np.ndarray | list[int], **key) -> Student:
        """A student of these training pictures with their real masks, and its row."""
        began = time.perf_counter()
        path, rows = self.plan.work / f"{name}.safetensors", np.asarray(indices)
        student = self.fit_student(path, self.train.image[rows], self.train.mask[rows], self.labels, key["draw"])
        if self.row(**key) is None:
            seconds = {"student": round(time.perf_counter() - began, 1)}
            self.keep(key | {"pictures": len(rows)} | self.scores(student) | {"seconds": seconds})
        return student

    def supervised(self, count: int, draw: int) -> Student:
        """The baseline: `count` annotated training pictures (0 = all) of this draw."""
        chosen = self.order(draw)[: count or None]
        return self.learned(f"supervised-{count}-{draw}", chosen, kind="supervised", count=count, draw=draw)

    def paired(self, generator, shots: int, draw: int) -> None:
        """The baseline of the real shots: exactly their pictures (slices), with their real masks."""
        _, facts = self.exemplars(generator, "real", shots, draw)
        chosen, key = facts["chosen"], {"kind": "paired", "shots": shots, "draw": draw}
        same = self.row(kind="supervised", count=len(chosen), draw=draw)
        if same and "failed" not in same and chosen == self.order(draw)[: len(chosen)].tolist():
            self.keep(same | key)  # measured already
        else:
            self.learned(f"paired-{shots}-{draw}", chosen, **key)

    def units(self, draw: int) -> list[list[int]]:
        """What shots are taken from, in the draw's order: pictures, or of each patient some slices, evenly apart."""
        order = self.order(draw)
        if self.plan.unit == "picture":
            return [[int(i)] for i in order]
        found = []
        for patient in dict.fromkeys(self.train.group[order].tolist()):
            slices = np.flatnonzero(self.train.group == patient)
            apart = np.linspace(0, len(slices) - 1, min(self.plan.slices, len(slices)))
            found.append(slices[apart.round().astype(int)].tolist())
        return found

    def exemplars(self, generator, source: str, shots: int, draw: int) -> tuple[list[Exemplar], dict]:
        """Annotated exemplars, and what making them took: once for all methods, and where it fails also once."""
        key = (source, shots, draw)
        if key not in self.shown:
            make = self._real if source == "real" else self._sampled
            try:
                self.shown[key] = make(generator, shots, draw)
            except GansegError as e:
                self.shown[key] = e
        if isinstance(found := self.shown[key], GansegError):
            raise found
        return found

    def _sampled(self, generator, shots: int, draw: int) -> tuple[list[Exemplar], dict]:
        began, labeller = time.perf_counter(), self.supervised(0, 0)
        count = shots if self.plan.unit == "picture" else shots * self.plan.slices
        seeds = list(range(FIRST_EXEMPLAR + 1000 * draw, FIRST_EXEMPLAR + 1000 * draw + count))
        ws = latents_of_seeds(generator, seeds, device=self.device)
        image, _ = picture_and_mask(generator, ws, seeds, "const", None)
        masks = predict_masks(labeller, image)
        found = [Exemplar(ws[i : i + 1], s, masks[i]) for i, s in enumerate(seeds)]
        return found, {"exemplars": round(time.perf_counter() - began, 1)}

    def _real(self, generator, shots: int, draw: int) -> tuple[list[Exemplar], dict]:
        """The first `shots` units of which the generator can draw a picture. UsageError for fewer in all of them."""
        began, into, taken, at = time.perf_counter(), RealExemplars(), 0, 0
        if not hasattr(self, "projector"):
            self.projector = Projector(generator, self.plan.project, self.device)
        units, limits, folder = self.units(draw), self.plan.limits, self.plan.work / "projected"
        while taken < shots and at < len(units):
            part = units[at : at + shots - taken]
            indices, one = [i for unit in part for i in unit], RealExemplars()
            pictures = [AnnotatedPicture(f"{i:06d}", self.train.image[i], self.train.mask[i]) for i in indices]
            for event in real_exemplars(self.projector, pictures, len(pictures), limits, folder, one, least=0):
                print(f"{event.stage}: {event.done}/{event.total}", event.facts, flush=True)
            accepted = {int(name) for name in one.names}
            taken, at = taken + sum(bool(accepted.intersection(unit)) for unit in part), at + len(part)
            into.exemplars += one.exemplars
            into.names += one.names
            into.errors += one.errors
            into.refused |= one.refused
        if taken < shots:
            name, reason = next(iter(into.refused.items()))
            raise UsageError(
                f"got {taken} of {shots} {self.plan.unit}s that the generator can draw; of {len(into.refused)} "
                f"pictures refused {name}: {reason}",
                wanted=f"{shots}",
                remedy="train longer (--images), or ask for fewer --shots",
            )
        found = [replace(e, seed=REAL_SEEDS + i) for i, e in enumerate(into.exemplars)]
        facts = {"exemplars": round(time.perf_counter() - began, 1), "chosen": [int(n) for n in into.names]}
        return found, facts | {"refused": len(into.refused), "error": statistics.mean(into.errors)}

    def options(self, tool: Method) -> dict:
        """A method's settings: one that trains against a critic gets the pictures and the critic of the generator."""
        own = self.plan.options.get(tool.name, {})
        if "discriminator" not in tool.needs:
            return own
        critic = self.plan.work / "generator.ckpt"
        return {"images": str(self.pictures()), "discriminator": str(critic)} | own

    def shot(self, generator, method: str, source: str, shots: int, draw: int) -> None:
        """Fit, label fresh samples, distil, score; one row."""
        key = {"kind": "shots", "method": method, "source": source, "shots": shots, "draw": draw}
        exemplars, facts = self.exemplars(generator, source, shots, draw) if shots else ([], {})
        tool = methods.get(method)
        settings = from_dict(tool.settings_type, self.options(tool), method)
        given = beyond_generator(tool, generator, settings)
        began = time.perf_counter()
        segmenter = tool.fit(generator, exemplars, self.labels if shots else None, settings, draw, **given)
        fitted = time.perf_counter()
        image, mask = [], []
        for batch in grouped(range(FIRST_SAMPLE, FIRST_SAMPLE + self.plan.samples), 32):
            ws = latents_of_seeds(generator, batch, device=self.device)
            pictures, said = picture_and_mask(generator, ws, batch, "const", segmenter)
            image.append(pictures)
            mask.append(said.labels.cpu().numpy())
        labelled = time.perf_counter()
        path = self.plan.work / f"student-{method}-{source}-{shots}-{draw}.safetensors"
        student = self.fit_student(path, np.concatenate(image), np.concatenate(mask), segmenter.labels, draw)
        seconds = {"fit": fitted - began, "samples": labelled - fitted, "student": time.perf_counter() - labelled}
        facts = facts | {"seconds": {k: round(v, 1) for k, v in seconds.items()}}
        self.keep(key | {"pictures": len(exemplars)} | facts | self.scores(student))

    def run(self) -> None:
        """Everything that is not there yet. UsageError for an unknown method, before any work."""
        plan = self.plan
        for name in plan.methods:
            methods.get(name)
        for count in plan.supervised:
            for draw in range(plan.draws if count else 1):
                if count <= len(self.train.image):
                    key = {"kind": "supervised", "count": count, "draw": draw}
                    self.attempt(lambda c=count, d=draw: self.supervised(c, d), **key)
        generator = self.generator()
        for draw in range(plan.draws):
            for shots in (0, *plan.shots):
                if shots and "real" in plan.sources:
                    key = {"kind": "paired", "shots": shots, "draw": draw}
                    self.attempt(lambda s=shots, d=draw: self.paired(generator, s, d), **key)
                for source in plan.sources if shots else ("none",):
                    for name in plan.methods:
                        if ("exemplars" in methods.get(name).needs) == (shots > 0):
                            what = (name, source, shots, draw)
                            key = dict(zip(("method", "source", "shots", "draw"), what, strict=True))
                            self.attempt(lambda w=what: self.shot(generator, *w), kind="shots", **key)


def flat(table: dict, above: str = "") -> Iterator[tuple[str, Any]]:
    """("project.inversion.steps", 200) and so on of tables in tables."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample deviation (0 for one value)."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summary(rows: list[dict]) -> tuple[dict, list[dict], list[dict]]:
    """The lines of the curve, the supervised scores by number of pictures, and one entry a method, source and shots.

    An entry has the labels it saves and what the same pictures teach without a generator. Masks in two parts are
    compared with what the supervised students score in two parts, and have no place on the curve of all classes.
    """
    lines: dict[str, list[tuple[float, float, float]]] = {REAL: [], SAME: []}
    done = [r for r in rows if "failed" not in r]
    baseline = []
    for (count,), found in grouped_by([r for r in done if r["kind"] == "supervised"], "pictures"):
        told = {name: mean_and_spread([r[name] for r in found]) for name in ("miou", "foreground_miou")}
        baseline.append({"pictures": count} | told)
        lines[REAL].append((count, *told["miou"]))
    same = dict(grouped_by([r for r in done if r["kind"] == "paired"], "shots"))
    for found in same.values():
        lines[SAME].append(
            (statistics.mean(r["pictures"] for r in found), *mean_and_spread([r["miou"] for r in found]))
        )
    entries = []
    for key, found in grouped_by([r for r in rows if r["kind"] == "shots"], "method", "source", "shots"):
        entry = dict(zip(("method", "source", "shots"), key, strict=True))
        runs = [r for r in found if "failed" not in r]
        entry |= {"runs": len(runs), "failed": len(found) - len(runs)}
        entries.append(entry)
        if not runs:
            continue
        two = any(r.get("two_class") for r in runs)
        name = "foreground_miou" if two else "miou"
        mean, spread = mean_and_spread([r[name] for r in runs])
        pictures = statistics.mean(r["pictures"] for r in runs)
        entry |= {"pictures": pictures, "miou": mean, "spread": spread, "two_class": two}
        entry["foreground"] = mean_and_spread([r["foreground_miou"] for r in runs])
        entry["dice"] = statistics.mean(r["mean_dice"] for r in runs)
        curve = [(b["pictures"], b[name][0]) for b in baseline]
        entry["matched_by"] = labels_to_match(curve, mean)[1] if curve else "-"
        if entry["source"] == "real" and key[2:] in same:
            entry["same"] = mean_and_spread([r[name] for r in same[key[2:]]])
        entry["iou"] = {n: statistics.mean(r["iou"].get(n, 0.0) for r in runs) for n in runs[0]["iou"]}
        entry["seconds"] = statistics.mean(sum(r["seconds"].values()) for r in runs)
        if pictures and not two:
            lines.setdefault(f"{key[0]}, {key[1]} shots", []).append((pictures, mean, spread))
    return {name: line for name, line in lines.items() if line}, baseline, entries


def grouped_by(rows: list[dict], *names: str) -> list[tuple[tuple, list[dict]]]:
    """(values of `names`, rows with them), rising."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault(tuple(row[n] for n in names), []).append(row)
    return sorted(found.items(), key=lambda item: item[0])


def write_report(bench: Bench, docs: Path = HERE) -> str:
    """The curve as docs/real-NAME.png, and the tables between the marks of docs/real.md → the text."""
    lines, baseline, entries = summary(bench.rows)
    name, names = bench.plan.name, bench.labels.names
    text = []
    if lines:
        save_png(docs / f"real-{name}.png", learning_curve(lines, f"{name}: {len(bench.test.image)} test pictures"))
        text += [f"![learning curve](real-{name}.png)", ""]
    text += [f"Pictures of {bench.train.image.shape[1]} px."]
    if trained := bench.row(kind="generator"):
        text[-1] += f" Generator: {trained['images']:,} pictures shown, {trained['seconds']:.0f} s."
    head = ("shots", "of", "method", "runs", "annotated", "mIoU", "foreground mIoU", "mean Dice")
    head += ("supervised on the same", "supervised labels needed to match", "s", *names)
    text += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for e in sorted(entries, key=lambda e: (e["shots"], e["source"], e.get("two_class", False), -e.get("miou", -1))):
        text.append("| " + " | ".join(map(str, cells(e, names))) + " |")
    text += ["", "| supervised on | mIoU | foreground mIoU |", "|---|---|---|"]
    text += [f"| {b['pictures']:g} | {told(b['miou'])} | {told(b['foreground_miou'])} |" for b in baseline]
    if failed := [r for r in bench.rows if "failed" in r]:
        text += ["", "Failed:", ""]
        text += [f"* {told_key(r)}: {r['failed'].splitlines()[0]}" for r in failed]
    block = "\n".join(text)
    fill(docs / "real.md", name, block)
    return block


def told(score: tuple[float, float]) -> str:
    return f"{score[0]:.3f} ± {score[1]:.3f}"


def told_key(row: dict) -> str:
    """Which row it is, as "shots, method linear, source real, shots 5, draw 0"."""
    key = [row["kind"]] + [f"{k} {row[k]}" for k in ("method", "source", "shots", "count", "draw") if k in row]
    return ", ".join(key)


def cells(e: dict, names: tuple[str, ...]) -> list:
    """An entry's row of the table. The scores of all classes are none of masks in two parts."""
    runs = f"{e['runs']}, {e['failed']} failed" if e["failed"] else e["runs"]
    found = [e["shots"], e["source"], e["method"], runs]
    if not e["runs"]:
        return found + ["failed"] + ["-"] * (6 + len(names))
    two = e["two_class"]
    found += [f"{e['pictures']:g}", "two classes" if two else told((e["miou"], e["spread"])), told(e["foreground"])]
    found += ["-" if two else f"{e['dice']:.3f}", told(e["same"]) if "same" in e else "-"]
    found += [e["matched_by"] + " (foreground)" * two, f"{e['seconds']:.0f}"]
    return found + [f"{e['iou'][n]:.3f}" if n in e["iou"] and not two else "-" for n in names]


def main(arguments: list[str] | None = None) -> None:
    """Run the plans named on the command line. Exit status 1 when one of them could not be ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PLANS), help="NAME of DATA/NAME.h5")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=HERE.parent / "real-out")
    parser.add_argument("--docs", type=Path, default=HERE)
    parser.add_argument("--resolution", type=int, default=0, help="reduce the pictures, as 64 for acdc128 on a CPU")
    parser.add_argument("--methods", help="A,B,… (default: all)")
    parser.add_argument("--shots", type=int, nargs="+")
    parser.add_argument("--supervised", type=int, nargs="+", help="annotated pictures; 0 = all")
    parser.add_argument("--sources", nargs="+", choices=["real", "sampled"])
    for name in ("draws", "samples", "student-steps", "images"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--project-steps", type=int)
    parser.add_argument("--retry", action="store_true", help="measure again what failed")
    parser.add_argument("--compile", action="store_true", help="train the generator through torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args(arguments)
    failed = []
    for name in a.names:
        data = a.data / f"{name}.h5"
        if not data.is_file():
            print(f"skipped {name}: {data} is not here (docs/real.md says where it comes from)", flush=True)
            continue
        try:
            bench = Bench(plan_of(a, name, data), a.retry)
            try:
                bench.run()
            finally:  # what was measured is reported, whatever became of the rest
                print(write_report(bench, a.docs), flush=True)
        except Exception as e:  # of whatever kind: the next data set has nothing to do with it
            failed.append(name)
            print(f"failed {name}: {e}" if isinstance(e, GansegError) else traceback.format_exc(), flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def plan_of(a: argparse.Namespace, name: str, data: Path) -> Plan:
    """The plan of a data set with what the command line says."""
    with h5py.File(data, "r") as f:
        side = a.resolution or f["image"].shape[1]
    work = a.work / f"{name}-{side}"
    plan = Plan(name, data, work, device=a.device, resolution=a.resolution, compiled=a.compile, **PLANS.get(name, {}))
    given = {"draws": a.draws, "samples": a.samples, "student_steps": a.student_steps}
    given |= {k: tuple(v) if v else None for k, v in (("shots", a.shots), ("supervised", a.supervised))}
    given |= {"sources": tuple(a.sources) if a.sources else None}
    given |= {"methods": tuple(a.methods.split(",")) if a.methods else None}
    plan = replace(plan, **{k: v for k, v in given.items() if v is not None})
    if a.images:
        plan = replace(plan, training=plan.training | {"images": a.images})
    if a.project_steps:
        plan = replace(plan, project=replace(plan.project, inversion=InversionSettings(steps=a.project_steps)))
    return plan


if __name__ == "__main__":
    main()
