"""StyleGAN3 and StyleGAN-XL: filters, resampling and layers against the formulas written out, then whole networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import textbook

from gansegctl.errors import UsageError
from gansegctl.generators import stylegan3_filters as filters
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.stylegan3 import StyleGAN3
from gansegctl.generators.stylegan3_config import LayerConfig, StyleGAN3Config, design


def tiny(kind: str = "T", table: tuple[int, int] | None = None, **changes) -> StyleGAN3:
    settings = {"z_dim": 6, "w_dim": 5, "channel_base": 64, "channel_max": 6, "num_layers": 4} | changes
    config = design(16, kind, **settings)
    if table is not None:
        config = StyleGAN3Config(**config.to_json() | {"family": "stylegan-xl", "class_table": table})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g = StyleGAN3(config).eval().requires_grad_(False)
        g.mapping.w_avg.normal_()
        g.synthesis.input.affine.weight.normal_(0, 0.3)
        for name in g.synthesis.layer_names:
            layer = getattr(g.synthesis, name)
            layer.bias.normal_()
            layer.magnitude_ema.fill_(1.7)
    return g


# -- filters ------------------------------------------------------------------------------------------------------


def test_bessel_function_at_known_places():
    known = {0.0: 0.0, 1.0: 0.44005058574493355, 3.8317059702075125: 0.0, 12.0: -0.22344710449062758}
    assert filters._bessel_j1(np.array(list(known))) == pytest.approx(list(known.values()), abs=1e-14)


def test_kaiser_shape_follows_the_three_ranges():
    assert filters._kaiser_beta(2, 0.1) == 0  # below 21 dB: no window
    middle = 2.285 * 11 * math.pi * 0.4 + 7.95
    assert 21 < middle < 50
    assert filters._kaiser_beta(12, 0.4) == pytest.approx(0.5842 * (middle - 21) ** 0.4 + 0.07886 * (middle - 21))
    assert filters._kaiser_beta(24, 0.5) == pytest.approx(0.1102 * (2.285 * 23 * math.pi * 0.5 + 7.95 - 8.7))


def test_lowpass_passes_what_it_should():
    kernel = filters.lowpass(24, 8.0, 12.0, 64.0).double()
    assert kernel.sum().item() == pytest.approx(1) and torch.equal(kernel, kernel.flip(0))
    place = torch.arange(24).double() - 11.5

    def gain(frequency: float) -> float:
        return (kernel * torch.cos(2 * math.pi * frequency / 64 * place)).sum().item()

    assert gain(1.0) == pytest.approx(1, abs=0.01)
    assert gain(8.0) == pytest.approx(0.5, abs=0.02)  # the cutoff is where half is left
    assert abs(gain(15.0)) < 0.01
    assert filters.lowpass(1, 8.0, 12.0, 64.0) is None


def test_radial_lowpass_is_even_in_all_directions():
    kernel = filters.lowpass(12, 4.0, 8.0, 32.0, radial=True).double()
    assert kernel.shape == (12, 12) and kernel.sum().item() == pytest.approx(1)
    for other in (kernel.T, kernel.flip(0), kernel.flip(1)):
        assert torch.allclose(kernel, other, atol=1e-9)
    assert torch.linalg.matrix_rank(kernel, rtol=1e-4) > 1  # not separable
    assert filters.lowpass(3, 4.0, 8.0, 32.0, radial=True).isfinite().all()  # its centre is the limit of jinc


# -- resampling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("up", "down", "taps", "low", "high", "width"),
    [
        (2, 1, 12, 9, 8, 5),
        (4, 1, 24, -6, -9, 19),
        (2, 1, 12, -11, -12, 84),
        (1, 2, 12, 0, 0, 150),
        (1, 4, 24, 3, 1, 40),
    ],
)
def test_resampling_an_axis_equals_zeros_and_convolution(up, down, taps, low, high, width):
    torch.manual_seed(taps + width)
    x, kernel = torch.randn(2, 3, width, 4).double(), torch.randn(taps).double()
    y = torch.zeros(2, 3, width * up, 4).double()
    y[:, :, ::up] = x
    y = torch.nn.functional.pad(y, (0, 0, low, high))
    wanted = torch.nn.functional.conv2d(y.reshape(6, 1, -1, 4), kernel.flip(0).view(1, 1, -1, 1))[:, :, ::down]
    wanted = wanted.reshape(2, 3, -1, 4)
    made = filters.resample_axis(x, kernel, -2, up, down, low, wanted.shape[2])
    assert torch.allclose(made, wanted, atol=1e-10)
    other = filters.resample_axis(x.transpose(2, 3).contiguous(), kernel, -1, up, down, low, wanted.shape[2])
    assert torch.allclose(other.transpose(2, 3), wanted, atol=1e-10)


def test_a_hand_computed_row():
    """Twice as many pixels under a box of two taps: each pixel twice."""
    row = torch.tensor([[[1.0, 2.0, 5.0]]])
    made = filters.resample_axis(row, torch.ones(2), -1, 2, 1, 1, 6)
    assert made.flatten().tolist() == [1, 1, 2, 2, 5, 5]
    assert filters.resample_axis(made, torch.tensor([0.5, 0.5]), -1, 1, 2, 0, 3).flatten().tolist() == [1, 2, 5]


@pytest.mark.parametrize("radial", [False, True])
def test_filtered_leaky_relu_is_the_same_in_parts(radial, monkeypatch):
    torch.manual_seed(3)
    x, scale, bias = torch.randn(2, 5, 7, 7).double(), torch.rand(2, 5).double() + 0.5, torch.randn(5).double()
    up, down = torch.rand(12).double(), torch.rand(6, 6).double() if radial else torch.rand(6).double()
    arguments = (x, scale, bias, (up, down), (2, 2), (9, 8), 1.3)
    whole = filters.filtered_leaky_relu(*arguments)
    y = textbook.fir(x * scale[:, :, None, None] + bias.view(1, -1, 1, 1), up, 2, 1, (9, 8))
    y = (torch.where(y > 0, y, 0.2 * y) * 2**0.5).clamp(-1.3, 1.3)
    assert torch.allclose(whole, textbook.fir(y, down, 1, 2, (0, 0)), atol=1e-9)
    monkeypatch.setitem(filters._AT_ONCE, "cpu", 1200)  # two maps of 10 at a time
    assert torch.allclose(filters.filtered_leaky_relu(*arguments), whole, atol=1e-12)


# -- layers -------------------------------------------------------------------------------------------------------


def test_input_equals_the_formula_pixel_by_pixel():
    source = tiny().synthesis.input
    source.transform.copy_(torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, -0.3], [0, 0, 1]]) * 1.2)
    w = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    made = source(w)
    for i in range(2):
        assert (made[i] - textbook.fourier_input(source, w[i : i + 1])).abs().max() < 1e-5


def test_transform_moves_the_image():
    """A shift by one pixel of the input grid is a shift of its map by one column."""
    source, w = tiny().synthesis.input, torch.zeros(1, 5)
    still = source(w)
    source.transform[0, 2] = 1 / source.rate
    assert torch.allclose(source(w)[..., :-1], still[..., 1:], atol=1e-5)


@pytest.mark.parametrize("kind", ["T", "R"])
def test_layers_equal_the_official_formulation(kind):
    """One sample at a time, where the batch that the official styles are normalised over is that sample."""
    g = tiny(kind)
    ws = torch.randn(2, g.spec.num_ws, 5, generator=torch.Generator().manual_seed(2))
    made = g.synthesize(ws)
    for n in range(2):
        x, m = textbook.fourier_input(g.synthesis.input, ws[n : n + 1, 0])[None], 0
        for i, name in enumerate(g.synthesis.layer_names):
            x = textbook.stylegan3_layer(getattr(g.synthesis, name), x, ws[n : n + 1, i + 1])
            if i < len(made.pyramid.levels):
                m, level = g.spec.taps[i].margin, made.pyramid.levels[i][n]
                cropped = x[0, :, m : x.shape[2] - m, m : x.shape[3] - m]
                assert level.shape == cropped.shape
                assert (level - cropped).abs().max() < 1e-4 * x.abs().max(), name
        assert (made.image[n] - x[0] * 0.25).abs().max() < 1e-4 * x.abs().max()


def test_a_sample_does_not_depend_on_its_batch():
    g = tiny()
    ws = torch.randn(3, g.spec.num_ws, 5, generator=torch.Generator().manual_seed(4))
    ws[2] *= 1000  # in a batch-wide normalisation it would drown the others
    together = g.double().synthesize(ws.double()).image
    alone = torch.cat([g.synthesize(ws[i : i + 1].double()).image for i in range(3)])
    assert (together - alone).abs().max() < 1e-9


# -- the designed table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resolution", "kind", "names"),
    [
        (
            256,
            "T",
            "36_512 36_512 36_512 52_512 52_512 84_512 84_512 148_512 148_512 148_362 276_256 276_181 276_128 256_128"
            " 256_3",
        ),
        (
            1024,
            "R",
            "36_1024 36_1024 52_1024 52_1024 84_1024 148_1024 148_1024 276_645 276_406 532_256 1044_161 1044_102"
            " 1044_64 1024_64 1024_3",
        ),
    ],
)
def test_designed_layers_are_the_published_ones(resolution, kind, names):
    config = design(resolution, kind)
    assert [x.name for x in config.layers] == [f"L{i}_{name}" for i, name in enumerate(names.split())]
    assert config.num_ws == 16
    assert [x.margin for x in config.layers] == [10] * 13 + [0, 0]
    assert {x.kernel for x in config.layers[:-1]} == {3 if kind == "T" else 1}
    assert [x.radial for x in config.layers] == [kind == "R"] * 12 + [False] * 3


def test_design_takes_channels_outright_and_refuses_nonsense():
    assert [x.out_channels for x in design(16, channels=[4, 3, 2, 2, 1], num_layers=4).layers] == [4, 3, 2, 2, 1]
    for arguments in ((16, "X"), (48, "T"), (8, "T")):
        with pytest.raises(UsageError):
            design(*arguments)


def test_tables_that_contradict_themselves_are_refused():
    config = design(16, num_layers=4, channel_base=64, channel_max=6)
    table = config.to_json()
    layer = dict(table["layers"][1])
    with pytest.raises(UsageError, match="px of"):
        LayerConfig(**layer | {"padding": (0, 0)})
    with pytest.raises(UsageError, match="rate"):
        LayerConfig(**layer | {"out_rate": layer["out_size"] - 7})
    with pytest.raises(UsageError, match="channels of"):
        StyleGAN3Config(**table | {"layers": [*table["layers"][:1], layer | {"in_channels": 99}]})
    with pytest.raises(UsageError, match="ToRGB"):
        StyleGAN3Config(**table | {"layers": table["layers"][:-1]})
    with pytest.raises(UsageError, match="stylegan4"):
        StyleGAN3Config(**table | {"family": "stylegan4"})
    assert StyleGAN3Config(**table) == config


# -- the whole network --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "channels"), [("T", 3), ("R", 1)])
def test_shapes_taps_and_noise(kind, channels):
    g = tiny(kind, image_channels=channels)
    ws = g.map(z_of_seeds([0, 1], 6))
    made = g.synthesize(ws)
    assert ws.shape == (2, 6, 5) and made.image.shape == (2, channels, 16, 16)
    assert [t.name for t in g.spec.taps] == g.synthesis.layer_names[:-1]
    shapes = [(t.channels, t.resolution, t.resolution) for t in g.spec.taps]
    assert [tuple(x.shape[1:]) for x in made.pyramid.levels] == shapes
    assert made.pyramid.size == (16, 16)
    names = [g.spec.taps[2].name, g.spec.taps[0].name]
    some = g.synthesize(ws, "none", names)
    assert torch.equal(some.image, made.image)  # there is no noise to leave out
    assert torch.equal(some.pyramid.levels[1], made.pyramid.levels[2])  # the table's order, not the caller's
    assert g.synthesize(ws, taps=()).activations is None
    for arguments in ({"noise": "free"}, {"taps": ["L9"]}):
        with pytest.raises(UsageError):
            g.synthesize(ws, **arguments)


def test_taps_cover_exactly_the_image():
    """The map of the input is a wave in x of known phase: cropped, its first column lies half a pixel inside."""
    g = tiny()
    first = g.spec.taps[0]
    assert first.margin == 10 and first.resolution == 16
    whole = []
    g.synthesis(g.map(z_of_seeds([0], 6)), lambda name, x: whole.append(x))
    level = g.synthesize(g.map(z_of_seeds([0], 6))).pyramid.levels[0]
    assert torch.equal(level, whole[0][:, :, 10:-10, 10:-10]) and level.is_contiguous()


def test_truncation_and_cutoff():
    g, z = tiny(), z_of_seeds([1], 6)
    w, mean = g.map(z), g.mapping.w_avg
    half = g.map(z, truncation=0.5, cutoff=2)
    assert torch.allclose(half[:, :2], mean + 0.5 * (w[:, :2] - mean), atol=1e-6)
    assert torch.equal(half[:, 2:], w[:, 2:])
    assert torch.allclose(g.map(z, truncation=0.0), mean.expand_as(w))


def test_conditional_network():
    g, z = tiny(c_dim=3), z_of_seeds([1], 6)
    one, two = torch.eye(3)[:1], torch.eye(3)[1:2]
    assert g.mapping.fc0.weight.shape == (5, 11)
    assert not torch.allclose(g.map(z, one), g.map(z, two))
    with pytest.raises(UsageError, match="--class"):
        g.map(z)


def test_class_table_of_stylegan_xl():
    g, z = tiny(table=(4, 7), c_dim=3), z_of_seeds([1, 2], 6)
    assert g.spec.family == "stylegan-xl" and g.mapping.w_avg.shape == (3, 5)
    c = torch.eye(3)[[2, 0]]
    y = g.mapping.embed.weight[[2, 0]] @ g.mapping.embed_proj.weight.T / 7**0.5 + g.mapping.embed_proj.bias
    y = torch.nn.functional.leaky_relu(y, 0.2) * 2**0.5
    x = torch.cat([v / (v.square().mean(dim=1, keepdim=True) + 1e-8).sqrt() for v in (z, y)], dim=1)
    for i in range(2):
        layer = getattr(g.mapping, f"fc{i}")
        x = (x @ layer.weight.T / layer.weight.shape[1] ** 0.5 + layer.bias) * 0.01
        x = torch.nn.functional.leaky_relu(x, 0.2) * 2**0.5
    ws = g.map(z, c)
    assert torch.allclose(ws[:, 3], x, atol=1e-6)
    cut = g.map(z, c, truncation=0.25, cutoff=1)
    mean = g.mapping.w_avg[[2, 0]]  # each sample is drawn towards its own class
    assert torch.allclose(cut[:, 0], mean + 0.25 * (ws[:, 0] - mean), atol=1e-6)
    assert torch.equal(cut[:, 1:], ws[:, 1:])


def test_gradients_reach_the_styles():
    g = tiny()
    ws = g.map(z_of_seeds([0], 6)).requires_grad_(True)
    g.synthesize(ws).image.square().mean().backward()
    assert ws.grad.isfinite().all() and (ws.grad.abs().amax(dim=2) > 0).all()


def test_standard_network_at_256_px_by_shape():
    """The published sums: 5663 channels in 14 taps, 27.9 M parameters in the synthesis; nothing is computed."""
    with torch.device("meta"):
        g = StyleGAN3(design(256, "T")).eval().to("meta")
    made = g.synthesize(torch.empty(2, 16, 512, device="meta"))
    assert made.image.shape == (2, 3, 256, 256)
    assert made.pyramid.channels == 5663 and len(g.spec.taps) == 14
    assert [x.shape[2] for x in made.pyramid.levels] == [t.resolution for t in g.spec.taps]
    assert sum(p.numel() for p in g.synthesis.parameters()) / 1e6 == pytest.approx(27.9, abs=0.1)
