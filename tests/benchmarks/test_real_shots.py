"""The shots of the benchmark on real images: nested, chosen, refused, bounded."""

from __future__ import annotations

import pytest
from helpers.real_benchmark import tiny, write

from benchmarks.real import bench as real
from benchmarks.real import shots
from gansegctl.contracts import Exemplar, Progress
from gansegctl.errors import UsageError
from gansegctl.pipeline.annotate.real_images import RealExemplars
from gansegctl.pipeline.annotate.source import REAL_SEEDS


def test_shots_of_one_draw_contain_each_other(tmp_path):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w"))
    assert [i for unit in bench.shots.units(0) for i in unit] == bench.order(0).tolist()  # one order for both
    assert bench.shots.units(0)[:5] != bench.shots.units(1)[:5]


def judged(accepted, errors=None):
    """In the place of `real_exemplars`: images of these indices are accepted, all others refused."""

    def stage(projector, images, shots, limits, folder):
        into = RealExemplars()
        for i, p in enumerate(images):
            if int(p.name) in accepted:
                into.exemplars.append(Exemplar(None, REAL_SEEDS + i, p.mask))
                into.names.append(p.name)
                into.errors.append((errors or {}).get(int(p.name), 1.0))
            else:
                into.refused[p.name] = "off"
        yield Progress("project", len(into.exemplars), shots, "exemplars")
        return into

    return stage


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_units_that_are_refused_altogether_are_passed_over(tmp_path, monkeypatch, unit):
    path = write(tmp_path / "grey.h5", grey=True)
    bench = real.Bench(tiny(real, path, tmp_path / "w", unit=unit, slices=3))
    units = bench.shots.units(0)
    monkeypatch.setattr(shots, "Projector", lambda *_: None)
    monkeypatch.setattr(shots, "calibrate", lambda *_: ())
    monkeypatch.setattr(shots, "real_exemplars", judged({units[1][0], *units[3]}))
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
        monkeypatch.setattr(shots, "real_exemplars", None)  # not walked again for the next method


def test_chosen_shots_show_the_most_classes_and_are_drawn_the_best(tmp_path, monkeypatch):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w", candidates=6))
    bench.train.mask[:] = 0
    order = bench.order(0)
    full, half, refused = [int(i) for i in order[[1, 4]]], int(order[2]), int(order[5])
    for i in (*full, half, refused):
        bench.train.mask[i, :2] = 1
    monkeypatch.setattr(shots, "Projector", lambda *_: None)
    monkeypatch.setattr(shots, "calibrate", lambda *_: ())
    errors = {full[0]: 9.0, full[1]: 3.0, half: 5.0}
    monkeypatch.setattr(shots, "real_exemplars", judged(set(order.tolist()) - {refused}, errors))
    _, facts = bench.shots.exemplars(None, "chosen", 2, 0)
    assert facts["chosen"] == [full[1], half] and facts["looked_at"] == 6 and facts["refused"] == 1
    assert len(bench.shots.exemplars(None, "chosen", 5, 0)[0]) == 5
    with pytest.raises(UsageError, match="got 5 of 6 images"):
        bench.shots.exemplars(None, "chosen", 6, 0)


def test_no_more_than_a_bounded_number_of_images_is_projected(tmp_path, monkeypatch):
    bench = real.Bench(tiny(real, write(tmp_path / "mini.h5"), tmp_path / "w"))
    monkeypatch.setattr(shots, "Projector", lambda *_: None)
    monkeypatch.setattr(shots, "calibrate", lambda *_: ())
    monkeypatch.setattr(shots, "real_exemplars", judged(set()))
    with pytest.raises(UsageError, match="of 15 looked at, 15 images were refused"):
        bench.shots.exemplars(None, "real", 1, 0)
