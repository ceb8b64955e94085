"""From the rows of `compare` to a table: means and spreads over runs, and whether one method beats another."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

COLUMNS = ("miou", "wiou_tritrong", "wiou_manerikar", "foreground_miou", "trimap_miou")
MORE = ("wiou_tritrong_foreground", "gain_10")
"""Means that are kept beside the table's columns. A run has no gain where its segmenter is equally sure of all."""
COSTS = ("fit_seconds", "masks_per_second", "pair_over_image", "peak_mb", "parameters")
EXACT = 16  # pairs up to which all sign flips are counted
DRAWS = 100_000


def measured(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that have scores: those whose run did not fail."""
    return [r for r in rows if "failed" not in r]


def failures(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line a method and number of shots of which runs failed: how many, and why the first of them did."""
    groups: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        if "failed" in row:
            groups.setdefault((row["method"], row["shots"]), []).append(" ".join(row["failed"].split()))
    return [
        f"{method}, {shots} shot{'s' * (shots != 1)}, {len(errors)} run{'s' * (len(errors) > 1)}: {errors[0]}"
        for (method, shots), errors in groups.items()
    ]


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a method and number of shots, in order of shots, then of falling mIoU. Runs that failed are left out.

    Scores are (mean, sample deviation over runs), those of `MORE` means of the runs that have them, None where none
    has; costs are medians. p: of the paired sign-flip test of mIoU against the best method of the same shots, over the
    runs both have; nan for the best itself and with fewer than two pairs.
    """
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in measured(rows):
        groups.setdefault((row["shots"], row["method"]), []).append(row)
    entries = []
    for (shots, method), runs in groups.items():
        entry: dict[str, Any] = {"method": method, "shots": shots, "runs": len(runs)}
        for name in COLUMNS:
            values = [r[name] for r in runs]
            entry[name] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else float("nan"))
        for name in MORE:
            known = [r[name] for r in runs if r[name] is not None and not np.isnan(r[name])]
            entry[name] = statistics.mean(known) if known else None
        entry |= {name: _median([r[name] for r in runs]) for name in COSTS}
        classes = runs[0]["iou"]
        entry["iou"] = {c: _mean([r["iou"][c] for r in runs]) for c in classes}
        entries.append(entry)
    entries.sort(key=lambda e: (e["shots"], -e["miou"][0]))
    best: dict[int, str] = {}
    for entry in entries:
        winner = best.setdefault(entry["shots"], entry["method"])
        pairs = paired(groups[entry["shots"], winner], groups[entry["shots"], entry["method"]])
        entry["p"] = float("nan") if winner == entry["method"] else sign_flip_p(pairs)
    return entries


def _median(values: Sequence[float]) -> float:
    """Of the runs in which it could be measured; nan where it never could."""
    known = [v for v in values if not np.isnan(v)]
    return statistics.median(known) if known else float("nan")


def _mean(values: Sequence[float]) -> float:
    """Of the runs in which the class occurs; nan where it never does."""
    known = [v for v in values if not np.isnan(v)]
    return statistics.mean(known) if known else float("nan")


def paired(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> list[float]:
    """Differences of mIoU over the (draw, seed) that both have, and neither failed."""
    of_b = {(r["draw"], r["seed"]): r["miou"] for r in measured(b)}
    return [r["miou"] - of_b[r["draw"], r["seed"]] for r in measured(a) if (r["draw"], r["seed"]) in of_b]


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of a mean of 0 under random signs (Fisher's randomisation test); nan for fewer than two pairs.

    Exact up to 16 pairs, else of 100,000 random flips.
    """
    d = np.asarray(differences, float)
    if len(d) < 2:
        return float("nan")
    if len(d) <= EXACT:
        signs = np.array(list(itertools.product((1, -1), repeat=len(d))))
    else:
        signs = np.random.default_rng(seed).choice((1, -1), (DRAWS, len(d)))
        signs[0] = 1
    return float((np.abs(signs @ d) >= abs(d.sum()) - 1e-12).mean())


def markdown(entries: Sequence[dict[str, Any]], failed: Sequence[str] = ()) -> str:
    """The table as it stands in docs/, and below it a paragraph for each line of `failures`."""
    head = ("method", "shots", "runs", "mIoU", "wIoU", "wIoU (M.)", "fg/bg mIoU", "trimap", "p")
    cost = ("fit, s", "masks/s", "pair/image", "peak MB", "parameters")
    lines = ["| " + " | ".join((*head, *cost)) + " |", "|" + "---|" * (len(head) + len(cost))]
    for e in entries:
        scores = [f"{e[c][0]:.3f}" + ("" if np.isnan(e[c][1]) else f" ± {e[c][1]:.3f}") for c in COLUMNS]
        p = "-" if np.isnan(e["p"]) else f"{e['p']:.4f}"
        costs = [f"{e[c]:,.0f}" if c == "parameters" else "-" if np.isnan(e[c]) else f"{e[c]:.4g}" for c in COSTS]
        lines.append("| " + " | ".join([e["method"], str(e["shots"]), str(e["runs"]), *scores, p, *costs]) + " |")
    for line in failed:
        lines += ["", f"Failed: {line}"]
    return "\n".join(lines) + "\n"
