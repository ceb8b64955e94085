"""compare: the same material for every method, rows that survive, tables that say who wins and how surely."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from gansegctl.contracts import Annotation
from gansegctl.errors import GansegError, UsageError
from gansegctl.evaluate.coverage import gain
from gansegctl.labels import LabelMap
from gansegctl.methods import get
from gansegctl.methods.linear import Linear
from gansegctl.pipeline.compare import measure, stage
from gansegctl.pipeline.compare.measure import (
    CompareSettings,
    Comparison,
    SettingsChanged,
    gain_10,
    parse_method,
    taken_for,
)
from gansegctl.pipeline.compare.stage import ROWS, SHEET, compare, failed_runs, read_rows
from gansegctl.pipeline.compare.table import COLUMNS, failures, markdown, measured, paired, sign_flip_p, summary
from gansegctl.students.student import Student, build

LABELS = LabelMap(("dark", "bright", "third"))
QUICK, OTHER = "linear:steps=2,statistics_samples=2", "linear:steps=3,statistics_samples=2"
METHODS = ("repurpose:steps=3,statistics_samples=2", "oneshot:steps=5,members=1,hidden=8,statistics_samples=2")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Random, but it says different things of different pixels."""
    path = tmp_path_factory.mktemp("reference") / "reference.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        Student(build("unet", 3, 3, (8, 12)), LABELS, (16, 16), 3, widths=(8, 12)).save(path)
    return path


def settings(generator_file, reference, **changes):
    base = {"methods": METHODS, "shots": (1,), "draws": 2, "seeds": 1, "num": 8, "batch_size": 4}
    return CompareSettings(str(generator_file), str(reference), **base | changes)


def test_rows_table_and_sheet(generator_file, reference, tmp_path):
    events = list(compare(settings(generator_file, reference), tmp_path / "c"))
    assert [e.done for e in events] == [1, 2, 3, 4]
    rows = read_rows(tmp_path / "c")
    assert {(r["method"], r["draw"]) for r in rows} == {(m, d) for m in METHODS for d in (0, 1)}
    for row in rows:
        assert 0 <= row["miou"] <= 1 and 0 <= row["foreground_miou"] <= 1
        assert set(row["iou"]) == set(LABELS.names)
        assert row["parameters"] > 100 and row["fit_seconds"] > 0 and row["pair_over_image"] > 0
        assert 0 <= row["wiou_tritrong_foreground"] <= 1 and -100 <= row["gain_10"] <= 100
        assert len(row["settings_digest"]) == 12
    assert len({r["settings_digest"] for r in rows}) == len(METHODS)
    assert set(json.loads((tmp_path / "c" / ROWS).read_text())) == {
        "generator",
        "against",
        "samples",
        "first_exemplar",
        "truncation",
        "rows",
    }
    entries = summary(rows)
    assert entries[0]["miou"][0] >= entries[1]["miou"][0]
    assert math.isnan(entries[0]["p"]) and 0 < entries[1]["p"] <= 1
    assert (tmp_path / "c" / SHEET).stat().st_size > 1000
    text = markdown(entries)
    assert all(m in text for m in METHODS) and len(text.splitlines()) == 4


def test_what_is_measured_is_not_measured_again(generator_file, reference, tmp_path, monkeypatch):
    chosen = settings(generator_file, reference, draws=1)
    events = compare(chosen, tmp_path)
    next(events)
    events.close()
    assert len(read_rows(tmp_path)) == 1
    ran = []
    run = Comparison.run
    monkeypatch.setattr(Comparison, "run", lambda self, *job, **known: ran.append(job) or run(self, *job, **known))
    list(compare(chosen, tmp_path))
    assert ran == [(METHODS[1], 1, 0, 0)]
    list(compare(chosen, tmp_path))
    assert len(ran) == 1


def test_a_row_is_kept_after_the_masks_that_the_sheet_shows(generator_file, reference, tmp_path, monkeypatch):
    chosen = settings(generator_file, reference, draws=1, methods=METHODS[1:])
    for name in ("write_bytes", "write_text"):  # killed at the masks, and between them and the row
        with monkeypatch.context() as m, pytest.raises(GansegError):
            m.setattr(stage, name, full)
            list(compare(chosen, tmp_path))
        assert not (tmp_path / ROWS).exists()
        assert len(list(tmp_path.glob("masks-*.npz"))) == (name == "write_text")
    list(compare(chosen, tmp_path))
    assert len(read_rows(tmp_path)) == 1
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".npz", ".png"]


def full(*_):
    raise GansegError("got no room")


def fail_to_fit(monkeypatch, error, steps=2):
    """Linear fits with so many steps raise `error`; others work."""
    fit = Linear.fit

    def failing(self, generator, exemplars, labels, settings, seed=0):
        if settings.steps == steps:
            raise error
        return fit(self, generator, exemplars, labels, settings, seed)

    monkeypatch.setattr(Linear, "fit", failing)


@pytest.mark.parametrize(
    "error",
    [
        GansegError("got a loss that is not finite", wanted="x" * 1000),
        MemoryError("no room"),
        torch.OutOfMemoryError("no room"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_method_that_fails_does_not_stop_the_others(generator_file, reference, tmp_path, monkeypatch, error):
    chosen = settings(generator_file, reference, methods=(QUICK, OTHER))
    with monkeypatch.context() as m:
        fail_to_fit(m, error)
        events = list(compare(chosen, tmp_path))
    rows = read_rows(tmp_path)
    failed = failed_runs(chosen, rows)
    assert [(r["method"], r["draw"]) for r in failed] == [(QUICK, 0), (QUICK, 1)]
    assert set(failed[0]) == {"method", "shots", "draw", "seed", "failed"} and len(failed[0]["failed"]) <= 600
    assert [r["method"] for r in measured(rows)] == [OTHER, OTHER]
    assert "failed" in events[0].facts["note"] and "note" not in events[1].facts
    assert (tmp_path / SHEET).exists()

    ran, run = [], Comparison.run
    monkeypatch.setattr(Comparison, "run", lambda self, *job, **known: ran.append(job) or run(self, *job, **known))
    list(compare(chosen, tmp_path))
    assert ran == []  # a failed row counts as done
    list(compare(chosen, tmp_path, retry=True))
    assert ran == [(QUICK, 1, 0, 0), (QUICK, 1, 1, 0)]
    rows = read_rows(tmp_path)
    assert len(rows) == len(measured(rows)) == 4 and failed_runs(chosen, rows) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("a fault of ours"), RuntimeError("a fault of torch")])
def test_what_is_no_failure_of_a_method_stops_the_stage(generator_file, reference, tmp_path, monkeypatch, error):
    fail_to_fit(monkeypatch, error)
    with pytest.raises(type(error)):
        list(compare(settings(generator_file, reference, draws=1, methods=(QUICK,)), tmp_path))
    assert not (tmp_path / ROWS).exists()


def test_failed_rows_are_named_and_not_counted():
    fine = [scored("m", 0), scored("m", 1, 0.7)]
    lost = {"method": "m", "shots": 1, "draw": 2, "seed": 0, "failed": "got nan\n  wanted: a number"}
    gone = {"method": "n", "shots": 1, "draw": 0, "seed": 0, "failed": "MemoryError: "}
    entries = summary([*fine, lost, gone])
    assert [(e["method"], e["runs"]) for e in entries] == [("m", 2)]
    assert paired([*fine, lost], [*fine, lost | {"failed": "too"}]) == [0, 0]
    lines = markdown(entries, failures([*fine, lost, gone, gone | {"seed": 1}])).splitlines()
    assert lines[3:] == [
        "",
        "Failed: m, 1 shot, 1 run: got nan wanted: a number",
        "",
        "Failed: n, 1 shot, 2 runs: MemoryError:",
    ]
    assert summary([lost]) == [] and len(markdown([]).splitlines()) == 2


def test_the_sheet_shows_what_other_commands_measured(generator_file, reference, tmp_path, monkeypatch):
    shown = []
    sheet = stage.panel_sheet
    monkeypatch.setattr(stage, "panel_sheet", lambda *a: shown.append(a[2]) or sheet(*a))
    for method in (QUICK, OTHER):
        list(compare(settings(generator_file, reference, draws=1, methods=(method,)), tmp_path))
    order = [f"{e['method']}, 1 shots" for e in summary(read_rows(tmp_path))]
    assert sorted(order) == sorted([f"{QUICK}, 1 shots", f"{OTHER}, 1 shots"])
    assert shown[-1] == ["images", "truth", *order]
    (tmp_path / stage._sheet_name(OTHER, 1)).unlink()
    list(compare(settings(generator_file, reference, draws=1, methods=(QUICK,)), tmp_path))
    assert shown[-1] == ["images", "truth", f"{QUICK}, 1 shots"]


def test_rows_fitted_with_other_defaults_are_refused(generator_file, reference, tmp_path, monkeypatch):
    one, two = (settings(generator_file, reference, draws=d, methods=(QUICK,)) for d in (1, 2))
    list(compare(one, tmp_path))
    fit = Linear.fit

    def changed(*arguments):
        segmenter = fit(*arguments)
        segmenter.settings = segmenter.settings | {"weight_decay": 0.5}
        return segmenter

    monkeypatch.setattr(Linear, "fit", changed)
    monkeypatch.setattr(Comparison, "_score", None)  # refused before
    with pytest.raises(SettingsChanged, match=r"linear:steps=2.*\n.*\n.*delete those rows") as refused:
        list(compare(two, tmp_path))
    assert isinstance(refused.value, UsageError)
    assert len(read_rows(tmp_path)) == 1
    monkeypatch.undo()
    data = json.loads((tmp_path / ROWS).read_text())
    data["rows"][0]["settings_digest"] = None  # as of a segmenter without settings
    (tmp_path / ROWS).write_text(json.dumps(data))
    monkeypatch.setattr(Linear, "fit", changed)
    list(compare(two, tmp_path))
    assert len(measured(read_rows(tmp_path))) == 2


def test_truncation_is_of_exemplars_and_samples_and_of_the_head(generator_file, reference, tmp_path):
    whole, half = (Comparison(settings(generator_file, reference, truncation=t, num=4)) for t in (1.0, 0.5))
    assert not np.array_equal(whole.images, half.images)
    middle = half.generator.map(torch.zeros(1, 8), truncation=0.0)
    assert torch.allclose(half.exemplars(0, 1)[0].ws, middle + 0.5 * (whole.exemplars(0, 1)[0].ws - middle), atol=1e-5)

    one, two = (settings(generator_file, reference, methods=(QUICK,), draws=d) for d in (1, 2))
    list(compare(one, tmp_path))
    assert json.loads((tmp_path / ROWS).read_text())["truncation"] == 1.0
    with pytest.raises(UsageError, match=r"truncation: 1.0 there, 0.5 asked for"):
        list(compare(settings(generator_file, reference, methods=(QUICK,), truncation=0.5), tmp_path))
    list(compare(two, tmp_path))
    assert len(read_rows(tmp_path)) == 2
    with pytest.raises(UsageError, match="truncation nan"):
        settings(generator_file, reference, truncation=float("nan"))


def test_rows_of_other_samples_are_not_mixed_in(generator_file, reference, tmp_path):
    chosen = settings(generator_file, reference, draws=1, methods=METHODS[1:])
    list(compare(chosen, tmp_path))
    with pytest.raises(UsageError, match="samples"):
        list(compare(settings(generator_file, reference, draws=1, num=6), tmp_path))
    assert len(json.loads((tmp_path / ROWS).read_text())["rows"]) == 1


def test_every_method_gets_the_same_exemplars_annotated_by_the_reference(generator_file, reference):
    bench = Comparison(settings(generator_file, reference))
    a, b = bench.exemplars(1, 2), bench.exemplars(1, 3)
    assert [e.seed for e in a] == [2_000_100, 2_000_101] == [e.seed for e in b[:2]]
    assert torch.equal(a[1].ws, b[1].ws) and np.array_equal(a[1].mask, b[1].mask)
    assert bench.exemplars(0, 0) == []
    assert bench.masks.shape == (8, 16, 16) and len(np.unique(bench.masks)) > 1


def scored(method, draw, miou=0.5, **changes):
    """A row with the same value for every score."""
    row = {"method": method, "shots": 1, "draw": draw, "seed": 0, "iou": {"a": 1.0}, "gain_10": None}
    row |= dict.fromkeys((*COLUMNS, "wiou_tritrong_foreground"), miou)
    costs = {"fit_seconds": 1.0, "masks_per_second": 5.0, "pair_over_image": 1.0, "peak_mb": 3.0, "parameters": 7}
    return row | costs | changes


def test_what_cannot_be_timed_is_left_open():
    row = scored("m", 0, masks_per_second=float("nan"))
    line = markdown(summary([row])).splitlines()[-1]
    assert line == "| m | 1 | 1 | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 | - | 1 | - | 1 | 3 | 7 |"
    other = row | {"draw": 1, "masks_per_second": 20.0}
    assert summary([row, other])[0]["masks_per_second"] == 20


def test_scores_that_not_every_run_has():
    values = ((math.nan, None), (0.25, None), (math.nan, 1.5))
    rows = [scored("m", i, wiou_tritrong_foreground=w, gain_10=g) for i, (w, g) in enumerate(values)]
    assert summary(rows)[0]["wiou_tritrong_foreground"] == 0.25 and summary(rows)[0]["gain_10"] == 1.5
    assert summary(rows[:1])[0]["wiou_tritrong_foreground"] is summary(rows[:2])[0]["gain_10"] is None
    assert markdown(summary(rows)).splitlines()[2].count("|") == 15


@pytest.fixture
def says(monkeypatch, generator_file, reference):
    """A bench, and a function that scores a segmenter of these classes and masks on it."""
    bench = Comparison(settings(generator_file, reference))

    def scoring(names, masks, doubt=None):
        parts = iter(
            Annotation(torch.from_numpy(m.astype(np.uint8)), None, torch.tensor(d))
            for m, d in zip(masks.reshape(2, 4, 16, 16), np.reshape(doubt or [0.0] * 8, (2, 4)).tolist(), strict=True)
        )
        monkeypatch.setattr(measure, "image_and_mask", lambda *a: (None, a[4] and next(parts)))
        return bench._score(type("Says", (), {"labels": LabelMap(names)})())

    return bench, scoring


def test_a_perfect_method_scores_one(says):
    bench, scoring = says
    report, foreground, shown, *_ = scoring(LABELS.names, bench.masks)
    assert report.scores["miou"] == report.scores["wiou_tritrong"] == foreground == 1
    assert shown.shape == (6, 16, 16)


def test_unnamed_segments_are_named_by_the_truth_for_the_score(says):
    bench, scoring = says
    renamed = np.array([2, 0, 1], np.uint8)[bench.masks]
    report, foreground, *_ = scoring(("segment-0", "segment-1", "segment-2"), renamed)
    assert report.scores["miou"] == foreground == 1
    report, foreground, *_ = scoring(("segment-0", "segment-1"), bench.masks == 0)
    assert foreground == 1
    assert report.scores["miou"] <= 1


def test_masks_of_named_parts_are_scored_as_named(says):
    bench, scoring = says
    two = ("background", "foreground")
    report, foreground, *_ = scoring(two, bench.masks > 0)
    assert foreground == 1 and report.iou[0] == 1
    report, foreground, *_ = scoring(two, bench.masks == 0)  # inverted
    assert foreground == 0 and report.scores["miou"] == 0
    # The truth's own names, in another order and not all of them.
    report, _, *_ = scoring(("bright", "dark", "third"), np.array([1, 0, 2])[bench.masks])
    assert report.scores["miou"] == 1
    with pytest.raises(UsageError, match="got classes sky, ground"):
        scoring(("sky", "ground"), bench.masks > 0)


def test_foreground_counts_as_the_class_it_agrees_with_best():
    two, truth = LabelMap(("background", "foreground")), LabelMap(("ground", "a", "b"))
    # IoU of foreground with a: 6 of 6+10+10 pixels; with b: 10 of 16+2
    assert taken_for(two, truth, np.array([[20, 10, 2], [0, 6, 10]])).tolist() == [0, 2]
    assert taken_for(two, truth, np.array([[0, 10, 2], [20, 6, 0]])).tolist() == [0, 1]
    assert taken_for(LabelMap(("b", "ground")), truth, np.zeros((2, 3))).tolist() == [2, 0]


def test_what_keeping_the_most_certain_gains(says):
    bench, scoring = says
    wrong = bench.masks.copy()
    wrong[5] = (wrong[5] + 1) % 3
    doubt = [0.1, 0.2, 0.1, 0.3, 0.1, 0.9, 0.1, 0.2]
    report = scoring(LABELS.names, wrong, doubt)[0]
    assert gain_10(report) == pytest.approx(100 * (1 - report.scores["miou"])) and report.miou < 1
    assert gain_10(report) == pytest.approx(100 * gain(report.coverage))
    report = scoring(LABELS.names, wrong, [0.9, *doubt[1:5], 0.1, *doubt[6:]])[0]
    assert gain_10(report) < 0
    for nothing in ([0.0] * 8, [0.5] * 8, [float("nan"), *doubt[1:]]):
        assert gain_10(scoring(LABELS.names, wrong, nothing)[0]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("repurpoze", "repurpose"), ("oneshot:steps", "key=value"), ("oneshot:stepz=3", "stepz"), ("oneshot:lr=x", "lr")],
)
def test_bad_methods_are_refused_before_any_work(text, message):
    with pytest.raises(UsageError, match=message):
        CompareSettings("demo", "demo", (text,))


def test_counts_are_checked_and_options_typed():
    assert parse_method("repurpose:head=mlp,lr=0.1,flip=true") == (
        "repurpose",
        {"head": "mlp", "lr": 0.1, "flip": True},
    )
    for text in ("oneshot:hidden=128,64,steps=7", "oneshot:hidden=[128,64],steps=7"):
        name, options = parse_method(text)
        assert options["steps"] == 7
        assert get(name).settings_type(**options).hidden == (128, 64)
    assert parse_method("datasetgan:hidden=128,32")[1] == {"hidden": "128,32"}
    named = parse_method('segment_in_style:k=4,names={"hair":[0,1],"skin":[2]}')[1]
    assert named == {"k": 4, "names": {"hair": [0, 1], "skin": [2]}}
    for changes in ({"draws": 0}, {"shots": (101,)}, {"shots": ()}, {"methods": ()}):
        with pytest.raises(UsageError):
            CompareSettings("demo", "demo", **{"methods": ("oneshot",)} | changes)


def test_the_truth_must_be_a_reference_segmenter(generator_file, tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    with pytest.raises(UsageError, match="reference segmenter"):
        Comparison(settings(generator_file, folder))


def test_sign_flips_by_hand():
    assert sign_flip_p([1.0, 1.0, 1.0]) == 2 / 8
    assert sign_flip_p([1.0, -1.0]) == 1.0
    assert sign_flip_p([0.1] * 10) == 2 / 1024
    assert sign_flip_p(np.r_[np.ones(20), -0.1]) < 1e-3
    assert math.isnan(sign_flip_p([1.0]))


def test_pairs_are_of_the_same_draw_and_seed():
    a = [{"draw": 0, "seed": 0, "miou": 0.5}, {"draw": 1, "seed": 0, "miou": 0.7}]
    b = [{"draw": 1, "seed": 0, "miou": 0.4}, {"draw": 2, "seed": 0, "miou": 0.1}]
    assert paired(a, b) == [pytest.approx(0.3)]
