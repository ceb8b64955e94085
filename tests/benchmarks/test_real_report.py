"""The report of the benchmark on real images: labels saved, shared looks, classes compared."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.real import plan, report

ROW = {
    "mean_dice": 0.5,
    "iou": {"a": 0.4},
    "dice": {"a": 0.5},
    "seconds": {"fit": 1.0},
    "miou": 0.4,
    "foreground_miou": 0.9,
    "images": 0,
}


def test_the_summary_counts_labels_saved():
    def row(**more):
        return ROW | more

    rows = [row(kind="supervised", images=n, miou=m) for n, m in ((5, 0.4), (5, 0.5), (50, 0.65))]
    shot = {"kind": "shots", "method": "linear", "source": "real", "shots": 1, "images": 1}
    rows += [row(**shot, miou=0.55), row(**shot, miou=0.55), row(**shot | {"shots": 10, "images": 10}, miou=0.7)]
    rows += [row(kind="paired", source="real", shots=1, images=1, miou=m) for m in (0.2, 0.3)]
    rows += [{"kind": "shots", "method": "linear", "source": "real", "shots": 1, "draw": 2, "failed": "got nan"}]
    lines, baseline, entries = report.summary([*rows, {"kind": "generator"}])
    assert lines["supervised on real images"][0][:2] == (5, pytest.approx(0.45))
    assert baseline[0]["foreground_miou"][0] == pytest.approx(0.9)
    assert [e["matched_by"] for e in entries] == ["16", "> 50"]
    assert (entries[0]["runs"], entries[0]["failed"]) == (2, 1)
    assert entries[0]["same"][0] == lines["supervised on the real shots"][0][1] == pytest.approx(0.25)
    assert "same" not in entries[1]


def test_what_shots_of_a_draw_share_is_counted_once():
    def row(source, looked_at, refused, draw=0):
        return {"kind": "shots", "source": source, "draw": draw, "looked_at": looked_at, "refused": refused}

    bench = SimpleNamespace(plan=plan.Plan("x", Path("x.h5"), Path("w"), unit="patient"), row=lambda **_: None)
    bench.train = SimpleNamespace(image=np.zeros((1, 8, 8, 3)))
    bench.rows = [row("real", 1, 0), row("chosen", 30, 1), row("real", 10, 0), {"kind": "paired", "draw": 0}]
    assert "; 30 patients looked at for shots, 1 of their images refused." in report.told_plan(bench)
    bench.rows += [row("real", 11, 1, draw=1), row("real", 2, 0, draw=1)]
    assert "; 41 patients looked at for shots, 2 of their images refused." in report.told_plan(bench)
    bench.rows = bench.rows[:1]
    assert "; 1 patients looked at for shots, none of their images refused." in report.told_plan(bench)


def test_two_classes_are_compared_with_two_classes():
    rows = [
        ROW | {"kind": "supervised", "images": n, "miou": m, "foreground_miou": f}
        for n, m, f in ((5, 0.3, 0.7), (500, 0.6, 0.9))
    ]
    two = {"kind": "shots", "method": "stylemix", "source": "none", "shots": 0, "two_class": True}
    rows += [ROW | two | {"miou": 0.8, "foreground_miou": 0.8}]
    rows += [ROW | two | {"method": "linear", "source": "real", "shots": 1, "images": 1, "miou": 0.8}]
    lines, _, entries = report.summary(rows)
    stylemix = next(e for e in entries if e["method"] == "stylemix")
    assert stylemix["matched_by"] == "50"  # not "> 500", as 0.8 is on the curve of all classes
    assert list(lines) == ["supervised on real images"]
    cells = report.cells(stylemix, ("a",))
    assert cells[5] == "two classes" and cells[6].startswith("0.800") and cells[9] == "50 (foreground)"
    assert len(cells) == 15 and cells[-1] == "-" and cells[10:14] == ["-", "1", "-", "-"]
