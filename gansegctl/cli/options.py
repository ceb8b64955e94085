"""Every flag that more than one command takes, spelled once.

--generator -n/--num --seeds -o/--out --batch-size --device --truncation --truncation-cutoff --noise --class --shots
--method --set --masks --segmenter --profile --seed --task --json --dry-run
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

POSITIVE = click.IntRange(min=1)
PATH = click.Path(path_type=Path)


def generator(required: bool = False):
    return click.option(
        "--generator", required=required, metavar="NAME|FILE", help="A preset's name, or a checkpoint of any family."
    )


def out(help: str, required: bool = True):
    return click.option("-o", "--out", required=required, type=PATH, metavar="PATH", help=help)


num = click.option("-n", "--num", type=POSITIVE, help="How many samples: the seeds 0 to N-1.")
seeds = click.option("--seeds", metavar="RANGES", help="Seeds, as in 0-99,200.")


class BatchSize(click.ParamType):
    """A positive number, or "auto", which is passed on as None."""

    name = "size"

    def convert(self, value, param, ctx):
        return None if value == "auto" else POSITIVE.convert(value, param, ctx)


batch_size = click.option(
    "--batch-size",
    type=BatchSize(),
    metavar="N|auto",
    default=16,
    show_default=True,
    help="Samples a pass; auto = as memory allows, halved where it does not.",
)
device = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i]", help="Where to compute."
)
backend = click.option(
    "--backend",
    type=click.Choice(["auto", "reference", "triton", "cuda"]),
    default="auto",
    show_default=True,
    expose_value=False,
    callback=lambda context, parameter, value: pick_backend(value),
    help="Who computes the feature path; auto: Triton on a GPU, else plain torch.",
)
truncation = click.option("--truncation", type=float, default=1.0, show_default=True, help="psi; 1 = none.")
truncation_cutoff = click.option("--truncation-cutoff", type=POSITIVE, help="Truncate only so many leading w's.")
noise = click.option("--noise", type=click.Choice(["const", "seed", "none"]), default="const", show_default=True)
class_index = click.option(
    "--class", "class_index", type=click.IntRange(min=0), help="Class of a conditional generator."
)
precision = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of the generator's largest blocks; half is for GPUs.",
)
shots = click.option("--shots", type=click.IntRange(min=0), default=1, show_default=True, help="Annotated exemplars.")
method = click.option("--method", default="oneshot", show_default=True, help="How masks are made.")
method_settings = click.option(
    "--set",
    "assigned",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the method, as JSON or plain text; NAME=@FILE reads a JSON file. Repeatable.",
)
masks = click.option("--masks", metavar="PATH|PRESET", help="Masks of the exemplars, painted or drawn in any tool.")
segmenter = click.option("--segmenter", type=PATH, metavar="FILE", help="A segmenter that `annotate` saved.")
probabilities = click.option(
    "--probabilities", is_flag=True, help="Keep those of every class beside the masks, for `distill --soft`."
)
profile = click.option(
    "--profile",
    type=click.Choice(["fixed", "release"]),
    default="fixed",
    show_default=True,
    help="The algorithm as meant, or as the authors' code runs.",
)
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the fit.")
task = click.option(
    "--task",
    "task_text",
    metavar="i/n",
    help="This process's part of the shards; else as the scheduler's variables say.",
)
json_flag = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done, and stop.")


def pick_backend(name: str) -> None:
    """--backend for this process. DeviceError where it cannot run: it is never replaced by another."""
    from gansegctl.errors import DeviceError
    from gansegctl.kernels.backend import prefer

    try:
        prefer(name)
    except ValueError as e:
        raise DeviceError(str(e).split(";")[0], wanted="a backend that runs here", remedy="pass --backend auto") from e


def pick_device(name: str) -> str:
    """ "auto" → "cuda" where there is one, else "cpu". DeviceError for a device that is not there."""
    import torch

    from gansegctl.errors import DeviceError

    if name == "auto":
        from gansegctl.pipeline.runtime.tasks import local_rank

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return "cpu" if not count else "cuda" if count == 1 else f"cuda:{local_rank(os.environ) % count}"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise DeviceError(f"got device {name!r}", wanted="auto, cpu or cuda[:i]") from e
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise DeviceError(
            f"got device {name!r}, which is not here",
            wanted="a device of this machine",
            remedy="see `gansegctl doctor`, or pass --device cpu",
        )
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"got device {name!r}", wanted="cpu or cuda[:i]")
    return name


def assignments(given: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE texts as a table: values read as JSON, plain text where they are none, @FILE from a JSON file.

    UsageError for a text without a name, a name given twice, or a file that cannot be read.
    """
    import json

    from gansegctl.errors import UsageError

    table: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or name in table:
            raise UsageError(f"got --set {text}", wanted="NAME=VALUE, every name once")
        if value.startswith("@"):
            try:
                table[name] = json.loads(Path(value[1:]).read_text())
            except (OSError, ValueError) as e:
                raise UsageError(f"got --set {text}: {e}", wanted="a JSON file") from e
            continue
        try:
            table[name] = json.loads(value)
        except ValueError:
            table[name] = value
    return table


def quotas(given: tuple[str, ...]) -> dict[str, int]:
    """CLASS:COUNT texts as a table. UsageError for what is none, or a class named twice."""
    from gansegctl.errors import UsageError

    table: dict[str, int] = {}
    for text in given:
        name, colon, count = text.rpartition(":")
        if not colon or not name or not (count.isascii() and count.isdecimal()) or not int(count) or name in table:
            raise UsageError(f"got --until {text}", wanted="a class and a number, as in eyes:500, every class once")
        table[name] = int(count)
    return table


def pick_task(text: str | None):
    """The `Task` of --task or of the environment; says which part this is and who said so."""
    from gansegctl.cli import console
    from gansegctl.pipeline.runtime.tasks import resolve_task

    task = resolve_task(text, os.environ)
    if task.count > 1:
        console.say(f"task {task} (by {task.source}): shards {task.index}, {task.index + task.count}, ...")
    return task


def pick_seeds(num: int | None, seeds: str | None) -> str:
    """--num and --seeds as one text of ranges. UsageError for both or neither."""
    from gansegctl.errors import UsageError
    from gansegctl.store.schema import parse_seeds

    if (num is None) == (seeds is None):
        got = "neither -n nor --seeds" if num is None else "both -n and --seeds"
        raise UsageError(f"got {got}", wanted="one of them")
    if num is not None:
        return f"0-{num - 1}" if num > 1 else "0"
    parse_seeds(seeds)
    return seeds
