"""upsample_sum, upsample_concat and conv_upsampled in Triton against the reference in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gansegctl import kernels
from gansegctl.kernels import interpolation, launch, reference
from gansegctl.kernels.interpolation import upsample

SIZE = (11, 13)
NATIVES = (
    (3, 2),
    (11, 13),
    (5, 17),
)  # smaller; the full size itself; taller than it is wide, and larger than the target
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
MODES = pytest.mark.parametrize("mode", interpolation.MODES)


def in_torch(maps, mode):
    """The sum as the field computes it, in the dtype of the maps."""
    return sum(upsample(x, SIZE, mode) for x in maps)


@MODES
@BOTH
def test_the_sum_is_no_worse_than_torchs(mode, dtype, draw, no_worse):
    maps = [draw(2, 3, *native).to(dtype) for native in NATIVES]
    bias = draw(3).to(dtype)
    ours = kernels.upsample_sum(maps, SIZE, mode, bias, backend="triton", slope=0.2)
    exact = in_torch([x.double() for x in maps], mode) + bias.double().view(1, -1, 1, 1)
    torchs = F.leaky_relu(in_torch(maps, mode) + bias.view(1, -1, 1, 1), 0.2)
    assert ours.dtype == dtype
    no_worse(ours, torchs, F.leaky_relu(exact, 0.2))


@MODES
@BOTH
def test_the_hypercolumn_is_no_worse_than_torchs(mode, dtype, draw, no_worse):
    maps = [draw(2, c, *native).to(dtype) for c, native in zip((3, 1, 2), NATIVES, strict=True)]
    ours = kernels.upsample_concat(maps, SIZE, mode, backend="triton")
    exact = reference.upsample_concat([x.double() for x in maps], SIZE, mode)
    no_worse(ours, reference.upsample_concat(maps, SIZE, mode), exact)


@pytest.mark.parametrize("op", [kernels.upsample_sum, kernels.upsample_concat])
def test_any_strides_are_read_and_channels_last_is_kept(op, draw):
    plain = [draw(2, 4, 3, 2), draw(2, 4, 5, 7)]
    wanted = op(plain, SIZE, backend="reference")
    last = [x.contiguous(memory_format=torch.channels_last) for x in plain]
    ours = op(last, SIZE, backend="triton")
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(ours, wanted, atol=1e-12)
    strided = [x.repeat_interleave(2, dim=3)[..., ::2].flip(1).transpose(2, 3).contiguous() for x in plain]
    odd = [x.transpose(2, 3).flip(1) for x in strided]
    odd[0] = odd[0].transpose(0, 1).contiguous().transpose(0, 1)
    assert not odd[1].transpose(2, 3).is_contiguous() or not odd[1].is_contiguous()
    assert torch.allclose(op(odd, SIZE, backend="triton"), wanted, atol=1e-12)


def test_more_rows_and_channels_than_one_program_holds(draw):
    """Strips, blocks of columns and blocks of channels meet without a seam."""
    x = draw(1, 17, 5, 9)
    wanted = upsample(x, (67, 70), "bilinear")
    assert torch.allclose(kernels.upsample_concat([x], (67, 70), backend="triton"), wanted, atol=1e-12)
    assert torch.allclose(kernels.upsample_sum([x[:, :9]], (20, 70), backend="triton"),
                          upsample(x[:, :9], (20, 70), "bilinear"), atol=1e-12)  # fmt: skip


@pytest.mark.parametrize("op", ["upsample_sum", "upsample_concat"])
def test_offsets_beyond_32_bits(op, device):
    """One sample that spans 2³¹ elements; only a few pages of it are ever touched."""
    far = 2**31 + 6
    x = torch.empty(far + 8, dtype=torch.float16, device=device).as_strided((1, 2, 2, 2), (1, far, 2, 1))
    x.copy_(torch.arange(8.0).view(1, 2, 2, 2))
    assert launch.is_wide(x)
    got = getattr(kernels, op)([x], (3, 5), backend="triton")
    wanted = getattr(reference, op)([x.float().contiguous()], (3, 5), "bilinear")
    assert torch.allclose(got.float(), wanted, atol=4e-3)


def test_an_output_beyond_32_bits(device, monkeypatch):
    """The same where the output is the wide one."""
    far = 2**31 + 32

    def wide(shape, dtype, device, format=torch.contiguous_format):
        memory = torch.empty(far + shape[2] * shape[3], dtype=dtype, device=device)
        return memory.as_strided(tuple(shape), (0, far, shape[3], 1))

    monkeypatch.setattr(launch, "empty", wide)
    x = torch.arange(8.0, device=device).view(1, 2, 2, 2).half()
    for op in (kernels.upsample_sum, kernels.upsample_concat):
        got = op([x], (3, 5), backend="triton")
        assert torch.allclose(got.float(), upsample(x.float(), (3, 5)), atol=4e-3)


@MODES
def test_gradients_pass_gradcheck(mode, draw):
    maps = [draw(1, 2, *native).requires_grad_() for native in ((2, 3), (5, 4))]
    bias = draw(2).requires_grad_()

    def run(bias, *maps):
        return kernels.upsample_sum(maps, (5, 4), mode, bias, backend="triton", slope=0.3)

    wanted = torch.autograd.grad(
        kernels.upsample_sum(maps, (5, 4), mode, bias, backend="reference", slope=0.3).square().sum(), [bias, *maps]
    )
    for ours, theirs in zip(torch.autograd.grad(run(bias, *maps).square().sum(), [bias, *maps]), wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)
    if mode == "bilinear":
        assert torch.autograd.gradcheck(run, (bias, *maps), fast_mode=True)


@MODES
@BOTH
def test_gradients_of_the_hypercolumn_are_no_worse_than_torchs(mode, dtype, draw, no_worse):
    maps = [draw(1, 1, *native).to(dtype) for native in NATIVES]
    g = draw(1, 3, *SIZE).to(dtype)

    def gradients(op, maps, g, **options):
        maps = [x.detach().requires_grad_() for x in maps]
        return torch.autograd.grad(op(maps, SIZE, mode, **options), maps, g)

    ours = gradients(kernels.upsample_concat, maps, g, backend="triton")
    torchs = gradients(reference.upsample_concat, maps, g)
    exact = gradients(reference.upsample_concat, [x.double() for x in maps], g.double())
    for a, b, c in zip(ours, torchs, exact, strict=True):
        assert a.dtype == dtype
        no_worse(a, b, c)


def test_gradients_repeat_bit_for_bit(draw):
    x, g = draw(1, 2, 3, 4).float().requires_grad_(), draw(1, 2, *SIZE).float()
    first, second = (torch.autograd.grad(kernels.upsample_sum([x], SIZE, backend="triton"), x, g)[0] for _ in "ab")
    assert torch.equal(first, second)


@pytest.mark.parametrize(("mode", "dilation"), [("bilinear", 1), ("nearest", 3), ("bilinear-corners", 2)])
def test_a_convolution_of_an_upsampled_map_and_its_gradients(mode, dilation, draw):
    x, w = draw(1, 3, 2, 3).requires_grad_(), draw(1, 3, 3, 3).requires_grad_()
    ours = kernels.conv_upsampled(x, w, (5, 7), mode, dilation, backend="triton")
    exact = F.conv2d(upsample(x, (5, 7), mode), w, padding=dilation, dilation=dilation)
    assert torch.allclose(ours, exact, atol=1e-11)
    g = draw(*exact.shape)
    for a, b in zip(torch.autograd.grad(ours, (x, w), g), torch.autograd.grad(exact, (x, w), g), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_a_convolution_at_native_size_and_one_that_looks_wholly_outside(draw):
    x, w = draw(1, 2, 5, 4), draw(2, 2, 3, 3)
    assert torch.allclose(kernels.conv_upsampled(x, w, (5, 4), backend="triton"), F.conv2d(x, w, padding=1), atol=1e-12)
    far = kernels.conv_upsampled(x, w, (6, 8), dilation=9, backend="triton")
    assert torch.allclose(far, F.conv2d(upsample(x, (6, 8)), w[:, :, 1:2, 1:2]), atol=1e-12)


def test_an_empty_batch_and_wrong_maps():
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("made on the CPU")
    assert kernels.upsample_sum([torch.ones(0, 2, 3, 3)], (4, 4), backend="triton").shape == (0, 2, 4, 4)
    assert kernels.upsample_concat([torch.ones(0, 2, 3, 3)], (4, 4), backend="triton").shape == (0, 2, 4, 4)
    good = torch.ones(1, 2, 3, 3)
    for maps, words in (
        ([], "no maps"),
        ([good, torch.ones(2, 2, 3, 3)], "of one N"),
        ([good, good.half()], "one floating dtype"),
        ([good.long()], "one floating dtype"),
    ):
        with pytest.raises(ValueError, match=words):
            kernels.upsample_concat(maps, (4, 4), backend="triton")
    with pytest.raises(ValueError, match="one C"):
        kernels.upsample_sum([good, torch.ones(1, 3, 3, 3)], (4, 4), backend="triton")
    with pytest.raises(ValueError, match="1 pixel"):
        kernels.upsample_sum([good], (0, 4), backend="triton")
    with pytest.raises(ValueError, match="slope"):
        kernels.upsample_sum([good], (4, 4), slope=-1.0)


@MODES
@pytest.mark.parametrize(
    ("native", "full", "shift"), [(3, 11, 0), (13, 5, 0), (1, 7, 2), (7, 1, 0), (4, 9, -3), (4, 9, 9)]
)
def test_tap_tables_are_the_axis_matrix(mode, native, full, shift):
    """Row p of the table is row p of the matrix, and the ranges cover every position that reads a pixel."""
    table = launch.taps(native, full, mode, torch.device("cpu"), torch.float64, shift)
    matrix = torch.zeros(full, native, dtype=torch.float64)
    for j in range(2):
        matrix.index_put_((torch.arange(full), table.source[j].long()), table.weight[j], accumulate=True)
    wanted = interpolation.axis_matrix(native, full, mode, matrix, shift)
    assert torch.allclose(matrix, wanted, atol=1e-15)
    for q in range(native):
        readers = matrix[:, q].nonzero().flatten()
        if len(readers):
            assert table.first[q] <= readers[0]
            assert table.last[q] > readers[-1]
    assert table.window == int((table.last - table.first).max())
