"""Shared by the benchmarks: shapes of real generators, interleaved timing, agreement, and the table of the rows."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansegctl.contracts import Generator
from gansegctl.errors import GansegError, UsageError, did_you_mean
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.generators.layers import channels_last
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from gansegctl.generators.stylegan3 import StyleGAN3
from gansegctl.generators.stylegan3_config import StyleGAN3Config, design

TOLERANCE = 1e-4
"""Largest difference, as a share of the largest value, at which two float32 paths count as equal."""
PATIENCE = 60.0
"""Seconds after which one more repeat of a slow row is not begun."""


def _config_f(resolution: int) -> StyleGAN2Config:
    return StyleGAN2Config(
        resolution=resolution, z_dim=512, w_dim=512, channel_base=32768, channel_max=512, mapping_layers=8
    )


SHAPES: dict[str, Callable[[], StyleGAN2Config | StyleGAN3Config]] = {
    "demo": lambda: StyleGAN2Config(channel_base=1536),
    "stylegan2-256": lambda: _config_f(256),
    "stylegan2-512": lambda: _config_f(512),
    "stylegan2-1024": lambda: _config_f(1024),
    "stylegan3-t-256": lambda: design(256, "T"),
}
"""Name → configuration: the demo's generator, StyleGAN2 config F (base 32768), StyleGAN3-T (base 32768)."""


@dataclass
class Row:
    """One path of one operation on one shape. seconds: the median of its repeats; fastest: the least of them.

    peak: bytes allocated beyond what was there before; moved: bytes that the path's definition reads and writes;
    ratio: how many times as long the first row of its group takes. None: not measured, and `note` says why.
    """

    shape: str
    operation: str
    path: str
    seconds: float | None = None
    fastest: float | None = None
    peak: int | None = None
    moved: int | None = None
    ratio: float | None = None
    note: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As one object of `--json`."""
        return asdict(self)


def make_generator(shape: str, device: str = "cpu", seed: int = 0) -> Generator:
    """A generator of this shape with random weights, in eval mode. UsageError for an unknown shape."""
    config = _config(shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = StyleGAN2(config) if isinstance(config, StyleGAN2Config) else StyleGAN3(config)
    return channels_last(network.requires_grad_(False).eval(), device)


def levels_of(shape: str) -> tuple[int, list[tuple[int, int, int]]]:
    """The image's size and (resolution, channels, margin) of each tap, without a network. UsageError as above."""
    config = _config(shape)
    if isinstance(config, StyleGAN2Config):
        convs = [r for r in config.resolutions for _ in range(1 if r == 4 else 2)]
        return config.resolution, [(r, config.channels(r), 0) for r in convs]
    return config.resolution, [(x.out_rate, x.out_channels, x.margin) for x in config.layers if not x.torgb]


def random_pyramid(shape: str, batch: int = 1, device: str = "cpu", seed: int = 0) -> FeaturePyramid:
    """Activations of a generator's sizes, drawn from a normal distribution, channels-last as generators make them.

    Those of StyleGAN3 are views into maps with a margin, as its pyramid holds them. UsageError for an unknown shape.
    """
    resolution, taps = levels_of(shape)
    stream, levels = torch.Generator().manual_seed(seed), []
    for rate, channels, margin in taps:
        side = rate + 2 * margin
        x = torch.randn(batch, side, side, channels, generator=stream).permute(0, 3, 1, 2).to(device)
        levels.append(x[:, :, margin : side - margin, margin : side - margin])
    return FeaturePyramid(levels, (resolution, resolution))


def _config(shape: str) -> StyleGAN2Config | StyleGAN3Config:
    if shape not in SHAPES:
        raise UsageError(f"got shape {shape!r}", wanted=" | ".join(SHAPES), remedy=did_you_mean(shape, SHAPES))
    return SHAPES[shape]()


def synchronize(device: str) -> None:
    """Wait for the device, so that a clock read next tells of finished work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    functions: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each repeat of each function: one of each in turn, so that a busy machine slows all of them alike.

    Warm-up is the caller's: the agreement check runs each once. Stops early after `PATIENCE` seconds in all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    began = time.perf_counter()
    for turn in range(repeats):
        for name, function in functions.items():
            synchronize(device)
            start = time.perf_counter()
            kept = function()
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
            del kept
        if turn + 1 < repeats and time.perf_counter() - began > PATIENCE:
            break
    return seconds


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median over repeats of slow/fast, each of one turn."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def check_equal(what: str, ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest value. GansegError when it exceeds `TOLERANCE`."""
    if ours.shape != theirs.shape:
        raise GansegError(f"got {what} of shapes {list(ours.shape)} and {list(theirs.shape)}", wanted="equal shapes")
    difference = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
    if not difference <= TOLERANCE:
        raise disagreement(what, f"{difference:.1e} of the largest value", f"at most {TOLERANCE:.0e}")
    return difference


def check_labels(what: str, ours: Tensor, theirs: Tensor) -> float:
    """The share of pixels with other labels. GansegError when it exceeds `TOLERANCE`: ties alone may differ."""
    share = float((ours.long() != theirs.long()).float().mean())
    if share > TOLERANCE:
        raise disagreement(what, f"other labels at {share:.1e} of the pixels", f"at most {TOLERANCE:.0e}")
    return share


def disagreement(what: str, got: str, wanted: str) -> GansegError:
    """The error for two paths that do not compute the same."""
    return GansegError(
        f"got {what} that differ: {got}; no speed is printed",
        wanted=wanted,
        remedy="report it with the output of `gansegctl doctor`",
    )


def copy_bandwidth(device: str = "cpu", nbytes: int = 1 << 28) -> float:
    """Bytes a second of a plain copy, read and written counted: the fastest of five."""
    source = torch.ones(nbytes // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = interleaved({"copy": lambda: target.copy_(source)}, 5, device)["copy"]
    return 2 * nbytes / min(seconds)


def compiled(function: Callable[..., Tensor], *example: Tensor) -> tuple[Callable[..., Tensor] | None, str]:
    """(the function under torch.compile, "") or (None, why it does not work here); it is run once on the example."""
    try:
        made = torch.compile(function, dynamic=False)
        made(*example)
    except Exception as e:  # whatever a compiler may raise: it is reported, never hidden
        return None, f"torch.compile does not work here: {type(e).__name__}: {str(e).strip().splitlines()[0][:120]}"
    return made, ""


def machine(device: str) -> dict[str, Any]:
    """The machine that the figures were measured on."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else _processor()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads(), "load_before": load}


def markdown_table(rows: Sequence[Row], ratio: str, bandwidth: float) -> list[str]:
    """The rows as a Markdown table. ratio: the heading of that column; bandwidth: bytes a second of a plain copy."""
    heads = ["shape", "operation", "path", "median, ms", "least, ms", ratio, "extra memory", "bytes moved"]
    heads += ["of copying", "remark"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for r in rows:
        share = "" if r.moved is None or not r.seconds else f"{100 * r.moved / r.seconds / bandwidth:.0f} %"
        cells = (
            r.shape,
            r.operation,
            r.path,
            _number(r.seconds and 1e3 * r.seconds),
            _number(r.fastest and 1e3 * r.fastest),
            "" if r.ratio is None else f"{r.ratio:.2f}" if r.ratio < 10 else f"{r.ratio:.1f}",
            _bytes(r.peak),
            _bytes(r.moved),
            share,
            r.note,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write_between_marks(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what stands between <!-- bench-NAME --> and <!-- /bench-NAME --> in a page.

    UsageError when the page lacks the marks.
    """
    begin, end = f"<!-- bench-{name} -->", f"<!-- /bench-{name} -->"
    text = page.read_text() if page.is_file() else ""
    if begin not in text or end not in text.split(begin, 1)[1]:
        raise UsageError(f"got {page}", wanted=f"a page with {begin} and, after it, {end}")
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    page.write_text(before + begin + "\n" + "\n".join(lines) + "\n" + end + after)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "CPU"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _bytes(value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
