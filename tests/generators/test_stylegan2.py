"""StyleGAN2 by property, and against the pictures of the official networks where they are at hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gansegctl.errors import UsageError
from gansegctl.generators.latents import MAX_SEED, noise_of_seeds, z_of_seeds
from gansegctl.generators.layers import filter2d, fir_filter, upsample2d
from gansegctl.generators.stylegan2 import StyledConv, StyleGAN2, StyleGAN2Config


def tiny(**changes) -> StyleGAN2:
    settings = {"resolution": 16, "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 12, "mapping_layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g = StyleGAN2(StyleGAN2Config(**settings | changes)).eval().requires_grad_(False)
        for _, conv in g.synthesis.convs():
            if g.config.use_noise:
                conv.noise_strength.fill_(0.3)
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


def test_taps_are_chosen_by_name_and_do_not_change_the_picture():
    g = tiny()
    ws = g.map(z_of_seeds([0], 8))
    full, some = g.synthesize(ws), g.synthesize(ws, taps=["b8.conv1"])
    assert torch.equal(full.image, some.image)
    assert torch.equal(some.pyramid.levels[0], full.pyramid.levels[2])
    assert g.synthesize(ws, taps=()).pyramid is None
    with pytest.raises(UsageError, match="b9"):
        g.synthesize(ws, taps=["b9.conv1"])


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
    pictures = {m: g.synthesize(ws, m, seeds=[5]).image for m in ("const", "seed", "none")}
    assert not torch.allclose(pictures["const"], pictures["none"])
    assert not torch.allclose(pictures["const"], pictures["seed"])
    assert torch.equal(pictures["seed"], g.synthesize(ws, "seed", seeds=[5]).image)
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
