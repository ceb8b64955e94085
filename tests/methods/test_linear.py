"""linear: the contract, that it is one matrix on the hypercolumn, and what its settings change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.methods.contract import LABELS, MethodContract
from helpers.methods.tiny_generator import TinyGenerator, exemplars_of, linear_truth

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.methods import linear
from gansegctl.methods.base import segmenter_file
from gansegctl.methods.linear import Linear, LinearSettings

QUICK = LinearSettings(steps=40, statistics_samples=3, lr=5e-2)


class TestFixed(MethodContract):
    name, settings = "linear", QUICK


class TestRelease(MethodContract):
    name = "linear"
    settings = replace(QUICK, profile="release", combine="softplus", redraw_noise=7, balance="sqrt-inverse")


def scores(settings, shown, fresh, generator):
    segmenter = Linear().fit(generator, shown, LabelMap(("below", "above")), settings)
    synthesis = generator.synthesize(torch.cat([e.ws for e in fresh]), taps=segmenter.taps)
    labels, truth = segmenter.predict(generator, synthesis).labels.numpy(), np.stack([e.mask for e in fresh])
    return (labels == truth)[truth != 255].mean()


@pytest.mark.parametrize("combine", ["sum", "softplus"])
def test_learns_a_labelling_that_one_matrix_decides(combine):
    generator = TinyGenerator()
    exemplars = exemplars_of(generator, range(40), lambda p: linear_truth(p, classes=2, undecided=0.2))
    settings = LinearSettings(steps=150, lr=3e-2, combine=combine, feature_dropout=0.0, weight_decay=0.0)
    assert scores(settings, exemplars[:25], exemplars[25:], generator) > 0.93
    assert scores(replace(settings, steps=1, lr=1e-6), exemplars[:25], exemplars[25:], generator) < 0.8


def test_it_is_one_matrix_on_the_hypercolumn():
    generator = TinyGenerator()
    segmenter = Linear().fit(generator, exemplars_of(generator, (3,)), LABELS, QUICK)
    synthesis = generator.synthesize(generator.latents([7]), taps=segmenter.taps)
    dense = synthesis.pyramid.dense()
    wanted = torch.einsum("kc,nchw->nkhw", segmenter.weight, dense) + segmenter.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(segmenter.logits(generator, synthesis), wanted, atol=1e-4, rtol=1e-4)


def test_without_standardising_there_is_no_bias_as_published():
    generator = TinyGenerator()
    exemplars = exemplars_of(generator, (3,))
    plain = Linear().fit(generator, exemplars, LABELS, replace(QUICK, standardise=False))
    assert not bool(plain.bias.any())
    assert bool(Linear().fit(generator, exemplars, LABELS, QUICK).bias.any())


def test_the_release_profile_draws_new_noise_and_the_fixed_one_does_not():
    seen = []

    class Watched(TinyGenerator):
        def synthesize(self, ws, noise="const", taps=None, seeds=None):
            seen.append(noise)
            return super().synthesize(ws, noise, taps, seeds)

    exemplars = exemplars_of(TinyGenerator(), (3,))
    Linear().fit(Watched(), exemplars, LABELS, LinearSettings(profile="release", steps=9, redraw_noise=3))
    assert seen.count("seed") == 2  # before the steps 3 and 6
    seen.clear()
    Linear().fit(Watched(), exemplars, LABELS, replace(QUICK, steps=9))
    assert set(seen) == {"const"}


@pytest.mark.parametrize(("exemplars", "epoch"), [(1, 128), (4, 32), (10, 13)])
def test_the_release_takes_all_exemplars_a_step_and_as_many_images_an_epoch(exemplars, epoch):
    filled = LinearSettings(profile="release").resolved(exemplars)
    assert (filled.batch, filled.steps, filled.redraw_noise) == (exemplars, 50 * epoch, epoch)
    assert [filled.rate(i) for i in (20 * epoch - 1, 20 * epoch)] == pytest.approx([1e-3, 1e-4])
    assert (filled.mode, filled.init, filled.weight_decay) == ("bilinear-corners", "torch", 0.0)
    fixed = LinearSettings().resolved(exemplars)
    assert (fixed.batch, fixed.steps, fixed.redraw_noise) == (1, {1: 600, 4: 1200, 10: 1897}[exemplars], 0)


def test_a_step_is_adam_on_the_mean_of_the_exemplars_mean_losses():
    generator, exemplars = TinyGenerator(), exemplars_of(TinyGenerator(), (3, 5, 8))
    exemplars[0].mask[:12] = 255  # an image counts as much as any other, however little of it is painted
    settings = LinearSettings(profile="release", steps=2, redraw_noise=0, lr=0.1, schedule="constant")
    found = Linear().fit(generator, exemplars, LABELS, settings, seed=6)
    start = linear._start(3, found.widths, "torch", torch.Generator().manual_seed(6))
    for part, width in zip(start.split(list(found.widths), dim=1), found.widths, strict=True):
        assert 0.7 * width**-0.5 < float(part.abs().max()) <= width**-0.5
    weight = start.double().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=0.1)
    ws, masks = torch.cat([e.ws for e in exemplars]), np.stack([e.mask for e in exemplars])
    dense = generator.synthesize(ws).pyramid.with_mode("bilinear-corners").dense().double()
    for _ in range(2):
        logits = torch.einsum("kc,nchw->nkhw", weight, dense)
        masks_long = torch.from_numpy(masks.astype("int64"))
        each = [F.cross_entropy(logits[i : i + 1], masks_long[i : i + 1], ignore_index=255) for i in range(3)]
        optimizer.zero_grad()
        torch.stack(each).mean().backward()
        optimizer.step()
    torch.testing.assert_close(found.weight.double(), weight.detach(), atol=1e-4, rtol=1e-4)


def test_the_rate_falls_as_its_schedule_says():
    rates = {s: LinearSettings(schedule=s, lr=1.0, steps=10).resolved(1) for s in ("cosine", "drop", "constant")}
    assert [rates["drop"].rate(i) for i in (0, 3, 4, 9)] == [1.0, 1.0, 0.1, 0.1]
    assert rates["constant"].rate(9) == 1.0
    assert rates["cosine"].rate(0) == 1.0 and rates["cosine"].rate(5) == pytest.approx(0.5)


def test_only_the_chosen_taps_are_read():
    generator = TinyGenerator()
    segmenter = Linear().fit(generator, exemplars_of(generator, (3,)), LABELS, replace(QUICK, min_resolution=8))
    assert segmenter.taps == ("b8.conv1", "b16.conv1") and segmenter.weight.shape == (3, 11)
    with pytest.raises(UsageError, match="min_resolution"):
        Linear().fit(generator, exemplars_of(generator, (3,)), LABELS, replace(QUICK, min_resolution=64))


def test_a_file_with_other_tensors_is_refused(tmp_path):
    generator = TinyGenerator()
    Linear().fit(generator, exemplars_of(generator, (3,)), LABELS, QUICK).save(tmp_path / "s")
    segmenter_file.write(tmp_path / "wrong", methods.read_header(tmp_path / "s"), {"weight": torch.zeros(3, 4)})
    with pytest.raises(UsageError, match="other tensors"):
        methods.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    "wrong",
    [
        {"profile": "releas"},
        {"mode": "cubic"},
        {"lr": 0.0},
        {"steps": 0},
        {"feature_dropout": 1.0},
        {"combine": "x"},
        {"batch": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        LinearSettings(**wrong)
