"""How many labels a generator saves on real images: k shots and a student against a U-Net on annotated images.

For each data set: a generator is trained on the train split's images alone. Shots are real training images through
projection, as they come (`real`) or the fullest of a few (`chosen`), or samples labelled by a network (`sampled`: by
the U-Net trained on the whole train split: stated, an upper bound for a person's care). Every method labels fresh
samples; a student learns from those and is scored on the test split. The same U-Net, with the same augmentation and
steps, learns from 1, 5, 10, 50, 200 and all real annotated training images, and from the very images of the shots.

WORK/NAME-RESOLUTION/generator holds the generator, WORK/NAME-RESOLUTION/run-… all that was measured with it and the
same other settings: rows.json says which, and gets every score as soon as it is measured. Other settings go into
another folder beside; another training is refused. Several processes may fill one folder with different rows. A method
that fails is a row too, and the others go on. Curves and tables go into docs/. Nothing of the data, and nothing trained
on it, is to be committed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from benchmarks.real.plan import DETERMINING, PLANS, SOURCES, TRAINED, Plan, load, reduced
from benchmarks.real.report import write_report
from benchmarks.real.rows import Rows
from benchmarks.real.shots import Shots
from gansegctl import methods
from gansegctl.config import from_dict
from gansegctl.contracts import Method, Progress
from gansegctl.errors import GansegError
from gansegctl.evaluate.report import score
from gansegctl.generators.stylegan2 import StyleGAN2Config
from gansegctl.generators.training.trainer import TrainSettings
from gansegctl.generators.weights import read_header
from gansegctl.io import run_folder
from gansegctl.io.atomic import write_bytes
from gansegctl.io.digest import file_digest
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.compare.stage import fits
from gansegctl.pipeline.evaluate import aligned
from gansegctl.pipeline.inputs.generators import grouped, latents_of_seeds, open_generator
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.train import train
from gansegctl.students.pairs import Pairs
from gansegctl.students.student import Student, predict_masks
from gansegctl.students.training import StudentSettings, StudentTraining

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
FIRST_SAMPLE = 3_000_000
MADE_OF = "made-of.json"
REMEDY = "use the settings it was begun with, choose another --work, or delete the folder"
AND_SHOTS = " + shots"
"""After a method's name: its student also learns from the real shots with their real masks (`distill --real`)."""
FIRST_METHOD = "oneshot"
"""The default method is measured first: a run that is stopped has its answer."""


class Bench(Rows):
    """One data set, and the rows that were measured on it.

    Errors: UsageError for a generator that was begun with another training.
    """

    def __init__(self, plan: Plan, retry: bool = False) -> None:
        self.plan, self.device = plan, plan.device
        self.train, self.test, self.labels = load(plan)
        table = {k: v for k, v in asdict(plan).items() if k in (*TRAINED, *DETERMINING)}
        table = json.loads(json.dumps(table))  # tuples as the lists that they are in a file
        made_of = {"data": file_digest(plan.data), "resolution": self.train.image.shape[1]} | {
            k: table[k] for k in TRAINED
        }
        self.made = plan.work / "generator"
        run_folder.begin(self.made, made_of, MADE_OF, alone=True, remedy=REMEDY)
        head = made_of | {k: table[k] for k in DETERMINING}
        name = hashlib.sha256(json.dumps(head, sort_keys=True).encode()).hexdigest()[:8]
        super().__init__(plan.work / f"run-{name}", head, retry)
        self.shots = Shots(self)

    def images(self, step: int = 1) -> Path:
        """The train split's images, reduced by `step`, without their masks and without the test split's."""
        path = self.made / ("images.h5" if step == 1 else f"images-{step}.h5")
        if not path.exists():
            stream = io.BytesIO()
            with h5py.File(stream, "w") as f:
                f["image"] = reduced(self.train.image, step)
            write_bytes(path, stream.getvalue())
        return path

    def generator(self):
        """Trained on the train split's images; resumes from its checkpoint."""
        plan, path = self.plan, self.made / "generator.safetensors"
        if self.row(kind="generator") is None:
            side, channels = self.train.image.shape[1], self.train.image.shape[3]
            network = StyleGAN2Config(resolution=side, image_channels=channels, **plan.network)
            how, half = {"device": self.device, "compiled": plan.compiled}, None
            if plan.grow:
                half = path.with_name("half.safetensors")
                settings = TrainSettings(network=replace(network, resolution=side // 2), **plan.training | plan.grow)
                follow(train(self.images(2), half, settings, **how))
            settings = TrainSettings(network=network, **plan.training)
            follow(train(self.images(), path, settings, **how, grow_from=half and half.with_suffix(".ckpt")))
            facts = read_header(path)["facts"]  # of all runs that it took
            self.keep({"kind": "generator", "images": facts["images_seen"], "seconds": facts["seconds"]})
        return open_generator(str(path), self.device)

    def fit_student(
        self,
        path: Path,
        image: np.ndarray,
        mask: np.ndarray,
        labels: LabelMap,
        seed: int,
        real: list[int] | None = None,
    ) -> Student:
        """The U-Net of all lines of the curve: same augmentation, same steps. Its facts have the seconds it took.

        real: training images that, with their real masks, make half of every step, as by `distill --real`.
        """
        if not path.exists():
            steps, batch, checkpoint = self.plan.student_steps, 32, path.with_suffix(".ckpt")
            settings = StudentSettings(steps=steps, batch_size=batch, seed=seed, validation=0.0)
            pairs = Pairs(torch.from_numpy(image.copy()), torch.from_numpy(mask.copy()))
            also = real and Pairs(torch.from_numpy(self.train.image[real]), torch.from_numpy(self.train.mask[real]))
            training = StudentTraining(pairs, labels, settings, self.device, real=also)
            began = time.perf_counter()
            resumed = checkpoint.exists()
            for _ in training.run(checkpoint):
                pass
            seconds = float("nan") if resumed else round(time.perf_counter() - began, 1)
            training.student.facts["seconds"] = seconds
            training.student.save(path)
            checkpoint.unlink(missing_ok=True)
        return Student.load(path, self.device)

    def scores(self, student: Student) -> dict:
        """On the whole test split: mIoU, of foreground too, IoU and Dice per class; mean Dice is without background.

        Clusters without names are matched by `aligned`; masks in two parts score the truth in two, and say so.
        """
        batches = [slice(i, i + 50) for i in range(0, len(self.test.image), 50)]
        rows = ((predict_masks(student, self.test.image[b]), self.test.mask[b], self.test.image[b]) for b in batches)
        rows, labels, matched = aligned(rows, student.labels, self.labels)
        report = score(rows, labels, bootstrap=0, worst=0)
        iou = {n: float(v) for n, v in zip(labels.names, report.iou, strict=True)}
        dice = {n: 2 * v / (1 + v) for n, v in iou.items()}
        row = {name: float(report.scores[name]) for name in ("miou", "foreground_miou")}
        row |= {"mean_dice": float(np.nanmean(list(dice.values())[1:])), "iou": iou, "dice": dice}
        row |= {"two_class": True} if labels.names != self.labels.names else {}
        return row | ({"matched": matched} if matched else {})

    def order(self, draw: int) -> np.ndarray:
        """The training images of a draw, from which its baselines and its shots are both taken."""
        return np.random.RandomState(draw).permutation(len(self.train.image))

    def learned(self, name: str, indices: np.ndarray | list[int], **key) -> Student:
        """A student of these training images with their real masks, and its row."""
        path, rows = self.folder / f"{name}.safetensors", np.asarray(indices)
        student = self.fit_student(path, self.train.image[rows], self.train.mask[rows], self.labels, key["draw"])
        if self.row(**key) is None:
            seconds = {"student": student.facts["seconds"]}
            self.keep(key | {"images": len(rows)} | self.scores(student) | {"seconds": seconds})
        return student

    def supervised(self, count: int, draw: int) -> Student:
        """The baseline: `count` annotated training images (0 = all) of this draw."""
        chosen = self.order(draw)[: count or None]
        return self.learned(f"supervised-{count}-{draw}", chosen, kind="supervised", count=count, draw=draw)

    def paired(self, generator, source: str, shots: int, draw: int) -> None:
        """The baseline of real shots: exactly their images (slices), with their real masks."""
        _, facts = self.shots.exemplars(generator, source, shots, draw)
        chosen, key = facts["chosen"], {"kind": "paired", "source": source, "shots": shots, "draw": draw}
        same = self.row(kind="supervised", count=len(chosen), draw=draw)
        if same and "failed" not in same and sorted(chosen) == sorted(self.order(draw)[: len(chosen)].tolist()):
            self.keep({k: v for k, v in same.items() if k != "count"} | key)  # measured already
        else:
            self.learned(f"paired-{source}-{shots}-{draw}", chosen, **key)

    def options(self, tool: Method) -> dict:
        """A method's settings: one that trains against a critic gets the images and the critic of the generator."""
        own = self.plan.options.get(tool.name, {})
        if "discriminator" not in tool.needs:
            return own
        critic = self.made / "generator.ckpt"
        return {"images": str(self.images()), "discriminator": str(critic)} | own

    def labelled(self, generator, method: str, source: str, shots: int, draw: int) -> tuple[np.ndarray, ...]:
        """Fit on the shots and label fresh samples → image, mask; what is known of them; the classes. Once."""
        path = self._labelled_by(method, source, shots, draw)
        if path.exists():
            with np.load(path) as kept:
                told = json.loads(str(kept["told"]))
                return kept["image"], kept["mask"], told["facts"], LabelMap(tuple(told["classes"]))
        exemplars, facts = self.shots.exemplars(generator, source, shots, draw) if shots else ([], {})
        tool = methods.get(method)
        settings = from_dict(tool.settings_type, self.options(tool), method)
        given = beyond_generator(tool, generator, settings)
        began = time.perf_counter()
        segmenter = tool.fit(generator, exemplars, self.labels if shots else None, settings, draw, **given)
        fitted = time.perf_counter()
        images, masks = [], []
        for batch in grouped(range(FIRST_SAMPLE, FIRST_SAMPLE + self.plan.samples), 32):
            ws = latents_of_seeds(generator, batch, device=self.device)
            drawn, said = image_and_mask(generator, ws, batch, "const", segmenter)
            images.append(drawn)
            masks.append(said.labels.cpu().numpy())
        labelled = time.perf_counter()
        seconds = {"exemplars": facts.get("seconds_of_exemplars", 0.0)}
        seconds |= {"fit": round(fitted - began, 1), "samples": round(labelled - fitted, 1)}
        facts = {k: v for k, v in facts.items() if k != "seconds_of_exemplars"}
        facts |= {"images": len(exemplars), "seconds": seconds}
        image, mask, stream = np.concatenate(images), np.concatenate(masks), io.BytesIO()
        told = json.dumps({"facts": facts, "classes": segmenter.labels.names})
        np.savez_compressed(stream, image=image, mask=mask, told=np.array(told))
        write_bytes(path, stream.getvalue())
        return image, mask, facts, segmenter.labels

    def shot(self, generator, method: str, source: str, shots: int, draw: int) -> None:
        """A student of samples that a method labelled, scored; one row. METHOD + shots: of the shots' own masks too."""
        key = {"kind": "shots", "method": method, "source": source, "shots": shots, "draw": draw}
        own = method.removesuffix(AND_SHOTS)
        image, mask, facts, labels = self.labelled(generator, own, source, shots, draw)
        path = self.folder / f"student-{method.replace(' ', '')}-{source}-{shots}-{draw}.safetensors"
        real = facts["chosen"] if method != own else None
        student = self.fit_student(path, image, mask, labels, draw, real)
        facts["seconds"]["student"] = student.facts["seconds"]
        self.keep(key | facts | self.scores(student))

    def run(self, told: Callable[[], Any] = lambda: None) -> None:
        """Everything that is not there yet, the default method's answer first; `told` is called after each row.

        Errors: UsageError for an unknown method, before any work.
        """
        plan = self.plan
        tools = {name: methods.get(name) for name in sorted(plan.methods, key=lambda n: n != FIRST_METHOD)}
        generator = self.generator()
        told()
        for draw in range(plan.draws):
            for count in plan.supervised if draw == 0 else [c for c in plan.supervised if c]:
                if count <= len(self.train.image):
                    key = {"kind": "supervised", "count": count, "draw": draw}
                    self.attempt(lambda c=count, d=draw: self.supervised(c, d), **key)
                    told()
            for source in plan.sources:
                for shots in plan.shots if source != "sampled" else ():
                    what = (source, shots, draw)
                    key = dict(zip(("source", "shots", "draw"), what, strict=True))
                    self.attempt(lambda w=what: self.paired(generator, *w), kind="paired", **key)
                    told()
                for name, tool in tools.items():
                    for shots in plan.shots if fits(tool, 1) else ():
                        self._attempt_shots(generator, name, source, shots, draw, told)
        for draw in range(plan.draws):
            for name in (n for n, tool in tools.items() if fits(tool, 0)):
                self._attempt_shots(generator, name, "none", 0, draw, told)

    def _attempt_shots(self, generator, method: str, source: str, shots: int, draw: int, told: Callable) -> None:
        """The students of what a method labelled: of that alone and, of real shots, with those among it."""
        for name in (method, method + AND_SHOTS) if source in ("real", "chosen") else (method,):
            key = {"method": name, "source": source, "shots": shots, "draw": draw}
            self.attempt(lambda k=key: self.shot(generator, **k), kind="shots", **key)
            told()
        self._labelled_by(method, source, shots, draw).unlink(missing_ok=True)  # 30 MB, of each of hundreds

    def _labelled_by(self, method: str, source: str, shots: int, draw: int) -> Path:
        return self.folder / f"labelled-{method}-{source}-{shots}-{draw}.npz"


def follow(events: Iterable[Progress]) -> None:
    """Say how far a training is."""
    for event in events:
        print(f"{event.stage}: {event.done}/{event.total}", event.facts, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the plans named on the command line. Exit status 1 when one of them could not be ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PLANS), help="NAME of DATA/NAME.h5")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", type=Path, default=ROOT / "real-out")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--resolution", type=int, default=0, help="reduce the images, as 64 for acdc128 on a CPU")
    parser.add_argument("--methods", help="A,B,… (default: all)")
    parser.add_argument("--shots", type=int, nargs="+")
    parser.add_argument("--supervised", type=int, nargs="+", help="annotated images; 0 = all")
    parser.add_argument("--sources", nargs="+", choices=SOURCES)
    for name in ("draws", "samples", "student-steps", "images"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--project-steps", type=int)
    parser.add_argument("--retry", action="store_true", help="measure again what failed")
    parser.add_argument("--report", action="store_true", help="measure nothing, only write the page")
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
                if not a.report:
                    bench.run(partial(write_report, bench, a.docs))  # after each row, in case there is no end
            finally:
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
    own = PLANS.get(f"{name}-{a.resolution}", PLANS.get(name, {}))
    plan = Plan(name, data, work, device=a.device, resolution=a.resolution, compiled=a.compile, **own)
    given = {"draws": a.draws, "samples": a.samples, "student_steps": a.student_steps}
    given |= {k: tuple(v) if v else None for k, v in (("shots", a.shots), ("supervised", a.supervised))}
    given |= {"sources": tuple(a.sources) if a.sources else None}
    given |= {"methods": tuple(a.methods.split(",")) if a.methods else None}
    plan = replace(plan, **{k: v for k, v in given.items() if v is not None})
    if a.images:
        plan = replace(plan, training=plan.training | {"images": a.images})
    if a.project_steps:
        inversion = replace(plan.project.inversion, steps=a.project_steps)
        plan = replace(plan, project=replace(plan.project, inversion=inversion))
    return plan


if __name__ == "__main__":
    main()
