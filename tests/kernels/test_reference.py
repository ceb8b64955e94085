"""Upsampling and its adjoint; the definitions, which call nothing cleverer; what other backends owe them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gansegctl import kernels
from gansegctl.kernels import backend, cpu_ops, cpu_strips, reference, torch_ops
from gansegctl.kernels.interpolation import MODES, axis_matrix, upsample, upsample_adjoint


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("native", "full"), [((3, 5), (13, 17)), ((4, 4), (4, 4)), ((7, 2), (5, 9))])
def test_adjoint(mode, native, full):
    stream = torch.Generator().manual_seed(0)
    a = torch.randn(2, 3, *native, generator=stream, dtype=torch.float64)
    y = torch.randn(2, 3, *full, generator=stream, dtype=torch.float64)
    left = (upsample(a, full, mode) * y).sum()
    right = (a * upsample_adjoint(y, native, mode)).sum()
    assert abs(left - right) < 1e-10


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_an_axis_matrix_sum_to_one_and_shift_with_zeros(mode):
    like = torch.zeros((), dtype=torch.float64)
    matrix = axis_matrix(5, 13, mode, like)
    assert torch.allclose(matrix.sum(dim=1), torch.ones(13, dtype=torch.float64))
    ahead, behind = (axis_matrix(5, 13, mode, like, s) for s in (2, -2))
    assert torch.equal(ahead[:-2], matrix[2:])
    assert ahead[-2:].abs().sum() == 0
    assert torch.equal(behind[2:], matrix[:-2])
    assert axis_matrix(5, 13, mode, like, 13).abs().sum() == 0


def test_maps_of_one_size_are_added_before_they_are_upsampled(monkeypatch):
    seen = []
    monkeypatch.setattr(torch_ops, "upsample", lambda x, *a: seen.append(x.shape) or upsample(x, *a))
    maps = [torch.ones(1, 2, 4, 4), torch.ones(1, 2, 4, 4), torch.ones(1, 2, 8, 8)]
    total = torch_ops.upsample_sum(maps, (8, 8), bias=torch.tensor([1.0, -3.0]))
    assert len(seen) == 2
    assert torch.equal(total, kernels.upsample_sum(maps, (8, 8), bias=torch.tensor([1.0, -3.0])))
    assert total[0, :, 0, 0].tolist() == [4.0, 0.0]


def test_bfloat16_and_channels_last_are_taken():
    x = torch.randn(2, 4, 3, 3).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    up = kernels.upsample_sum([x], (6, 6))
    assert up.dtype == torch.bfloat16
    assert torch.allclose(up.float(), upsample(x.float(), (6, 6)), atol=2e-2)


def test_an_explicit_backend_never_falls_back():
    x = [torch.ones(1, 1, 2, 2)]
    assert torch.equal(kernels.upsample_concat(x, (4, 4), backend="reference"), kernels.upsample_concat(x, (4, 4)))
    assert backend.available()["reference"] is None
    for name, reason in backend.available().items():
        if reason:
            with pytest.raises(ValueError, match="cannot run here"):
                kernels.upsample_concat(x, (4, 4), backend=name)
    with pytest.raises(ValueError, match="wanted one of"):
        kernels.upsample_concat(x, (4, 4), backend="metal")


SIZE = (9, 11)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def calls(mode: str) -> dict[str, tuple]:
    """Arguments of every op that is defined on levels, in float64."""
    levels = [draw(2, c, h, w, seed=i) for i, (c, h, w) in enumerate([(3, 3, 4), (2, 3, 4), (4, 6, 7), (2, *SIZE)])]
    heads = [[(draw(5, 11, seed=e), draw(5, seed=e)), (draw(3, 5, seed=e), draw(3, seed=e))] for e in range(2)]
    labels = torch.randint(4, (2, *SIZE), generator=torch.Generator().manual_seed(0))
    points = torch.tensor([[0, 0, 0], [1, 8, 10], [1, 4, 7]])
    maps = [x[:, :2] for x in levels]
    return {
        "upsample_concat": (levels, SIZE, mode),
        "upsample_sum": (maps, SIZE, mode, draw(2)),
        "project": (levels, draw(5, 11), SIZE, mode, draw(5)),
        "conv": (levels, draw(5, 11, 3, 3), SIZE, mode, draw(5), 2),
        "conv_upsampled": (levels[2], draw(5, 4, 3, 3), SIZE, mode, 2),
        "perceptron": (levels, heads[0], SIZE, mode, 0.2),
        "classify": (levels, heads, SIZE, mode, 0.2),
        "squared_norm": (levels[2], SIZE, mode),
        "segment_pool": (draw(2, 5, *SIZE), levels, mode),
        "segment_pool_labels": (labels, levels, 3, mode),
        "gather_points": (levels[2], points, SIZE, mode),
        "pixel_head": (maps, SIZE, [(draw(2, 3, 1), draw(2, 3))], 2, mode, draw(2)),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["cpu", "torch"])
@pytest.mark.parametrize("op", list(calls("bilinear")))
def test_every_op_is_its_definition(op, name, mode):
    arguments = calls(mode)[op]
    ours, wanted = (getattr(kernels, op)(*arguments, backend=b) for b in (name, "reference"))
    if op in ("classify", "pixel_head"):
        assert torch.equal(ours[0], wanted[0])
        assert (ours[1].int() - wanted[1].int()).abs().max() <= 1  # rounded to 1/255
        assert (ours[2] - wanted[2]).abs().max() < 1e-5
        return
    torch.testing.assert_close(ours, wanted, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("op", list(calls("bilinear")))
def test_the_reference_is_reference_py_and_nothing_else(op, monkeypatch):
    """On a CPU too: whatever else could compute it fails the test."""

    def refuse(*arguments, **options):
        raise AssertionError("another backend computed it")

    others = {module.__name__: module for module in (cpu_strips, cpu_ops, torch_ops)}
    for module in others.values():
        for name, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") in others:
                monkeypatch.setattr(module, name, refuse)
    arguments, asked, defined = calls("bilinear")[op], [], getattr(reference, op)
    monkeypatch.setattr(reference, op, lambda *a: asked.append(op) or defined(*a))
    getattr(kernels, op)(*arguments, backend="reference")
    assert asked == [op]
    if op != "upsample_concat":  # whose result is what the definition makes: there is nothing to save
        with pytest.raises(AssertionError, match="another backend"):
            getattr(kernels, op)(*arguments, backend="cpu")


def test_auto_on_a_cpu_is_the_cpu_backend(monkeypatch):
    ran = []
    for op in ("project", "classify", "segment_pool"):
        monkeypatch.setattr(cpu_ops, op, lambda *a, op=op: ran.append(op))
        getattr(kernels, op)(*calls("bilinear")[op])
    assert ran == ["project", "classify", "segment_pool"]


def test_importing_the_kernels_imports_no_torch():
    code = "import sys, gansegctl.kernels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_is_the_exact_floor_at_every_size(dtype):
    """torch's own index is a product with a rounded ratio, and misses it by one at (2, 82), (2, 94), …"""
    for native in (1, 2, 3, 5, 16):
        places = torch.arange(native, dtype=dtype)
        for full in range(1, 200):
            wanted = [p * native // full for p in range(full)]
            assert upsample(places.view(1, 1, 1, -1), (1, full), "nearest").view(-1).tolist() == wanted
            assert upsample(places.view(1, 1, -1, 1), (full, 1), "nearest").view(-1).tolist() == wanted


@pytest.mark.parametrize("mode", MODES)
def test_an_edge_neighbour_is_the_edge_itself(mode):
    """Squared norms at the rims of an image, against the upsampled map."""
    x = torch.randn(1, 3, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = kernels.squared_norm(x, (8, 9), mode)
    wanted = upsample(x, (8, 9), mode).square().sum(dim=1)
    for rim in (norm - wanted)[:, 0], (norm - wanted)[:, -1], (norm - wanted)[..., 0], (norm - wanted)[..., -1]:
        assert rim.abs().max() < 1e-12


def test_no_maps_and_points_outside_are_refused():
    with pytest.raises(ValueError, match="no maps"):
        kernels.upsample_sum([], (4, 4))
    with pytest.raises(ValueError, match="outside"):
        kernels.gather_points(torch.ones(1, 1, 2, 2), torch.tensor([[0, 4, 0]]), (4, 4))
    with pytest.raises(ValueError, match="mode"):
        kernels.upsample_sum([torch.ones(1, 1, 2, 2)], (4, 4), "bicubic")
