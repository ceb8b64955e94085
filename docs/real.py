"""How many labels a generator saves on real pictures: k shots and a student against a U-Net on annotated pictures.

For each data set: a generator is trained on the train split's pictures alone; shots are real training pictures through
projection, or samples labelled by a labeller (the U-Net trained on the whole train split: stated, an upper bound for a
person's care); every method labels fresh samples; a student learns from those and is scored on the test split. The same
U-Net, with the same augmentation and steps, learns from 5, 10, 50, 200 and all real annotated training pictures.

Everything lies in WORK/NAME and is made once; every score is kept in rows.json as soon as it is measured. Curves and
tables go into docs/. Nothing of the data, and nothing trained on it, is to be committed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import torch

from gansegctl import methods
from gansegctl.config import from_dict
from gansegctl.contracts import Exemplar
from gansegctl.evaluate.curves import labels_to_match, learning_curve
from gansegctl.evaluate.report import score
from gansegctl.generators.inversion import InversionSettings
from gansegctl.generators.stylegan2 import StyleGAN2Config
from gansegctl.generators.train import TrainSettings
from gansegctl.labels import LabelMap
from gansegctl.pictures import save_png
from gansegctl.pipeline.adversary import beyond_generator
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


PLANS = {"lpc64": {}, "acdc128": {"unit": "patient"}}


@dataclass
class Split:
    """Pictures uint8 [N,H,W,c], masks uint8 [N,H,W] and, where a picture is of somebody, of whom."""

    image: np.ndarray
    mask: np.ndarray
    group: np.ndarray


def load(plan: Plan) -> tuple[Split, Split, LabelMap]:
    """The train and the test split, at the plan's resolution."""
    with h5py.File(plan.data, "r") as f:
        image, mask, split = f["image"][:], f["mask"][:], f["split"][:]
        group = f["patient"][:] if "patient" in f else np.arange(len(split))
        labels = LabelMap(tuple(json.loads(f.attrs["classes"])))
    side = image.shape[1]
    if plan.resolution and plan.resolution != side:
        step = side // plan.resolution
        blocks = image.reshape(len(image), plan.resolution, step, plan.resolution, step, -1)
        image = np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
        mask = mask[:, step // 2 :: step, step // 2 :: step]
    return *(Split(image[split == v], mask[split == v], group[split == v]) for v in (0, 1)), labels


class Bench:
    """One data set. Rows are measured once; `row(key)` says whether one is there."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.device = plan, plan.device
        self.train, self.test, self.labels = load(plan)
        plan.work.mkdir(parents=True, exist_ok=True)
        self.path = plan.work / "rows.json"
        self.rows: list[dict] = json.loads(self.path.read_text()) if self.path.exists() else []

    def row(self, **key) -> dict | None:
        return next((r for r in self.rows if all(r.get(k) == v for k, v in key.items())), None)

    def keep(self, row: dict) -> None:
        self.rows.append(row)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.rows, indent=1) + "\n")
        part.replace(self.path)
        print(json.dumps({k: v for k, v in row.items() if k not in ("iou", "dice")}), flush=True)

    def generator(self):
        """Trained on the train split's pictures, which are written without their masks; resumes from its checkpoint."""
        plan, path = self.plan, self.plan.work / "generator.safetensors"
        if self.row(kind="generator") is None:
            pictures = plan.work / "pictures.h5"
            if not pictures.exists():
                with h5py.File(pictures, "w") as f:
                    f["image"] = self.train.image
            side, channels = self.train.image.shape[1], self.train.image.shape[3]
            network = StyleGAN2Config(resolution=side, image_channels=channels, **plan.network)
            began, last = time.perf_counter(), None
            for last in train(pictures, path, TrainSettings(network=network, **plan.training), device=self.device):
                print(f"train: {last.done}/{last.total}", last.facts, flush=True)
            seconds = json.loads(_header(path))["facts"]["seconds"] if last else time.perf_counter() - began
            self.keep({"kind": "generator", "images": plan.training["images"], "seconds": seconds})
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
        """On the whole test split: mIoU, IoU and Dice per class. Clusters without names are matched by `aligned`."""
        batches = [slice(i, i + 50) for i in range(0, len(self.test.image), 50)]
        rows = ((predict_masks(student, self.test.image[b]), self.test.mask[b], self.test.image[b]) for b in batches)
        rows, labels, matched = aligned(rows, student.labels, self.labels)
        report = score(rows, labels, bootstrap=0, worst=0)
        iou = {n: float(v) for n, v in zip(labels.names, report.iou, strict=True)}
        dice = {n: 2 * v / (1 + v) for n, v in iou.items()}
        row = {"miou": float(report.scores["miou"]), "mean_dice": float(np.nanmean(list(dice.values())))}
        return row | {"iou": iou, "dice": dice} | ({"matched": matched} if matched else {})

    def supervised(self, count: int, draw: int) -> Student:
        """The baseline: `count` annotated training pictures (0 = all) of this draw."""
        chosen = np.random.RandomState(draw).permutation(len(self.train.image))[: count or None]
        path = self.plan.work / f"supervised-{count}-{draw}.safetensors"
        key = {"kind": "supervised", "count": count, "draw": draw}
        began = time.perf_counter()
        student = self.fit_student(path, self.train.image[chosen], self.train.mask[chosen], self.labels, draw)
        if self.row(**key) is None:
            seconds = {"student": round(time.perf_counter() - began, 1)}
            self.keep(key | {"pictures": len(chosen)} | self.scores(student) | {"seconds": seconds})
        return student

    def chosen(self, shots: int, draw: int) -> list[int]:
        """Indices of the training pictures of a draw, in random order; of a patient some slices, evenly apart."""
        units = np.random.RandomState(1000 + draw).permutation(np.unique(self.train.group))
        if self.plan.unit == "picture":
            return [int(np.flatnonzero(self.train.group == u)[0]) for u in units]
        rows = []
        for unit in units[:shots]:
            slices = np.flatnonzero(self.train.group == unit)
            rows += slices[
                np.linspace(0, len(slices) - 1, min(self.plan.slices, len(slices))).round().astype(int)
            ].tolist()
        return rows

    def exemplars(self, generator, source: str, shots: int, draw: int) -> tuple[list[Exemplar], dict]:
        """Annotated exemplars, and what making them took."""
        began = time.perf_counter()
        if source == "sampled":
            labeller = self.supervised(0, 0)
            count = shots if self.plan.unit == "picture" else shots * self.plan.slices
            seeds = list(range(FIRST_EXEMPLAR + 1000 * draw, FIRST_EXEMPLAR + 1000 * draw + count))
            ws = latents_of_seeds(generator, seeds, device=self.device)
            image, _ = picture_and_mask(generator, ws, seeds, "const", None)
            masks = predict_masks(labeller, image)
            found = [Exemplar(ws[i : i + 1], s, masks[i]) for i, s in enumerate(seeds)]
            return found, {"exemplars": round(time.perf_counter() - began, 1)}
        indices = self.chosen(shots, draw)
        pictures = [AnnotatedPicture(f"{i:06d}", self.train.image[i], self.train.mask[i]) for i in indices]
        by_picture, into = self.plan.unit == "picture", RealExemplars()
        if not hasattr(self, "projector"):
            self.projector = Projector(generator, self.plan.project, self.device)
        wanted = shots if by_picture else len(pictures)
        folder = self.plan.work / "projected"
        events = real_exemplars(
            self.projector, pictures, wanted, self.plan.limits, folder, into, None if by_picture else 1
        )
        for event in events:
            print(f"{event.stage}: {event.done}/{event.total}", event.facts, flush=True)
        seconds = {"exemplars": round(time.perf_counter() - began, 1)}
        return into.exemplars, seconds | {"refused": len(into.refused), "error": statistics.mean(into.errors)}

    def shot(self, generator, method: str, source: str, shots: int, draw: int) -> None:
        """Fit, label fresh samples, distil, score; one row."""
        key = {"kind": "shots", "method": method, "source": source, "shots": shots, "draw": draw}
        if self.row(**key) is not None:
            return
        exemplars, facts = self.exemplars(generator, source, shots, draw) if shots else ([], {})
        tool = methods.get(method)
        settings = from_dict(tool.settings_type, self.plan.options.get(method, {}), method)
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
        facts["seconds"] = {k: round(v, 1) for k, v in seconds.items()}
        self.keep(key | {"pictures": len(exemplars)} | facts | self.scores(student))

    def run(self) -> None:
        """Everything that is not there yet."""
        plan = self.plan
        for count in plan.supervised:
            for draw in range(plan.draws if count else 1):
                if count <= len(self.train.image):
                    self.supervised(count, draw)
        generator = self.generator()
        for draw in range(plan.draws):
            for shots in (0, *plan.shots):
                for source in plan.sources if shots else ("none",):
                    for name in plan.methods:
                        if ("exemplars" in methods.get(name).needs) == (shots > 0):
                            self.shot(generator, name, source, shots, draw)


def _header(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(str(path), "pt") as f:
        return f.metadata()["gansegctl"]


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample deviation (0 for one value)."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def summary(rows: list[dict]) -> tuple[dict, list[dict]]:
    """The lines of the curve, and one entry a method, source and number of shots with the labels it saves."""
    groups: dict[tuple, list[dict]] = {}
    for r in rows:
        if r["kind"] == "supervised":
            groups.setdefault(("supervised", r["pictures"]), []).append(r)
        elif r["kind"] == "shots":
            groups.setdefault((r["method"], r["source"], r["shots"]), []).append(r)
    lines: dict[str, list[tuple[float, float, float]]] = {"supervised on real pictures": []}
    baseline = []
    for key, found in sorted(groups.items(), key=str):
        if key[0] == "supervised":
            mean, spread = mean_and_spread([r["miou"] for r in found])
            lines["supervised on real pictures"].append((key[1], mean, spread))
            baseline.append((key[1], mean))
    entries = []
    for key, found in sorted(groups.items(), key=str):
        if key[0] != "supervised":
            mean, spread = mean_and_spread([r["miou"] for r in found])
            pictures = statistics.mean(r["pictures"] for r in found)
            entry = {"method": key[0], "source": key[1], "shots": key[2], "pictures": pictures, "runs": len(found)}
            entry |= {"miou": mean, "spread": spread, "dice": statistics.mean(r["mean_dice"] for r in found)}
            entry["matched_by"] = labels_to_match(baseline, mean)[1]
            entry["iou"] = {n: statistics.mean(r["iou"].get(n, 0.0) for r in found) for n in found[0]["iou"]}
            entry["seconds"] = statistics.mean(sum(r["seconds"].values()) for r in found)
            entries.append(entry)
            if pictures:
                lines.setdefault(f"{key[0]}, {key[1]} shots", []).append((pictures, mean, spread))
    return lines, entries


def write_report(bench: Bench, docs: Path = HERE) -> str:
    """The curve as docs/real-NAME.png, and the tables between the marks of docs/real.md → the text."""
    lines, entries = summary(bench.rows)
    name, names = bench.plan.name, bench.labels.names
    save_png(docs / f"real-{name}.png", learning_curve(lines, f"{name}: {len(bench.test.image)} test pictures"))
    text = [f"![learning curve](real-{name}.png)", "", f"Pictures of {bench.train.image.shape[1]} px."]
    if trained := bench.row(kind="generator"):
        text[-1] += f" Generator: {trained['images']:,} pictures shown, {trained['seconds']:.0f} s."
    head = "| shots | of | method | runs | annotated | mIoU | mean Dice | supervised labels needed to match | s |"
    text += ["", head + "".join(f" {n} |" for n in names), "|---" * (9 + len(names)) + "|"]
    for e in sorted(entries, key=lambda e: (e["shots"], e["source"], -e["miou"])):
        cells = [
            e["shots"],
            e["source"],
            e["method"],
            e["runs"],
            f"{e['pictures']:g}",
            f"{e['miou']:.3f} ± {e['spread']:.3f}",
        ]
        cells += [f"{e['dice']:.3f}", e["matched_by"], f"{e['seconds']:.0f}"]
        cells += [f"{e['iou'][n]:.3f}" if n in e["iou"] else "-" for n in names]
        text.append("| " + " | ".join(map(str, cells)) + " |")
    text += ["", "| supervised on | mIoU |", "|---|---|"]
    text += [f"| {x:g} | {m:.3f} ± {s:.3f} |" for x, m, s in sorted(lines["supervised on real pictures"])]
    block, page = "\n".join(text), docs / "real.md"
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = page.read_text() if page.exists() else f"{begin}\n{end}\n"
    if begin not in old:
        old += f"\n{begin}\n{end}\n"
    before, rest = old.split(begin, 1)
    page.write_text(f"{before}{begin}\n{block}\n{end}{rest.split(end, 1)[1]}")
    return block


def main(arguments: list[str] | None = None) -> None:
    """Run the plans named on the command line."""
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
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args(arguments)
    for name in a.names:
        data = a.data / f"{name}.h5"
        if not data.is_file():
            print(f"skipped {name}: {data} is not here (docs/real.md says where it comes from)", flush=True)
            continue
        plan = Plan(name, data, a.work / name, device=a.device, resolution=a.resolution, **PLANS.get(name, {}))
        given = {"draws": a.draws, "samples": a.samples, "student_steps": a.student_steps}
        given |= {k: tuple(v) if v else None for k, v in (("shots", a.shots), ("supervised", a.supervised))}
        given |= {"sources": tuple(a.sources) if a.sources else None}
        given |= {"methods": tuple(a.methods.split(",")) if a.methods else None}
        plan = replace(plan, **{k: v for k, v in given.items() if v is not None})
        if a.images:
            plan = replace(plan, training=plan.training | {"images": a.images})
        if a.project_steps:
            plan = replace(plan, project=replace(plan.project, inversion=InversionSettings(steps=a.project_steps)))
        bench = Bench(plan)
        bench.run()
        print(write_report(bench, a.docs), flush=True)


if __name__ == "__main__":
    main()
