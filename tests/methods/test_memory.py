"""A one-shot fit and a prediction at the shapes of a 256 px StyleGAN2 take less than 1 GB beyond the weights.

The hypercolumn of one such image alone would be 1.41 GB. A few steps hold what many do. labels4free trains a
discriminator of that size beside, with its own gradients and moments, and has a bound of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gansegctl import methods

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "methods" / "memory_of_a_fit.py"
FEW = {"steps": 2, "statistics_samples": 2}
CASES = {
    "oneshot": FEW,
    "contrastive": FEW | {"pretrain_steps": 2, "draws": 1, "sinkhorn_rounds": 1},
    "repurpose": FEW,
    "linear": FEW,
    "datasetgan": FEW,
    "segment_in_style": {"images": 40, "iterations": 2, "statistics_samples": 2},
    "labels4free": {"iterations": 2, "guard_every": 2, "guard_samples": 2, "statistics_samples": 2},
    "stylemix": {"repeats": 2, "iterations": 2},
}
"""Method → settings that shorten its fit, and change the size of nothing that it holds at its worst.

segment_in_style holds maps of all its images, so it has as many as by default. labels4free's first step is one with
the R1 penalty, of derivatives of the second order. stylemix fits nothing; a prediction makes 11 variants, 4 at a time.
"""
LIMITS = {"labels4free": 4e9}
"""Bytes, where it is not 1 GB."""


def test_every_method_is_measured():
    assert set(CASES) == set(methods.METHODS)
    for name, change in CASES.items():
        methods.get(name).settings_type(**change)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [*((name, {}) for name in CASES), ("repurpose", {"head": "mlp"})],
    ids=lambda x: x if isinstance(x, str) else "-".join(x.values()),
)
def test_a_one_shot_fit_and_a_prediction_stay_below_a_gigabyte(name, change, record_property):
    """Each in a process of its own, as `gansegctl annotate` is one: no number depends on what was fitted before."""
    given = [sys.executable, str(PROGRAM), name, json.dumps(CASES[name] | change)]
    done = subprocess.run(given, capture_output=True, text=True, cwd=PROGRAM.parents[3])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if found["fit"] is None:
        pytest.skip("needs /proc")
    record_property("megabytes", {stage: peak // 10**6 for stage, peak in found.items()})
    print(f"{name} {change}: " + ", ".join(f"{stage} {peak / 1e6:.0f} MB" for stage, peak in found.items()))
    assert 0 <= found["fit"] < LIMITS.get(name, 1e9) and 0 < found["predict"] < 1e9
