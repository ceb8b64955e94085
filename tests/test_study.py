"""docs/study.py: the tables that it makes of rows, by hand."""

from __future__ import annotations

import page_blocks
import pytest
import study


def row(method, shots, draw, seed, miou):
    scores = dict.fromkeys(("wiou_tritrong", "wiou_manerikar", "foreground_miou", "trimap_miou"), miou + 0.1)
    costs = dict.fromkeys(("fit_seconds", "masks_per_second", "pair_over_image", "peak_mb", "parameters"), 2.0)
    key = {"method": method, "shots": shots, "draw": draw, "seed": seed}
    return key | {"miou": miou, "iou": {"a": miou}} | scores | costs


@pytest.fixture
def rows():
    ours = [row("oneshot", 1, d, s, 0.6 + 0.1 * d) for d in range(2) for s in range(2)]
    linear = [row("linear", 1, d, s, 0.5 + 0.1 * d - 0.02 * s) for d in range(2) for s in range(2)]
    return [*ours, *linear, row("linear", 5, 0, 0, 0.75)]


def test_the_lead_over_runs_and_over_sets_of_exemplars(rows):
    lines = study.lead(rows).splitlines()
    # All four differences are positive: of 16 sign flips two are as far from 0; over two sets of exemplars 2 of 4.
    assert lines[2:] == ["| `linear` | 4 | +11.0 | 0.1250 | 2 | 0.5000 |"]


def test_scores_by_shots(rows):
    lines = study.by_shots(rows).splitlines()
    assert lines[0] == "| method | 1 shot | 5 shots |"
    assert lines[2] == "| `oneshot` | 0.650 ± 0.058 / 0.750 (4) | - |"
    assert lines[3] == "| `linear` | 0.540 ± 0.059 / 0.640 (4) | 0.750 / 0.850 (1) |"


def test_the_page_keeps_what_was_written_by_hand(rows, tmp_path):
    page = tmp_path / "methods.md"
    page.write_text("before\n<!-- lead -->\nold\n<!-- end of lead -->\nafter\n")
    study.report(rows, {"samples": 5000, "total_variation": 0.0161}, page)
    text = page.read_text()
    assert text.startswith("before\n<!-- lead -->\n| against") and "\nold\n" not in text
    assert "<!-- end of lead -->\nafter\n" in text and "of 0.0161." in text
    study.report(rows, {"samples": 5000, "total_variation": 0.0161}, page)
    assert page.read_text() == text
    page_blocks.fill(tmp_path / "new.md", "x", "y")
    assert (tmp_path / "new.md").read_text() == "<!-- x -->\ny\n<!-- end of x -->\n"
