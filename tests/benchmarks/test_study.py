"""benchmarks/study/tables.py: the tables that it makes of rows, by hand."""

from __future__ import annotations

import json

import pytest

from benchmarks import page_blocks
from benchmarks.study import students
from benchmarks.study import tables as study
from gansegctl.cli.distill import command


def row(method, shots, draw, seed, miou):
    names = ("wiou_tritrong", "wiou_tritrong_foreground", "wiou_manerikar", "foreground_miou", "trimap_miou")
    scores = dict.fromkeys(names, miou + 0.1) | {"gain_10": None}
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


def test_contrastive_against_its_controls_alone(rows, tmp_path):
    controls = [row(f"contrastive:projection={p}", 1, d, 0, 0.4) for p in ("random", "pca") for d in range(2)]
    more = [row("contrastive", 1, d, 0, 0.42) for d in range(2)] + [row("contrastive:steps=5", 1, 0, 0, 0.1)]
    assert len(study.of_contrastive([*rows, *more, *controls])) == 6
    page = tmp_path / "methods.md"
    study.report([*rows, *more, *controls], {"samples": 5, "total_variation": 0.1}, page)
    block = page.read_text().split("<!-- contrastive -->\n")[1].split("\n<!-- end")[0]
    assert block.splitlines()[2:] == [
        "| `contrastive:projection=random` | 2 | +2.0 | 0.5000 | 2 | 0.5000 |",
        "| `contrastive:projection=pca` | 2 | +2.0 | 0.5000 | 2 | 0.5000 |",
    ]


def test_ranks_of_each_metric(rows):
    better = [r | {"wiou_tritrong": 0.9} if r["method"] == "linear" else r for r in rows]
    assert study.ranks(better).splitlines()[2:] == [
        "| mIoU | `oneshot` 0.650, `linear` 0.540 |",
        "| wIoU | `linear` 0.900, `oneshot` 0.750 |",
        "| fg/bg mIoU | `oneshot` 0.750, `linear` 0.640 |",
    ]


def test_rows_that_are_missing_or_failed_break_no_table(rows, tmp_path):
    failed = {"method": "oneshot", "shots": 1, "draw": 2, "seed": 0, "failed": "got nan"}
    lost = failed | {"method": "repurpose", "shots": 10}
    for make in (study.lead, study.ranks, study.by_shots):
        assert make([*rows, failed, lost]) == make(rows)
        assert len(make([failed]).splitlines()) in (2, 5)
    drawn = {"samples": 5, "total_variation": 0.1}
    study.report([*rows, failed], drawn, tmp_path / "some.md")
    assert "\nFailed: oneshot, 1 shot, 1 run: got nan\n" in (tmp_path / "some.md").read_text()
    for few in ([], [failed], [row("stylemix", 0, 0, 0, 0.1)]):
        study.report(few, drawn, tmp_path / "few.md")
        text = (tmp_path / "few.md").read_text()
        assert all(f"<!-- {n} -->" in text for n in ("methods", "lead", "contrastive", "ranks", "shots", "shares"))


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


def test_from_the_files_of_compare_to_the_page(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "SHARES", tmp_path / "compare" / "shares.json")
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "rows.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(study, "shares", lambda num: {"samples": num, "total_variation": 0.5})
    study.main(["shares", "-n", "7"])
    study.main(["report"])
    text = (tmp_path / "methods.md").read_text()
    assert "Class shares of 7 samples" in text and "| `linear` | 4 | +11.0 |" in text


def test_variants_are_paired_with_the_plain_method_of_the_main_rows(rows, tmp_path):
    more = [row("linear:mode=nearest", 1, d, 0, 0.52 + 0.1 * d) | {"gain_10": 1.5} for d in range(2)]
    more += [row("stylemix:k=3", 0, 0, 0, 0.3)]
    lines = study.against_plain(more, rows).splitlines()[2:]
    assert lines == [
        "| `linear:mode=nearest` | 1 | 2 | 0.570 | 0.670 | +2.0 | 0.5000 | +1.50 |",
        "| `stylemix:k=3` | 0 | 1 | 0.300 | 0.400 | - | - | - |",
    ]
    page = tmp_path / "methods.md"
    study.report(rows, {"samples": 5, "total_variation": 0.1}, page, {"variants": more, "ablation": [*rows, *more]})
    text = page.read_text()
    ablation = text.split("<!-- ablation -->\n")[1].split("<!-- end")[0]
    assert "| `linear` | 1 | 4 | 0.540 | 0.640 | - | - | - |" in ablation and "+2.0 | 0.5000" in ablation


def told(miou):
    return json.dumps({"scores": {"miou": {"score": miou}, "wiou_tritrong": {"score": miou + 0.1}}})


def test_students_are_made_once_and_told_as_means(tmp_path, monkeypatch):
    said, scores = [], iter([0.8, 0.6, *[0.7, 0.72, 0.74], *[0.5] * 20])

    def run(line, **_):
        said.append(" ".join(line[3:]))
        return students.subprocess.CompletedProcess(line, 0, stdout=told(next(scores)) if line[3] == "eval" else "")

    monkeypatch.setattr(students.subprocess, "run", run)
    rows_file = tmp_path / "students.json"
    students.study(tmp_path / "out", rows_file, "abc", pairs=10, held_out=4, steps=2)
    assert any(s.startswith("annotate") and "--method linear" in s and "--probabilities" in s for s in said)
    trained = [s for s in said if s.startswith("distill")]
    assert len(trained) == sum(len(seeds) for *_, seeds in students.VARIANTS.values())
    assert sum("--drop-uncertain 0.1" in s for s in trained) == 3 and len(set(trained)) == len(trained)
    found = json.loads(rows_file.read_text())["rows"]
    lines = students.table(found).splitlines()
    assert lines[2] == "| `oneshot`, the teacher itself, on samples | 1 | 0.800 | 0.900 |"
    assert "| all pairs | 3 | 0.720 ± 0.020 | 0.820 ± 0.020 |" in lines
    said.clear()
    whole = json.loads(rows_file.read_text())
    rows_file.write_text(json.dumps(whole | {"rows": found[:-1]}))  # stopped before the last
    students.study(tmp_path / "out", rows_file, "abc", pairs=10, held_out=4, steps=2)
    assert sum(s.startswith("distill") for s in said) == 1
    with pytest.raises(SystemExit, match="another generator"):
        students.study(tmp_path / "out", rows_file, "other", pairs=10, held_out=4, steps=2)


def test_the_commands_of_the_students_are_ones_that_gansegctl_takes():
    known = {name for option in command.params for name in option.opts}
    for teacher, more, _ in students.VARIANTS.values():
        assert teacher in students.TEACHERS and {m for m in more if m.startswith("--")} <= known


@pytest.mark.parametrize(
    ("method", "plain"),
    [
        ("repurpose", None),
        ("repurpose:mode=nearest", "repurpose"),
        ("repurpose:head=mlp,centre=true", "repurpose:head=mlp"),
        ("repurpose:centre=true,head=mlp", "repurpose"),
        ("linear:mode=nearest", None),
    ],
)
def test_a_method_is_compared_with_the_form_that_lacks_its_last_settings(method, plain):
    assert study.plain_form(method, {"repurpose", "repurpose:head=mlp", method}) == plain
