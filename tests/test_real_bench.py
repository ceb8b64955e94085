"""docs/real.py on a miniature of the benchmark's files: every stage, resumed, and its page."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import real_plan
import real_report
import real_shots

from gansegctl import methods
from gansegctl.config import from_dict
from gansegctl.contracts import Exemplar, Progress
from gansegctl.errors import GansegError, UsageError
from gansegctl.generators.inversion.search import InversionSettings
from gansegctl.generators.weights import read_header
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.annotate.real_images import RealSettings
from gansegctl.pipeline.annotate.source import REAL_SEEDS
from gansegctl.pipeline.project.projector import ProjectSettings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def real():
    spec = importlib.util.spec_from_file_location("real_bench", ROOT / "docs" / "real.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_bench"] = module
    spec.loader.exec_module(module)
    return module


def write(path, grey=False, side=16):
    """24 training and 6 test images: a bright square somewhere, its mask, six images a patient."""
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
    for source in ("real", "chosen", "sampled"):
        assert ("shots", "linear", source, 2) in kinds
        assert ("shots", "segment_in_style", source, 2) in kinds
        assert (("shots", "linear + shots", source, 2) in kinds) == (source != "sampled")  # those have no real masks
    both = bench.row(kind="shots", method="linear + shots", source="real", shots=2)
    alone = bench.row(kind="shots", method="linear", source="real", shots=2)
    assert {k: both[k] for k in ("chosen", "error", "images")} == {k: alone[k] for k in ("chosen", "error", "images")}
    facts = read_header(bench.folder / "student-linear+shots-real-2-0.safetensors")["facts"]
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
    facts = read_header(tmp_path / "work" / "generator" / "generator.safetensors")["facts"]
    assert again.row(kind="generator")["seconds"] == facts["seconds"]
    page = tmp_path / "real.md"
    page.write_text("before\n<!-- mini -->\nold\n<!-- end of mini -->\nafter\n")
    real_report.write_report(again, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "supervised labels needed to match" in text and "| 2 | real | linear | 1 | 2 |" in text
    assert "6 samples and 2 steps a student; projection into w+ by 2 steps" in text
    assert (tmp_path / "real-mini.png").stat().st_size > 1000


def test_patients_and_reduced_images(real, tmp_path):
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


def test_shots_of_one_draw_contain_each_other(real, tmp_path):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w"))
    assert [i for unit in bench.shots.units(0) for i in unit] == bench.order(0).tolist()  # one order for both
    assert bench.shots.units(0)[:5] != bench.shots.units(1)[:5]


def judged(accepted, errors=None):
    """In the place of `real_exemplars`: images of these indices are accepted, all others refused."""

    def stage(projector, images, shots, limits, folder, into, least=None):
        for i, p in enumerate(images):
            if int(p.name) in accepted:
                into.exemplars.append(Exemplar(None, REAL_SEEDS + i, p.mask))
                into.names.append(p.name)
                into.errors.append((errors or {}).get(int(p.name), 1.0))
            else:
                into.refused[p.name] = "off"
        yield Progress("project", len(into.exemplars), shots, "exemplars")
        if least is None and len(into.exemplars) < shots:
            raise UsageError("too few")

    return stage


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_units_that_are_refused_altogether_are_passed_over(real, tmp_path, monkeypatch, unit):
    path = write(tmp_path / "grey.h5", grey=True)
    bench = real.Bench(tiny(real, path, tmp_path / "w", unit=unit, slices=3))
    units = bench.shots.units(0)
    monkeypatch.setattr(real_shots, "Projector", lambda *_: None)
    monkeypatch.setattr(real_shots, "calibrate", lambda *_: ())
    monkeypatch.setattr(real_shots, "real_exemplars", judged({units[1][0], *units[3]}))
    found, facts = bench.shots.exemplars(None, "real", 2, 0)
    assert facts["chosen"] == [units[1][0], *units[3]]
    assert facts["refused"] == sum(len(u) for u in units[:4]) - len(found)
    assert [e.seed for e in found] == [REAL_SEEDS + i for i in range(len(found))]
    assert bench.shots.exemplars(None, "real", 2, 0)[0] is found
    trained = []
    monkeypatch.setattr(bench, "learned", lambda name, indices, **key: trained.append((indices, key)))
    bench.paired(None, "real", 2, 0)
    assert trained == [(facts["chosen"], {"kind": "paired", "source": "real", "shots": 2, "draw": 0})]
    for _ in range(2):
        with pytest.raises(UsageError, match=f"got 2 of 3 {unit}s"):
            bench.shots.exemplars(None, "real", 3, 0)
        monkeypatch.setattr(real_shots, "real_exemplars", None)  # not walked again for the next method


def test_chosen_shots_show_the_most_classes_and_are_drawn_the_best(real, tmp_path, monkeypatch):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w", candidates=6))
    bench.train.mask[:] = 0
    order = bench.order(0)
    full, half, refused = [int(i) for i in order[[1, 4]]], int(order[2]), int(order[5])
    for i in (*full, half, refused):
        bench.train.mask[i, :2] = 1
    monkeypatch.setattr(real_shots, "Projector", lambda *_: None)
    monkeypatch.setattr(real_shots, "calibrate", lambda *_: ())
    errors = {full[0]: 9.0, full[1]: 3.0, half: 5.0}
    monkeypatch.setattr(real_shots, "real_exemplars", judged(set(order.tolist()) - {refused}, errors))
    _, facts = bench.shots.exemplars(None, "chosen", 2, 0)
    assert facts["chosen"] == [full[1], half] and facts["looked_at"] == 6 and facts["refused"] == 1
    assert len(bench.shots.exemplars(None, "chosen", 5, 0)[0]) == 5
    with pytest.raises(UsageError, match="got 5 of 6 images"):
        bench.shots.exemplars(None, "chosen", 6, 0)


def test_no_more_than_a_bounded_number_of_images_is_projected(real, tmp_path, monkeypatch):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w"))
    monkeypatch.setattr(real_shots, "Projector", lambda *_: None)
    monkeypatch.setattr(real_shots, "calibrate", lambda *_: ())
    monkeypatch.setattr(real_shots, "real_exemplars", judged(set()))
    with pytest.raises(UsageError, match="of 15 looked at, 15 images were refused"):
        bench.shots.exemplars(None, "real", 1, 0)


def test_another_training_is_refused_and_other_settings_lie_beside(real, tmp_path):
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
        ({"resolution": 8}, "resolution: 16, now 8"),
        ({"training": {"images": 9}}, r"training.images: 8, now 9[\s\S]*training.batch_size: 4, now not said"),
    ):
        with pytest.raises(UsageError, match=rf"{said}[\s\S]*remedy: .*--work") as e:
            real.Bench(replace(plan, **change))
        assert e.value.status == 2
    with h5py.File(path, "a") as f:
        f["image"][0] = 9
    with pytest.raises(UsageError, match="data: "):
        real.Bench(plan)
    (plan.work / "generator" / "made-of.json").rename(plan.work / "generator" / "generator.safetensors")
    with pytest.raises(UsageError, match=r"no made-of\.json"):
        real.Bench(plan)
    with pytest.raises(UsageError, match="divisor"):
        real.Bench(replace(plan, work=tmp_path / "v", resolution=5))


def test_rows_of_processes_that_run_at_once_are_all_kept(real, tmp_path):
    plan = tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w")
    one, two = real.Bench(plan), real.Bench(plan)
    one.keep({"kind": "generator", "images": 8, "seconds": 1})
    two.keep({"kind": "supervised", "count": 2, "draw": 0, "images": 2})
    one.keep({"kind": "supervised", "count": 0, "draw": 0, "images": 24})
    assert len(real.Bench(plan).rows) == 3
    tried = []
    two.attempt(lambda: tried.append(1), kind="supervised", count=0, draw=0)  # the other process has it
    assert not tried


def test_what_fails_is_a_row_and_the_others_go_on(real, tmp_path, monkeypatch):
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
    text = real_report.write_report(bench, tmp_path)  # without one supervised score, and without a point of a curve
    assert "| 2 | sampled | linear | 0, 1 failed | failed |" in text
    assert "* shots, method linear, source sampled, shots 2, draw 0: got masks" in text
    assert "| 0 | none | segment_in_style | 1 |" in text


def test_a_failing_data_set_does_not_stop_the_next(real, tmp_path, monkeypatch, capsys):
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


def test_images_are_written_whole(real, tmp_path, monkeypatch):
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


def test_masks_in_two_parts_say_so(real, tmp_path, monkeypatch):
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


def test_the_summary_counts_labels_saved():
    def row(**more):
        return ROW | more

    rows = [row(kind="supervised", images=n, miou=m) for n, m in ((5, 0.4), (5, 0.5), (50, 0.65))]
    shot = {"kind": "shots", "method": "linear", "source": "real", "shots": 1, "images": 1}
    rows += [row(**shot, miou=0.55), row(**shot, miou=0.55), row(**shot | {"shots": 10, "images": 10}, miou=0.7)]
    rows += [row(kind="paired", source="real", shots=1, images=1, miou=m) for m in (0.2, 0.3)]
    rows += [{"kind": "shots", "method": "linear", "source": "real", "shots": 1, "draw": 2, "failed": "got nan"}]
    lines, baseline, entries = real_report.summary([*rows, {"kind": "generator"}])
    assert lines["supervised on real images"][0][:2] == (5, pytest.approx(0.45))
    assert baseline[0]["foreground_miou"][0] == pytest.approx(0.9)
    assert [e["matched_by"] for e in entries] == ["16", "> 50"]
    assert (entries[0]["runs"], entries[0]["failed"]) == (2, 1)
    assert entries[0]["same"][0] == lines["supervised on the real shots"][0][1] == pytest.approx(0.25)
    assert "same" not in entries[1]


def test_what_shots_of_a_draw_share_is_counted_once():
    def row(source, looked_at, refused, draw=0):
        return {"kind": "shots", "source": source, "draw": draw, "looked_at": looked_at, "refused": refused}

    bench = SimpleNamespace(plan=real_plan.Plan("x", Path("x.h5"), Path("w"), unit="patient"), row=lambda **_: None)
    bench.train = SimpleNamespace(image=np.zeros((1, 8, 8, 3)))
    bench.rows = [row("real", 1, 0), row("chosen", 30, 1), row("real", 10, 0), {"kind": "paired", "draw": 0}]
    assert "; 30 patients looked at for shots, 1 of their images refused." in real_report.told_plan(bench)
    bench.rows += [row("real", 11, 1, draw=1), row("real", 2, 0, draw=1)]
    assert "; 41 patients looked at for shots, 2 of their images refused." in real_report.told_plan(bench)
    bench.rows = bench.rows[:1]
    assert "; 1 patients looked at for shots, none of their images refused." in real_report.told_plan(bench)


def test_two_classes_are_compared_with_two_classes():
    rows = [
        ROW | {"kind": "supervised", "images": n, "miou": m, "foreground_miou": f}
        for n, m, f in ((5, 0.3, 0.7), (500, 0.6, 0.9))
    ]
    two = {"kind": "shots", "method": "stylemix", "source": "none", "shots": 0, "two_class": True}
    rows += [ROW | two | {"miou": 0.8, "foreground_miou": 0.8}]
    rows += [ROW | two | {"method": "linear", "source": "real", "shots": 1, "images": 1, "miou": 0.8}]
    lines, _, entries = real_report.summary(rows)
    stylemix = next(e for e in entries if e["method"] == "stylemix")
    assert stylemix["matched_by"] == "50"  # not "> 500", as 0.8 is on the curve of all classes
    assert list(lines) == ["supervised on real images"]
    cells = real_report.cells(stylemix, ("a",))
    assert cells[5] == "two classes" and cells[6].startswith("0.800") and cells[9] == "50 (foreground)"
    assert len(cells) == 15 and cells[-1] == "-" and cells[10:14] == ["-", "1", "-", "-"]


def test_a_file_that_is_not_here_is_said(real, tmp_path, capsys):
    real.main(["lpc64", "--data", str(tmp_path), "--work", str(tmp_path / "w"), "--docs", str(tmp_path)])
    assert "skipped lpc64" in capsys.readouterr().out


def test_a_generator_can_grow_from_half_the_size(real, tmp_path):
    plan = tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w", grow={"images": 4})
    bench = real.Bench(plan)
    bench.generator()
    with h5py.File(bench.images(2)) as f:
        blocks = bench.train.image.reshape(-1, 8, 2, 8, 2, 3).mean(axis=(2, 4))
        np.testing.assert_allclose(f["image"][:], blocks, atol=0.5)
    seen = {n: read_header(bench.made / f"{n}.safetensors")["facts"] for n in ("half", "generator")}
    assert (seen["half"]["images_seen"], seen["generator"]["images_seen"]) == (4, 8)
    assert seen["generator"]["grown_at"] == 4
    with pytest.raises(UsageError, match=r"grow.images: 4, now not said"):
        real.Bench(replace(plan, grow={}))
