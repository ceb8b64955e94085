"""labels4free: the contract as far as it holds without exemplars, its losses, and that collapse is noticed."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.methods.contract import methods_json
from helpers.methods.tiny_generator import SIDE, TinyGenerator, exemplars_of
from torch import nn

from gansegctl import methods
from gansegctl.contracts import Segmenter, Synthesis
from gansegctl.errors import GansegError, UsageError
from gansegctl.io.digest import file_digest
from gansegctl.labels import LabelMap
from gansegctl.methods.labels4free import training as alpha_training
from gansegctl.methods.labels4free.collapse_guard import Look
from gansegctl.methods.labels4free.method import Labels4Free
from gansegctl.methods.labels4free.settings import PRESETS, Labels4FreeSettings
from gansegctl.methods.labels4free.training import AlphaTraining, alpha_penalty

LABELS = LabelMap(("background", "foreground"))
QUICK = Labels4FreeSettings(
    iterations=6, batch=2, statistics_samples=2, guard_every=2, guard_samples=3, bg_weight=1.0, lr=1e-2
)


class Critic(nn.Module):
    def __init__(self, seed):
        super().__init__()
        stream = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3, generator=stream) / 5)
        self.out = nn.Parameter(torch.randn(1, 8, generator=stream) / 3)

    def forward(self, x):
        return F.leaky_relu(F.conv2d(x, self.weight, padding=1), 0.2).mean(dim=(2, 3)) @ self.out.T


class TinyAdversary:
    """Backgrounds: the same generator with its coarse style silenced."""

    def __init__(self, generator, critic=None):
        self.generator, self.given = generator, critic

    def critic(self, seed):
        return self.given or Critic(seed)

    def background(self, ws, noise, seeds):
        ws = ws.clone()
        ws[:, 0] = 0
        return self.generator.synthesize(ws, noise=noise, seeds=seeds).image


def fit(settings=QUICK, seed=0, generator=None, labels=LABELS, images=None, adversary=None):
    generator = generator or TinyGenerator()
    adversary = adversary or TinyAdversary(generator)
    return Labels4Free().fit(generator, [], labels, settings, seed, adversary=adversary, images=images)


def predict(segmenter, generator=None, count=4, **options):
    generator = generator or TinyGenerator()
    ws = generator.latents(range(100, 100 + count))
    return segmenter.predict(generator, generator.synthesize(ws, taps=segmenter.taps), **options)


def test_annotations_are_soft_and_agree_with_themselves():
    segmenter = fit()
    assert isinstance(segmenter, Segmenter) and segmenter.method == "labels4free" and segmenter.labels == LABELS
    assert segmenter.taps == ("b8.conv1", "b16.conv1") and segmenter.widths == (6, 5)
    a = predict(segmenter, probabilities=True)
    assert a.labels.dtype == a.confidence.dtype == torch.uint8 and a.labels.shape == (4, SIDE, SIDE)
    assert a.score.dtype == torch.float32 and 0 <= float(a.score.min()) <= float(a.score.max()) <= 1
    p = a.probabilities.float()
    assert a.probabilities.shape == (4, 2, SIDE, SIDE) and a.probabilities.dtype == torch.float16
    torch.testing.assert_close(p.sum(1), torch.ones(4, SIDE, SIDE), atol=2e-3, rtol=0)
    assert float(p[:, 1].std()) > 0.01 and torch.equal(a.labels == 1, p[:, 1] > 0.5)
    assert float((p.amax(1) * 255 - a.confidence.float()).abs().max()) < 0.8
    assert predict(segmenter).probabilities is None


def test_saved_and_loaded_it_says_the_same(tmp_path):
    segmenter = fit()
    segmenter.save(tmp_path / "s.safetensors")
    loaded = methods.load(tmp_path / "s.safetensors")
    assert type(loaded) is type(segmenter)
    for field in ("method", "labels", "taps", "widths", "generator_sha256", "settings", "facts"):
        assert methods_json(getattr(loaded, field)) == methods_json(getattr(segmenter, field)), field
    before, after = predict(segmenter, probabilities=True), predict(loaded, probabilities=True)
    assert torch.equal(before.probabilities, after.probabilities) and torch.equal(before.score, after.score)
    loaded.save(tmp_path / "again.safetensors")
    assert file_digest(tmp_path / "s.safetensors") == file_digest(tmp_path / "again.safetensors")
    del segmenter.network.merge, segmenter.network.last
    segmenter.save(tmp_path / "s.safetensors")
    with pytest.raises(UsageError, match="alpha network"):
        methods.load(tmp_path / "s.safetensors")


def test_one_seed_one_result_and_torch_is_left_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (predict(fit(seed=s), probabilities=True).probabilities for s in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_sample_is_labelled_the_same_in_any_batch():
    segmenter, generator = fit(), TinyGenerator()
    ws = generator.latents(range(100, 104))
    rows = [segmenter.alpha(generator, generator.synthesize(ws[i : i + 1], taps=segmenter.taps)) for i in range(4)]
    together = segmenter.alpha(generator, generator.synthesize(ws, taps=segmenter.taps))
    torch.testing.assert_close(torch.cat(rows), together, atol=1e-5, rtol=1e-5)


def test_activations_of_another_generator_are_refused():
    segmenter = fit()
    wider = TinyGenerator(channels=(8, 7, 5), sha256=TinyGenerator().sha256)
    with pytest.raises(UsageError, match="channels"):
        predict(segmenter, wider)
    with pytest.raises(UsageError, match="fit again"):
        predict(segmenter, TinyGenerator(seed=1))


def test_what_it_cannot_work_with_is_refused():
    generator = TinyGenerator()
    with pytest.raises(UsageError, match="3 classes"):
        fit(labels=LabelMap(("a", "b", "c")))
    with pytest.raises(UsageError, match="adversary"):
        Labels4Free().fit(generator, [], LABELS, QUICK)
    with pytest.raises(UsageError, match="1 exemplars"):
        Labels4Free().fit(generator, exemplars_of(generator, [1]), LABELS, QUICK, adversary=TinyAdversary(generator))
    for wrong in (torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.zeros(4, SIDE, SIDE, 3)):
        with pytest.raises(UsageError, match="uint8"):
            fit(images=wrong)
    assert fit(labels=None).labels.names == ("background", "foreground")


def test_penalties_are_those_of_the_paper():
    a = torch.zeros(2, 1, 2, 2)
    a[0, 0, 0] = torch.tensor([0.8, 0.4])  # areas 0.3 and 0; undecided 0.2, 0.4
    wanted = 2 * (0.6 / 8 + 0.25 / 2) + 5 * (0.1 / 2)  # shares of background 0.7 and 1, 0.8 asked for
    assert float(alpha_penalty(a, 2.0, 5.0, 0.8)) == pytest.approx(wanted)
    assert float(alpha_penalty(1 - a.round(), 2.0, 5.0, 0.0)) == 0


def test_real_images_and_samples_reach_the_critic(monkeypatch):
    seen = []

    class Watched(Critic):
        def forward(self, x):
            seen.append(x.detach().clone())
            return super().forward(x)

    generator = TinyGenerator()
    images = torch.full((5, SIDE, SIDE, 3), 255, dtype=torch.uint8)
    segmenter = fit(replace(QUICK, iterations=2), images=images, adversary=TinyAdversary(generator, Watched(0)))
    assert sum(bool((x == 1).all()) for x in seen) == 3 and segmenter.facts["real_images"] == 5  # one more for R1
    seen.clear()
    segmenter = fit(replace(QUICK, iterations=2), adversary=TinyAdversary(generator, Watched(0)))
    assert not any((x == 1).all() for x in seen) and segmenter.facts["real_images"] == 0


def test_the_critic_that_was_handed_in_is_not_written_over():
    critic = Critic(0)
    before = critic.weight.detach().clone()
    fit(adversary=TinyAdversary(TinyGenerator(), critic))
    assert torch.equal(critic.weight.detach(), before)


class TwoLayers(TinyGenerator):
    """Foreground and background by construction: a bright disc, moved by w, that only the first channels draw."""

    def synthesize(self, ws, noise="const", taps=None, seeds=None):
        synthesis = super().synthesize(ws, noise, None, seeds)
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        cy = 7.5 + 2 * ws[:, 0, 0].tanh().view(-1, 1, 1)
        cx = 7.5 + 2 * ws[:, 0, 1].tanh().view(-1, 1, 1)
        disc = (((y - cy) ** 2 + (x - cx) ** 2) < 25).float()[:, None] * (ws[:, 0].abs().sum(1) > 0).view(-1, 1, 1, 1)
        ground = 0.3 * torch.sin(ws[:, 1, :1] * 3).view(-1, 1, 1, 1) + 0.1 * synthesis.image
        image = ground * (1 - disc) + disc
        levels = [x if x.shape[-1] != SIDE else torch.cat([disc, x[:, 1:]], dim=1) for x in synthesis.pyramid.levels]
        kept = [x for x, t in zip(levels, self.spec.taps, strict=True) if taps is None or t.name in taps]
        return Synthesis(image, type(synthesis.pyramid)(kept or levels, (SIDE, SIDE)))

    def disc(self, ws):
        return self.synthesize(ws).pyramid.levels[-1][:, 0]


def test_it_finds_a_foreground_that_backgrounds_lack():
    generator = TwoLayers()
    settings = replace(QUICK, iterations=80, batch=4, lr=3e-2, bg_weight=3.0, bg_share=0.6, mult=1.2, early_stop=False)
    segmenter = fit(replace(settings, guard_every=50), generator=generator)
    ws = generator.latents(range(300, 320))
    found = segmenter.predict(generator, generator.synthesize(ws, taps=segmenter.taps)).labels.bool()
    truth = generator.disc(ws).bool()
    assert float((found & truth).sum() / (found | truth).sum()) > 0.8


class Glaring(TinyAdversary):
    """Backgrounds that no image has: any of them gives a composite away."""

    def background(self, ws, noise, seeds):
        return super().background(ws, noise, seeds) * 0 + 5


@pytest.mark.parametrize(
    ("change", "adversary", "kind"),
    [
        ({"bg_weight": 0.0}, Glaring, "foreground"),
        ({"mult": 0.0, "bg_weight": 50.0, "bg_share": 1.0}, TinyAdversary, "background"),
    ],
)
def test_a_collapse_that_is_provoked_is_named(change, adversary, kind):
    settings = replace(QUICK, profile="release", iterations=200, guard_every=5, lr=0.1, **change)
    with pytest.raises(GansegError, match=f"all-{kind} masks at iteration"):
        fit(settings, adversary=adversary(TinyGenerator()))


def test_settled_masks_end_a_fit_early_and_facts_say_so(monkeypatch):
    monkeypatch.setattr(
        alpha_training.CollapseGuard,
        "look",
        lambda self, a, i, last: self.looks.append(Look(i, [1.0], 0.05, 0.0)) or i >= 4,
    )
    early = fit(replace(QUICK, min_iterations=0)).facts
    assert (early["iterations"], early["stopped"]) == (4, "masks settled")
    assert fit(replace(QUICK, min_iterations=6)).facts["iterations"] == 6
    assert fit(replace(QUICK, min_iterations=0, early_stop=False)).facts["stopped"] == "iterations done"


def test_release_runs_all_iterations_and_its_guard_judges_what_is_written(monkeypatch):
    monkeypatch.setattr(AlphaTraining, "step", lambda self, index: (0.0, 0.0))
    alpha = torch.zeros(1, 1, SIDE, SIDE)
    alpha[..., 8:] = 0.95
    monkeypatch.setattr(AlphaTraining, "_alpha_of", lambda self, network, pyramid: alpha)
    settings = replace(QUICK, iterations=20, min_iterations=0)
    assert fit(settings).facts["stopped"] == "masks settled"
    facts = fit(replace(settings, profile="release")).facts
    assert (facts["iterations"], facts["stopped"], facts["written"]) == (20, "iterations done", 0.5)
    alpha[..., 8:] = 0.88
    assert fit(settings).facts["written"] == 0.5
    with pytest.raises(GansegError, match="all-background masks at iteration 20"):
        fit(replace(settings, profile="release"))


def test_the_average_follows_the_network_and_release_keeps_the_raw_one():
    training = AlphaTraining(TinyGenerator(), TinyAdversary(TinyGenerator()), None, QUICK.resolved(), 0)
    first = training.alpha.last.weight.detach().clone()
    training.step(0)
    training.step(1)
    raw, kept = training.alpha.last.weight.detach(), training.average.last.weight
    assert not torch.equal(raw, kept) and not torch.equal(kept, first)
    assert training.finished() is training.average
    release = AlphaTraining(
        TinyGenerator(), TinyAdversary(TinyGenerator()), None, replace(QUICK, profile="release").resolved(), 0
    )
    assert release.finished() is release.alpha and release.statistics is None


def test_the_biased_penalty_pulls_down_the_score_of_real_images():
    found = []
    for biased in (False, True):
        settings = replace(QUICK, biased_r1=biased).resolved()
        training = AlphaTraining(TinyGenerator(), TinyAdversary(TinyGenerator()), None, settings, 0)
        training.step(0)
        found.append(float(training.critic(TinyGenerator().synthesize(TinyGenerator().latents([1, 2])).image).mean()))
    assert found[1] < found[0]


def test_presets_and_profiles_fill_in_what_is_not_set():
    s = Labels4FreeSettings(preset="car").resolved()
    assert (s.mult, s.iterations, s.truncation, s.lr, s.bg_weight, s.bg_share, s.sat_weight, s.batch) == (
        20.0,
        750,
        0.3,
        8e-4,
        40.0,
        0.75,
        0.1,
        2,
    )
    assert (s.standardise, s.ema, s.threshold, s.biased_r1, s.early_stop) == (True, True, 0.5, False, True)
    r = Labels4FreeSettings(preset="cat-large-batch", profile="release", mult=9.0).resolved()
    assert (r.mult, r.batch, r.bg_weight, r.truncation, r.threshold, r.ema, r.biased_r1) == (
        9.0,
        8,
        0.0,
        0.5,
        0.9,
        False,
        True,
    )
    assert s.resolved() == s and len(PRESETS) == 8


def test_the_threshold_moves_the_label_and_confidence_is_that_of_the_label():
    segmenter = fit()
    low, high = predict(segmenter), None
    segmenter.settings["threshold"] = 0.9
    high = predict(segmenter, probabilities=True)
    assert int(high.labels.sum()) <= int(low.labels.sum())
    p = high.probabilities.gather(1, high.labels.long()[:, None])[:, 0].float()
    assert float((p * 255 - high.confidence.float()).abs().max()) < 0.8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "face"}, "did you mean 'faces'"),
        ({"profile": "paper"}, "fixed"),
        ({"bg_share": 1.5}, "at most 1"),
        ({"lr": 0.0}, "lr"),
        ({"guard_every": 0}, "guard_every"),
        ({"iterations": 0}, "iterations"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Labels4FreeSettings(**wrong)


def test_losses_that_are_not_finite_are_an_error():
    class Broken(TinyAdversary):
        def background(self, ws, noise, seeds):
            return super().background(ws, noise, seeds) * float("nan")

    with pytest.raises(GansegError, match="iteration 1"):
        fit(adversary=Broken(TinyGenerator()))


def test_the_guard_holds_the_activations_of_one_image_at_a_time():
    class Counting(TinyGenerator):
        made, most = (), 0

        def synthesize(self, ws, noise="const", taps=None, seeds=None):
            synthesis = super().synthesize(ws, noise, taps, seeds)
            self.made = [*self.made, *(weakref.ref(x) for x in synthesis.pyramid.levels)]
            self.most = max(self.most, sum(ref() is not None for ref in self.made))
            return synthesis

    generator = Counting()
    fit(replace(QUICK, guard_samples=20, iterations=4), generator=generator)
    assert generator.most <= 8  # of two levels each: the guard alone would hold 40


def test_the_guard_sees_the_same_images_again(monkeypatch):
    seen = []
    plain = alpha_training.CollapseGuard.look

    def watched(self, alpha, *args, **options):
        seen.append(torch.cat(list(alpha)))
        return plain(self, seen[-1], *args, **options)

    monkeypatch.setattr(alpha_training.CollapseGuard, "look", watched)
    monkeypatch.setattr(AlphaTraining, "step", lambda self, index: (0.0, 0.0))  # nothing is learned between looks
    fit(replace(QUICK, noise="seed"))
    assert len(seen) == 3 and seen[0].shape == (3, 1, SIDE, SIDE)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
    assert float((seen[0][0] - seen[0][1]).abs().max()) > 0


@pytest.mark.parametrize("change", [{"preset": "car-short"}, {"iterations": 30}])
def test_a_collapse_in_the_last_looks_is_named(change, monkeypatch):
    """50 iterations with a look at every 25th: patience for three looks would never end."""
    monkeypatch.setattr(AlphaTraining, "step", lambda self, index: (0.0, 0.0))
    monkeypatch.setattr(AlphaTraining, "_alpha_of", lambda self, network, pyramid: torch.ones(1, 1, SIDE, SIDE))
    settings = replace(QUICK, iterations=None, guard_every=25)
    with pytest.raises(GansegError, match=r"all-foreground masks at iteration (50|30):"):
        fit(replace(settings, **change))
