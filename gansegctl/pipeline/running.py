"""`run PRESET`: every stage that the preset has a table for, one after the other, resumable."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansegctl import presets
from gansegctl.config import (
    AnnotateSettings,
    DistillSettings,
    EvalSettings,
    GenerateSettings,
    from_dict,
    to_dict,
)
from gansegctl.contracts import Progress
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.pipeline import annotate as annotating
from gansegctl.pipeline.distill import distill
from gansegctl.pipeline.evaluate import evaluate, write_report
from gansegctl.pipeline.stages import describe_dataset, plan_generate
from gansegctl.pipeline.synthesize import synthesize

DESCRIPTIVE = ("generator", "labeller", "exemplars", "demo")
"""Tables that say what a preset brings; `run` reads the others."""
STAGES = {
    "generate": GenerateSettings,
    "annotate": AnnotateSettings,
    "distill": DistillSettings,
    "eval": EvalSettings,
}


@dataclass(frozen=True)
class Plan:
    """The settings of each stage; None for a stage that the preset leaves out. against: the truth of `eval`."""

    name: str
    generate: GenerateSettings
    annotate: AnnotateSettings | None = None
    distill: DistillSettings | None = None
    eval: EvalSettings | None = None
    against: str = ""

    def describe(self) -> dict[str, Any]:
        stages = {name: getattr(self, name) for name in STAGES}
        return {"preset": self.name} | {k: to_dict(v) for k, v in stages.items() if v is not None}


def read_plan(name_or_file: str) -> Plan:
    """A preset by name, or a TOML file. UsageError for unknown tables and keys, each with the nearest known one."""
    path = Path(name_or_file)
    if path.suffix == ".toml":
        if not path.is_file():
            raise UsageError(f"got {path}: no such file", wanted="a preset")
        try:
            tables = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as e:
            raise UsageError(f"got {path}: {e}", wanted="TOML") from e
    else:
        tables = presets.load(name_or_file)
    known = (*STAGES, *DESCRIPTIVE, "title")
    for key in tables:
        if key not in known:
            raise UsageError(f"got unknown key {key}", wanted="a known one", remedy=did_you_mean(key, known))
    if "generate" not in tables:
        raise UsageError(f"got {name_or_file} without [generate]", wanted="a table for that stage")
    scoring = dict(tables.get("eval", {}))
    against = scoring.pop("against", "")
    tables = tables | {"eval": scoring} if "eval" in tables else tables
    stages = {k: from_dict(cls, tables[k], k) for k, cls in STAGES.items() if k in tables}
    return Plan(path.stem, against=against, **stages)


def run(plan: Plan, out: Path, device: str, follow: Callable[[Iterable[Progress]], Any]) -> dict[str, Any]:
    """Run the plan into OUT; returns what there is at the end."""
    dataset, student = out / "dataset", out / "student.safetensors"
    job, network, _ = plan_generate(plan.generate, None, device)
    follow(synthesize(job, dataset, network, device=device))
    result: dict[str, Any] = {"dataset": describe_dataset(dataset)}
    if plan.annotate is None:
        return result
    source = annotating.Source.open(dataset, device=device)
    if not plan.annotate.masks:
        labels = annotating.known_labels(None, dataset, None, plan.generate.generator)
        folder, choice = annotating.write_exemplars(source, plan.annotate.shots, labels)
        return result | {
            "next": f"paint the masks in {folder}, set annotate.masks to it, and run again",
            "seeds": choice.seeds,
        }
    folder = annotating.masks_folder(plan.annotate.masks, dataset)
    labels = annotating.known_labels(folder, dataset, None, plan.generate.generator)
    exemplars = annotating.exemplars_of(source, annotating.exemplar_seeds(folder, plan.annotate.shots), folder, labels)
    follow(annotating.annotate(source, exemplars, labels, plan.annotate))
    result["dataset"] = describe_dataset(dataset)
    if plan.distill is not None:
        if not student.exists():
            follow(distill(dataset, student, plan.distill, device))
        result["student"] = str(student)
    if plan.eval is not None and plan.against:
        report = evaluate(dataset, plan.against, plan.eval, device=device)
        write_report(report, out / "eval")
        result["scores"] = report.to_json()["scores"]
    return result
