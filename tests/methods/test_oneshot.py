"""oneshot: the contract, that it learns, and that each of its parts does what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.methods.contract import LABELS, MethodContract
from helpers.methods.tiny_generator import SIDE, TinyGenerator, exemplars_of, linear_truth

from gansegctl import methods
from gansegctl.errors import GansegError, UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.methods import oneshot
from gansegctl.methods.oneshot import OneShotSettings, _painted_points, _restyled, channel_weights, style_of

QUICK = OneShotSettings(members=2, hidden=(12,), steps=60, batch=128, lr=0.02, statistics_samples=4, noise=0.3)


class TestOneShot(MethodContract):
    name = "oneshot"
    settings = QUICK


def accuracy(settings, seeds=(3,), samples=range(200, 208)):
    g = TinyGenerator()
    segmenter = methods.get("oneshot").fit(g, exemplars_of(g, seeds), LABELS, settings, 0)
    synthesis = g.synthesize(g.latents(samples))
    labels = segmenter.predict(g, synthesis).labels.numpy()
    return (labels == linear_truth(synthesis.pyramid)).mean()


def test_learns_a_labelling_from_a_few_images():
    assert accuracy(replace(QUICK, steps=120), seeds=(3, 5, 7)) > 0.8


def test_without_steps_to_speak_of_it_knows_nothing():
    assert accuracy(OneShotSettings(members=1, hidden=(12,), steps=1, lr=1e-6)) < 0.65


@pytest.mark.parametrize("part", ["noise", "level_balance", "level_dropout", "balance", "members", "restyle", "prior"])
def test_every_part_changes_the_fit(part):
    g = TinyGenerator()
    off = {"members": 1}.get(part, 0.0)
    exemplars, ws = exemplars_of(g, (3,)), g.latents(range(4))
    fits = [
        methods.get("oneshot").fit(g, exemplars, LABELS, OneShotSettings(**{**vars(QUICK), **change}), 0)
        for change in ({}, {part: off})
    ]
    a, b = (f.predict(g, g.synthesize(ws), probabilities=True).probabilities for f in fits)
    assert not torch.equal(a, b)


def test_the_temperature_moves_confidences_and_not_masks():
    g, ws = TinyGenerator(), TinyGenerator().latents(range(4))
    of, last = {}, {}
    for t in (1.0, 3.0, None):
        settings = OneShotSettings(**{**vars(QUICK), "temperature": t, "members": 1})
        segmenter = methods.get("oneshot").fit(g, exemplars_of(g, (3,)), LABELS, settings, 0)
        of[t] = segmenter.predict(g, g.synthesize(ws))
        last[t] = torch.cat([segmenter.weights[-1], segmenter.biases[-1]], dim=1)
    torch.testing.assert_close(last[3.0] * 3, last[1.0])
    torch.testing.assert_close(last[None] * 2, last[1.0])
    assert torch.equal(of[1.0].labels, of[3.0].labels) and of[3.0].confidence.float().mean() < 250
    assert of[None].confidence.float().mean() < of[1.0].confidence.float().mean()
    assert OneShotSettings().resolved(1).temperature == 2.0
    assert OneShotSettings().resolved(25).temperature == pytest.approx(1.6)
    with pytest.raises(UsageError, match="temperature"):
        OneShotSettings(temperature=0.0)


def test_the_prior_moves_each_logit_by_the_logarithm_of_its_class_share():
    g = TinyGenerator()
    exemplars = exemplars_of(g, (3,))
    without, half = (
        methods.get("oneshot").fit(g, exemplars, LABELS, OneShotSettings(**{**vars(QUICK), "prior": p}), 0)
        for p in (0.0, 0.5)
    )
    counts = np.bincount(exemplars[0].mask.ravel(), minlength=len(LABELS))
    moved = half.biases[-1] - without.biases[-1]
    wanted = (
        0.5 / 2.0 * torch.tensor(counts / counts.sum()).clamp(min=oneshot.LEAST_SHARE).log()
    )  # prior over temperature
    torch.testing.assert_close(moved, wanted.float().expand_as(moved), atol=1e-5, rtol=1e-4)


def test_noise_in_training_makes_it_less_sure():
    g = TinyGenerator()
    exemplars, ws = exemplars_of(g, (3,)), g.latents(range(300, 304))
    sure = []
    for noise in (0.0, 3.0):
        settings = OneShotSettings(**{**vars(QUICK), "noise": noise})
        segmenter = methods.get("oneshot").fit(g, exemplars, LABELS, settings, 0)
        sure.append(segmenter.predict(g, g.synthesize(ws)).confidence.float().mean())
    assert sure[1] < sure[0]


def test_pixels_of_an_exemplar_are_bounded_and_ignored_ones_left_out():
    g = TinyGenerator()
    exemplar = exemplars_of(g, (3,))[0]
    exemplar.mask[:4] = 255
    stream = torch.Generator().manual_seed(0)
    points, classes = _painted_points([exemplar, exemplar], 50, stream)
    assert len(points) == len(classes) == 100
    assert points[:, 0].bincount().tolist() == [50, 50]
    assert int(points[:, 1].min()) >= 4
    assert len(points[:50].unique(dim=0)) == 50
    everything, _ = _painted_points([exemplar], 10_000, stream)
    assert len(everything) == (SIDE - 4) * SIDE
    assert np.array_equal(classes[:50].numpy(), exemplar.mask[points[:50, 1], points[:50, 2]])


def test_a_loss_that_is_not_finite_is_an_error():
    g = TinyGenerator()
    with pytest.raises(GansegError, match="lower the method's lr"):
        methods.get("oneshot").fit(g, exemplars_of(g, (3,)), LABELS, OneShotSettings(lr=1e30, steps=20, hidden=(8,)), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"members": 0},
        {"steps": 0},
        {"batch": 0},
        {"lr": 0.0},
        {"noise": -1.0},
        {"level_dropout": 0.95},
        {"balance": 2.0},
        {"hidden": ()},
        {"hidden": "a,b"},
        {"hidden": (0,)},
        {"mode": "cubic"},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        OneShotSettings(**changes)


def test_a_file_whose_tensors_are_not_its_settings_is_refused(tmp_path):
    g = TinyGenerator()
    segmenter = methods.get("oneshot").fit(g, exemplars_of(g, (3,)), LABELS, QUICK, 0)
    segmenter.weights[0] = segmenter.weights[0][:, :, :5]
    segmenter.save(tmp_path / "s.safetensors")
    with pytest.raises(UsageError, match="other tensors"):
        methods.load(tmp_path / "s.safetensors")


def test_a_restyled_pixel_has_the_place_in_the_other_style_that_it_had_in_its_own():
    """All of the way: (x − own mean)/own deviation is what stays; no way: x stays."""
    stream = torch.Generator().manual_seed(0)
    x, own = torch.randn(2, 16, 5, generator=stream), torch.rand(2, 2, 16, 5, generator=stream) + 0.5
    other = torch.tensor([[3.0], [0.1]]).expand(2, 5)[:, None]  # one style: mean 3, deviation 0.1
    same = _restyled(x, own, other, 0.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(same, x)
    y = _restyled(x, own, other, 1.0, torch.Generator().manual_seed(1))
    place = (x - own[0]) / own[1]
    way = ((y - x) / (place * 0.1 + 3.0 - x))[..., 0]  # both lerps are linear in it
    assert float(way.min()) > -1e-4 and float(way.max()) < 1 + 1e-4
    torch.testing.assert_close(way[:, ::2], way[:, 1::2], atol=1e-3, rtol=1e-3)  # two pixels a group of sixteen
    assert len(way[0].unique()) >= 8


def test_style_is_mean_and_deviation_of_each_image():
    g = TinyGenerator()
    pyramid = g.synthesize(g.latents([1, 2])).pyramid
    mean, deviation = style_of(pyramid)
    assert mean.shape == deviation.shape == (2, pyramid.channels)
    first = pyramid.levels[0]
    torch.testing.assert_close(mean[:, : first.shape[1]], first.mean(dim=(2, 3)))
    torch.testing.assert_close(deviation[1, 0].square() - 1e-2, first[1, 0].var(correction=0))


def test_levels_count_alike_however_wide_they_are():
    widths = (8, 4, 2)
    squares = [float(w.square().sum()) for w in channel_weights(widths, 0.5).split(widths)]
    assert squares == pytest.approx([14 / 3] * 3, rel=1e-5)  # C^-½: each level has the same energy
    whole = channel_weights(widths, 1.0)
    assert float(whole.square().mean()) == pytest.approx(1.0)
    assert float(whole[0] / whole[-1]) == pytest.approx(2 / 8)
    assert torch.equal(channel_weights(widths, 0.0), torch.ones(14))


def test_a_segmenter_reads_raw_channels_with_the_weights_they_were_learned_with(monkeypatch):
    g, kept, plain = TinyGenerator(), [], oneshot._fit_members

    def fit(*args):
        weights, biases, loss = plain(*args)
        kept.append(weights[0].clone())
        return weights, biases, loss

    def statistics(*args):
        return torch.zeros(19), torch.full((19,), 2.0)

    monkeypatch.setattr(oneshot, "_fit_members", fit)
    monkeypatch.setattr(oneshot, "feature_statistics", statistics)
    settings = replace(QUICK, level_balance=2.0, steps=2)
    segmenter = methods.get("oneshot").fit(g, exemplars_of(g, (3,)), LABELS, settings, 0)
    wanted = kept[0] * channel_weights(segmenter.widths, 2.0)[:, None] * 2.0
    torch.testing.assert_close(segmenter.weights[0], wanted)


def test_more_exemplars_are_learned_longer_and_varied_less():
    one, four = OneShotSettings().resolved(1), OneShotSettings().resolved(4)
    assert (one.steps, one.restyle, one.noise, one.level_dropout) == (300, 1.0, 1.0, 0.2)
    assert (four.steps, four.restyle, four.noise, four.level_dropout) == (600, 0.5, 0.5, 0.1)
    chosen = OneShotSettings(steps=7, noise=0.0).resolved(4)
    assert (chosen.steps, chosen.noise, chosen.restyle) == (7, 0.0, 0.5)
    assert chosen.resolved(9) == chosen


def test_what_is_kept_are_the_settings_that_were_used():
    g = TinyGenerator()
    settings = OneShotSettings(members=1, hidden=(4,), batch=16, statistics_samples=1, steps=2)
    segmenter = methods.get("oneshot").fit(g, exemplars_of(g, (3, 5, 7, 9)), LABELS, settings, 0)
    assert segmenter.settings["noise"] == 0.5 and segmenter.settings["steps"] == 2


@pytest.mark.parametrize("seeds", [(3,), (3, 5, 7)])
def test_pixels_gathered_at_every_step_teach_the_same(seeds, monkeypatch):
    g = TinyGenerator()
    exemplars = exemplars_of(g, seeds)
    asked, plain = [], FeaturePyramid.at
    monkeypatch.setattr(FeaturePyramid, "at", lambda self, points: asked.append(len(points)) or plain(self, points))
    settings = OneShotSettings(members=2, hidden=(6,), batch=20, statistics_samples=2, steps=3)
    once = methods.get("oneshot").fit(g, exemplars, LABELS, settings, 0)
    assert sum(asked) == len(seeds) * SIDE * SIDE
    asked.clear()
    monkeypatch.setattr(oneshot, "HELD", 1000)
    each = methods.get("oneshot").fit(g, exemplars, LABELS, settings, 0)
    assert asked == [40] * 3
    for name, tensor in once.tensors().items():
        assert torch.equal(tensor, each.tensors()[name]), name


def test_styles_are_kept_by_image_not_by_pixel(monkeypatch):
    g, seen = TinyGenerator(), []
    monkeypatch.setattr(oneshot, "_restyled", lambda x, own, *rest: seen.append(own) or _restyled(x, own, *rest))
    settings = OneShotSettings(members=2, hidden=(6,), batch=20, statistics_samples=2, steps=1)
    methods.get("oneshot").fit(g, exemplars_of(g, (3,)), LABELS, settings, 0)
    methods.get("oneshot").fit(g, exemplars_of(g, (3, 5)), LABELS, settings, 0)
    assert [tuple(own.shape) for own in seen] == [(2, 1, 1, 19), (2, 2, 20, 19)]
    assert len(seen[1].flatten(1, 2)[0].unique(dim=0)) == 2


def test_restyling_without_samples_is_refused_where_it_was_asked_for():
    g = TinyGenerator()

    def fit(restyle):
        settings = replace(QUICK, statistics_samples=0, steps=2, restyle=restyle)
        return methods.get("oneshot").fit(g, exemplars_of(g, (3,)), LABELS, settings, 0)

    with pytest.raises(UsageError, match=r"restyle 0\.5 with statistics_samples 0"):
        fit(restyle=0.5)
    segmenter = fit(restyle=None)
    assert segmenter.settings["restyle"] == 0
