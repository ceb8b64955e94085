"""Learning curves: a score against the number of annotated pictures, drawn, and read backwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from gansegctl.errors import UsageError
from gansegctl.labels import default_palette
from gansegctl.pictures import FAINT, INK, PAPER, font, text_width

Point = tuple[float, float, float]
"""x > 0, mean, spread (half the height of its bar; 0 for none)."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 760, 440, 64, 44, 56


def labels_to_match(curve: Sequence[tuple[float, float]], score: float) -> tuple[float, str]:
    """How many annotated pictures the curve (pictures, score) needs to reach `score` → number and text.

    Between two points it is straight over the logarithm of the number. A score below the curve's first point gives
    (0, "< FIRST"), one that the curve never reaches (inf, "> LAST"). Error: UsageError for an empty curve.
    """
    points = sorted(curve)
    if not points:
        raise UsageError("got no supervised scores", wanted="one or more to compare with")
    if score < points[0][1]:
        return 0.0, f"< {points[0][0]:g}"
    if math.isclose(score, points[0][1]):
        return float(points[0][0]), f"{points[0][0]:g}"
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if y1 >= score:
            share = (score - y0) / (y1 - y0)
            number = math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))
            return number, f"{number:.0f}"
    return math.inf, f"> {points[-1][0]:g}"


def learning_curve(
    series: Mapping[str, Sequence[Point]], title: str, across: str = "annotated pictures", along: str = "mIoU"
) -> Image.Image:
    """Lines with points and spreads over a logarithmic axis of numbers, names at the right.

    Error: UsageError for no point at all, or a number below or at 0.
    """
    points = [p for line in series.values() for p in line]
    if not points or min(p[0] for p in points) <= 0:
        raise UsageError(f"got {len(points)} points", wanted="one or more, with numbers above 0")
    room = max(text_width(name, 12) for name in series) + 34
    picture = Image.new("RGB", (_LEFT + _WIDTH + room, _TOP + _HEIGHT + _BOTTOM), PAPER)
    draw = ImageDraw.Draw(picture)
    low, high = min(p[0] for p in points), max(p[0] for p in points)
    floor, ceiling = _range([p[1] for p in points])
    span = max(math.log(high) - math.log(low), 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log(x) - math.log(low)) / span if high > low else 0.5
        return _LEFT + 16 + share * (_WIDTH - 32), _TOP + (ceiling - y) / (ceiling - floor) * _HEIGHT

    _write(draw, (_LEFT, 20), title, 14, "lm")
    for i in range(round((ceiling - floor) / 0.1) + 1):
        value = floor + 0.1 * i
        y = place(low, value)[1]
        draw.line((_LEFT, y, _LEFT + _WIDTH, y), fill=FAINT)
        _write(draw, (_LEFT - 8, y), f"{value:.1f}", 12, "rm")
    for x in sorted({p[0] for p in points}):
        at = place(x, floor)[0]
        draw.line((at, _TOP + _HEIGHT, at, _TOP + _HEIGHT + 5), fill=INK)
        _write(draw, (at, _TOP + _HEIGHT + 14), f"{x:g}", 11, "mm")
    _write(draw, (_LEFT + _WIDTH // 2, _TOP + _HEIGHT + 38), across, 13, "mm")
    _write(draw, (8, _TOP - 14), along, 13, "lm")
    taken: list[float] = []
    for (name, line), colour in zip(series.items(), default_palette(len(series)), strict=True):
        ordered = sorted(line)
        at = [place(x, y) for x, y, _ in ordered]
        if len(at) > 1:
            draw.line([c for p in at for c in p], fill=colour, width=2)
        for (x, y, spread), (px, py) in zip(ordered, at, strict=True):
            if spread:
                draw.line((px, place(x, y - spread)[1], px, place(x, y + spread)[1]), fill=colour)
            draw.ellipse((px - 4, py - 4, px + 4, py + 4), fill=colour)
        if at:
            y = at[-1][1]
            while any(abs(y - other) < 15 for other in taken):  # names do not lie on each other
                y += 15
            taken.append(y)
            draw.rectangle((_LEFT + _WIDTH + 8, y - 5, _LEFT + _WIDTH + 18, y + 5), fill=colour)
            _write(draw, (_LEFT + _WIDTH + 24, y), name, 12, "lm")
    return picture


def _write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, anchor: str) -> None:
    draw.text(at, text, font=font(size), fill=INK, anchor=anchor)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Tenths that hold all values."""
    floor, ceiling = math.floor(min(values) * 10 + 1e-9) / 10, math.ceil(max(values) * 10 - 1e-9) / 10
    return floor, max(ceiling, floor + 0.1)
