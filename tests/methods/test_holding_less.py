"""Methods that hold less, or make it again, learn the same; settings that would quietly mean nothing are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from methods.contract import LABELS, SEEDS
from methods.tiny import TinyGenerator, exemplars_of

from gansegctl.errors import GansegError, UsageError
from gansegctl.features import pyramid as pyramids
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.methods import contrastive, datasetgan, oneshot
from gansegctl.methods.area_guard import AreaGuard
from gansegctl.methods.contrastive import Contrastive, ContrastiveSettings
from gansegctl.methods.datasetgan import DatasetGAN, DatasetGANSettings
from gansegctl.methods.oneshot import OneShot, OneShotSettings
from gansegctl.methods.segment_in_style import SegmentInStyle, SegmentInStyleSettings

ONE_SHOT = OneShotSettings(members=2, hidden=(8,), batch=32, statistics_samples=2, steps=4, restyle=0.5)
ENSEMBLE = DatasetGANSettings(members=2, hidden="4,3", batch=16, steps=3)


def fit(method, settings):
    generator = TinyGenerator()
    segmenter = method.fit(generator, exemplars_of(generator, SEEDS), LABELS, settings, 0)
    return segmenter, segmenter.tensors()


@pytest.mark.parametrize("exemplars", [1, 2])
def test_oneshot_learns_the_same_from_pixels_held_and_gathered_at_every_step(monkeypatch, exemplars):
    generator = TinyGenerator()
    chosen = exemplars_of(generator, SEEDS[:exemplars])
    held = OneShot().fit(generator, chosen, LABELS, ONE_SHOT, 0).tensors()
    monkeypatch.setattr(oneshot, "HELD", 0)
    again = OneShot().fit(generator, chosen, LABELS, ONE_SHOT, 0).tensors()
    assert held.keys() == again.keys()
    for name, tensor in held.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0)


def test_contrastive_learns_the_same_where_maps_are_projected_at_every_step(monkeypatch):
    settings = ContrastiveSettings(projection="random", steps=4, statistics_samples=1)
    _, held = fit(Contrastive(), settings)
    monkeypatch.setattr(contrastive, "HELD", 0)
    _, again = fit(Contrastive(), settings)
    for name, tensor in held.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_perceptrons_gradients_are_the_same_where_its_hidden_maps_are_made_again(monkeypatch):
    torch.manual_seed(0)
    pyramid = FeaturePyramid([torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8, 8)], (8, 8))
    layers = [(torch.randn(130, 8), torch.randn(130)), (torch.randn(4, 130), torch.randn(4))]
    found = []
    for limit in (pyramids.HIDDEN, 0):
        monkeypatch.setattr(pyramids, "HIDDEN", limit)
        mine = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in layers]
        out = pyramid.perceptron(mine, 0.2)
        F.cross_entropy(out, out.argmax(dim=1)).backward()
        found.append([out.detach(), *(t.grad for pair in mine for t in pair)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_an_ensemble_without_steps_is_refused(sampling):
    for settings in (
        DatasetGANSettings(profile="release", members=2, hidden="4,3", batch=16, sampling=sampling),
        replace(ENSEMBLE, sampling=sampling, steps=0),
    ):
        with pytest.raises(UsageError, match=f"steps 0 with sampling {sampling}"):
            fit(DatasetGAN(), settings)


def test_balanced_pixels_are_of_every_class_alike_however_many_there_are():
    targets = torch.tensor([2] * 900 + [0] * 90 + [5] * 10)
    stream = torch.Generator().manual_seed(0)
    rows = datasetgan._balanced(*datasetgan._by_class(targets), (3, 4000), stream)
    assert rows.shape == (3, 4000)
    shares = torch.bincount(targets[rows.flatten()], minlength=6) / rows.numel()
    torch.testing.assert_close(shares[[0, 2, 5]], torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    of_rare = torch.bincount(rows[targets[rows] == 5] - 990, minlength=10).float()
    assert of_rare.min() > 0.8 * of_rare.mean()


def test_divergence_of_logits_may_be_negative_that_of_probabilities_not():
    logits = torch.tensor([[10.0, 0.0], [0.0, 0.0]])[:, :, None, None]  # two members, two classes, one pixel
    of_logits, _ = fit(DatasetGAN(), replace(ENSEMBLE, divergence="logits"))
    of_probabilities, _ = fit(DatasetGAN(), ENSEMBLE)
    assert of_logits._divergence(logits) < -0.2 and of_probabilities._divergence(logits) > 0


def test_restyling_without_samples_is_refused_where_it_was_asked_for():
    with pytest.raises(UsageError, match=r"restyle 0\.5 with statistics_samples 0"):
        fit(OneShot(), replace(ONE_SHOT, statistics_samples=0))
    segmenter, _ = fit(OneShot(), replace(ONE_SHOT, statistics_samples=0, restyle=None))
    assert segmenter.settings["restyle"] == 0


def test_segment_in_styles_release_upsamples_and_assigns_as_released():
    few = SegmentInStyleSettings(images=2, k=6, iterations=2, min_resolution=4, max_resolution=16)
    fixed, _ = fit(SegmentInStyle(), few)
    released, _ = fit(SegmentInStyle(), replace(few, profile="release"))
    assert [s.settings[k] for s in (fixed, released) for k in ("mode", "softness")] == [
        "bilinear",
        0.3,
        "bilinear-corners",
        0.0,
    ]


def test_masks_that_are_all_foreground_at_the_last_look_are_not_kept():
    full = torch.ones(4, 1, 8, 8)
    assert not AreaGuard().look(full, 25)
    with pytest.raises(GansegError, match="all-foreground"):
        AreaGuard().look(full, 50, last=True)
    part = torch.zeros(4, 1, 8, 8)
    part[:, :, :, :3] = 1
    assert not AreaGuard().look(part, 50, last=True)
