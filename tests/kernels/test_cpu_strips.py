"""The CPU path in strips equals the definition in float64, however small strips, bands, blocks and chunks are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gansegctl.kernels import cpu_ops, cpu_strips, torch_ops
from gansegctl.kernels.interpolation import MODES, axis_matrix

SIZE = (13, 17)
SHAPES = [(3, 3, 5), (2, 7, 4), (4, 3, 5), (1, 1, 1), (3, *SIZE), (2, 20, 19), (2, *SIZE)]
CHANNELS = sum(s[0] for s in SHAPES)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels(n: int = 2) -> list[torch.Tensor]:
    return [random(n, *s, seed=i) for i, s in enumerate(SHAPES)]


def dense(maps: list[torch.Tensor], mode: str) -> torch.Tensor:
    """The definition by matrices: R a Cᵀ."""
    parts = []
    for x in maps:
        rows, columns = (axis_matrix(x.shape[i], SIZE[i - 2], mode, x) for i in (2, 3))
        parts.append(rows @ x @ columns.T)
    return torch.cat(parts, dim=1)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() < 1e-11


@pytest.fixture(params=MODES)
def mode(request) -> str:
    return request.param


@pytest.fixture(params=["as it is", "tiny"])
def pieces(request, monkeypatch) -> str:
    """Strips of one row, bands of a few, blocks of 5 columns, chunks of 3 units: every seam there can be."""
    if request.param == "tiny":
        monkeypatch.setattr(cpu_strips, "STRIP", 1)
        monkeypatch.setattr(cpu_strips, "BLOCK", 5)
        monkeypatch.setattr(cpu_strips, "BAND", 4096)
        monkeypatch.setattr(cpu_strips, "CHUNK", 3)
    return request.param


@pytest.fixture(params=["contiguous", "channels-last", "cropped"])
def memory(request):
    """What activations look like in memory: as drawn, as generators make them, as views into larger maps."""

    def arrange(x: torch.Tensor) -> torch.Tensor:
        if request.param == "channels-last":
            return x.contiguous(memory_format=torch.channels_last)
        return F.pad(x, (2, 1, 1, 3), value=9.0)[:, :, 1:-3, 2:-1] if request.param == "cropped" else x

    return arrange


def test_sum(mode, pieces, memory):
    maps = [memory(random(2, 4, *s[1:], seed=i)) for i, s in enumerate(SHAPES)]
    bias = random(4)
    wanted = sum(dense([x], mode) for x in maps) + bias.view(1, -1, 1, 1)
    close(cpu_strips.upsample_sum(maps, SIZE, mode, bias), wanted)
    close(torch_ops.upsample_sum(maps, SIZE, mode, bias), wanted)


def test_project(mode, pieces, memory):
    maps, w, b = [memory(x) for x in levels()], random(6, CHANNELS), random(6)
    close(cpu_strips.project(maps, w, SIZE, mode, b), F.conv2d(dense(maps, mode), w[:, :, None, None], b))


@pytest.mark.parametrize("places", [[4, 6], [0, 2], [5]])
def test_project_of_some_levels_alone(places, pieces):
    """Full-size ones only, small ones only, one larger than the image."""
    maps = [levels()[i] for i in places]
    w = random(3, sum(x.shape[1] for x in maps))
    close(cpu_strips.project(maps, w, SIZE, "bilinear"), F.conv2d(dense(maps, "bilinear"), w[:, :, None, None]))


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 4), (3, 30), (5, 2)])
def test_conv(mode, pieces, kernel, dilation):
    maps, w, b = levels(), random(3, CHANNELS, kernel, kernel), random(3)
    wanted = F.conv2d(dense(maps, mode), w, b, padding=dilation * (kernel // 2), dilation=dilation)
    close(cpu_strips.conv(maps, w, SIZE, mode, b, dilation), wanted)


def test_conv_of_views(memory, pieces):
    maps, w = [memory(x) for x in levels()], random(3, CHANNELS, 3, 3)
    close(cpu_strips.conv(maps, w, SIZE, "bilinear"), F.conv2d(dense(maps, "bilinear"), w, padding=1))


def head(*widths: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    sizes = (CHANNELS, *widths)
    return [(random(b, a, seed=seed + i), random(b, seed=seed + 9 + i)) for i, (a, b) in enumerate(zip(sizes, widths))]  # noqa: B905


def logits(x: torch.Tensor, layers, slope: float) -> torch.Tensor:
    for i, (w, b) in enumerate(layers):
        x = F.conv2d(F.leaky_relu(x, slope) if i else x, w[:, :, None, None], b)
    return x


@pytest.mark.parametrize("widths", [(4,), (7, 4), (8, 5, 4)])
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_perceptron(mode, pieces, widths, slope):
    layers, maps = head(*widths), levels()
    close(cpu_strips.perceptron(maps, layers, SIZE, mode, slope), logits(dense(maps, mode), layers, slope))


@pytest.mark.parametrize("members", [1, 3])
def test_classify_is_what_pixel_head_means(mode, pieces, members):
    heads, maps = [head(7, 4, seed=10 * i) for i in range(members)], levels()
    found = cpu_strips.classify(maps, heads, SIZE, mode, 0.0)
    first, second = ((torch.stack(w), torch.stack(b)) for w, b in (zip(*layer) for layer in zip(*heads)))  # noqa: B905
    native = torch_ops.native_project(maps, first[0].flatten(0, 1).split([s[0] for s in SHAPES], dim=1))
    wanted = torch_ops.pixel_head(native, SIZE, [second], members, mode, first[1].flatten(), 0.0, True)
    assert torch.equal(found[0], wanted[0])
    assert (found[1].int() - wanted[1].int()).abs().max() <= 1  # float32 beside float64, rounded to 1/255
    assert (found[2] - wanted[2]).abs().max() < 1e-5
    assert [t.dtype for t in found] == [torch.uint8, torch.uint8, torch.float32]


def test_one_class_is_certain():
    labels, confidence, uncertainty = cpu_strips.classify(levels(), [head(1)], SIZE, "bilinear", 0.0)
    assert (labels.max(), confidence.min(), uncertainty.max()) == (0, 255, 0)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(kind):
    maps = [x.to(kind) for x in levels()]
    w = random(6, CHANNELS).to(kind)
    made = cpu_strips.project(maps, w, SIZE, "bilinear")
    wanted = F.conv2d(dense([x.double() for x in maps], "bilinear"), w.double()[:, :, None, None])
    assert made.dtype == kind
    rounding = torch.finfo(kind).eps * wanted.abs().clamp(min=1e-2)
    assert ((made.double() - wanted).abs() <= rounding).all()


def test_results_are_channels_last_as_activations_are():
    maps = levels()
    for made in (
        cpu_strips.project(maps, random(6, CHANNELS), SIZE, "bilinear"),
        cpu_strips.upsample_sum(maps[:1], SIZE, "nearest"),
    ):
        assert made.is_contiguous(memory_format=torch.channels_last)


def test_bands_bound_the_native_products():
    """An image is made in as many bands as keep the products of all levels within `BAND`."""
    small = [(torch.zeros(1, 1, 64, 64), None), (torch.zeros(1, 1, 64, 64), None), (torch.zeros(1, 1, 32, 32), None)]
    nbytes = (64 * 64 + 32 * 32) * 1000 * 4
    whole = list(cpu_strips._bands(small, (128, 128), 1000, 4))
    assert whole == [(0, 128)] and nbytes < cpu_strips.BAND
    many = list(cpu_strips._bands(small, (128, 128), 1000 * 100, 4))
    assert many[0][0] == 0 and many[-1][1] == 128
    assert all(a[1] == b[0] for a, b in zip(many, many[1:]))  # noqa: B905, RUF007
    assert len(many) >= 100 * nbytes / cpu_strips.BAND - 1


@pytest.mark.parametrize("grad", [True, False])
def test_the_sum_is_differentiable_twice(mode, grad):
    maps = [random(1, 2, *s, seed=i).requires_grad_(grad) for i, s in enumerate([(2, 3), (3, 2), (2, 3), (4, 5)])]
    square = lambda *x: cpu_ops.upsample_sum(x, (4, 5), mode).square()  # noqa: E731
    if grad:
        assert torch.autograd.gradcheck(square, maps, fast_mode=True)
        assert torch.autograd.gradgradcheck(square, maps, fast_mode=True)
    else:
        assert not square(*maps).requires_grad


def test_native_products_of_one_size_are_one_map():
    maps = levels()
    parts = random(6, CHANNELS).split([s[0] for s in SHAPES], dim=1)
    made = torch_ops.native_project(maps, parts)
    assert [tuple(y.shape[2:]) for y in made] == list(dict.fromkeys(s[1:] for s in SHAPES))
    close(made[0], F.conv2d(maps[0], parts[0][:, :, None, None]) + F.conv2d(maps[2], parts[2][:, :, None, None]))


def test_segment_sums_take_one_adjoint_a_size(monkeypatch):
    taken = []
    original = torch_ops.upsample_adjoint
    monkeypatch.setattr(torch_ops, "upsample_adjoint", lambda y, n, m: taken.append(n) or original(y, n, m))
    maps, weights = levels(), random(2, 5, *SIZE)
    sums = torch_ops.segment_pool(weights, maps, "bilinear")
    assert len(taken) == len({s[1:] for s in SHAPES})
    close(sums, torch.einsum("nkhw,nchw->kc", weights, dense(maps, "bilinear")))
