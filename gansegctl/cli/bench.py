"""`gansegctl bench`"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from gansegctl import choices
from gansegctl.cli import console, options

_CPU_SHAPES = "demo,stylegan2-256,stylegan2-512,stylegan3-t-256,stylegan2-1024"

repeats = click.option(
    "--repeats", type=options.POSITIVE, default=3, show_default=True, help="Repeats of each measurement, interleaved."
)
threads = click.option("--threads", type=options.POSITIVE, help="CPU threads of torch; by default all.")
into = click.option(
    "--into", type=options.PATH, metavar="PAGE.md", help="Write the table between this page's <!-- bench-… --> marks."
)


def shapes(default: str) -> options.Option:
    """Option --shapes: names of `bench.common.SHAPES`, with this default."""
    return click.option("--shapes", default=default, show_default=True, help="Generator shapes, separated by commas.")


@click.group()
def command() -> None:
    """Measure speed and memory against stated baselines, side by side in one process, with random weights.

    A speed is printed only when the outputs agree. Times are medians of interleaved repeats.
    """


@command.command()
@shapes(_CPU_SHAPES)
@click.option(
    "--operations",
    default="project,conv,ensemble,kmeans",
    show_default=True,
    help="Operations to measure, separated by commas.",
)
@click.option("--compile", "try_compile", is_flag=True, help="Also measure the baseline under torch.compile.")
@repeats
@threads
@options.device
@options.json_flag
@into
def features(
    shapes: str,
    operations: str,
    try_compile: bool,
    repeats: int,
    threads: int | None,
    device: str,
    as_json: bool,
    into: Path | None,
) -> None:
    """Measure the feature pyramid against upsample-and-concatenate. Takes an hour on two cores with all shapes."""
    from gansegctl.bench.features import bench_features

    device = _prepare(device, threads)
    rows = bench_features(_split(shapes), _split(operations), repeats, device, try_compile)
    _report("features", rows, "upsample and concatenate ÷ this", device, as_json, into)


@command.command()
@shapes("demo,stylegan2-256")
@click.option(
    "--heads",
    default="linear,mlp,cnn-s,cnn-m,cnn-l,ensemble",
    show_default=True,
    help="Heads to measure, separated by commas.",
)
@options.passes(1)
@repeats
@threads
@options.device
@options.json_flag
@into
def pairs(
    shapes: str,
    heads: str,
    batch_size: int,
    repeats: int,
    threads: int | None,
    device: str,
    as_json: bool,
    into: Path | None,
) -> None:
    """Measure image and mask together against the image alone."""
    from gansegctl.bench.pairs import bench_pairs

    device = _prepare(device, threads)
    rows = bench_pairs(_split(shapes), _split(heads), repeats, device, batch_size)
    _report("pairs", rows, "pair ÷ image", device, as_json, into)


@command.command()
@shapes("demo,stylegan2-256,stylegan3-t-256,stylegan2-1024")
@options.passes(8)
@click.option(
    "--precision",
    type=click.Choice(choices.PRECISIONS),
    default="fp16",
    show_default=True,
    help="Number format of the activations.",
)
@repeats
@options.device
@options.json_flag
def kernels(shapes: str, batch_size: int, precision: str, repeats: int, device: str, as_json: bool) -> None:
    """Measure each kernel on a GPU by backend (Triton, CUDA, torch): seconds, bytes, share of copy bandwidth."""
    from gansegctl.bench.kernels import bench_kernels

    device = _prepare(device, None)
    rows = list(bench_kernels(_split(shapes), batch_size, precision, repeats, device))
    if as_json:
        console.emit({"rows": rows}, True)
        return
    columns = ("shape", "op", "backend", "batch", "dtype", "seconds", "bytes", "of_copy", "peak_bytes")
    console.table("", columns, [[f"{r[c]:.3g}" if isinstance(r[c], float) else r[c] for c in columns] for r in rows])


@command.command()
@click.option("-n", "--num", type=options.POSITIVE, default=128, show_default=True, help="Number of pairs to write.")
@click.option("--size", type=click.IntRange(32, 256), default=256, show_default=True, help="Pixels per side.")
@click.option("--many", type=options.POSITIVE, help="Also measure the memory to write 1,000 pairs and this many pairs.")
@click.option("--folder", type=options.PATH, help="Folder to write to; by default the temporary folder.")
@repeats
@options.json_flag
@into
def store(
    num: int, size: int, many: int | None, folder: Path | None, repeats: int, as_json: bool, into: Path | None
) -> None:
    """Measure the shard writer and reader against h5py with gzip, and random reads against a folder of PNG."""
    from gansegctl.bench.store import bench_store

    rows = bench_store(repeats, num, size, folder, many or 0)
    _report("store", rows, "first of its kind ÷ this", "cpu", as_json, into)


def _prepare(device: str, threads: int | None) -> str:
    import torch

    if threads:
        torch.set_num_threads(threads)
    return options.pick_device(device)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _report(name: str, rows: Iterator, baseline: str, device: str, as_json: bool, into: Path | None) -> None:
    from gansegctl.bench.common import copy_bandwidth, machine, markdown_table, write_between_marks
    from gansegctl.pipeline.runtime.memory import how_memory_is_measured

    about = machine(device) | {"copy_bytes_a_second": round(copy_bandwidth(device))}
    measured = []
    for row in rows:
        measured.append(row)
        if row.seconds is not None:
            console.say(f"{row.shape}, {row.operation}, {row.path}: {1e3 * row.seconds:,.1f} ms")
    reproduce = " ".join(["gansegctl bench", name, *_flags(click.get_current_context())])
    lines = [
        "",
        f"`{reproduce}`: torch {about['torch']}, {about['device']}, {about['threads']} threads, load "
        f"{about['load_before']:.1f} before; copying runs at {about['copy_bytes_a_second'] / 1e9:.1f} GB/s. "
        f"Extra memory: {how_memory_is_measured(device)}.",
        "",
        *markdown_table(measured, baseline, about["copy_bytes_a_second"]),
        "",
    ]
    if into is not None:
        write_between_marks(into, name, lines)
    if as_json:
        console.emit({"command": reproduce, "machine": about, "rows": [r.to_json() for r in measured]}, True)
        return
    click.echo("\n".join(lines))


def _flags(context: click.Context) -> list[str]:
    """The flags that were given, but for those that only say where the result goes."""
    from click.core import ParameterSource

    words = []
    for option in context.command.params:
        if option.name in ("into", "as_json") or option.name is None:
            continue
        if context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE:
            value = context.params[option.name]
            words += [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return words
