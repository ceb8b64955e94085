"""From the rows of benchmarks/real/bench.py to the learning curve, the labels saved, and the tables of docs/real.md."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.page_blocks import fill
from benchmarks.real.curves import labels_to_match, learning_curve
from benchmarks.real.rows import key_of
from gansegctl.io.image import save_png

if TYPE_CHECKING:
    from benchmarks.real.plan import Measured

DOCS = Path(__file__).resolve().parents[2] / "docs"
REAL, SAME = "supervised on real images", "supervised on the real shots"
STAGES = ("exemplars", "fit", "samples", "student")


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample deviation (0 for one value)."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def mean_known(values: list[float]) -> float:
    """Of the runs that were not interrupted; nan where all were."""
    known = [v for v in values if not math.isnan(v)]
    return statistics.mean(known) if known else math.nan


def summary(rows: list[dict]) -> tuple[dict, list[dict], list[dict]]:
    """The lines of the curve, the supervised scores by number of images, and one entry a method, source and shots.

    An entry has the labels it saves and what the same images teach without a generator. Masks in two parts are
    compared with what the supervised students score in two parts, and have no place on the curve of all classes.
    """
    lines: dict[str, list[tuple[float, float, float]]] = {REAL: [], SAME: []}
    done = [r for r in rows if "failed" not in r]
    baseline = []
    for (count,), found in grouped_by([r for r in done if r["kind"] == "supervised"], "images"):
        told = {name: mean_and_spread([r[name] for r in found]) for name in ("miou", "foreground_miou")}
        baseline.append({"images": count} | told)
        lines[REAL].append((count, *told["miou"]))
    same = dict(grouped_by([r for r in done if r["kind"] == "paired"], "source", "shots"))
    for (source, _), found in same.items():
        if source == "real":
            images = statistics.mean(r["images"] for r in found)
            lines[SAME].append((images, *mean_and_spread([r["miou"] for r in found])))
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
        images = statistics.mean(r["images"] for r in runs)
        entry |= {"images": images, "miou": mean, "spread": spread, "two_class": two}
        entry["foreground"] = mean_and_spread([r["foreground_miou"] for r in runs])
        entry["mean_dice"] = statistics.mean(r["mean_dice"] for r in runs)
        curve = [(b["images"], b[name][0]) for b in baseline]
        entry["matched_by"] = labels_to_match(curve, mean)[1] if curve else "-"
        if key[1:] in same:
            entry["same"] = mean_and_spread([r[name] for r in same[key[1:]]])
        for measure in ("iou", "dice"):
            entry[measure] = {n: statistics.mean(r[measure].get(n, 0.0) for r in runs) for n in runs[0][measure]}
        entry["seconds"] = {stage: mean_known([r["seconds"].get(stage, math.nan) for r in runs]) for stage in STAGES}
        if images and not two:
            lines.setdefault(f"{key[0]}, {key[1]} shots", []).append((images, mean, spread))
    return {name: line for name, line in lines.items() if line}, baseline, entries


def grouped_by(rows: list[dict], *names: str) -> list[tuple[tuple, list[dict]]]:
    """(values of `names`, rows with them), rising."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault(tuple(row[n] for n in names), []).append(row)
    return sorted(found.items(), key=lambda item: item[0])


def write_report(bench: Measured, docs: Path = DOCS) -> str:
    """The curve as docs/images/real-NAME.png, and the tables between the marks of docs/real.md → the text."""
    lines, baseline, entries = summary(bench.rows)
    plan, names = bench.plan, bench.labels.names
    name = f"{plan.name}-{plan.resolution}" if plan.resolution else plan.name
    text = []
    if lines:
        curve = learning_curve(lines, f"{name}: {len(bench.test.image)} test images")
        (docs / "images").mkdir(exist_ok=True)
        save_png(docs / "images" / f"real-{name}.png", curve)
        text += [f"![learning curve](images/real-{name}.png)", ""]
    text += [told_plan(bench)]
    head = ("shots", "of", "method", "runs", "annotated", "mIoU", "foreground mIoU", "mean Dice")
    head += ("supervised on the same", "supervised labels needed to match", *(f"{stage}, s" for stage in STAGES))
    head += tuple(f"{n}: IoU / Dice" for n in names)
    text += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for e in sorted(entries, key=lambda e: (e["shots"], e["source"], e.get("two_class", False), -e.get("miou", -1))):
        text.append("| " + " | ".join(map(str, cells(e, names))) + " |")
    text += ["", "| supervised on | mIoU | foreground mIoU |", "|---|---|---|"]
    text += [f"| {b['images']:g} | {told(b['miou'])} | {told(b['foreground_miou'])} |" for b in baseline]
    if failed := [r for r in bench.rows if "failed" in r]:
        text += ["", "Failed:", ""]
        text += [f"* {key_of(r)}: {r['failed'].splitlines()[0]}" for r in failed]
    block = "\n".join(text)
    fill(docs / "real.md", name, block)
    return block


def told_plan(bench: Measured) -> str:
    """The settings of the rows, in words."""
    plan, inversion = bench.plan, bench.plan.project.inversion
    words = [f"Images of {bench.train.image.shape[1]} px"]
    if trained := bench.row(kind="generator"):
        how = ", ".join(f"{k} {v}" for k, v in plan.training.items() if k != "images")
        first = f", the first {plan.grow['images']:,} at half the size" if plan.grow else ""
        words.append(f"generator: {trained['images']:,} images shown in {trained['seconds']:.0f} s{first} ({how})")
    words += [
        f"{plan.samples:,} samples and {plan.student_steps:,} steps a student",
        f"projection into {inversion.space} by {inversion.steps} steps",
    ]
    widest: dict[int, dict] = {}  # shots of a draw are taken from one order, so the widest look includes the others
    for row in (r for r in bench.rows if r.get("looked_at")):
        widest[row["draw"]] = max(row, widest.get(row["draw"], row), key=lambda r: r["looked_at"])
    if widest:
        looked, out = (sum(r[name] for r in widest.values()) for name in ("looked_at", "refused"))
        words.append(f"{looked} {plan.unit}s looked at for shots, {out or 'none'} of their images refused")
    return "; ".join(words) + "."


def told(score: tuple[float, float]) -> str:
    """Mean and spread; of one run, which has none, the score alone."""
    return f"{score[0]:.3f} ± {score[1]:.3f}" if score[1] else f"{score[0]:.3f}"


def cells(e: dict, names: tuple[str, ...]) -> list:
    """An entry's row of the table. The scores of all classes are none of masks in two parts."""
    runs = f"{e['runs']}, {e['failed']} failed" if e["failed"] else e["runs"]
    found = [e["shots"], e["source"], e["method"], runs]
    if not e["runs"]:
        return found + ["failed"] + ["-"] * (5 + len(STAGES) + len(names))
    two = e["two_class"]
    found += [f"{e['images']:g}", "two classes" if two else told((e["miou"], e["spread"])), told(e["foreground"])]
    found += ["-" if two else f"{e['mean_dice']:.3f}", told(e["same"]) if "same" in e else "-"]
    found.append(e["matched_by"] + " (foreground)" * two)
    found += ["-" if math.isnan(v) else f"{v:.0f}" for v in e["seconds"].values()]
    both = {n: f"{e['iou'][n]:.3f} / {e['dice'][n]:.3f}" for n in e["iou"]}
    return found + ["-" if two else both.get(n, "-") for n in names]
