"""contrastive: the contract for both profiles and the controls, the heads, and that nothing is lost in folding."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.methods.contract import LABELS, MethodContract
from helpers.methods.tiny_generator import SIDE, TinyGenerator, exemplars_of, linear_truth

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import LabelMap
from gansegctl.methods.contrastive import method as contrastive
from gansegctl.methods.contrastive.heads import HEADS, one_shot_head
from gansegctl.methods.contrastive.method import Contrastive, ContrastiveSettings
from gansegctl.methods.contrastive.pretraining import random_projection

QUICK = ContrastiveSettings(dimension=16, statistics_samples=3, pretrain_steps=2, draws=2, steps=50, lr=3e-2)


class TestFixed(MethodContract):
    name, settings = "contrastive", QUICK
    invented = 0.06  # two steps of pre-training leave it uncertain of new images; chance is a quarter


class TestRelease(MethodContract):
    name, settings = "contrastive", replace(QUICK, profile="release", lr=2e-2, prototypes=64)


class TestReleaseLinear(MethodContract):
    name = "contrastive"
    settings = replace(QUICK, profile="release", lr=2e-2, prototypes=64, head="linear", marginals="histogram")


class TestLinearOnPrincipalAxes(MethodContract):
    name, settings = "contrastive", replace(QUICK, projection="pca", head="linear", steps=60, lr=5e-2)


def decided(pyramid):
    return linear_truth(pyramid, classes=2, undecided=0.3)


@pytest.mark.parametrize("head", list(HEADS))
def test_learns_a_labelling_that_the_features_decide(head):
    generator = TinyGenerator()
    exemplars = exemplars_of(generator, [*range(30), *range(200, 220)], decided)
    shown, fresh = exemplars[:30], exemplars[30:]
    settings = replace(QUICK, head=head, steps=30 if head in "sml" else 60, lr=4e-3 if head in "sml" else 2e-2, batch=2)
    segmenter = Contrastive().fit(generator, shown, LabelMap(("below", "above")), settings)
    synthesis = generator.synthesize(torch.cat([e.ws for e in fresh]), taps=segmenter.taps)
    labels = segmenter.predict(generator, synthesis).labels
    truth = torch.stack([torch.from_numpy(e.mask) for e in fresh])
    assert float((labels == truth)[truth != 255].float().mean()) > 0.85
    assert 0.3 < float((truth[truth != 255] == 1).float().mean()) < 0.7


def test_heads_are_the_published_ones():
    assert HEADS["xxs"] == ((), (1,)) and HEADS["xs"] == ((16, 8), (1, 2, 1))
    assert HEADS["s"] == ((128, 64, 64, 32), (1, 2, 1, 2, 1))
    assert HEADS["m"][1] == (1, 2, 4, 1, 2, 4, 1) and HEADS["l"][1] == (1, 2, 4, 8, 1, 2, 4, 8, 1)


@pytest.mark.parametrize("name", list(HEADS))
def test_folding_projection_and_statistics_is_exact_to_the_border(name):
    pyramid = TinyGenerator().synthesize(TinyGenerator().latents([1, 2])).pyramid
    stream = torch.Generator().manual_seed(0)
    weight = random_projection(11, 19, stream)
    mean, scale = torch.randn(19, generator=stream), torch.rand(19, generator=stream) + 0.5
    head = one_shot_head(name, 11, 3, stream)
    x = torch.einsum("dc,nchw->ndhw", weight, (pyramid.dense() - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1))
    for i, (w, b, d) in enumerate(zip(head.weights, head.biases, HEADS[name][1], strict=True)):
        x = F.conv2d(x if i == 0 else F.leaky_relu(x, 0.2), w, b, padding=d * (w.shape[-1] // 2), dilation=d)
    folded = head.behind(weight)
    folded.fold(mean, scale)
    torch.testing.assert_close(folded(pyramid), x, atol=1e-4, rtol=1e-4)


def test_labelling_makes_neither_hypercolumn_nor_projected_map(monkeypatch):
    generator = TinyGenerator()
    segmenter = Contrastive().fit(generator, exemplars_of(generator, [1]), LABELS, QUICK)

    def refuse(*args, **options):
        raise AssertionError("projected")

    monkeypatch.setattr(FeaturePyramid, "project", refuse)
    segmenter.predict(generator, generator.synthesize(generator.latents([5]), taps=segmenter.taps))
    assert segmenter.head.weights[0].shape == (3, 19, 3, 3)


def caught(monkeypatch, settings, generator=None):
    """The projection that a fit uses, and its facts."""
    kept = []
    plain = contrastive.Contrastive._projection

    def watch(self, *args):
        kept.append(plain(self, *args))
        return kept[-1]

    monkeypatch.setattr(contrastive.Contrastive, "_projection", watch)
    generator = generator or TinyGenerator()
    segmenter = Contrastive().fit(generator, exemplars_of(generator, [1]), LABELS, settings, seed=4)
    monkeypatch.undo()
    return kept[0][0], segmenter.facts


def test_random_is_where_contrastive_starts_and_facts_say_how_far_it_went(monkeypatch):
    random, facts = caught(monkeypatch, replace(QUICK, projection="random"))
    assert "pretrain_loss" not in facts and random.shape == (16, 19)
    still, _ = caught(monkeypatch, replace(QUICK, pretrain_steps=0))
    assert torch.equal(still, random)
    learned, facts = caught(monkeypatch, QUICK)
    moved = float((learned - random).norm() / random.norm())
    assert facts["projection_moved"] == pytest.approx(moved, abs=1e-6) and 0 < moved < 3.1e-4  # 1e-4, then 1.9e-4
    assert len(facts["pretrain_loss"]) == 2
    axes, _ = caught(monkeypatch, replace(QUICK, projection="pca"))
    assert axes.shape == (16, 19) and not torch.allclose(axes, random)
    gram = axes @ axes.T
    assert float((gram - torch.diag(gram.diagonal())).abs().max()) < 1e-4 * float(gram.max())


def test_fixed_views_keep_the_coarse_styles_and_release_does_not(monkeypatch):
    seen = []
    plain = contrastive.pretrain

    class Watched(TinyGenerator):
        def synthesize(self, ws, noise="const", taps=None, seeds=None):
            if inside and len(ws) == 2:
                seen.append((ws[0] - ws[1]).abs().amax(dim=1) > 0)
            return super().synthesize(ws, noise, taps, seeds)

    inside = []

    def watch(*args):
        inside.append(1)
        found = plain(*args)
        inside.clear()
        return found

    monkeypatch.setattr(contrastive, "pretrain", watch)
    for profile, coarse in (("fixed", False), ("release", True)):
        seen.clear()
        generator = Watched()
        settings = replace(QUICK, profile=profile, pretrain_steps=6, prototypes=64)
        Contrastive().fit(generator, exemplars_of(generator, [1]), LABELS, settings)
        assert len(seen) == 6
        assert any(bool(s[:2].any()) for s in seen) == coarse
        assert any(bool(s[2]) for s in seen) != coarse  # the last pair: never in the release


def test_prototypes_shrink_with_the_image():
    assert ContrastiveSettings().resolved(1, (256, 256)).pixels == 20_000
    assert ContrastiveSettings().resolved(1, (256, 256)).prototypes == 5000
    small = ContrastiveSettings().resolved(3, (64, 64))
    assert (small.pixels, small.prototypes, small.steps) == (1250, 312, 600)
    release = ContrastiveSettings(profile="release", prototypes=4000).resolved(1, (64, 64))
    assert (release.pixels, release.prototypes) == (4096, 4000)  # as asked for
    gui = ContrastiveSettings(profile="release", prototypes=8000).resolved(1, (256, 256))
    assert (gui.pixels, gui.prototypes) == (20_000, 8000)
    with pytest.raises(UsageError, match=r"5000 prototypes for draws of 4096 pixels.*\n.*at most 4096"):
        ContrastiveSettings(profile="release").resolved(1, (64, 64))
    control = ContrastiveSettings(profile="release", projection="random")
    assert control.resolved(1, (64, 64)).projection == "random"  # which learns no prototypes
    assert ContrastiveSettings(pixels=100, prototypes=8).resolved(1, (64, 64)).prototypes == 8
    assert ContrastiveSettings(pixels=100).resolved(1, (64, 64)).prototypes == 25
    assert small.resolved(9, (64, 64)) == small
    assert ContrastiveSettings().resolved(1, (1024, 1024)).pixels == 20_000


def test_profiles_fill_in_what_is_not_set_and_nothing_else():
    profiles = (ContrastiveSettings(profile=p, prototypes=64) for p in ("fixed", "release"))
    fixed, release = (s.resolved(1, (SIDE, SIDE)) for s in profiles)
    for s, values in (
        (fixed, ("bilinear", True, "he", True, True, 16, True)),
        (release, ("nearest", False, "torch", False, False, 0, False)),
    ):
        fields = ("mode", "standardise", "init", "aligned", "single_truncation", "perturb_from", "perturb_last")
        assert tuple(getattr(s, f) for f in fields) == values
    assert (fixed.truncation, release.truncation) == (1.0, 0.7)
    assert ContrastiveSettings(truncation=0.5).resolved(1, (SIDE, SIDE)).truncation == 0.5
    own = replace(release, aligned=True, mode="bilinear", perturb_last=None).resolved(1, (SIDE, SIDE))
    assert own.aligned and own.mode == "bilinear" and own.perturb_last is False


def test_the_released_head_has_twelve_outputs_of_which_the_classes_are_kept(monkeypatch):
    widths = []
    plain = contrastive.one_shot_head
    monkeypatch.setattr(contrastive, "one_shot_head", lambda *a: widths.append(a[2]) or plain(*a))
    generator = TinyGenerator()
    release = replace(QUICK, profile="release", pretrain_steps=0)
    segmenter = Contrastive().fit(generator, exemplars_of(generator, [1]), LABELS, release)
    assert widths == [12] and len(segmenter.head.biases[-1]) == 3
    Contrastive().fit(generator, exemplars_of(generator, [1]), LABELS, replace(release, head="xs"))
    assert widths == [12, 3]
    many = LabelMap(tuple(f"c{i}" for i in range(13)))
    with pytest.raises(UsageError, match="13 classes"):
        Contrastive().fit(generator, exemplars_of(generator, [1]), many, release)


def test_the_released_linear_head_has_its_activation_after_its_last_layer():
    generator = TinyGenerator()
    release = replace(QUICK, profile="release", pretrain_steps=0, head="linear", steps=5)
    segmenter = Contrastive().fit(generator, exemplars_of(generator, [1]), LABELS, release)
    synthesis = generator.synthesize(generator.latents([5]), taps=segmenter.taps)
    pyramid = synthesis.pyramid.with_mode("nearest")
    plain = pyramid.project(segmenter.head.weights[0][:, :, 0, 0], segmenter.head.biases[0])
    assert bool((plain < 0).any())
    wanted = torch.where(plain < 0, 0.2 * plain, plain)
    torch.testing.assert_close(segmenter.logits(generator, synthesis), wanted)
    p = segmenter.predict(generator, synthesis, probabilities=True).probabilities
    torch.testing.assert_close(p.float(), wanted.softmax(dim=1), atol=1e-3, rtol=0)
    fixed = Contrastive().fit(generator, exemplars_of(generator, [1]), LABELS, replace(release, profile="fixed"))
    assert not fixed.head.leaky and fixed.head.per_pixel


def test_a_image_of_one_class_gives_that_class():
    generator = TinyGenerator()
    exemplars = exemplars_of(generator, [1], lambda p: linear_truth(p) * 0 + 2)
    segmenter = Contrastive().fit(generator, exemplars, LABELS, QUICK)
    assert segmenter.predict(generator, generator.synthesize(generator.latents([1]))).labels.unique().tolist() == [2]


def test_tensors_of_another_head_are_refused(tmp_path):
    generator = TinyGenerator()
    segmenter = Contrastive().fit(generator, exemplars_of(generator, [1]), LABELS, replace(QUICK, pretrain_steps=0))
    segmenter.settings["head"] = "xs"
    segmenter.save(tmp_path / "s.safetensors")
    with pytest.raises(UsageError, match="tensors of this segmenter"):
        methods.load(tmp_path / "s.safetensors")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"projection": "radnom"}, "did you mean 'random'"),
        ({"head": "xxxs"}, "did you mean 'xxs'"),
        ({"marginals": "image"}, "histogram"),
        ({"prototypes": 1}, "prototypes"),
        ({"sigma": 1.5}, "at most 1"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"truncation": 0.0}, "truncation"),
        ({"pixels": 3}, "pixels"),
        ({"draws": 0}, "draws"),
        ({"momentum": -0.1}, "momentum"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        ContrastiveSettings(**wrong)


@pytest.mark.parametrize("change", [{}, {"batch": 2, "feature_dropout": 0.2, "flip": True, "head": "linear"}])
def test_maps_projected_at_every_step_teach_the_same(change, monkeypatch):
    generator = TinyGenerator()
    exemplars = exemplars_of(generator, [1, 2, 3])
    settings = replace(QUICK, pretrain_steps=0, steps=5, **change)
    once = Contrastive().fit(generator, exemplars, LABELS, settings)
    batches, plain = [], FeaturePyramid.project

    def watched(self, weight, bias=None):
        if len(weight) == 16:
            batches.append(len(self))
        return plain(self, weight, bias)

    monkeypatch.setattr(FeaturePyramid, "project", watched)
    monkeypatch.setattr(contrastive, "HELD", 1000)
    each = Contrastive().fit(generator, exemplars, LABELS, settings)
    assert batches == [settings.batch] * 5  # no more than a step needs
    for name, tensor in once.tensors().items():
        torch.testing.assert_close(tensor, each.tensors()[name], atol=1e-6, rtol=1e-5)


def test_no_activations_of_exemplars_are_held_over_the_pre_training(monkeypatch):
    made, plain = [], contrastive.resynthesize

    def watched(*args):
        pyramid = plain(*args)
        made.append([weakref.ref(x) for x in pyramid.levels])
        return pyramid

    def pretrain(source, start, *rest):
        assert len(made) == 1 and not any(ref() is not None for ref in made[0])
        return start + 0, [1.0]

    monkeypatch.setattr(contrastive, "resynthesize", watched)
    monkeypatch.setattr(contrastive, "pretrain", pretrain)
    generator = TinyGenerator()
    Contrastive().fit(generator, exemplars_of(generator, [1, 2]), LABELS, replace(QUICK, steps=2))
    assert len(made) == 2
