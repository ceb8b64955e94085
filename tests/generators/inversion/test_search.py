"""Inversion finds what a generator drew, row by row, and says how well it did."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.stages import events_and_result

from gansegctl.errors import UsageError
from gansegctl.generators.inversion.latent_space import FIRST_SEED, LatentSpace, thumbnail
from gansegctl.generators.inversion.perceptual import Gradients
from gansegctl.generators.inversion.search import (
    Inversion,
    InversionSettings,
    check_noise_maps,
    noise_structure,
    synthesize,
)
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from gansegctl.generators.weights import load_generator

QUICK = InversionSettings(space="w", steps=40, start_steps=20, samples=16, patience=20)


@pytest.fixture(scope="module")
def generator(generator_file):
    return load_generator(generator_file)


@pytest.fixture(scope="module")
def latent_space(generator):
    return LatentSpace.of(generator, samples=16, mapped=500)


@pytest.fixture(scope="module")
def target(generator):
    with torch.no_grad():
        return synthesize(generator, generator.map(z_of_seeds([5, 6], 8)), "const").image


def invert(generator, target, latent_space, settings=QUICK):
    job = Inversion(generator, target, latent_space, Gradients(), settings)
    steps, result = events_and_result(job.run())
    return result, steps


class TestLatentSpace:
    def test_coordinates_are_whitened(self, generator, latent_space):
        w = generator.map(z_of_seeds(range(400), 8))[:, 0]
        v = latent_space.to_coordinates(w)
        assert v.mean(dim=0).abs().max() < 0.3
        assert v.std(dim=0).min() > 0.6 and v.std(dim=0).max() < 1.5
        back = latent_space.to_ws(v.unsqueeze(1))
        assert back.shape == (400, generator.spec.num_ws, 8)
        assert torch.allclose(back[:, 3], w, atol=1e-4)

    def test_the_nearest_sample_of_a_sample_is_itself(self, generator, latent_space):
        z = z_of_seeds([FIRST_SEED + 3, FIRST_SEED + 11], 8)
        image = generator.synthesize(generator.map(z), taps=()).image
        index, distance = latent_space.nearest(image)
        assert index.tolist() == [3, 11]
        assert distance.max() < 1e-5

    def test_thumbnails_are_small(self):
        assert thumbnail(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 64, 64)
        assert thumbnail(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)


class TestInversion:
    def test_finds_its_own_samples(self, generator, latent_space, target):
        found, steps = invert(generator, target, latent_space)
        assert steps == list(range(1, len(steps) + 1))
        drawn = synthesize(generator, found.ws, "const").image
        first = synthesize(generator, latent_space.to_ws(torch.zeros(2, 1, 8)), "const").image
        assert (drawn - target).square().mean() < 0.1 * (first - target).square().mean()
        assert (found.error <= found.start_error + 1e-6).all()
        assert (found.distance > 0).all() and (found.distance < 4).all()
        assert torch.equal(found.ws[:, 0], found.ws[:, -1])  # W: one for all slots

    def test_rows_do_not_depend_on_each_other(self, generator, latent_space, target):
        together, _ = invert(generator, target, latent_space)
        alone, _ = invert(generator, target[1:], latent_space)
        assert torch.allclose(together.ws[1:], alone.ws, atol=1e-3)
        assert together.steps[1] == alone.steps[0]

    def test_w_plus_has_a_style_a_slot_and_draws_better(self, generator, latent_space, target):
        mixed = generator.map(z_of_seeds([5, 6], 8))
        mixed[:, 3:] = mixed.flip(0)[:, 3:]
        with torch.no_grad():
            image = synthesize(generator, mixed, "const").image
        w, _ = invert(generator, image, latent_space)
        plus, _ = invert(generator, image, latent_space, dataclasses.replace(QUICK, space="w+"))
        assert not torch.equal(plus.ws[:, 0], plus.ws[:, -1])
        assert (plus.error < w.error).all()

    def test_noise_is_searched_and_kept(self, generator, latent_space):
        with torch.no_grad():
            image = generator.synthesize(generator.map(z_of_seeds([5], 8)), "seed", (), [77]).image
        settings = dataclasses.replace(QUICK, space="w+n", noise_weight=0.01)
        found, _ = invert(generator, image, latent_space, settings)
        plain, _ = invert(generator, image, latent_space, dataclasses.replace(QUICK, space="w+"))
        assert [m.shape[-1] for m in found.maps] == [4, 8, 8, 16, 16]
        assert all(abs(m.mean()) < 1e-3 and abs(m.std() - 1) < 0.05 for m in found.maps)
        assert found.error < plain.error
        with_maps = synthesize(generator, found.ws, "const", found.maps, None)
        assert (with_maps.image - synthesize(generator, found.ws, "const").image).abs().max() > 1e-3
        assert len(with_maps.pyramid.levels) == len(generator.spec.taps)

    def test_stops_early_where_nothing_improves(self, generator, latent_space, target):
        hopeless = dataclasses.replace(QUICK, steps=200, patience=5, tolerance=0.9)
        found, steps = invert(generator, target, latent_space, hopeless)
        assert len(steps) < 220
        assert (found.steps < 220).all() and (found.steps > 20).all()

    def test_distance_holds_latents_near_the_mean(self, generator, latent_space):
        image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        free, _ = invert(generator, image, latent_space, dataclasses.replace(QUICK, distance=0.0, space="w+"))
        held, _ = invert(generator, image, latent_space, dataclasses.replace(QUICK, distance=0.1, space="w+"))
        assert held.distance < 0.8 * free.distance

    def test_what_cannot_be_inverted_is_refused(self, generator, latent_space):
        with pytest.raises(UsageError, match="16, 16"):
            Inversion(generator, torch.zeros(1, 3, 8, 8), latent_space, Gradients(), QUICK)
        for without in ({"use_noise": False}, {"noiseless": ("b8.conv0",)}):
            silent = StyleGAN2(StyleGAN2Config(resolution=16, z_dim=8, w_dim=8, channel_base=32, **without))
            with pytest.raises(UsageError, match="noise maps"):
                check_noise_maps(silent)
        for wrong in ({"space": "z"}, {"steps": 0}, {"lr": 0.0}, {"perceptual": -1.0}):
            with pytest.raises(UsageError):
                InversionSettings(**wrong)


def test_noise_structure_tells_noise_from_images():
    noise = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    stripes = torch.sin(torch.arange(32) / 4).expand(1, 1, 32, 32)
    stripes = (stripes - stripes.mean()) / stripes.std()
    assert noise_structure([noise]).max() < 0.1 * noise_structure([stripes])[0]
