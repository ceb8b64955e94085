"""The worth of projection on the demo generator: errors, verdicts, masks beside the student's; into docs/project.md.

100 held-out renderings are projected; their masks through projection and the one-shot segmenter of `make demo`, and
those of its student, are scored against the exact ones. 100 images from elsewhere are projected only to be judged:
sprites and heart slices from ../shared/data where they are, and noise. No photograph is here: --photos DIR adds yours.

Every image's row goes into WORK/rows.json as soon as its batch is done; run again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from benchmarks.page_blocks import fill
from gansegctl import methods
from gansegctl.contracts import Progress, result_of
from gansegctl.demo.scenes import HELD_OUT, LABELS, render
from gansegctl.evaluate.report import score
from gansegctl.io import run_folder
from gansegctl.io.atomic import write_text
from gansegctl.io.digest import file_digest
from gansegctl.io.image import read_image
from gansegctl.pipeline.inputs.generators import grouped, open_generator
from gansegctl.pipeline.inputs.images import image_files, square_of
from gansegctl.pipeline.project.projector import Projector, ProjectSettings, draw, pixel_error
from gansegctl.pipeline.project.stage import RECORD, calibrate
from gansegctl.students.student import Student, predict_masks

ROOT = Path(__file__).resolve().parents[1]
FIRST = HELD_OUT + 60_000  # neither what `make demo` scores on, nor what the limit of the verdict was chosen on
OTHERS = 1  # likewise: the stream that draws the images from elsewhere
BATCH = 10
RENDERINGS = "held-out renderings"


def from_elsewhere(count: int, side: int, data: Path, photos: Path | None) -> dict[str, np.ndarray]:
    """Kind → images uint8 [N,S,S,3] that the generator was never shown, about `count` in all."""
    stream = np.random.RandomState(OTHERS)
    found: dict[str, np.ndarray] = {}
    files = {"sprites (lpc64)": data / "lpc64.h5", "heart MRI (acdc128)": data / "acdc128.h5"}
    here = {kind: file for kind, file in files.items() if file.is_file()}
    kinds = len(here) + 2 + (photos is not None)
    each = -(-count // kinds)
    for kind, file in here.items():
        with h5py.File(file, "r") as f:
            chosen = np.sort(stream.permutation(np.flatnonzero(f["split"][:] == 1))[:each])
            image = f["image"][chosen]
        found[kind] = np.stack([square_of(_colour(x), side) for x in image])
    if photos is not None:
        taken = image_files(photos)[:each]
        found["photographs"] = np.stack([square_of(read_image(f, 3), side) for f in taken])
    found["white noise"] = stream.randint(0, 256, (each, side, side, 3)).astype(np.uint8)
    rest = count - sum(map(len, found.values()))
    found["coloured 1/f noise"] = np.stack([pink(side, stream) for _ in range(rest)])
    return found


def _colour(x: np.ndarray) -> np.ndarray:
    return np.repeat(x, 3, axis=2) if x.shape[2] == 1 else x


def pink(side: int, stream: np.random.RandomState) -> np.ndarray:
    """Noise uint8 [S,S,3] whose amplitude falls as 1/frequency, each channel from darkest to brightest."""
    y, x = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    falling = 1 / np.maximum(np.hypot(y, x), 1 / side)
    waves = np.fft.fft2(stream.randn(3, side, side)) * falling
    noise = np.fft.ifft2(waves).real
    low, high = noise.min(axis=(1, 2), keepdims=True), noise.max(axis=(1, 2), keepdims=True)
    return np.rint(255 * (noise - low) / (high - low)).astype(np.uint8).transpose(1, 2, 0)


def measure(projector: Projector, kinds: dict[str, np.ndarray], segmenter, work: Path) -> Iterator[dict]:
    """One row an image: kind, number, error in grey levels, verdict, seconds; a rendering's mask goes into a file."""
    path = work / "rows.json"
    rows: list[dict] = json.loads(path.read_text()) if path.exists() else []
    yield from tuple(rows)
    done = {(r["kind"], r["number"]) for r in rows}
    for kind, images in kinds.items():
        todo = [i for i in range(len(images)) if (kind, i) not in done]
        for numbers in grouped(todo, BATCH):
            found = result_of(projector.project(images[list(numbers)], Progress("project", 0, len(todo))))
            new = []
            for i, projection in zip(numbers, found, strict=True):
                judge = segmenter if kind == RENDERINGS else None
                began = time.perf_counter()
                drawn, said = draw(projector.generator, projection, projector.settings.noise, judge)
                facts = {k: projection.facts[k] for k in ("flagged", "score", "seconds")}
                row = {"kind": kind, "number": i, "error": pixel_error(images[i], drawn)} | facts
                row["seconds"] += time.perf_counter() - began
                if said is not None:
                    np.save(work / f"mask-{i:04d}.npy", said.labels[0].cpu().numpy())
                new.append(row)
            rows += new
            write_text(path, json.dumps(rows, indent=1) + "\n")
            print(f"{kind}: {numbers[-1] + 1}/{len(images)}", flush=True)
            yield from new


def of_student(student: Student, image: np.ndarray) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Masks uint8 [N,H,W] and (images a batch, seconds an image)."""
    times = []
    for batch in (1, 32):
        began = time.perf_counter()
        masks = [predict_masks(student, image[i : i + batch]) for i in range(0, len(image), batch)]
        times.append((batch, (time.perf_counter() - began) / len(image)))
    return np.concatenate(masks), times


def tables(
    rows: Sequence[dict], masks: dict[str, np.ndarray], truth: np.ndarray, times: list[tuple[int, float]]
) -> str:
    """The tables of docs/project.md. masks: by projection and by the student, uint8 [N,H,W] of the same renderings."""
    lines = [
        "| images | flagged | score, lowest, median, highest | error, grey levels: 0, 10, 50, 90, 100 % |",
        "|---" * 4 + "|",
    ]
    kinds = dict.fromkeys(r["kind"] for r in rows)
    groups = {kind: [r for r in rows if r["kind"] == kind] for kind in kinds}
    groups["all from elsewhere"] = [r for r in rows if r["kind"] != RENDERINGS]
    for kind, found in groups.items():
        flagged = sum(r["flagged"] for r in found)
        scores = ", ".join(f"{v:.1f}" for v in np.quantile([r["score"] for r in found], (0, 0.5, 1)))
        errors = ", ".join(f"{v:.1f}" for v in np.quantile([r["error"] for r in found], (0, 0.1, 0.5, 0.9, 1)))
        lines.append(f"| {kind} | {flagged} of {len(found)} | {scores} | {errors} |")
    ours = groups[RENDERINGS]
    reports = {name: score([(m, truth, None)], LABELS, bootstrap=0, worst=0) for name, m in masks.items()}
    head = ("masks of the same renderings", "mIoU", "wIoU", *LABELS.names, "s an image")
    lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    seconds = {"projection": f"{np.mean([r['seconds'] for r in ours]):.2f}"}
    seconds["student"] = ", ".join(f"{t:.4f} (batches of {b})" for b, t in times)
    for name, report in reports.items():
        values = [report.scores["miou"], report.scores["wiou_tritrong"], *report.iou]
        lines.append(f"| {name} | " + " | ".join(f"{float(v):.3f}" for v in values) + f" | {seconds[name]} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not in WORK yet, and fill docs/project.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "demo-out", help="what `make demo` wrote")
    parser.add_argument("--work", type=Path, default=ROOT / "projection-out")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "project.md")
    parser.add_argument("--photos", type=Path, help="a folder of your own images")
    parser.add_argument("-n", "--num", type=int, default=100, help="renderings, and images from elsewhere")
    parser.add_argument("--calibration", type=int, default=32)
    a = parser.parse_args(arguments)
    generator = open_generator("demo")
    judge = a.demo / "dataset" / "segmenter.safetensors"
    segmenter = methods.load(judge)
    segmenter.check_generator(generator)
    side = generator.spec.resolution
    image, truth = (x.numpy() for x in render(range(FIRST, FIRST + a.num), side))
    kinds = {RENDERINGS: image} | from_elsewhere(a.num, side, a.data, a.photos)
    projector = Projector(generator, ProjectSettings(batch_size=BATCH, calibration=a.calibration))
    run_folder.begin(a.work, projector.record() | {"segmenter": file_digest(judge)}, RECORD)
    for _ in calibrate(projector, a.work / "calibration.json"):
        pass
    rows = list(measure(projector, kinds, segmenter, a.work))
    projected = np.stack([np.load(a.work / f"mask-{i:04d}.npy") for i in range(a.num)])
    masks, times = of_student(Student.load(a.demo / "student.safetensors"), image)
    text = tables(rows, {"projection": projected, "student": masks}, truth, times)
    fill(a.page, "projection", text)
    print(text)


if __name__ == "__main__":
    main()
