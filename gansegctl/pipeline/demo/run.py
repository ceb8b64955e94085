"""`demo run`: the whole idea on the built-in domain, with every score beside the error of its truth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansegctl import presets
from gansegctl.config import AnnotateSettings, DistillSettings, EvalSettings, GenerateSettings, from_dict
from gansegctl.contracts import Progress
from gansegctl.demo.scenes import HELD_OUT
from gansegctl.evaluate.report import Report
from gansegctl.io.atomic import write_text
from gansegctl.pipeline.annotate import stage as annotating
from gansegctl.pipeline.annotate.exemplars import exemplar_seeds, exemplars_of, known_labels, masks_folder
from gansegctl.pipeline.annotate.source import SEGMENTER, Source
from gansegctl.pipeline.demo.scenes import write_scenes
from gansegctl.pipeline.distill.stage import distill
from gansegctl.pipeline.evaluate import evaluate, write_report
from gansegctl.pipeline.generate.stage import plan_generate, synthesize

PRESET = "demo"
COLUMNS = ("", "labeller", "1-shot segmenter", "student", "ceiling")
SCORES = ("miou", "wiou_tritrong", "wiou_manerikar", "pixel_accuracy", "trimap_miou")


@dataclass
class DemoResult:
    """A report a column, and where everything lies."""

    reports: dict[str, Report]
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
        """What the columns are."""
        return (
            "labeller: U-Net trained on renderings and exact masks, on held-out renderings: the error of the truth\n"
            "  for generated samples. 1-shot segmenter: on fresh generated samples, against the labeller. student:\n"
            "  distilled from the labelled samples, on held-out renderings with exact masks. ceiling: the same U-Net\n"
            "  and steps on 2,000 exact pairs. Seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in self.seconds.items())
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "reports": {k: r.to_json() for k, r in self.reports.items()},
            "seconds": self.seconds,
            "files": [str(f) for f in self.files],
        }


def run_demo(out: Path, follow: Callable[[Iterable[Progress]], Any], say: Callable[[str], None]) -> DemoResult:
    """Run every stage into OUT; what is there already is not made again."""
    preset = presets.load(PRESET)
    demo, seconds = preset["demo"], {}
    out.mkdir(parents=True, exist_ok=True)
    labeller = str(presets.resource(preset["labeller"]["weights"]))

    def timed(name: str, events: Iterable[Progress]) -> None:
        say(f"== {name}")
        began = time.monotonic()
        follow(events)
        seconds[name] = time.monotonic() - began

    dataset = out / "dataset"
    job, network, _ = plan_generate(from_dict(GenerateSettings, preset["generate"], "generate"), None, "cpu")
    timed("generate", synthesize(job, dataset, network))

    settings = from_dict(AnnotateSettings, preset["annotate"], "annotate")
    source = Source.open(dataset)
    masks = masks_folder(settings.masks, dataset)
    labels = known_labels(masks, dataset, None, PRESET)
    exemplars = exemplars_of(source, exemplar_seeds(masks, settings.shots), masks, labels)
    timed("annotate --shots 1", annotating.annotate(source, exemplars, labels, settings))

    student, ceiling = out / "student.safetensors", out / "ceiling.safetensors"
    distilling = from_dict(DistillSettings, preset["distill"], "distill")
    if not student.exists():
        timed("distill", distill(dataset, student, distilling))
    scenes, held = out / "scenes", out / "held-out"
    timed("held-out renderings", write_scenes(list(range(HELD_OUT, HELD_OUT + demo["held_out"])), held))
    timed("renderings for the ceiling", write_scenes(list(range(demo["ceiling"])), scenes))
    if not ceiling.exists():
        timed("ceiling", distill(scenes, ceiling, distilling))

    say("== eval")
    began = time.monotonic()
    scoring = EvalSettings(num=demo["samples"])
    fresh = list(range(demo["first_sample"], demo["first_sample"] + demo["samples"]))
    reports = {
        "labeller": evaluate(Path(labeller), str(held), scoring),
        "1-shot segmenter": evaluate(dataset / SEGMENTER, PRESET, scoring, PRESET, fresh),
        "student": evaluate(student, str(held), scoring),
        "ceiling": evaluate(ceiling, str(held), scoring),
    }
    files = [dataset / "contact.png", dataset / "card.md", dataset / SEGMENTER, student, ceiling]
    for name, report in reports.items():
        files += write_report(report, out / "eval" / name.replace(" ", "-"))
    seconds["eval"] = time.monotonic() - began
    result = DemoResult(reports, files, seconds)
    table = out / "table.json"
    write_text(table, json.dumps(result.to_json(), indent=1) + "\n")
    result.files.append(table)
    return result
