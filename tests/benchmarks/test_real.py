"""The benchmark on real images on a miniature of its files: every stage, resumed, and its page."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from helpers.real_benchmark import tiny, write

from benchmarks.real import bench as real
from benchmarks.real import report
from gansegctl import methods
from gansegctl.config import from_dict
from gansegctl.errors import GansegError, UsageError
from gansegctl.generators import weights
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.annotate.real_images import RealSettings
from gansegctl.students import student


def test_the_whole_benchmark_in_miniature(tmp_path, capsys):
    plan = tiny(real, write(tmp_path / "mini.h5"), tmp_path / "work")
    bench = real.Bench(plan)
    bench.run()
    kinds = [(r["kind"], r.get("method"), r.get("source"), r.get("shots")) for r in bench.rows]
    assert kinds.count(("supervised", None, None, None)) == 2
    for source in ("real", "chosen", "sampled"):
        assert ("shots", "linear", source, 2) in kinds
        assert ("shots", "segment_in_style", source, 2) in kinds
        assert (("shots", "linear + shots", source, 2) in kinds) == (source != "sampled")  # those have no real masks
    both = bench.row(kind="shots", method="linear + shots", source="real", shots=2)
    alone = bench.row(kind="shots", method="linear", source="real", shots=2)
    assert {k: both[k] for k in ("chosen", "error", "images")} == {k: alone[k] for k in ("chosen", "error", "images")}
    facts = student.read_header(bench.folder / "student-linear+shots-real-2-0.safetensors")["facts"]
    assert (facts["pairs"], facts["real_images"]) == (6, 2)
    assert not list(bench.folder.glob("labelled-*"))  # kept no longer than two students need it
    assert ("shots", "segment_in_style", "none", 0) in kinds
    assert kinds[0][0] == "generator" and kinds[-1] == ("shots", "segment_in_style", "none", 0)
    assert {r["images"] for r in bench.rows if r["kind"] == "supervised"} == {2, 24}
    assert all(0 <= r["miou"] <= 1 for r in bench.rows if "miou" in r)
    row = bench.row(kind="shots", method="linear", source="real", shots=2)
    assert row["images"] == 2 and set(row["dice"]) == {"ground", "square"}
    assert row["dice"]["square"] == pytest.approx(2 * row["iou"]["square"] / (1 + row["iou"]["square"]))
    with h5py.File(tmp_path / "work" / "generator" / "images.h5") as f:
        assert list(f) == ["image"] and len(f["image"]) == 24  # the train split's images, no mask
    assert set(row["seconds"]) == {"exemplars", "fit", "samples", "student"} and min(row["seconds"].values()) >= 0
    assert row["mean_dice"] == pytest.approx(row["dice"]["square"])
    paired = bench.row(kind="paired", source="real", shots=2)
    assert paired["images"] == 2 and row["chosen"] == bench.order(0)[:2].tolist()
    assert paired["iou"] == bench.row(kind="supervised", count=2)["iou"]  # the very images, so not trained again
    before = bench.path.read_text()
    again = real.Bench(plan)
    again.run()
    assert bench.path.read_text() == before
    tool = methods.get("labels4free")  # it is handed the images and the critic that the generator was trained with
    settings = from_dict(tool.settings_type, bench.options(tool), "labels4free")
    given = beyond_generator(tool, bench.generator(), settings)
    assert given["images"].shape == (24, 16, 16, 3) and given["adversary"].trained is not None
    chosen = real.Bench(replace(plan, work=tmp_path / "own", options={"labels4free": {"images": "", "batch": 3}}))
    assert {"images": "", "batch": 3}.items() <= chosen.options(tool).items()
    # Killed after the training and before its row: the seconds are the training's, not those of looking at it again.
    again.rows = [r for r in again.rows if r["kind"] != "generator"]
    again.generator()
    facts = weights.read_header(tmp_path / "work" / "generator" / "generator.safetensors")["facts"]
    assert again.row(kind="generator")["seconds"] == facts["seconds"]
    page = tmp_path / "real.md"
    page.write_text("before\n<!-- mini -->\nold\n<!-- end of mini -->\nafter\n")
    report.write_report(again, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "supervised labels needed to match" in text and "| 2 | real | linear | 1 | 2 |" in text
    assert "6 samples and 2 steps a student; projection into w+ by 2 steps" in text
    assert (tmp_path / "images" / "real-mini.png").stat().st_size > 1000


def test_patients_and_reduced_images(tmp_path):
    path = write(tmp_path / "grey.h5", grey=True, side=32)
    plan = tiny(
        real, path, tmp_path / "w", unit="patient", slices=2, resolution=16, shots=(2,), sources=("real",),
        methods=("linear",), supervised=(2,),
    )  # fmt: skip
    bench = real.Bench(plan)
    assert bench.train.image.shape == (24, 16, 16, 1) and bench.test.mask.shape == (6, 16, 16)
    assert [len(unit) for unit in bench.shots.units(0)] == [2] * 4  # every training patient once, two slices each
    assert all(len({int(bench.train.group[i]) for i in unit}) == 1 for unit in bench.shots.units(0))
    assert set(bench.train.group) & set(bench.test.group) == set()
    bench.run()
    assert bench.row(kind="shots", shots=2)["images"] == bench.row(kind="paired", shots=2)["images"] == 4


def test_another_training_is_refused_and_other_settings_lie_beside(tmp_path):
    path = write(tmp_path / "mini.h5")
    plan = tiny(real, path, tmp_path / "w")
    bench = real.Bench(plan)
    bench.keep({"kind": "generator", "images": 8, "seconds": 1})
    assert len(real.Bench(replace(plan, draws=9, shots=(1,), device="cuda")).rows) == 1  # of these a row speaks itself
    longer = replace(plan.project, inversion=replace(plan.project.inversion, steps=9))
    others = [{"samples": 7}, {"student_steps": 3}, {"project": longer}, {"limits": RealSettings(9)}, {"options": {}}]
    folders = [real.Bench(replace(plan, **change)).folder for change in others]
    assert len({bench.folder, *folders}) == 6 and all(f.parent == plan.work for f in folders)
    assert json.loads((folders[0] / "rows.json").read_text())["head"]["samples"] == 7
    for change, said in (
        ({"resolution": 8}, "resolution: 16 there, 8 asked for"),
        ({"training": {"images": 9}}, r"training.images: 8 there, 9 asked for; .*training.batch_size: 4 there"),
    ):
        with pytest.raises(UsageError, match=rf"{said}[\s\S]*remedy: .*--work") as e:
            real.Bench(replace(plan, **change))
        assert e.value.status == 2
    with h5py.File(path, "a") as f:
        f["image"][0] = 9
    with pytest.raises(UsageError, match="data: "):
        real.Bench(plan)
    (plan.work / "generator" / "made-of.json").rename(plan.work / "generator" / "generator.safetensors")
    with pytest.raises(UsageError, match=r"with made-of\.json"):
        real.Bench(plan)
    with pytest.raises(UsageError, match="divisor"):
        real.Bench(replace(plan, work=tmp_path / "v", resolution=5))


def test_rows_of_processes_that_run_at_once_are_all_kept(tmp_path):
    plan = tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w")
    one, two = real.Bench(plan), real.Bench(plan)
    one.keep({"kind": "generator", "images": 8, "seconds": 1})
    two.keep({"kind": "supervised", "count": 2, "draw": 0, "images": 2})
    one.keep({"kind": "supervised", "count": 0, "draw": 0, "images": 24})
    assert len(real.Bench(plan).rows) == 3
    tried = []
    two.attempt(lambda: tried.append(1), kind="supervised", count=0, draw=0)  # the other process has it
    assert not tried


def test_what_fails_is_a_row_and_the_others_go_on(tmp_path, monkeypatch):
    plan = tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w", sources=("sampled",))
    tried = []

    def shot(self, generator, method, source, shots, draw):
        assert method in methods.METHODS  # sampled shots have no real masks to learn from too
        tried.append(method)
        if method == "linear":
            raise GansegError("got masks that are all | foreground", remedy="x" * 2000)
        if shots:
            raise RuntimeError("a bug")
        self.keep({**ROW, "kind": "shots", "method": method, "source": source, "shots": shots, "draw": draw})

    for name in ("generator", "supervised"):
        monkeypatch.setattr(real.Bench, name, lambda *_: None)
    monkeypatch.setattr(real.Bench, "shot", shot)
    for retry in (False, False, True):
        bench = real.Bench(plan, retry)
        bench.run()
    both = ["linear", "segment_in_style"]
    assert tried == [*both, "segment_in_style", *both]  # 2 shots, 0 shots, and again what failed
    assert bench.row(method="segment_in_style", shots=2)["failed"].startswith("RuntimeError: a bug\n")
    row = bench.row(method="linear")
    assert row["failed"].startswith("got masks") and len(row["failed"]) < 700
    text = report.write_report(bench, tmp_path)  # without one supervised score, and without a point of a curve
    assert "| 2 | sampled | linear | 0, 1 failed | failed |" in text
    assert "* shots, method linear, source sampled, shots 2, draw 0: got masks" in text
    assert "| 0 | none | segment_in_style | 1 |" in text


def test_a_failing_data_set_does_not_stop_the_next(tmp_path, monkeypatch, capsys):
    for name in "ab":
        write(tmp_path / f"{name}.h5", grey=name == "b", side=16 if name == "a" else 32)
    plans = []

    class Failing:
        def __init__(self, plan, retry):
            self.plan = plan
            plans.append(plan)

        def run(self, told):
            told()
            if self.plan.name == "a":
                raise RuntimeError("a bug")

    monkeypatch.setattr(real, "Bench", Failing)
    monkeypatch.setattr(real, "write_report", lambda bench, docs: f"report of {bench.plan.name}")
    with pytest.raises(SystemExit, match=r"failed: a$"):
        real.main(["a", "none", "b", "--data", str(tmp_path), "--work", str(tmp_path / "w"), "--docs", str(tmp_path)])
    said = capsys.readouterr().out
    assert "report of a" in said and "report of b" in said and "a bug" in said
    assert [p.work.name for p in plans] == ["a-16", "b-32"]  # two resolutions of one file do not meet


def test_images_are_written_whole(tmp_path, monkeypatch):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w"))

    def full(path, data):
        assert len(data) > 24 * 16 * 16 * 3
        raise GansegError("got no room")

    with monkeypatch.context() as m, pytest.raises(GansegError):
        m.setattr(real, "write_bytes", full)
        bench.images()
    assert not (tmp_path / "w" / "images.h5").exists()
    with h5py.File(bench.images()) as f:
        assert np.array_equal(f["image"][:], bench.train.image)


def test_masks_in_two_parts_say_so(tmp_path, monkeypatch):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w"))
    truth = {t.tobytes(): m for t, m in zip(bench.test.image, bench.test.mask, strict=True)}
    monkeypatch.setattr(real, "predict_masks", lambda _, images: np.stack([truth[i.tobytes()] for i in images]))

    class Two:
        labels = LabelMap(("background", "foreground"))

    class All:
        labels = bench.labels

    two, every = bench.scores(Two), bench.scores(All)
    assert two["two_class"] and two["foreground_miou"] == 1 and set(two["iou"]) == {"background", "foreground"}
    assert "two_class" not in every and every["foreground_miou"] == every["miou"] == 1


ROW = {
    "mean_dice": 0.5,
    "iou": {"a": 0.4},
    "dice": {"a": 0.5},
    "seconds": {"fit": 1.0},
    "miou": 0.4,
    "foreground_miou": 0.9,
    "images": 0,
}


def test_a_file_that_is_not_here_is_said(tmp_path, capsys):
    real.main(["lpc64", "--data", str(tmp_path), "--work", str(tmp_path / "w"), "--docs", str(tmp_path)])
    assert "skipped lpc64" in capsys.readouterr().out


def test_a_generator_can_grow_from_half_the_size(tmp_path):
    plan = tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w", grow={"images": 4})
    bench = real.Bench(plan)
    bench.generator()
    with h5py.File(bench.images(2)) as f:
        blocks = bench.train.image.reshape(-1, 8, 2, 8, 2, 3).mean(axis=(2, 4))
        np.testing.assert_allclose(f["image"][:], blocks, atol=0.5)
    seen = {n: weights.read_header(bench.made / f"{n}.safetensors")["facts"] for n in ("half", "generator")}
    assert (seen["half"]["images_seen"], seen["generator"]["images_seen"]) == (4, 8)
    assert seen["generator"]["grown_at"] == 4
    with pytest.raises(UsageError, match=r"grow.images: 4 there, nothing asked for"):
        real.Bench(replace(plan, grow={}))
