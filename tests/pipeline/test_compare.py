"""compare: the same material for every method, rows that survive, tables that say who wins and how surely."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from gansegctl.errors import GansegError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline import compare as comparing_runs
from gansegctl.pipeline.compare import (
    ROWS,
    SHEET,
    Bench,
    CompareSettings,
    compare,
    foreground_miou,
    parse_method,
    read_rows,
)
from gansegctl.pipeline.comparing import COLUMNS, markdown, paired, sign_flip_p, table
from gansegctl.students.student import Student, build

LABELS = LabelMap(("dark", "bright", "third"))
METHODS = ("repurpose:steps=3,statistics_samples=2", "oneshot:steps=5,members=1,hidden=8,statistics_samples=2")


@pytest.fixture(scope="module")
def labeller(tmp_path_factory):
    """Random, but it says different things of different pixels."""
    path = tmp_path_factory.mktemp("labeller") / "labeller.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        Student(build("unet", 3, 3, (8, 12)), LABELS, (16, 16), 3, widths=(8, 12)).save(path)
    return path


def settings(generator_file, labeller, **changes):
    base = {"methods": METHODS, "shots": (1,), "draws": 2, "seeds": 1, "num": 8, "batch_size": 4}
    return CompareSettings(str(generator_file), str(labeller), **base | changes)


def test_rows_table_and_sheet(generator_file, labeller, tmp_path):
    events = list(compare(settings(generator_file, labeller), tmp_path / "c"))
    assert [e.done for e in events] == [1, 2, 3, 4]
    rows = read_rows(tmp_path / "c", {})
    assert {(r["method"], r["draw"]) for r in rows} == {(m, d) for m in METHODS for d in (0, 1)}
    for row in rows:
        assert 0 <= row["miou"] <= 1 and 0 <= row["foreground_miou"] <= 1
        assert set(row["iou"]) == set(LABELS.names)
        assert row["parameters"] > 100 and row["fit_seconds"] > 0 and row["pair_over_image"] > 0
    entries = table(rows)
    assert entries[0]["miou"][0] >= entries[1]["miou"][0]
    assert math.isnan(entries[0]["p"]) and 0 < entries[1]["p"] <= 1
    assert (tmp_path / "c" / SHEET).stat().st_size > 1000
    text = markdown(entries)
    assert all(m in text for m in METHODS) and len(text.splitlines()) == 4


def test_what_is_measured_is_not_measured_again(generator_file, labeller, tmp_path, monkeypatch):
    chosen = settings(generator_file, labeller, draws=1)
    events = compare(chosen, tmp_path)
    next(events)
    events.close()
    assert len(read_rows(tmp_path, {})) == 1
    ran = []
    run = Bench.run
    monkeypatch.setattr(Bench, "run", lambda self, *job: ran.append(job) or run(self, *job))
    list(compare(chosen, tmp_path))
    assert ran == [(METHODS[1], 1, 0, 0)]
    list(compare(chosen, tmp_path))
    assert len(ran) == 1


def test_a_row_is_kept_after_the_masks_that_the_sheet_shows(generator_file, labeller, tmp_path, monkeypatch):
    chosen = settings(generator_file, labeller, draws=1, methods=METHODS[1:])
    for name in ("write_bytes", "write_text"):  # killed at the masks, and between them and the row
        with monkeypatch.context() as m, pytest.raises(GansegError):
            m.setattr(comparing_runs, name, full)
            list(compare(chosen, tmp_path))
        assert not (tmp_path / ROWS).exists()
        assert len(list(tmp_path.glob("masks-*.npz"))) == (name == "write_text")
    list(compare(chosen, tmp_path))
    assert len(read_rows(tmp_path, {})) == 1
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".npz", ".png"]


def full(*_):
    raise GansegError("got no room")


def test_rows_of_other_samples_are_not_mixed_in(generator_file, labeller, tmp_path):
    chosen = settings(generator_file, labeller, draws=1, methods=METHODS[1:])
    list(compare(chosen, tmp_path))
    with pytest.raises(UsageError, match="samples"):
        list(compare(settings(generator_file, labeller, draws=1, num=6), tmp_path))
    assert len(json.loads((tmp_path / ROWS).read_text())["rows"]) == 1


def test_every_method_gets_the_same_exemplars_annotated_by_the_labeller(generator_file, labeller):
    bench = Bench(settings(generator_file, labeller))
    a, b = bench.exemplars(1, 2), bench.exemplars(1, 3)
    assert [e.seed for e in a] == [2_000_100, 2_000_101] == [e.seed for e in b[:2]]
    assert torch.equal(a[1].ws, b[1].ws) and np.array_equal(a[1].mask, b[1].mask)
    assert bench.exemplars(0, 0) == []
    assert bench.masks.shape == (8, 16, 16) and len(np.unique(bench.masks)) > 1


def test_what_cannot_be_timed_is_left_open():
    row = {"method": "m", "shots": 1, "draw": 0, "seed": 0, "iou": {"a": 1.0}} | dict.fromkeys(COLUMNS, 0.5)
    row |= {
        "fit_seconds": 1.0,
        "masks_per_second": float("nan"),
        "pair_over_image": 1.0,
        "peak_mb": 3.0,
        "parameters": 7,
    }
    line = markdown(table([row])).splitlines()[-1]
    assert line == "| m | 1 | 1 | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 | - | 1 | - | 1 | 3 | 7 |"
    other = row | {"draw": 1, "masks_per_second": 20.0}
    assert table([row, other])[0]["masks_per_second"] == 20


def test_a_perfect_method_scores_one(generator_file, labeller, monkeypatch):
    bench = Bench(settings(generator_file, labeller))
    rows = iter(bench.masks.reshape(2, 4, 16, 16))

    class Oracle:
        labels = LABELS

    def exact(generator, ws, seeds, noise, segmenter):
        return None, segmenter and type("A", (), {"labels": torch.from_numpy(next(rows))})

    monkeypatch.setattr(comparing_runs, "picture_and_mask", exact)
    report, foreground, shown, *_ = bench._score(Oracle())
    assert report.scores["miou"] == report.scores["wiou_tritrong"] == foreground == 1
    assert shown.shape == (6, 16, 16)


def test_unnamed_segments_are_named_by_the_truth_for_the_score(generator_file, labeller, monkeypatch):
    bench = Bench(settings(generator_file, labeller))
    renamed = np.array([2, 0, 1], np.uint8)[bench.masks]
    rows = iter([*renamed.reshape(2, 4, 16, 16), *(bench.masks == 0).astype(np.uint8).reshape(2, 4, 16, 16)])
    monkeypatch.setattr(
        comparing_runs,
        "picture_and_mask",
        lambda *a: (None, a[4] and type("A", (), {"labels": torch.from_numpy(next(rows))})),
    )

    class Segments:
        labels = LabelMap(("segment-0", "segment-1", "segment-2"))

    class Two:
        labels = LabelMap(("segment-0", "segment-1"))

    report, foreground, *_ = bench._score(Segments())
    assert report.scores["miou"] == foreground == 1
    report, foreground, *_ = bench._score(Two())
    assert foreground == 1
    assert report.scores["miou"] <= 1


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
    for changes in ({"draws": 0}, {"shots": (101,)}, {"shots": ()}, {"methods": ()}):
        with pytest.raises(UsageError):
            CompareSettings("demo", "demo", **{"methods": ("oneshot",)} | changes)


def test_the_truth_must_be_a_labeller(generator_file, tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    with pytest.raises(UsageError, match="labeller"):
        Bench(settings(generator_file, folder))


def test_foreground_against_background_by_hand():
    matrix = np.array([[6, 2, 0], [1, 3, 4], [1, 0, 3]])
    # background: 6 of 6+2+2; foreground: 10 of 10+2+2
    assert foreground_miou(matrix) == pytest.approx((6 / 10 + 10 / 14) / 2)


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
