"""benchmarks/projection.py: its images, its rows, and the tables made of them."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from benchmarks import projection
from gansegctl.demo.scenes import LABELS
from gansegctl.generators.inversion.search import InversionSettings
from gansegctl.generators.weights import load_generator
from gansegctl.pipeline.project.projector import Projector, ProjectSettings


def test_images_from_elsewhere(tmp_path):
    for name, channels in (("lpc64", 3), ("acdc128", 1)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as f:
            f["image"] = np.full((6, 32, 32, channels), 7, np.uint8)
            f["split"] = np.array([0, 0, 0, 1, 1, 1], np.uint8)
    found = projection.from_elsewhere(11, 16, tmp_path, None)
    assert [len(v) for v in found.values()] == [3, 3, 3, 2]
    assert all(v.shape[1:] == (16, 16, 3) and v.dtype == np.uint8 for v in found.values())
    assert [len(v) for v in projection.from_elsewhere(5, 16, tmp_path / "none", None).values()] == [3, 2]


def test_noise_whose_amplitude_falls_with_frequency():
    noise = projection.pink(64, np.random.RandomState(0)).astype(float)
    assert noise.min() == 0 and noise.max() == 255
    power = np.abs(np.fft.fft2(noise - noise.mean(axis=(0, 1)), axes=(0, 1))).mean(axis=2)
    assert power[1, 1] > 3 * power[8, 8] > 6 * power[30, 30]


def test_rows_are_kept_a_batch_at_a_time(generator_file, tmp_path, monkeypatch):
    monkeypatch.setattr(projection, "BATCH", 2)
    inversion = InversionSettings(steps=1, start_steps=1, samples=4)
    projector = Projector(
        load_generator(generator_file), ProjectSettings(inversion=inversion, calibration=8, batch_size=8)
    )
    list(projector.calibrate())
    kinds = {"noise": np.zeros((3, 16, 16, 3), np.uint8), "more": np.full((1, 16, 16, 3), 255, np.uint8)}
    half = projection.measure(projector, kinds, None, tmp_path)
    next(half)
    half.close()
    first = json.loads((tmp_path / "rows.json").read_text())
    assert len(first) == 2
    rows = list(projection.measure(projector, kinds, None, tmp_path))
    assert [(r["kind"], r["number"]) for r in rows] == [("noise", 0), ("noise", 1), ("noise", 2), ("more", 0)]
    assert rows[:2] == first
    assert all(r["error"] > 0 and isinstance(r["flagged"], bool) for r in rows)
    again = list(projection.measure(projector, kinds, None, tmp_path))
    assert again == rows


def test_tables_by_hand():
    kinds = (projection.RENDERINGS, "white noise")
    rows = [
        {"kind": kind, "number": i, "error": 10.0 + i, "flagged": flagged, "score": 1.0 + i, "seconds": 2.0 + i}
        for kind, flagged in zip(kinds, (False, True), strict=True)
        for i in range(2)
    ]
    truth = np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8) % len(LABELS)
    wrong = truth.copy()
    wrong[0] = 0
    text = projection.tables(rows, {"projection": wrong, "student": truth}, truth, [(1, 0.5), (32, 0.25)])
    assert "| held-out renderings | 0 of 2 | 1.0, 1.5, 2.0 | 10.0, 10.1, 10.5, 10.9, 11.0 |" in text
    assert "| all from elsewhere | 2 of 2 |" in text
    student = next(line for line in text.splitlines() if line.startswith("| student"))
    assert (
        student.startswith("| student | 1.000 | 1.000 |") and "0.5000 (batches of 1), 0.2500 (batches of 32)" in student
    )
    projected = next(line for line in text.splitlines() if line.startswith("| projection"))
    assert float(projected.split("|")[2]) == pytest.approx(0.47, abs=0.02) and projected.endswith("| 2.50 |")
