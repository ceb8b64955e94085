"""What labels4free is handed: a discriminator of the generator's size, backgrounds, images; and a fit in small."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from helpers.methods.tiny_generator import TinyGenerator

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.generators.training.trainer import Trainer, TrainSettings
from gansegctl.generators.weights import load_generator
from gansegctl.io.image import save_png
from gansegctl.methods.labels4free.settings import Labels4FreeSettings
from gansegctl.pipeline.annotate.adversary import StyleGAN2Adversary, beyond_generator


@pytest.fixture
def generator(generator_file):
    return load_generator(generator_file)


def ws_of(generator, count=2):
    return generator.map(torch.randn(count, generator.spec.z_dim, generator=torch.Generator().manual_seed(0)))


def test_a_background_lacks_what_the_coarsest_convolution_says(generator):
    ws = ws_of(generator)
    background = StyleGAN2Adversary(generator).background(ws, "const", [0, 1])
    plain = generator.synthesize(ws).image
    assert background.shape == plain.shape and not torch.allclose(background, plain)
    kept = generator.synthesis.b4.conv1.weight.data.clone()
    generator.synthesis.b4.conv1.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(generator.synthesize(ws).image, plain)
    torch.testing.assert_close(StyleGAN2Adversary(generator).background(ws, "const", [0, 1]), background)
    generator.synthesis.b4.conv1.weight.data.copy_(kept)
    torch.testing.assert_close(generator.synthesize(ws).image, plain)  # nothing of it stays on the generator


def test_a_512_px_generator_loses_its_constant_instead(generator):
    ws = ws_of(generator)
    plain = StyleGAN2Adversary(generator).background(ws, "const", [0, 1])
    adversary = StyleGAN2Adversary(generator)
    spec, const = generator.spec, generator.synthesis.b4.const.data.clone()
    generator.spec = SimpleNamespace(resolution=512, c_dim=0)
    try:
        found = adversary_image(adversary, generator, spec, ws)
        assert not torch.allclose(found, plain)
        generator.synthesis.b4.const.data.zero_()
        generator.spec = spec
        torch.testing.assert_close(found, generator.synthesize(ws).image)
    finally:
        generator.spec = spec
        generator.synthesis.b4.const.data.copy_(const)


def adversary_image(adversary, generator, spec, ws):
    """The background of a generator that says it is of 512 px while it is asked, and its own size while it draws."""
    plainly = generator.synthesize

    def synthesize(*args):
        said, generator.spec = generator.spec, spec
        try:
            return plainly(*args)
        finally:
            generator.spec = said

    generator.synthesize = synthesize
    try:
        return adversary.background(ws, "const", [0, 1])
    finally:
        del generator.synthesize


def test_a_critic_depends_on_its_seed_alone_and_a_trained_one_is_used(generator):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    adversary = StyleGAN2Adversary(generator)
    one, same, other = (adversary.critic(s).fc.weight for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    trained = adversary.critic(5)
    assert trained(generator.synthesize(ws_of(generator)).image).shape == (2, 1)
    assert StyleGAN2Adversary(generator, trained).critic(1) is trained


def test_other_families_and_generators_with_classes_are_refused(generator):
    with pytest.raises(UsageError, match="'tiny'"):
        StyleGAN2Adversary(TinyGenerator())
    spec = generator.spec
    generator.spec = SimpleNamespace(c_dim=3)
    try:
        with pytest.raises(UsageError, match="classes"):
            StyleGAN2Adversary(generator)
    finally:
        generator.spec = spec


def test_a_method_gets_what_it_needs_and_no_more(generator, tmp_path):
    assert beyond_generator(methods.get("repurpose"), generator, None) == {}
    method = methods.get("labels4free")
    assert set(beyond_generator(method, generator, Labels4FreeSettings())) == {"adversary"}
    for i in range(3):
        save_png(tmp_path / f"{i}.png", torch.full((16, 16, 3), 40 * i, dtype=torch.uint8).numpy())
    given = beyond_generator(method, generator, Labels4FreeSettings(images=str(tmp_path)))
    network, images = generator.config, torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    trainer = Trainer(images, TrainSettings(network=network, batch_size=2))
    trainer.save(tmp_path / "out.ckpt")
    chosen = Labels4FreeSettings(discriminator=str(tmp_path / "out.ckpt"))
    critic, x = beyond_generator(method, generator, chosen)["adversary"].critic(0), torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(critic(x), trainer.discriminator(x))
    wide = Trainer(images[:, :1], TrainSettings(network=replace(network, image_channels=1), batch_size=2))
    wide.save(tmp_path / "grey.ckpt")
    with pytest.raises(UsageError, match="16 px and 1 channels"):
        beyond_generator(method, generator, Labels4FreeSettings(discriminator=str(tmp_path / "grey.ckpt")))
    assert given["images"].shape == (3, 16, 16, 3) and given["images"][2].max() == 80
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f["image"], f["split"] = given["images"], np.array([0, 1, 1], np.uint8)
    with pytest.raises(UsageError, match="splits 0, 1 and none chosen"):
        beyond_generator(method, generator, Labels4FreeSettings(images=str(tmp_path / "x.h5")))


def test_a_fit_in_small_on_a_real_generator(generator):
    method = methods.get("labels4free")
    settings = Labels4FreeSettings(iterations=3, statistics_samples=1, guard_every=2, guard_samples=2)
    segmenter = method.fit(generator, [], None, settings, 0, **beyond_generator(method, generator, settings))
    annotation = segmenter.predict(generator, generator.synthesize(ws_of(generator), taps=segmenter.taps))
    assert annotation.labels.shape == (2, 16, 16) and segmenter.facts["iterations"] == 3
