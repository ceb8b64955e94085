"""Statistics of channels, and their effect on images in other styles."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from helpers.methods.contract import LABELS
from helpers.methods.tiny_generator import TinyGenerator, exemplars_of

from gansegctl import methods
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.methods.base.fitting import feature_statistics, standardised

TAPS = ("b4.conv1", "b8.conv1", "b16.conv1")


def statistics(centred, samples=6, generator=None):
    g = generator or TinyGenerator()
    shown = g.synthesize(g.latents([1, 2]), taps=TAPS).pyramid
    return shown, *feature_statistics(g, TAPS, samples, "const", shown, torch.Generator().manual_seed(0), centred)


def test_centred_channels_have_mean_0_and_deviation_1_in_what_they_are_measured_on():
    shown, mean, scale = statistics(centred=True, samples=0)
    dense = standardised(shown, mean, scale).dense()
    torch.testing.assert_close(dense.mean(dim=(0, 2, 3)), torch.zeros(dense.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(dense.var(dim=(0, 2, 3), correction=0), torch.ones(dense.shape[1]), atol=2e-2, rtol=0)


def test_channels_that_are_not_centred_have_a_mean_square_of_1_and_keep_their_zero():
    shown, mean, scale = statistics(centred=False, samples=0)
    assert not mean.any()
    dense = standardised(shown, mean, scale).dense()
    torch.testing.assert_close(dense.square().mean(dim=(0, 2, 3)), torch.ones(dense.shape[1]), atol=2e-2, rtol=0)
    nothing = standardised(shown.map(torch.zeros_like), mean, scale)
    assert not any(level.any() for level in nothing.levels)


def test_what_is_divided_by_is_no_less_than_the_deviation():
    deviation, root = (1 / statistics(centred)[2] for centred in (True, False))
    assert bool((root >= deviation * 0.999).all()) and bool((root > deviation * 1.01).any())


@pytest.mark.parametrize("name", ["oneshot", "linear", "repurpose", "datasetgan", "contrastive"])
def test_methods_leave_channels_where_they_are_unless_asked(name, monkeypatch):
    method = methods.get(name)
    module = import_module(methods.METHODS[name].split(":")[0])
    asked = []

    def watched(*args):
        asked.append(args[6])
        return feature_statistics(*args)

    monkeypatch.setattr(module, "feature_statistics", watched)
    few = {"steps": 2, "statistics_samples": 2}
    if name == "contrastive":
        few |= {"pretrain_steps": 1, "draws": 1, "sinkhorn_rounds": 1, "pixels": 32, "prototypes": 4, "dimension": 4}
    g = TinyGenerator()
    weights = []
    for change in ({}, {"centre": True}):
        segmenter = method.fit(g, exemplars_of(g, (3,)), LABELS, method.settings_type(**few, **change), 0)
        weights.append(list(segmenter.tensors().values()))
        assert segmenter.settings["centre"] is bool(change)
    assert asked == [False, True]
    assert any(not torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_style_that_multiplies_channels_moves_the_zero_of_centred_ones_alone():
    shown, mean, scale = statistics(centred=False)
    gain = torch.linspace(0.5, 2, shown.channels)
    louder = FeaturePyramid(
        [x * k.view(1, -1, 1, 1) for x, k in zip(shown.levels, gain.split(shown.widths), strict=True)], shown.size
    )
    plain, styled = (standardised(p, mean, scale).dense() for p in (shown, louder))
    assert torch.equal(plain > 0, styled > 0)
    _, mean, scale = statistics(centred=True)
    plain, styled = (standardised(p, mean, scale).dense() for p in (shown, louder))
    assert not torch.equal(plain > 0, styled > 0)
