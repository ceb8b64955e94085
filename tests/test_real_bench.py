"""docs/real.py on a miniature of the benchmark's files: every stage, resumed, and its page."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from gansegctl.generators.inversion import InversionSettings
from gansegctl.pipeline.projector import ProjectSettings
from gansegctl.pipeline.real_exemplars import RealSettings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def real():
    spec = importlib.util.spec_from_file_location("real_bench", ROOT / "docs" / "real.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_bench"] = module
    spec.loader.exec_module(module)
    return module


def write(path, grey=False, side=16):
    """24 training and 6 test pictures: a bright square somewhere, its mask, six pictures a patient."""
    stream = np.random.RandomState(0)
    image = stream.randint(0, 40, (30, side, side, 1 if grey else 3)).astype(np.uint8)
    mask = np.zeros((30, side, side), np.uint8)
    for i in range(30):
        y, x = stream.randint(0, side // 2, 2)
        image[i, y : y + side // 2, x : x + side // 2] += 180
        mask[i, y : y + side // 2, x : x + side // 2] = 1
    with h5py.File(path, "w") as f:
        f["image"], f["mask"], f["split"] = image, mask, (np.arange(30) >= 24).astype(np.uint8)
        if grey:
            f["patient"] = (np.arange(30) // 6).astype(np.uint8)
        f.attrs["classes"] = json.dumps(["ground", "square"])
    return path


def tiny(real, path, work, **more):
    plan = real.Plan(
        path.stem,
        path,
        work,
        shots=(2,),
        methods=("linear", "segment_in_style"),
        options={"linear": {"steps": 2}, "segment_in_style": {"images": 2, "k": 2, "iterations": 2}},
        supervised=(2, 0),
        draws=1,
        samples=6,
        student_steps=2,
        network={"channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 1},
        training={"images": 8, "batch_size": 4},
        project=ProjectSettings(
            inversion=InversionSettings(steps=2, start_steps=2, samples=4), calibration=0, batch_size=4
        ),
        limits=RealSettings(highest_error=255, ignore_above=0),
    )
    return replace(plan, **more)


def test_the_whole_benchmark_in_miniature(real, tmp_path, capsys):
    plan = tiny(real, write(tmp_path / "mini.h5"), tmp_path / "work")
    bench = real.Bench(plan)
    bench.run()
    kinds = [(r["kind"], r.get("method"), r.get("source"), r.get("shots")) for r in bench.rows]
    assert kinds.count(("supervised", None, None, None)) == 2
    for source in ("real", "sampled"):
        assert ("shots", "linear", source, 2) in kinds
    assert ("shots", "segment_in_style", "none", 0) in kinds
    assert {r["pictures"] for r in bench.rows if r["kind"] == "supervised"} == {2, 24}
    assert all(0 <= r["miou"] <= 1 for r in bench.rows if "miou" in r)
    row = bench.row(kind="shots", method="linear", source="real", shots=2)
    assert row["pictures"] == 2 and set(row["dice"]) == {"ground", "square"}
    assert row["dice"]["square"] == pytest.approx(2 * row["iou"]["square"] / (1 + row["iou"]["square"]))
    with h5py.File(tmp_path / "work" / "pictures.h5") as f:
        assert list(f) == ["image"] and len(f["image"]) == 24  # the train split's pictures, no mask
    before = (tmp_path / "work" / "rows.json").read_text()
    again = real.Bench(plan)
    again.run()
    assert (tmp_path / "work" / "rows.json").read_text() == before
    page = tmp_path / "real.md"
    page.write_text("before\n<!-- mini -->\nold\n<!-- end of mini -->\nafter\n")
    real.write_report(again, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "supervised labels needed to match" in text and "| 2 | real | linear | 1 | 2 |" in text
    assert (tmp_path / "real-mini.png").stat().st_size > 1000


def test_patients_and_reduced_pictures(real, tmp_path):
    path = write(tmp_path / "grey.h5", grey=True, side=32)
    plan = tiny(
        real, path, tmp_path / "w", unit="patient", slices=2, resolution=16, shots=(2,), sources=("real",),
        methods=("linear",), supervised=(2,),
    )  # fmt: skip
    bench = real.Bench(plan)
    assert bench.train.image.shape == (24, 16, 16, 1) and bench.test.mask.shape == (6, 16, 16)
    rows = bench.chosen(2, 0)
    assert len(rows) == 4 and len({bench.train.group[i] for i in rows}) == 2
    assert set(bench.train.group) & set(bench.test.group) == set()
    bench.run()
    assert bench.row(kind="shots", shots=2)["pictures"] == 4


def test_shots_of_one_draw_contain_each_other(real, tmp_path):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w"))
    assert bench.chosen(1, 0)[:1] == bench.chosen(5, 0)[:1]
    assert bench.chosen(5, 0)[:5] != bench.chosen(5, 1)[:5]


def test_the_summary_counts_labels_saved(real):
    def row(**more):
        return {"mean_dice": 0.5, "iou": {"a": 0.4}, "seconds": {"fit": 1.0}} | more

    rows = [row(kind="supervised", pictures=n, miou=m) for n, m in ((5, 0.4), (5, 0.5), (50, 0.65))]
    shot = {"kind": "shots", "method": "linear", "source": "real", "shots": 1, "pictures": 1}
    rows += [row(**shot, miou=0.55), row(**shot, miou=0.55), row(**shot | {"shots": 10, "pictures": 10}, miou=0.7)]
    lines, entries = real.summary([*rows, {"kind": "generator"}])
    assert lines["supervised on real pictures"][0][:2] == (5, pytest.approx(0.45))
    assert [e["matched_by"] for e in entries] == ["16", "> 50"]
    assert entries[0]["runs"] == 2


def test_a_file_that_is_not_here_is_said(real, tmp_path, capsys):
    real.main(["lpc64", "--data", str(tmp_path), "--work", str(tmp_path / "w"), "--docs", str(tmp_path)])
    assert "skipped lpc64" in capsys.readouterr().out
