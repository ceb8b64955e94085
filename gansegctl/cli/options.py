"""Every flag that more than one command takes, spelled once.

--generator -n/--num --seeds -o/--out --batch-size --device --backend --truncation --truncation-cutoff --noise --class
--precision --shots --method --set --masks --segmenter --probabilities --profile --seed --split --real-split --task
--json --dry-run
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from gansegctl import choices

if TYPE_CHECKING:
    from gansegctl.pipeline.runtime.tasks import Task

POSITIVE = click.IntRange(min=1)
PATH = click.Path(path_type=Path)
Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)


class Option(Protocol):
    """A flag: decorates the function of a command."""

    def __call__(self, command: Command, /) -> Command: ...


def one_of(names: tuple[str, ...]) -> str:
    """Names as a help text lists them: a, b or c."""
    return " or ".join([", ".join(names[:-1]), names[-1]])


def generator(
    required: bool = False, help: str = "The generator: a preset's name, or a checkpoint file of any supported family."
) -> Option:
    return click.option("--generator", required=required, metavar="NAME|FILE", help=help)


def out(help: str, required: bool = True) -> Option:
    return click.option("-o", "--out", required=required, type=PATH, metavar="PATH", help=help)


def passes(default: int, of: str = "Samples") -> Option:
    """--batch-size as a plain number."""
    return click.option("--batch-size", type=POSITIVE, default=default, show_default=True, help=f"{of} per batch.")


def seed_of(work: str) -> Option:
    """--seed of what is random in `work`."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help=f"Seed of the random numbers of {work}.",
    )


num = click.option("-n", "--num", type=POSITIVE, help="Number of samples: seeds 0 to N-1.")
seeds = click.option("--seeds", metavar="RANGES", help="Seeds of the samples, as in 0-99,200.")


class BatchSize(click.ParamType):
    """A positive number, or "auto", which is passed on as None."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        return None if value == "auto" else POSITIVE.convert(value, param, ctx)


batch_size = click.option(
    "--batch-size",
    type=BatchSize(),
    metavar="N|auto",
    default=16,
    show_default=True,
    help="Samples per batch; auto: as many as memory allows, halved where that was too many.",
)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:i]",
    help="Device to compute on; auto: a GPU where there is one, else the CPU.",
)
backend = click.option(
    "--backend",
    type=click.Choice(choices.BACKENDS),
    default="auto",
    show_default=True,
    expose_value=False,
    callback=lambda context, parameter, value: pick_backend(value),
    help="Implementation of the feature kernels; auto: the fastest that runs on the device.",
)
truncation = click.option(
    "--truncation", type=float, default=1.0, show_default=True, help="Truncation psi; 1 means no truncation."
)
truncation_cutoff = click.option(
    "--truncation-cutoff", type=POSITIVE, metavar="N", help="Truncate only the first N style vectors."
)
noise = click.option(
    "--noise",
    type=click.Choice(choices.NOISE_MODES),
    default="const",
    show_default=True,
    help="Noise inputs. const: the stored maps; seed: drawn from each sample's seed; none: no noise.",
)
class_index = click.option(
    "--class", "class_index", type=click.IntRange(min=0), help="Class index, for a conditional generator."
)
precision = click.option(
    "--precision",
    type=click.Choice(choices.PRECISIONS),
    default="fp32",
    show_default=True,
    help="Number format of the generator's largest blocks; fp16 and bf16 are for GPUs.",
)
shots = click.option(
    "--shots",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Number of annotated exemplars; 0 for methods that need none.",
)
method = click.option(
    "--method",
    default="oneshot",
    show_default=True,
    metavar="NAME",
    help=f"Method that makes the masks: {one_of(choices.METHODS)}.",
)
method_settings = click.option(
    "--set",
    "assigned",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the method, as JSON or plain text; NAME=@FILE reads a JSON file. Repeatable.",
)
masks = click.option(
    "--masks",
    metavar="PATH|PRESET",
    help="Masks of the exemplars: a folder or file from any supported tool, or a preset that brings masks.",
)
painted_masks = click.option(
    "--masks", metavar="PATH", help="Masks that were painted since, in place of the preset's annotate.masks."
)
segmenter = click.option("--segmenter", type=PATH, metavar="FILE", help="A segmenter saved by `gansegctl annotate`.")
probabilities = click.option(
    "--probabilities", is_flag=True, help="Also store the probability of every class, for `distill --soft`."
)
profile = click.option(
    "--profile",
    type=click.Choice(choices.PROFILES),
    default="fixed",
    show_default=True,
    help="fixed: the algorithm as published; release: as the authors' code runs.",
)
split = click.option(
    "--split",
    type=int,
    help="For an HDF5 file: use the rows with this value of `split`; required if there are several.",
)
real_split = click.option(
    "--real-split",
    type=int,
    metavar="VALUE",
    help="For an HDF5 file in --real: use the rows with this value of `split`; required if there are several.",
)
task = click.option(
    "--task",
    "task_text",
    metavar="i/n",
    help="This process makes every n-th shard from shard i (from 0); by default as the scheduler's variables say.",
)
json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")


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


def pick_task(text: str | None) -> Task:
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

    if num is not None and seeds is None:
        return f"0-{num - 1}" if num > 1 else "0"
    if seeds is not None and num is None:
        parse_seeds(seeds)
        return seeds
    got = "neither -n nor --seeds" if num is None else "both -n and --seeds"
    raise UsageError(f"got {got}", wanted="one of them")
