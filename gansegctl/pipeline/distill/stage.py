"""The stage `distill`: a dataset of pairs → a student that needs no generator (auto-shot), by one process or many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from gansegctl.config import DistillSettings, to_dict
from gansegctl.contracts import Progress
from gansegctl.errors import UsageError
from gansegctl.io.training_state import differing
from gansegctl.pipeline.distill.columns import IN_MEMORY
from gansegctl.pipeline.distill.pairs import Annotated, load_pairs, source_of
from gansegctl.pipeline.runtime.tasks import launched
from gansegctl.students.augment import PRESETS
from gansegctl.students.distributed import ALONE, Ranks, joined
from gansegctl.students.student import read_header
from gansegctl.students.training import StudentSettings, StudentTraining

SPREAD = ("accumulate",)
"""Settings that say how the work is spread, not what comes of it."""


@contextlib.contextmanager
def ranks(device: str, environ: Mapping[str, str]) -> Iterator[Ranks]:
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
    with joined(device, environ) as these:
        yield these


def distill(
    dataset: Path,
    out: Path,
    settings: DistillSettings,
    device: str = "cpu",
    limit: int | None = None,
    ranks: Ranks = ALONE,
    in_memory: int = IN_MEMORY,
    split: int | None = None,
    dtype: torch.dtype = torch.float32,
    real: Annotated | None = None,
) -> Iterator[Progress]:
    """Train a student on the pairs and write it; `out`.ckpt beside it makes an interrupted run go on.

    ranks: the processes that train it together; only the first writes. in_memory, split: as `load_pairs` takes them.
    dtype: of the weights in the file. real: annotated images to learn from too. The student takes as many channels as
    the images have. A finished one of the same pairs and settings is left as it is; UsageError for any other file
    there.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"got -o {out}", wanted="a name ending in .safetensors")
    source, checkpoint = source_of(dataset, settings, limit, split), out.with_suffix(".ckpt")
    source |= real.made_of() if real else {}
    made_of = {k: v for k, v in source.items() if k in ("digest", "limit", "split") or k.startswith("real")}
    made_of |= {k: v for k, v in to_dict(settings).items() if k not in SPREAD} | {"dtype": str(dtype)}
    finished = out.exists() and not checkpoint.exists()
    if ranks.of_lead(finished, torch.device(device)):
        if ranks.lead:  # the others may have no sight of its disk
            steps = _finished(out, made_of)["steps"]
            yield Progress("distill", steps, steps, "steps", {"skipped": "finished already"})
        return
    temperature = settings.temperature if settings.soft else None
    filters = (settings.drop_uncertain, settings.ignore_below)
    pairs, labels = load_pairs(dataset, limit, *filters, in_memory, split, temperature)
    if ranks.lead:
        out.parent.mkdir(parents=True, exist_ok=True)
    training = StudentTraining(
        pairs,
        labels,
        StudentSettings(
            arch=settings.arch,
            epochs=settings.epochs,
            steps=settings.steps,
            batch_size=settings.batch_size,
            accumulate=settings.accumulate,
            lr=settings.lr,
            precision=settings.precision,
            seed=settings.seed,
            temperature=settings.temperature,
            augment=PRESETS[settings.augment],
            **({"real_share": real.share} if real else {}),
        ),
        device,
        ranks,
        source,
        real and real.load(labels, tuple(pairs.image.shape[1:])),
    )
    yield from training.run(checkpoint)
    if ranks.lead:
        training.student.facts["made_of"] = made_of
        training.student.facts["dataset"] = dataset.resolve().name
        if split is not None:
            training.student.facts["split"] = split
        if real is not None:
            training.student.facts["real_from"] = real.source.resolve().name
        training.student.save(out, dtype)
        checkpoint.unlink(missing_ok=True)


def _finished(out: Path, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the student in `out`. UsageError for anything but a student made of this."""
    header = read_header(out)
    facts = header.get("facts", {})
    before = facts.get("made_of", {})
    if differs := differing(before, made_of):
        raise UsageError(
            f"got -o {out}, a finished student of something else ({differs})",
            wanted="a new name",
            remedy="choose another -o, or delete the file",
        )
    return facts


def quietly(events: Iterator[Progress], follow: Callable[[Iterable[Progress]], Any] | None) -> Any:
    """Run a stage to its end, told by `follow`, or by nobody: of several ranks one speaks."""
    if follow is not None:
        return follow(events)
    for _ in events:
        pass
    return None
