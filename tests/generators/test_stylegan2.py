"""StyleGAN2 by property, and against the images of the official networks where they are at hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.textbook import stylegan2 as textbook_stylegan2

from gansegctl.errors import GansegError, UsageError
from gansegctl.generators.latents import MAX_SEED, noise_of_seeds, z_of_seeds
from gansegctl.generators.layers import filter2d, fir_filter, upsample2d
from gansegctl.generators.stylegan2 import StyledConv, StyleGAN2, StyleGAN2Config


def tiny(**changes) -> StyleGAN2:
    settings = {"resolution": 16, "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 12, "mapping_layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g = StyleGAN2(StyleGAN2Config(**settings | changes)).eval().requires_grad_(False)
        for _, conv in g.synthesis.convs():
            if conv.noise_const is not None:
                conv.noise_strength.fill_(0.3)
            conv.bias.normal_()
        g.mapping.w_avg.normal_()
    return g


def test_z_is_numpys_own_stream():
    z = z_of_seeds([3, 0], 5)
    assert torch.equal(z[0], torch.from_numpy(np.random.RandomState(3).randn(1, 5)[0]).float())
    assert torch.equal(z[1], z_of_seeds([0], 5)[0])
    assert z_of_seeds([], 5).shape == (0, 5)
    for seed in (-1, MAX_SEED + 1):
        with pytest.raises(UsageError, match="seed"):
            z_of_seeds([seed], 5)


def test_noise_of_a_seed_does_not_depend_on_its_batch_nor_equal_its_z():
    alone, together = noise_of_seeds([7], [4, 8]), noise_of_seeds([1, 7], [4, 8])
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a[0], b[1])
    assert not torch.allclose(alone[0].flatten()[:8], z_of_seeds([7], 8)[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_taps(channels):
    g = tiny(image_channels=channels)
    s = g.synthesize(g.map(z_of_seeds([0, 1], 8)))
    assert s.image.shape == (2, channels, 16, 16)
    assert [t.name for t in g.spec.taps] == ["b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]
    assert [(x.shape[1], x.shape[2]) for x in s.pyramid.levels] == [(t.channels, t.resolution) for t in g.spec.taps]
    assert s.pyramid.size == (16, 16)
    assert g.spec.num_ws == 6


def test_taps_are_chosen_by_name_and_do_not_change_the_image():
    g = tiny()
    ws = g.map(z_of_seeds([0], 8))
    full, some = g.synthesize(ws), g.synthesize(ws, taps=["b8.conv1"])
    assert torch.equal(full.image, some.image)
    assert torch.equal(some.pyramid.levels[0], full.pyramid.levels[2])
    bare = g.synthesize(ws, taps=())
    assert bare.activations is None
    with pytest.raises(GansegError, match="without activations"):
        _ = bare.pyramid
    with pytest.raises(UsageError, match="b9"):
        g.synthesize(ws, taps=["b9.conv1"])


def test_reprs_say_sizes_in_one_line():
    g = tiny(c_dim=3)
    assert repr(g) == "StyleGAN2(stylegan2, image [3, 16, 16], ws [6, 8], 5 taps, 3 classes)"
    made = g.synthesize(torch.zeros(2, 6, 8))
    channels = sum(t.channels for t in g.spec.taps)
    assert repr(made) == f"Synthesis(image [2, 3, 16, 16] torch.float32, activations: {channels} channels)"
    assert repr(g.synthesize(torch.zeros(1, 6, 8), taps=())).endswith("activations: none)")


def test_batching_changes_nothing_beyond_rounding():
    g = tiny()
    for noise, seeds in (("const", None), ("none", None), ("seed", [5, 6, 7])):
        ws = g.map(z_of_seeds([5, 6, 7], 8))
        together = g.synthesize(ws, noise, seeds=seeds).image
        alone = g.synthesize(ws[1:2], noise, seeds=seeds and seeds[1:2]).image
        assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_noise_modes_differ_and_repeat():
    g = tiny()
    ws = g.map(z_of_seeds([5], 8))
    images = {m: g.synthesize(ws, m, seeds=[5]).image for m in ("const", "seed", "none")}
    assert not torch.allclose(images["const"], images["none"])
    assert not torch.allclose(images["const"], images["seed"])
    assert torch.equal(images["seed"], g.synthesize(ws, "seed", seeds=[5]).image)
    with pytest.raises(UsageError, match="free"):
        g.synthesize(ws, "free")
    with pytest.raises(UsageError, match="seeds"):
        g.synthesize(ws, "seed")


def test_truncation_pulls_towards_the_average():
    g = tiny()
    z = z_of_seeds([1], 8)
    w, mean = g.map(z), g.mapping.w_avg
    assert torch.allclose(g.map(z, truncation=0.0), mean.expand_as(w))
    assert torch.allclose(g.map(z, truncation=0.5), mean + 0.5 * (w - mean), atol=1e-6)
    cut = g.map(z, truncation=0.5, cutoff=2)
    assert torch.equal(cut[:, 2:], w[:, 2:])
    assert not torch.allclose(cut[:, :2], w[:, :2])


def test_classes():
    g = tiny(c_dim=3)
    z = z_of_seeds([1], 8)
    one, two = torch.eye(3)[:1], torch.eye(3)[1:2]
    assert not torch.allclose(g.map(z, one), g.map(z, two))
    with pytest.raises(UsageError, match="--class"):
        g.map(z)
    with pytest.raises(UsageError, match="without classes"):
        tiny().map(z, one)


def test_modulated_convolution_equals_one_kernel_a_sample():
    """The textbook form: scale the kernel by the style, demodulate it, convolve each sample with its own."""
    config = StyleGAN2Config(w_dim=8, z_dim=8)
    torch.manual_seed(1)
    conv = StyledConv(5, 7, 6, config, up=False).double()
    x, w = torch.randn(2, 5, 6, 6).double(), torch.randn(2, 8).double()
    style = conv.affine(w)
    rows = []
    for i in range(2):
        kernel = conv.weight * style[i].view(1, -1, 1, 1)
        kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        rows.append(F.leaky_relu(F.conv2d(x[i : i + 1], kernel, padding=1), 0.2) * 2**0.5)
    assert torch.allclose(conv(x, w, None), torch.cat(rows), atol=1e-10)


def test_upsampling_keeps_a_constant_and_separable_equals_full():
    kernel = fir_filter()
    x = torch.ones(1, 2, 6, 6)
    assert torch.allclose(upsample2d(x, kernel)[:, :, 2:-2, 2:-2], torch.ones(1, 2, 8, 8))
    y = torch.randn(1, 2, 9, 9)
    row = torch.tensor([1.0, 3, 3, 1]) / 8
    assert torch.allclose(filter2d(y, kernel, (1, 2), gain=4.0), filter2d(y, row, (1, 2), gain=4.0), atol=1e-5)


def test_resolution_must_be_a_power_of_two():
    with pytest.raises(UsageError, match="48"):
        StyleGAN2Config(resolution=48)


TWELVE = (1, 2, 4, 7, 10, 12, 12, 10, 7, 4, 2, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"architecture": "resnet"},
        {"architecture": "orig"},
        {"architecture": "resnet", "conv_clamp": 0.6, "filter_taps": TWELVE, "image_channels": 1},
        {"conv_clamp": 0.4, "use_noise": False},
        {"filter_taps": TWELVE, "channel_table": (5, 9, 4)},
        {"filter_taps": (1, 2, 1)},
    ],
    ids=["skip", "resnet", "orig", "resnet-clamp-12-grey", "clamp-quiet", "12-table", "odd"],
)
def test_image_and_taps_equal_the_textbook(changes):
    """Every architecture against the formulas written out in float64, with one kernel a sample; taps in their order."""
    g = tiny(**changes)
    ws = g.map(z_of_seeds([0, 1], 8))
    made = g.synthesize(ws)
    image, taps = textbook_stylegan2(g, ws)
    assert made.image.shape == (2, g.config.image_channels, 16, 16)
    assert (made.image - image).abs().max() < 1e-4 * image.abs().max()
    assert len(taps) == len(made.pyramid.levels)
    for level, tap, x in zip(g.spec.taps, made.pyramid.levels, taps, strict=True):
        assert tap.shape == (2, level.channels, level.resolution, level.resolution) and level.margin == 0
        assert (tap - x).abs().max() < 1e-4 * x.abs().max(), level.name


def test_architectures_have_the_official_tensors():
    names = {a: set(tiny(architecture=a).state_dict()) for a in ("skip", "resnet", "orig")}
    assert "synthesis.b4.torgb.weight" in names["skip"]
    assert "synthesis.b16.torgb.weight" in names["orig"] and "synthesis.b8.torgb.weight" not in names["orig"]
    assert names["resnet"] - names["orig"] == {
        f"synthesis.b{r}.skip.{part}" for r in (8, 16) for part in ("weight", "resample_filter")
    }
    assert {tiny(architecture=a).spec.num_ws for a in names} == {6}
    with pytest.raises(UsageError, match="unet"):
        tiny(architecture="unet")


def test_long_filters_stay_one_dimensional():
    assert fir_filter(TWELVE).shape == (12,)
    assert fir_filter(TWELVE).sum().item() == pytest.approx(1)
    assert fir_filter((1, 3, 3, 1)).shape == (4, 4)
    assert tiny(filter_taps=TWELVE).synthesis.b8.conv0.resample_filter.shape == (12,)


def test_a_hand_computed_activation():
    """One channel, no style, no noise: 4x4 ones under a kernel of ones is a count of neighbours, demodulated by 3."""
    config = StyleGAN2Config(resolution=8, z_dim=2, w_dim=2, channel_table=(1, 1), use_noise=False)
    g = StyleGAN2(config).eval().requires_grad_(False)
    conv = g.synthesis.b4.conv1
    g.synthesis.b4.const.fill_(1)
    conv.weight.fill_(1)
    conv.affine.weight.fill_(0)  # the style is its bias, 1
    conv.bias.fill_(-2)
    tap = g.synthesize(torch.zeros(1, 4, 2), taps=["b4.conv1"]).pyramid.levels[0][0, 0]
    counts = torch.tensor([[4.0, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]) / 3 - 2
    wanted = torch.where(counts > 0, counts, 0.2 * counts) * 2**0.5
    assert torch.allclose(tap, wanted, atol=1e-6)


def test_network_without_noise_has_no_maps_and_one_image():
    g = tiny(use_noise=False)
    assert not [k for k in g.state_dict() if "noise" in k]
    ws = g.map(z_of_seeds([5], 8))
    assert torch.equal(g.synthesize(ws, "const").image, g.synthesize(ws, "none").image)
    assert torch.equal(g.synthesize(ws, "seed", seeds=[1]).image, g.synthesize(ws, "none").image)


def test_single_modules_may_differ_from_the_rest():
    g = tiny(conv_clamp=256.0, clamps=[["b8.conv1", 0.25], ["b16.torgb", None]], noiseless=["b16.conv0"])
    assert g.synthesis.b8.conv1.clamp == 0.25
    assert g.synthesis.b16.torgb.clamp is None and g.synthesis.b8.torgb.clamp == 256.0
    assert g.synthesis.b16.conv0.noise_const is None and g.synthesis.b16.conv1.noise_const is not None
    level = g.synthesize(g.map(z_of_seeds([5], 8)), "seed", ["b8.conv1"], seeds=[5]).pyramid.levels[0]
    assert level.abs().max() == 0.25


def test_mapping_widths():
    g = tiny(c_dim=3, embed_features=5, layer_features=7, mapping_layers=3, mapping_lr=1.0)
    assert [tuple(getattr(g.mapping, f"fc{i}").weight.shape) for i in range(3)] == [(7, 13), (7, 7), (8, 7)]
    z, c = z_of_seeds([1], 8), torch.eye(3)[1:2]
    x = torch.cat([z / (z.square().mean() + 1e-8).sqrt(), g.mapping.embed(c)], dim=1)
    x[:, 8:] /= (x[:, 8:].square().mean() + 1e-8).sqrt()
    for i in range(3):
        layer = getattr(g.mapping, f"fc{i}")
        x = F.leaky_relu(x @ layer.weight.T / layer.weight.shape[1] ** 0.5 + layer.bias, 0.2) * 2**0.5
    assert torch.allclose(g.map(z, c)[:, 0], x, atol=1e-5)


def test_the_table_of_a_header_gives_the_same_network():
    assert StyleGAN2Config(**StyleGAN2Config().to_json()) == StyleGAN2Config()
    other = StyleGAN2Config(resolution=8, architecture="orig", channel_table=[3, 5], clamps=[("b4.conv1", None)])
    assert StyleGAN2Config(**other.to_json()) == other
    assert [other.channels(r) for r in (4, 8)] == [3, 5]
    with pytest.raises(UsageError, match="3 numbers"):
        StyleGAN2Config(resolution=8, channel_table=(1, 2, 3))


def test_standard_network_at_256_px_by_shape():
    """The published table: 13 convolutions, 5376 channels, 30.0 M parameters; nothing is computed on this device."""
    with torch.device("meta"):
        g = StyleGAN2(StyleGAN2Config(256, 3, 512, 512, 0, 32768, 512, 8, 256.0)).eval()
    made = g.synthesize(torch.empty(2, 14, 512, device="meta"))
    assert made.image.shape == (2, 3, 256, 256) and g.spec.num_ws == 14
    assert [x.shape[1:] for x in made.pyramid.levels] == [(t.channels, t.resolution, t.resolution) for t in g.spec.taps]
    assert made.pyramid.channels == 5376 and len(g.spec.taps) == 13
    assert sum(p.numel() for p in g.parameters()) / 1e6 == pytest.approx(30.0, abs=0.05)
