"""repurpose: the contract for every kind of head, its architecture, and that it learns what can be learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.methods.contract import LABELS, MethodContract
from helpers.methods.tiny_generator import TinyGenerator, exemplars_of, linear_truth

from gansegctl.errors import GansegError, UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.kernels import cpu_ops
from gansegctl.labels import LabelMap
from gansegctl.methods.base import fitting
from gansegctl.methods.base.fitting import cross_entropy, learning_rate, soft_targets
from gansegctl.methods.base.heads import CNN_HEADS, make_head
from gansegctl.methods.repurpose import Repurpose, RepurposeSettings

QUICK = RepurposeSettings(steps=12, statistics_samples=3)


class TestCnnS(MethodContract):
    name, settings = "repurpose", QUICK


class TestMlp(MethodContract):
    name, settings = (
        "repurpose",
        replace(QUICK, head="mlp", mlp_hidden=(24, 12), batch=2, feature_dropout=0.1, lr=1e-2, steps=24),
    )


class TestRelease(MethodContract):
    name = "repurpose"
    settings = replace(QUICK, profile="release", flip=True, balance="sqrt-inverse", label_smoothing=0.05)


class TestOfficial(MethodContract):
    name = "repurpose"
    settings = replace(QUICK, profile="release", head="official", steps=30, lr=5e-3)


class TestOfficialFixed(MethodContract):
    name, settings = "repurpose", replace(QUICK, head="official", steps=30)


def decided(pyramid):
    return linear_truth(pyramid, classes=2, undecided=0.3)


@pytest.mark.parametrize(
    ("head", "steps"), [("cnn-s", 40), ("cnn-m", 40), ("cnn-l", 80), ("official", 160), ("mlp", 60)]
)
def test_learns_a_labelling_that_the_features_decide(head, steps):
    generator = TinyGenerator()
    exemplars = exemplars_of(generator, [*range(60), *range(200, 240)], decided)
    shown, fresh = exemplars[:60], exemplars[60:]
    settings = RepurposeSettings(head=head, mlp_hidden=(64, 32), steps=steps, lr=4e-3, batch=4)
    segmenter = Repurpose().fit(generator, shown, LabelMap(("below", "above")), settings)
    synthesis = generator.synthesize(torch.cat([e.ws for e in fresh]), taps=segmenter.taps)
    labels, truth = segmenter.predict(generator, synthesis).labels.numpy(), np.stack([e.mask for e in fresh])
    assert (labels == truth)[truth != 255].mean() > 0.9
    assert 0.3 < (truth[truth != 255] == 1).mean() < 0.7  # so that no constant answer passes


def test_heads_are_the_published_ones():
    assert CNN_HEADS["cnn-s"] == ((128, 64, 64, 32), (1, 2, 1, 2, 1))
    assert CNN_HEADS["cnn-m"] == ((128, 64, 64, 64, 64, 32), (1, 2, 4, 1, 2, 4, 1))
    assert CNN_HEADS["cnn-l"] == ((128, 64, 64, 64, 64, 64, 64, 32), (1, 2, 4, 8, 1, 2, 4, 8, 1))


@pytest.mark.parametrize("name", ["cnn-s", "cnn-m", "cnn-l", "mlp"])
def test_a_head_equals_plain_layers_on_the_hypercolumn(name):
    pyramid = TinyGenerator().synthesize(TinyGenerator().latents([1, 2])).pyramid
    head = make_head(name, pyramid.channels, 5, (600, 7), torch.Generator().manual_seed(0))
    dilations, slope, k = (CNN_HEADS[name][1], 0.2, 3) if name != "mlp" else ((1, 1, 1), 0.0, 1)
    x = pyramid.dense()
    for i, (weight, bias, d) in enumerate(zip(head.weights, head.biases, dilations, strict=True)):
        assert weight.shape[2:] == (k, k)
        assert bool((bias == 0).all())
        x = F.conv2d(x if i == 0 else F.leaky_relu(x, slope), weight, bias, padding=d * (k // 2), dilation=d)
    torch.testing.assert_close(head(pyramid), x, atol=1e-4, rtol=1e-4)


def official_layers(pyramid_dense, weights, biases):
    """The head that Tritrong et al. released, in plain layers; the weights' shapes are asserted on the way."""
    widths, dilations = (128, 64, 64, 64, 64, 64, 64, 32, 5), (1, 2, 4, 8, 1, 2, 4, 8, 1)
    x, kernels = pyramid_dense, (1, *[3] * 8)
    for i, (w, b, d, k, width) in enumerate(zip(weights, biases, dilations, kernels, widths, strict=True)):
        assert w.shape == (width, x.shape[1], k, k)
        x = F.conv2d(F.leaky_relu(x, 0.01) if i else x, w, b, padding=d * (k // 2), dilation=d)
    return x


@pytest.mark.parametrize("mode", ["bilinear-corners", "nearest"])
def test_the_official_head_equals_plain_layers_on_the_hypercolumn_in_double(mode):
    generator = TinyGenerator()
    pyramid = generator.synthesize(generator.latents([1, 2])).pyramid.map(lambda x: x.double()).with_mode(mode)
    stream = torch.Generator().manual_seed(0)
    head = make_head("official", pyramid.channels, 5, generator=stream).double()
    for bias in head.biases:
        bias.data.normal_(generator=stream)
    mean, scale = (torch.rand(pyramid.channels, dtype=torch.float64, generator=stream) + 0.5 for _ in range(2))
    plain = official_layers(pyramid.dense(), head.weights, head.biases)
    torch.testing.assert_close(head(pyramid), plain, atol=1e-11, rtol=1e-11)
    gain = (torch.rand(pyramid.channels, dtype=torch.float64, generator=stream) > 0.5).double()
    dropped = official_layers(pyramid.dense() * gain.view(1, -1, 1, 1), head.weights, head.biases)
    torch.testing.assert_close(head(pyramid, gain), dropped, atol=1e-11, rtol=1e-11)
    shown = (pyramid.dense() - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
    wanted = official_layers(shown, head.weights, head.biases).detach()
    head.fold(mean, scale)
    torch.testing.assert_close(head(pyramid), wanted, atol=1e-11, rtol=1e-11)


def test_the_official_head_projects_its_first_layer_and_convolves_no_pyramid(monkeypatch):
    generator, asked = TinyGenerator(), []
    pyramid = generator.synthesize(generator.latents([0])).pyramid
    plain = FeaturePyramid.project
    monkeypatch.setattr(FeaturePyramid, "project", lambda self, w, b=None: asked.append(len(w)) or plain(self, w, b))
    monkeypatch.setattr(FeaturePyramid, "conv", lambda *a: pytest.fail("a pyramid was convolved"))
    make_head("official", pyramid.channels, 3, generator=torch.Generator().manual_seed(0))(pyramid)
    assert asked == [128]


def test_the_official_head_is_trained_as_released_under_release_alone():
    release = RepurposeSettings(profile="release", head="official").resolved(3, 720)
    assert (release.mode, release.init, release.standardise, release.min_resolution) == (
        "bilinear-corners",
        "torch",
        False,
        8,
    )
    assert (release.steps, release.batch, release.lr, release.weight_decay) == (3000, 1, 1e-3, 1e-3)
    rates = [learning_rate(release, 150 * i) for i in range(4)]  # 50 epochs of 3 exemplars
    assert rates == pytest.approx([1e-3, 9e-4, 8.1e-4, 7.29e-4])
    assert learning_rate(release, 149) == 1e-3
    fixed = RepurposeSettings(head="official").resolved(1, 720)
    assert replace(fixed, head="cnn-s") == RepurposeSettings().resolved(1, 720)
    generator = TinyGenerator()
    settings = RepurposeSettings(profile="release", head="official", steps=1)
    assert Repurpose().fit(generator, exemplars_of(generator, [1]), LABELS, settings).taps == ("b8.conv1", "b16.conv1")
    own = replace(settings, min_resolution=0)
    assert len(Repurpose().fit(generator, exemplars_of(generator, [1]), LABELS, own).taps) == 3


@pytest.mark.parametrize("name", ["cnn-l", "mlp"])
def test_he_weights_keep_the_signal_and_torch_weights_lose_it(name):
    stream = torch.Generator().manual_seed(0)
    noise = FeaturePyramid([torch.randn(1, 64, 32, 32, generator=stream)], (32, 32))
    with torch.no_grad():
        heads = (make_head(name, 64, 8, (256, 64), stream, init) for init in ("he", "torch"))
        he, plain = (float(head(noise).std(dim=(2, 3)).mean()) for head in heads)  # over pixels: biases do not count
    assert he > 0.2 and he > 3 * plain


@pytest.mark.parametrize("name", ["cnn-s", "mlp"])
def test_folded_standardisation_is_exact_up_to_the_border(name):
    generator = TinyGenerator()
    pyramid = generator.synthesize(generator.latents([4, 9])).pyramid
    stream = torch.Generator().manual_seed(2)
    mean, scale = torch.randn(pyramid.channels, generator=stream), torch.rand(pyramid.channels, generator=stream) + 0.5
    head = make_head(name, pyramid.channels, 3, (16, 8), stream)
    dense = (pyramid.dense() - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
    wanted = head(type(pyramid)([dense], pyramid.size))
    head.fold(mean, scale)
    torch.testing.assert_close(head(pyramid), wanted, atol=1e-4, rtol=1e-4)


def test_a_wide_perceptron_never_holds_its_hidden_maps_at_once(monkeypatch):
    generator = TinyGenerator()
    pyramid = generator.synthesize(generator.latents([0])).pyramid
    asked = []
    plain = cpu_ops.project
    monkeypatch.setattr(cpu_ops, "project", lambda maps, w, *rest: asked.append(len(w)) or plain(maps, w, *rest))
    make_head("mlp", pyramid.channels, 3, (2000, 200), torch.Generator().manual_seed(0))(pyramid)
    assert sum(asked) == 2000 and max(asked) <= 256


def test_standardising_makes_the_scale_of_a_channel_irrelevant():
    class Stretched(TinyGenerator):
        def synthesize(self, ws, noise="const", taps=None, seeds=None):
            synthesis = super().synthesize(ws, noise, taps, seeds)
            first, *rest = synthesis.pyramid.levels
            synthesis.pyramid = type(synthesis.pyramid)([first * 30 + 7, *rest], synthesis.pyramid.size)
            return synthesis

    exemplars, found = exemplars_of(TinyGenerator(), [1, 2]), []
    for kind in (TinyGenerator, Stretched):
        for standardise in (True, False):
            generator = kind()
            segmenter = Repurpose().fit(generator, exemplars, LABELS, replace(QUICK, standardise=standardise))
            found.append(segmenter.logits(generator, generator.synthesize(generator.latents([50]))))
    with_it, without = (found[0] - found[2]).abs().mean(), (found[1] - found[3]).abs().mean()
    assert with_it < 0.05 * without


@pytest.mark.parametrize("samples", [0, 4])
def test_taps_are_chosen_by_resolution(samples):
    generator = TinyGenerator()
    settings = replace(QUICK, min_resolution=8, max_resolution=8, statistics_samples=samples)
    segmenter = Repurpose().fit(generator, exemplars_of(generator, [1]), LABELS, settings)
    assert segmenter.taps == ("b8.conv1",) and segmenter.widths == (6,)
    with pytest.raises(UsageError, match="channels"):
        segmenter.predict(generator, generator.synthesize(generator.latents([1])))
    with pytest.raises(UsageError, match="4, 8, 16"):
        Repurpose().fit(generator, exemplars_of(generator, [1]), LABELS, replace(QUICK, min_resolution=32))


def test_profiles_fill_in_what_is_not_set_and_nothing_else():
    fixed = RepurposeSettings().resolved(1, 720)
    assert (fixed.mode, fixed.standardise, fixed.steps, fixed.schedule) == ("bilinear", True, 80, "cosine")
    assert fixed.mlp_hidden == (720, 180) and RepurposeSettings().resolved(1, 5376).mlp_hidden == (2000, 200)
    release = RepurposeSettings(profile="release", steps=5, mlp_hidden=(9,)).resolved(3, 720)
    assert (release.mode, release.standardise, release.steps, release.schedule) == ("nearest", False, 5, "step")
    assert release.lr == release.weight_decay == 1e-3 and release.mlp_hidden == (9,)
    assert RepurposeSettings(profile="release").resolved(10, 720).steps == 100
    assert [RepurposeSettings().resolved(k, 720).steps for k in (4, 10)] == [160, 253]
    assert fixed.resolved(4, 99) == fixed


def test_hidden_widths_are_read_from_text_and_lists():
    assert (
        RepurposeSettings(mlp_hidden="40, 20").mlp_hidden
        == RepurposeSettings(mlp_hidden=[40, 20]).mlp_hidden
        == (40, 20)
    )
    for wrong in ("40;20", "", "4,-1", [0]):
        with pytest.raises(UsageError, match="mlp_hidden"):
            RepurposeSettings(mlp_hidden=wrong)


def test_the_mode_of_a_fit_is_the_mode_of_its_predictions():
    generator = TinyGenerator()
    segmenter = Repurpose().fit(generator, exemplars_of(generator, [1]), LABELS, replace(QUICK, mode="nearest"))
    synthesis = generator.synthesize(generator.latents([8]))
    wanted = segmenter.head(synthesis.pyramid.with_mode("nearest"))
    assert torch.equal(segmenter.logits(generator, synthesis), wanted)
    assert not torch.allclose(wanted, segmenter.head(synthesis.pyramid))


def test_balance_and_smoothing_give_the_stated_targets_and_weights():
    masks = torch.zeros(1, 4, 8, dtype=torch.int64)
    masks[0, 0, :2], masks[0, 3] = 1, 255  # 22 of class 0, 2 of class 1, 8 ignored
    targets, weights = soft_targets(masks, 3, 0.3, "sqrt-inverse")
    torch.testing.assert_close(targets[0, :, 0, 0], torch.tensor([0.1, 0.8, 0.1]))
    assert weights[0, 3].tolist() == [0.0] * 8 and float(weights.sum()) == pytest.approx(24)
    assert float(weights[0, 0, 0] / weights[0, 1, 0]) == pytest.approx(11**0.5)
    plain = soft_targets(masks, 3, 0.0, "none")
    assert plain[0].unique().tolist() == [0.0, 1.0] and plain[1].flatten().tolist() == [1.0] * 24 + [0.0] * 8


def test_cross_entropy_is_that_of_torch():
    stream = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(2, 3, 4, 4, generator=stream), torch.randint(3, (2, 4, 4), generator=stream)
    masks[0, 0] = 255
    wanted = F.cross_entropy(logits, masks, ignore_index=255, label_smoothing=0.2)
    torch.testing.assert_close(cross_entropy(logits, *soft_targets(masks, 3, 0.2, "none")), wanted)


def test_learning_rates_follow_their_schedules():
    settings = RepurposeSettings(steps=100, lr=1.0)
    schedules = ("cosine", "step", "constant")
    rates = {s: [learning_rate(replace(settings, schedule=s), t) for t in (0, 50, 99)] for s in schedules}
    assert rates["cosine"][:2] == pytest.approx([1.0, 0.5]) and 0 < rates["cosine"][2] < 1e-3
    assert rates["step"] == pytest.approx([1.0, 0.1, 0.1]) and rates["constant"] == [1.0, 1.0, 1.0]


def test_every_exemplar_is_seen_before_any_comes_again(monkeypatch):
    seen = []

    def watch(logits, targets, weights):
        seen.extend(weights.flatten(1).sum(dim=1).tolist())
        return cross_entropy(logits, targets, weights)

    monkeypatch.setattr(fitting, "cross_entropy", watch)
    generator, exemplars = TinyGenerator(), exemplars_of(TinyGenerator(), range(4))
    for i, exemplar in enumerate(exemplars):
        exemplar.mask[0, : i + 1] = 255  # exemplar i counts 255 − i pixels
    Repurpose().fit(generator, exemplars, LABELS, replace(QUICK, steps=8))
    assert sorted(seen[:4]) == sorted(seen[4:]) == [252.0, 253.0, 254.0, 255.0]


def test_score_is_higher_for_images_unlike_the_exemplars():
    generator = TinyGenerator()
    segmenter = Repurpose().fit(generator, exemplars_of(generator, [1]), LABELS, replace(QUICK, steps=60))
    known = segmenter.predict(generator, generator.synthesize(generator.latents([1]))).score
    unknown = segmenter.predict(generator, generator.synthesize(generator.latents(range(300, 310)))).score
    assert float(known) < float(unknown.mean())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"head": "cnn-x"}, "did you mean 'cnn-"),
        ({"profile": "relase"}, "did you mean 'release'"),
        ({"mode": "bicubic"}, "bilinear"),
        ({"schedule": "linear"}, "cosine"),
        ({"balance": "inverse"}, "sqrt-inverse"),
        ({"steps": 0}, "steps"),
        ({"lr": 0.0}, "lr"),
        ({"feature_dropout": 1.0}, "feature_dropout"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        RepurposeSettings(**wrong)


def test_a_perceptron_without_hidden_layers_is_refused():
    with pytest.raises(UsageError, match="hidden"):
        make_head("mlp", 10, 3, ())


def test_a_fit_that_diverges_says_so():
    class Broken(TinyGenerator):
        def synthesize(self, ws, noise="const", taps=None, seeds=None):
            synthesis = super().synthesize(ws, noise, taps, seeds)
            synthesis.pyramid = synthesis.pyramid.map(lambda x: x * float("nan"))
            return synthesis

    with pytest.raises(GansegError, match="finite"):
        Repurpose().fit(Broken(), exemplars_of(TinyGenerator(), [1]), LABELS, QUICK)


def test_linear_truth_uses_every_class():
    generator = TinyGenerator()
    truth = linear_truth(generator.synthesize(generator.latents(range(8))).pyramid)
    assert np.bincount(truth.ravel(), minlength=3).min() > 0.1 * truth.size
