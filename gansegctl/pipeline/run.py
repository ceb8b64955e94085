"""`run PRESET`: every stage that the preset has a table for, one after the other, resumable."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
from gansegctl.contracts import Stage
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.pipeline.annotate.stage import AnnotateResult, ExemplarRequest, annotate_dataset
from gansegctl.pipeline.distill.stage import distill
from gansegctl.pipeline.evaluate import evaluate, write_report
from gansegctl.pipeline.generate.job import licence_of
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.pipeline.inspect import describe_dataset
from gansegctl.pipeline.runtime.tasks import ALONE, Task
from gansegctl.store.manifest import Manifest
from gansegctl.students.distributed import ONE_RANK, Ranks

STAGES = ("generate", "annotate", "distill", "eval")
DESCRIPTIVE = ("generator", "reference_segmenter", "exemplars", "demo")
"""Tables that say what a preset brings; `run` reads the others."""


@dataclass(frozen=True)
class Plan:
    """The settings of each stage; None for a stage that the preset leaves out.

    against: the truth of `eval`. preset: whose classes and licence hold, also with another file of the same domain.
    given: what the user named it by. classes: the table [exemplars] of a file; licence: of its table [generator].
    """

    name: str
    generate: GenerateSettings
    annotate: AnnotateSettings | None = None
    distill: DistillSettings | None = None
    eval: EvalSettings | None = None
    against: str = ""
    preset: str = ""
    given: str = ""
    classes: dict[str, Any] = field(default_factory=dict)
    licence: str = ""

    @property
    def domain(self) -> str:
        """The preset whose class names and licence hold."""
        return self.preset or self.generate.generator

    def with_generator(self, file: str) -> Plan:
        """The same plan on the weights in `file`: a preset names its generator, but seldom brings it."""
        return replace(self, generate=replace(self.generate, generator=file))

    def with_masks(self, masks: str) -> Plan:
        """The same plan with the masks that were painted since. UsageError where nothing is annotated."""
        if self.annotate is None or not self.annotate.shots:
            raise UsageError(f"got --masks for {self.given}", wanted="a preset that annotates exemplars")
        return replace(self, annotate=replace(self.annotate, masks=masks))

    def describe(self) -> dict[str, Any]:
        """The settings of every stage, for people and for `--json`."""
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
    about = tables.get("generator", {}), tables.get("exemplars", {})
    if not all(isinstance(t, dict) for t in about):
        raise UsageError(f"got {name_or_file}", wanted="[generator] and [exemplars] as tables")
    plan = Plan(
        path.stem,
        generate=from_dict(GenerateSettings, tables["generate"], "generate"),
        annotate=from_dict(AnnotateSettings, tables["annotate"], "annotate") if "annotate" in tables else None,
        distill=from_dict(DistillSettings, tables["distill"], "distill") if "distill" in tables else None,
        eval=from_dict(EvalSettings, scoring, "eval") if "eval" in tables else None,
        against=against,
        preset="" if path.suffix == ".toml" else name_or_file,
        given=name_or_file,
        classes=about[1],
        licence=str(about[0].get("licence", "")),
    )
    if plan.generate.probabilities:
        raise UsageError("got generate.probabilities", wanted="annotate.probabilities: masks are made there")
    if plan.distill and plan.distill.soft and not (plan.annotate and plan.annotate.probabilities):
        raise UsageError(
            "got distill.soft without annotate.probabilities", wanted="both", remedy="add probabilities = true there"
        )
    return plan


def run(
    plan: Plan,
    out: Path,
    device: str,
    *,
    until: str = "",
    task: Task = ALONE,
    ranks: Ranks = ONE_RANK,
    say: Callable[[str], None] = lambda line: None,
) -> Stage[dict[str, Any]]:
    """Run the plan into OUT, or no further than the stage `until`; returns what there is at the end.

    task: this process's part of `generate`. ranks: the processes that share `distill`; they take the stages before it
    as they are, and the first does what comes after. say: takes each line of talk. Errors: DatasetError when those
    stages are not done.
    """
    if task.count > 1 and until != "generate":
        raise UsageError(f"got task {task} for all stages", wanted="--until generate with it")
    dataset, student = out / "dataset", out / "student.safetensors"
    if ranks.world > 1:
        Manifest.read(dataset).require_whole(dataset)
        if plan.distill is not None and not student.exists():
            yield from distill(dataset, student, plan.distill, device, ranks=ranks)
        if not ranks.lead:
            return {}
    job, network, _ = plan_generate(plan.generate, None, device)
    if not job.manifest.licence:
        job = replace(job, manifest=replace(job.manifest, licence=plan.licence or licence_of(plan.domain)))
    yield from synthesize(job, dataset, network, device=device, task=task)
    result: dict[str, Any] = {"dataset": describe_dataset(dataset)}
    if plan.annotate is None or until == "generate":
        return result
    request = ExemplarRequest(preset=plan.domain, table=plan.classes)
    annotated = yield from annotate_dataset(dataset, plan.annotate, request, device=device, say=say)
    result |= _facts(annotated)
    if annotated.to_paint or until == "annotate":
        return result
    if plan.distill is not None:
        if not student.exists():
            yield from distill(dataset, student, plan.distill, device)
        result["student"] = str(student)
    if plan.eval is not None and plan.against and until != "distill":
        report = evaluate(dataset, plan.against, plan.eval, device=device)
        write_report(report, out / "eval")
        result["scores"] = report.to_json()["scores"]
    return result


def _facts(annotated: AnnotateResult) -> dict[str, Any]:
    if annotated.to_paint is None:
        masks = {"masks": list(annotated.notes)} if annotated.settings.shots else {}
        return masks | {"dataset": annotated.describe()}
    folder, _ = annotated.to_paint
    return {
        "next": f"paint the masks in {folder}, and run the same command with --masks {folder}",
        "seeds": list(annotated.seeds),
    }
