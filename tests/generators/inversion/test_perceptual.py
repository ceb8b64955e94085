"""Distances between images: what they see, what they do not, and where they come from."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from gansegctl.errors import UsageError
from gansegctl.generators.discriminator import Discriminator
from gansegctl.generators.inversion.perceptual import (
    DiscriminatorFeatures,
    Gradients,
    Lpips,
    choose_perceptual,
    open_discriminator,
    pixel_distance,
    scales,
)
from gansegctl.generators.stylegan2 import StyleGAN2Config
from gansegctl.generators.training.trainer import Trainer, TrainSettings

SMALL = StyleGAN2Config(resolution=16, z_dim=4, w_dim=4, channel_base=64, channel_max=8, mapping_layers=1)


def images(n=3, seed=0, channels=3, side=32):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    trainer = Trainer(
        torch.zeros(4, 3, 16, 16, dtype=torch.uint8), TrainSettings(network=SMALL, images=2, batch_size=2)
    )
    path = tmp_path_factory.mktemp("d") / "g.ckpt"
    trainer.save(path)
    return path, trainer.discriminator


def test_scales_halve_down_to_eight_pixels():
    x = images(side=32)
    assert [tuple(s.shape[2:]) for s in scales(x)] == [(32, 32), (16, 16), (8, 8)]
    assert torch.allclose(scales(x)[1][0, 0, 0, 0], x[0, 0, :2, :2].mean())


def test_pixel_distance_is_the_mean_over_scales():
    a, b = torch.zeros(2, 3, 16, 16), torch.stack([torch.zeros(3, 16, 16), torch.full((3, 16, 16), 0.5)])
    assert torch.allclose(pixel_distance(scales(a), scales(b)), torch.tensor([0.0, 0.25]))


@pytest.mark.parametrize("measure", [Gradients(), DiscriminatorFeatures(Discriminator(SMALL))], ids=lambda m: m.name)
def test_equal_images_are_at_no_distance_and_others_at_some(measure):
    x = images(side=16)
    f = measure.features(x)
    assert torch.allclose(measure.distance(f, f), torch.zeros(3), atol=1e-6)
    g = measure.features(images(seed=1, side=16))
    d = measure.distance(f, g)
    assert d.shape == (3,) and (d > 0.01).all()
    one = measure.distance(f, [t[:1] for t in g])  # one image is compared with all
    assert one.shape == (3,) and torch.allclose(one[0], d[0])


def test_gradients_see_edges_not_brightness():
    x = torch.zeros(1, 3, 16, 16)
    x[..., 8:] = 0.4
    m = Gradients()
    brighter, moved = x + 0.3, torch.roll(x, 3, dims=3)
    assert m.distance(m.features(x), m.features(brighter)) < 1e-6
    assert m.distance(m.features(x), m.features(moved)) > 0.05


def test_gradients_can_be_followed():
    x = images(1, side=16).requires_grad_(True)
    m = Gradients()
    m.distance(m.features(x), m.features(images(1, 2, side=16))).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_a_discriminator_comes_back_from_a_checkpoint(checkpoint):
    path, trained = checkpoint
    found = open_discriminator(path)
    x = images(2, side=16)
    assert torch.allclose(found(x), trained(x))
    measure = choose_perceptual("auto", path, 16, 3)
    assert measure.name == "discriminator"
    assert len(measure.features(x)) == 2
    with pytest.raises(UsageError, match="32 px"):
        choose_perceptual("auto", path, 32, 3)
    with pytest.raises(UsageError, match="1, as the"):
        choose_perceptual("discriminator", path, 16, 1)


def test_what_there_is_to_choose(tmp_path, checkpoint):
    assert choose_perceptual("auto", None, 16, 3).name == "gradients"
    with pytest.raises(UsageError, match="--discriminator FILE"):
        choose_perceptual("discriminator", None, 16, 3)
    with pytest.raises(UsageError, match="lpips"):
        choose_perceptual("vgg", None, 16, 3)
    with pytest.raises(UsageError, match="one measure"):
        choose_perceptual("gradients", checkpoint[0], 16, 3)
    with pytest.raises(UsageError, match="no such file"):
        open_discriminator(tmp_path / "none.ckpt")
    (tmp_path / "x.ckpt").write_bytes(b"no")
    with pytest.raises(UsageError, match=r"x\.ckpt"):
        open_discriminator(tmp_path / "x.ckpt")


def test_lpips_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UsageError, match=r"gansegctl\[lpips\]"):
        Lpips()

    class Net(torch.nn.Module):
        def forward(self, a, b):
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=lambda net, verbose: Net()))
    m = choose_perceptual("lpips", None, 16, 1)
    grey = m.features(images(2, channels=1, side=16))
    assert tuple(grey[0].shape) == (2, 3, 64, 64)  # as large as that network needs
    assert m.distance(grey, [grey[0][:1]])[0] == 0
