"""The reference kernels: adjointness, axis matrices, and the choice of a backend."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gansegctl import kernels
from gansegctl.kernels import backend, reference


@pytest.mark.parametrize("mode", reference.MODES)
@pytest.mark.parametrize(("native", "full"), [((3, 5), (13, 17)), ((4, 4), (4, 4)), ((7, 2), (5, 9))])
def test_adjoint(mode, native, full):
    stream = torch.Generator().manual_seed(0)
    a = torch.randn(2, 3, *native, generator=stream, dtype=torch.float64)
    y = torch.randn(2, 3, *full, generator=stream, dtype=torch.float64)
    left = (reference.upsample(a, full, mode) * y).sum()
    right = (a * reference.upsample_adjoint(y, native, mode)).sum()
    assert abs(left - right) < 1e-10


@pytest.mark.parametrize("mode", reference.MODES)
def test_rows_of_an_axis_matrix_sum_to_one_and_shift_with_zeros(mode):
    like = torch.zeros((), dtype=torch.float64)
    matrix = reference.axis_matrix(5, 13, mode, like)
    assert torch.allclose(matrix.sum(dim=1), torch.ones(13, dtype=torch.float64))
    ahead, behind = (reference.axis_matrix(5, 13, mode, like, s) for s in (2, -2))
    assert torch.equal(ahead[:-2], matrix[2:])
    assert ahead[-2:].abs().sum() == 0
    assert torch.equal(behind[2:], matrix[:-2])
    assert reference.axis_matrix(5, 13, mode, like, 13).abs().sum() == 0


def test_maps_of_one_size_are_added_before_they_are_upsampled(monkeypatch):
    seen = []
    original = reference.upsample
    monkeypatch.setattr(reference, "upsample", lambda x, *a: seen.append(x.shape) or original(x, *a))
    maps = [torch.ones(1, 2, 4, 4), torch.ones(1, 2, 4, 4), torch.ones(1, 2, 8, 8)]
    total = reference.sum_of_upsampled(maps, (8, 8), bias=torch.tensor([1.0, -3.0]))
    assert len(seen) == 2
    assert torch.equal(total, kernels.upsample_sum(maps, (8, 8), bias=torch.tensor([1.0, -3.0])))
    assert total[0, :, 0, 0].tolist() == [4.0, 0.0]


def test_bfloat16_and_channels_last_are_taken():
    x = torch.randn(2, 4, 3, 3).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    up = kernels.upsample_sum([x], (6, 6))
    assert up.dtype == torch.bfloat16
    assert torch.allclose(up.float(), reference.upsample(x.float(), (6, 6)), atol=2e-2)


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
            assert reference.upsample(places.view(1, 1, 1, -1), (1, full), "nearest").view(-1).tolist() == wanted
            assert reference.upsample(places.view(1, 1, -1, 1), (full, 1), "nearest").view(-1).tolist() == wanted


@pytest.mark.parametrize("mode", reference.MODES)
def test_an_edge_neighbour_is_the_edge_itself(mode):
    """Squared norms at the rims of an image, against the upsampled map."""
    x = torch.randn(1, 3, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = kernels.squared_norm(x, (8, 9), mode)
    wanted = reference.upsample(x, (8, 9), mode).square().sum(dim=1)
    for rim in (norm - wanted)[:, 0], (norm - wanted)[:, -1], (norm - wanted)[..., 0], (norm - wanted)[..., -1]:
        assert rim.abs().max() < 1e-12


def test_no_maps_and_points_outside_are_refused():
    with pytest.raises(ValueError, match="no maps"):
        kernels.upsample_sum([], (4, 4))
    with pytest.raises(ValueError, match="outside"):
        kernels.gather_points(torch.ones(1, 1, 2, 2), torch.tensor([[0, 4, 0]]), (4, 4))
    with pytest.raises(ValueError, match="mode"):
        kernels.upsample_sum([torch.ones(1, 1, 2, 2)], (4, 4), "bicubic")
