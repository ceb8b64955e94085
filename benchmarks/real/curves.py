"""Learning curves: a score against the number of annotated images, drawn, and read backwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from PIL import Image

from gansegctl.errors import UsageError
from gansegctl.visualize.charts import line_chart

Point = tuple[float, float, float]
"""x > 0, mean, spread (half the height of its bar; 0 for none)."""


def labels_to_match(curve: Sequence[tuple[float, float]], score: float) -> tuple[float, str]:
    """How many annotated images the curve (images, score) needs to reach `score` → number and text.

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
    series: Mapping[str, Sequence[Point]], title: str, across: str = "annotated images", along: str = "mIoU"
) -> Image.Image:
    """Lines with points and spreads over a logarithmic axis of numbers, names at the right.

    Error: UsageError for no point at all, or a number below or at 0.
    """
    lines = {name: [(x, y, y - spread, y + spread) for x, y, spread in line] for name, line in series.items()}
    return line_chart(lines, across, along, title, log_x=True)
