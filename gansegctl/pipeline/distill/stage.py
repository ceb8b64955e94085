"""The stage `distill`: a dataset of pairs → a student that needs no generator (auto-shot), by one process or many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gansegctl.config import DistillSettings, to_dict
from gansegctl.contracts import Progress, Stage
from gansegctl.errors import UsageError
from gansegctl.io.atomic import clean_parts
from gansegctl.io.run_folder import require_same
from gansegctl.pipeline.distill.columns import IN_MEMORY
from gansegctl.pipeline.distill.pairs import Annotated, load_pairs, source_of
from gansegctl.pipeline.runtime.tasks import launched
from gansegctl.students.augment import PRESETS
from gansegctl.students.distributed import ONE_RANK, Ranks, process_group
from gansegctl.students.student import read_header
from gansegctl.students.training import StudentSettings, StudentTraining

SPREAD = ("accumulate",)
"""Settings that say how the work is spread, not what comes of it."""


@contextlib.contextmanager
def torchrun_ranks(device: str, environ: Mapping[str, str]) -> Iterator[Ranks]:
    """The processes that train together: those that torchrun started. UsageError for those of another launcher.

    They would all train the same student, and write it over each other.
    """
    found = launched(environ)
    if found.count > 1 and found.source != "torchrun":
        raise UsageError(
            f"got process {found} by {found.source}",
            wanted="several processes by torchrun, or one",
            remedy="start `torchrun --nproc-per-node N -m gansegctl distill …` once a node",
        )
    with process_group(device, environ) as these:
        yield these


def distill(
    dataset: Path,
    out: Path,
    settings: DistillSettings,
    device: str = "cpu",
    *,
    limit: int | None = None,
    split: int | None = None,
    real: Annotated | None = None,
    dtype: torch.dtype = torch.float32,
    ranks: Ranks = ONE_RANK,
    in_memory: int = IN_MEMORY,
) -> Stage[dict[str, Any]]:
    """Train a student on the pairs and write it; `out`.ckpt beside it makes an interrupted run go on.

    in_memory, limit, split: as `load_pairs` takes them. real: annotated images to learn from too. dtype: of the weights
    in the file. ranks: the processes that train it together; only the first writes. The student takes as many channels
    as the images have. A finished one of the same pairs and settings is left as it is; UsageError for any other file
    there. Returns the facts of the last progress: loss and score, or why nothing was to do.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"got -o {out}", wanted="a name ending in .safetensors")
    source, checkpoint = source_of(dataset, settings, limit, split), out.with_suffix(".ckpt")
    source |= real.made_of() if real else {}
    made_of = {k: v for k, v in source.items() if k in ("digest", "limit", "split") or k.startswith("real")}
    made_of |= {k: v for k, v in to_dict(settings).items() if k not in SPREAD} | {"dtype": str(dtype)}
    facts: dict[str, Any] = {}
    finished = out.exists() and not checkpoint.exists()
    if ranks.of_lead(finished, torch.device(device)):
        if ranks.lead:  # the others may have no sight of its disk
            steps, facts = _finished(out, made_of)["steps"], {"skipped": "finished already"}
            yield Progress("distill", steps, steps, "steps", facts)
        return facts
    pairs, labels = load_pairs(
        dataset,
        limit,
        settings.drop_uncertain,
        settings.ignore_below,
        in_memory,
        split,
        settings.temperature if settings.soft else None,
    )
    if ranks.lead:
        out.parent.mkdir(parents=True, exist_ok=True)
        clean_parts(out.parent, out.stem)
    training = StudentTraining(
        pairs,
        labels,
        _student_settings(settings, real),
        device,
        ranks,
        source,
        real.load(labels, tuple(pairs.image.shape[1:])) if real else None,
    )
    for event in training.run(checkpoint):
        facts = event.facts
        yield event
    if ranks.lead:
        training.student.facts["made_of"] = made_of
        training.student.facts["dataset"] = dataset.resolve().name
        if split is not None:
            training.student.facts["split"] = split
        if real is not None:
            training.student.facts["real_from"] = real.source.resolve().name
        training.student.save(out, dtype)
        checkpoint.unlink(missing_ok=True)
    return facts


def _student_settings(settings: DistillSettings, real: Annotated | None) -> StudentSettings:
    asked = StudentSettings(**settings.learning(), augment=PRESETS[settings.augment])
    return replace(asked, real_share=real.share) if real else asked


def _finished(out: Path, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the student in `out`. UsageError for anything but a student made of this."""
    facts = read_header(out)["facts"]
    require_same(facts.get("made_of", {}), made_of, out, remedy="choose another -o, or delete the file")
    return facts
