"""The clock of the kernels: shapes as published, bytes as counted by hand, no speed for a wrong result."""

from __future__ import annotations

import pytest
import torch

from gansegctl import kernels
from gansegctl.bench import common
from gansegctl.bench import kernels as bench
from gansegctl.errors import GansegError
from gansegctl.kernels.interpolation import upsample


@pytest.fixture()
def tiny(monkeypatch):
    monkeypatch.setattr(bench, "levels_of", lambda shape: (16, [(4, 6, 0), (8, 5, 0), (16, 4, 0)]))
    monkeypatch.setattr(bench, "copy_bandwidth", lambda device: 1e9)
    return "tiny"


def test_the_shapes_are_those_of_the_networks():
    """ΣC of checkpoints in the field: 5376 at 256 px, 5568 at 1024, 5663 of StyleGAN3-T at 256."""
    shapes = {name: common.levels_of(name) for name in common.SHAPES}
    widths = {name: sum(c for _, c, _ in levels) for name, (_, levels) in shapes.items()}
    assert (widths["stylegan2-256"], widths["stylegan2-1024"]) == (5376, 5568)
    assert widths["stylegan3-t-256"] == 5663
    assert all(levels[-1][0] == size for size, levels in shapes.values())


def test_every_op_is_measured_and_bytes_are_those_it_must_move(tiny):
    rows = bench.measure(tiny, 2, torch.float32, "cpu", rounds=1)
    assert {r.op for r in rows} == set(kernels.__all__) - {
        "classify",
        "conv",
        "conv_upsampled",
        "perceptron",
        "project",
        "segment_pool",
    }
    assert {r.backend for r in rows} == {"cpu", "reference", "torch"}
    dense = rows[0]
    assert dense.bytes == 4 * 2 * (6 * 16 + 5 * 64 + 4 * 256) + 4 * 2 * 15 * 256
    assert dense.of_copy == pytest.approx(dense.bytes / dense.seconds / 1e9)
    assert all(r.seconds > 0 and r.peak_bytes is None for r in rows)
    assert dense.to_json()["dtype"] == "float32"
    head = next(r for r in rows if r.op == "pixel_head")
    assert head.bytes == 4 * 2 * bench.UNITS * (16 + 64 + 256) + 2 * 2 * 256


def test_only_the_ops_and_backends_asked_for(tiny):
    rows = bench.measure(tiny, 1, torch.float32, "cpu", ["reference"], rounds=1, ops=["upsample_sum", "gather_points"])
    assert [(r.op, r.backend) for r in rows] == [("upsample_sum", "reference"), ("gather_points", "reference")]


def test_no_speed_for_a_result_that_is_wrong(tiny, monkeypatch):
    right = kernels.upsample_concat

    def wrong(*arguments, backend):
        return right(*arguments) + (0.5 if backend == "auto" else 0.0)

    monkeypatch.setattr(kernels, "upsample_concat", wrong)
    with pytest.raises(GansegError, match="no speed is printed"):
        bench.measure(tiny, 1, torch.float32, "cpu", ["auto"], rounds=1, ops=["upsample_concat"])


def test_a_named_backend_that_cannot_run_is_refused(tiny):
    if torch.cuda.is_available():
        pytest.skip("it can")
    with pytest.raises(ValueError, match="cannot run here"):
        bench.measure(tiny, 1, torch.float32, "cpu", ["cuda"], rounds=1, ops=["upsample_concat"])


def test_disagreement_is_relative_and_of_labels_a_share():
    a = torch.tensor([10.0, -20.0])
    assert bench.largest_difference(a, a + 2) == pytest.approx(2 / 18)
    labels = torch.tensor([1, 2, 3, 200], dtype=torch.uint8)
    assert bench.largest_difference((labels, a), (torch.tensor([1, 3, 3, 3], dtype=torch.uint8), a)) == 0.25


def test_a_copy_has_a_bandwidth():
    assert 1e7 < bench.copy_bandwidth("cpu", 2**20) < 1e13
    assert bench.activations("demo", 1, torch.float16, "cpu")[0].dtype == torch.float16
    assert upsample(bench.activations("demo", 1, torch.float32, "cpu")[0], (8, 8)).shape[-1] == 8
