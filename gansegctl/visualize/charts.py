"""Line charts as images, for reports: a few series, their intervals, ticks at round numbers. Pillow only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from gansegctl.errors import UsageError
from gansegctl.visualize.sheets import _MARGIN, FAINT, INK, PAPER, _clip, font, text_width

COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189), (255, 127, 14), (23, 140, 150), (90, 90, 90))
SIZE = (720, 460)
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 44, 50

Point = tuple[float, ...]
"""(x, y), or (x, y, low, high) with an interval."""


def line_chart(
    series: Mapping[str, Sequence[Point]], x: str, y: str, title: str = "", log_x: bool = False
) -> Image.Image:
    """Series by name, each a line through its points with a bar for every interval, its name at the right; x, y: axes.

    log_x: logarithmic, for positive x. Points with a y that is not finite are left out. UsageError for no points.
    """
    drawn = {name: sorted(p for p in points if math.isfinite(p[1])) for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    if not drawn or (log_x and min(p[0] for points in drawn.values() for p in points) <= 0):
        raise UsageError(
            f"got {len(drawn)} lines to draw", wanted="a point or more" + (", at positive x" if log_x else "")
        )
    along = math.log10 if log_x else float
    everything = [p for points in drawn.values() for p in points]
    left, right = _padded([along(p[0]) for p in everything], 0.03)
    low, high = _padded([v for p in everything for v in (*p[1:2], *(v for v in p[2:] if math.isfinite(v)))], 0.06)

    room = max(text_width(name, 12) for name in drawn) + 34
    image = Image.new("RGB", (SIZE[0] + room, SIZE[1]), PAPER)
    draw = ImageDraw.Draw(image)
    width, height = SIZE[0] - _LEFT - _RIGHT, SIZE[1] - _TOP - _BOTTOM

    def place(px: float, py: float) -> tuple[float, float]:
        across = (along(px) - left) / (right - left)
        return _LEFT + width * across, _TOP + height * (high - py) / (high - low)

    draw.text((_LEFT, 8), title, INK, font(15))
    for value in round_numbers(low, high):
        at = place(everything[0][0], value)[1]
        draw.line((_LEFT, at, _LEFT + width, at), (232, 234, 237))
        draw.text((_LEFT - 6, at), f"{value:g}", INK, font(12), anchor="rm")
    xs = sorted({p[0] for p in everything}) if log_x else round_numbers(left, right)
    last = -math.inf
    for value in xs:
        at = place(value, low)[0]
        if at - last < 34:
            continue
        last = at
        draw.line((at, _TOP + height, at, _TOP + height + 4), INK)
        draw.text((at, _TOP + height + 7), f"{value:g}", INK, font(12), anchor="ma")
    draw.rectangle((_LEFT, _TOP, _LEFT + width, _TOP + height), outline=FAINT)
    draw.text((_LEFT + width / 2, SIZE[1] - 24), x, INK, font(13), anchor="ma")
    draw_upright(image, y, (16, _TOP + height // 2), "mm", 13)
    taken: list[float] = []
    for colour, (name, points) in zip(_colours(len(drawn)), drawn.items(), strict=True):
        for px, _, lowest, highest in (p for p in points if len(p) == 4 and all(map(math.isfinite, p))):
            draw.line((*place(px, lowest), *place(px, highest)), colour, 1)
        if len(points) > 1:
            draw.line([place(p[0], p[1]) for p in points], colour, 2)
        for p in points:
            cx, cy = place(p[0], p[1])
            draw.ellipse((cx - 3, cy - 3, cx + 3, cy + 3), colour)
        at = place(points[-1][0], points[-1][1])[1]
        while any(abs(at - other) < 15 for other in taken):  # names do not lie on each other
            at += 15
        taken.append(at)
        draw.rectangle((SIZE[0] - _RIGHT + 8, at - 4, SIZE[0] - _RIGHT + 16, at + 4), colour)
        draw.text((SIZE[0] - _RIGHT + 23, at), name, INK, font(12), anchor="lm")
    return image


def round_numbers(low: float, high: float, most: int = 7) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within low … high, at most about `most`."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (f * step) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _colours(count: int) -> list[tuple[int, int, int]]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def heat_map(values: np.ndarray, names: Sequence[str], rows: str, columns: str, title: str = "") -> Image.Image:
    """A square matrix [K, K] of shares 0 … 1 (nan = empty row) as blue cells with percentages and names.

    rows, columns: what the two axes are. Cells shrink, and lose their numbers, beyond 24 classes.
    """
    values = np.asarray(values, float)
    k = len(names)
    side, size = (46, 13) if k <= 24 else (14, 11)
    room = min(180, max(text_width(name, size) for name in names)) + 10
    shown = [_clip(name, room - 10, size) for name in names]
    left, top = _MARGIN + 24 + room, _MARGIN + (26 if title else 0) + 22 + room
    width = max(left + k * side + _MARGIN, 2 * _MARGIN + text_width(title, 14))
    image = Image.new("RGB", (width, top + k * side + _MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, _MARGIN + 8), title, font=font(14), fill=INK, anchor="lm")
    draw.text((left + k * side // 2, top - room - 14), columns, font=font(13), fill=INK, anchor="mm")
    draw_upright(image, rows, (_MARGIN + 8, top + k * side // 2), "mm", 13)
    for i in range(k):
        draw.text((left - 7, top + i * side + side // 2), shown[i], font=font(size), fill=INK, anchor="rm")
        draw_upright(image, shown[i], (left + i * side + side // 2, top - 7), "mb", size)
        for j in range(k):
            x, y, value = left + j * side, top + i * side, values[i, j]
            empty = np.isnan(value)
            depth = 0.0 if empty else float(np.clip(value, 0, 1))
            fill = tuple(round(255 + (deep - 255) * depth) for deep in (8, 60, 130))
            draw.rectangle((x, y, x + side, y + side), fill=(242, 242, 242) if empty else fill, outline=FAINT)
            if side > 20:
                text = "-" if empty else "<1" if 0 < value < 0.01 else f"{100 * value:.0f}"
                ink = PAPER if depth > 0.5 else FAINT if empty or value == 0 else INK
                draw.text((x + side // 2, y + side // 2), text, font=font(13), fill=ink, anchor="mm")
    return image


def draw_upright(image: Image.Image, text: str, at: tuple[int, int], anchor: str, size: int) -> None:
    """Text that reads upwards, centred on `at` ("mm") or ending on it from above ("mb")."""
    strip = Image.new("RGB", (text_width(text, size) + 2, size + 6), PAPER)
    ImageDraw.Draw(strip).text((1, strip.height // 2), text, font=font(size), fill=INK, anchor="lm")
    strip = strip.rotate(90, expand=True)
    top = at[1] - strip.height // 2 if anchor == "mm" else at[1] - strip.height
    image.paste(strip, (at[0] - strip.width // 2, top))
