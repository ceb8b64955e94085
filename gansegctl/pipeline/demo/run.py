"""`demo run`: the whole idea on the built-in domain, with every score beside the error of its truth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansegctl import presets
from gansegctl.config import AnnotateSettings, DistillSettings, EvalSettings, GenerateSettings, from_dict
from gansegctl.contracts import Result, Stage
from gansegctl.demo.scenes import HELD_OUT
from gansegctl.evaluate.report import Report
from gansegctl.io.atomic import write_text
from gansegctl.pipeline.annotate.source import SEGMENTER
from gansegctl.pipeline.annotate.stage import annotate_dataset
from gansegctl.pipeline.demo.scenes import write_scenes
from gansegctl.pipeline.distill.stage import distill
from gansegctl.pipeline.evaluate import evaluate, write_report
from gansegctl.pipeline.generate.stage import plan_generate, synthesize

PRESET = "demo"
COLUMNS = ("", "reference segmenter", "1-shot segmenter", "student", "upper bound")
SCORES = ("miou", "wiou_tritrong", "wiou_manerikar", "pixel_accuracy", "trimap_miou")


@dataclass
class DemoResult:
    """One report per column, and where all files are. exact: images that the upper bound was trained on."""

    reports: dict[str, Report]
    exact: int
    files: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def rows(self) -> list[tuple[Any, ...]]:
        """IoU of each class, then the scores, one column a report."""
        reports = [self.reports[c] for c in COLUMNS[1:]]
        rows: list[tuple[Any, ...]] = [("images", *(str(r.images) for r in reports))]
        for i, name in enumerate(reports[0].labels.names):
            rows.append((name, *(float(r.iou[i]) for r in reports)))
        rows += [(name, *(float(r.scores[name]) for r in reports)) for name in SCORES]
        return rows

    def legend(self) -> str:
        """The meaning of the columns, and the seconds of every stage."""
        return (
            "reference segmenter: U-Net trained on renderings and their exact masks, scored on held-out renderings;\n"
            "  it is the truth for generated samples, and this column is its error\n"
            "1-shot segmenter: scored on fresh generated samples, against the reference segmenter\n"
            "student: distilled from the labelled samples, scored on held-out renderings with exact masks\n"
            f"upper bound: the same network and steps, trained on {self.exact:,} exactly labelled images\n"
            "seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in self.seconds.items())
        )

    def to_json(self) -> dict[str, Any]:
        """The same as one table of JSON values."""
        return {
            "reports": {k: r.to_json() for k, r in self.reports.items()},
            "seconds": self.seconds,
            "files": [str(f) for f in self.files],
        }


def run_demo(out: Path, say: Callable[[str], None] = lambda line: None) -> Stage[DemoResult]:
    """Run every stage into OUT; finished work is kept. say: takes each line of talk."""
    preset = presets.load(PRESET)
    demo = preset["demo"]
    seconds: dict[str, float] = {}
    out.mkdir(parents=True, exist_ok=True)

    def timed(name: str, stage: Stage[Result]) -> Stage[Result]:
        say(f"== {name}")
        began = time.monotonic()
        result = yield from stage
        seconds[name] = time.monotonic() - began
        return result

    dataset = out / "dataset"
    job, network, _ = plan_generate(from_dict(GenerateSettings, preset["generate"], "generate"), None, "cpu")
    yield from timed("generate", synthesize(job, dataset, network))
    annotating = from_dict(AnnotateSettings, preset["annotate"], "annotate")
    yield from timed(f"annotate --shots {annotating.shots}", annotate_dataset(dataset, annotating, say=say))

    student, bound = out / "student.safetensors", out / "upper-bound.safetensors"
    distilling = from_dict(DistillSettings, preset["distill"], "distill")
    if not student.exists():
        yield from timed("distill", distill(dataset, student, distilling))
    exact, held = out / "scenes", out / "held-out"
    yield from timed("held-out renderings", write_scenes(list(range(HELD_OUT, HELD_OUT + demo["held_out"])), held))
    yield from timed("renderings for the upper bound", write_scenes(list(range(demo["upper_bound"])), exact))
    if not bound.exists():
        yield from timed("upper bound", distill(exact, bound, distilling))

    say("== eval")
    began = time.monotonic()
    scoring = EvalSettings(num=demo["samples"])
    fresh = list(range(demo["first_sample"], demo["first_sample"] + demo["samples"]))
    reports = {
        "reference segmenter": evaluate(presets.resource(preset["reference_segmenter"]["weights"]), str(held), scoring),
        "1-shot segmenter": evaluate(dataset / SEGMENTER, PRESET, scoring, PRESET, fresh),
        "student": evaluate(student, str(held), scoring),
        "upper bound": evaluate(bound, str(held), scoring),
    }
    files = [dataset / "contact.png", dataset / "card.md", dataset / SEGMENTER, student, bound]
    for name, report in reports.items():
        files += write_report(report, out / "eval" / name.replace(" ", "-"))
    seconds["eval"] = time.monotonic() - began
    result = DemoResult(reports, demo["upper_bound"], files, seconds)
    table = out / "table.json"
    write_text(table, json.dumps(result.to_json(), indent=1) + "\n")
    result.files.append(table)
    return result
