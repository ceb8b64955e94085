"""datasetgan: the contract, folding, gathering, votes and divergence, each against what it should be by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.methods.contract import LABELS, MethodContract
from helpers.methods.tiny_generator import SIDE, TinyGenerator, exemplars_of, linear_truth

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import LabelMap
from gansegctl.methods.base import segmenter_file
from gansegctl.methods.datasetgan import ensemble, fitting
from gansegctl.methods.datasetgan import method as datasetgan
from gansegctl.methods.datasetgan.ensemble import Ensemble, StackedPerceptrons
from gansegctl.methods.datasetgan.method import DatasetGAN
from gansegctl.methods.datasetgan.settings import DatasetGANSettings

QUICK = DatasetGANSettings(members=3, hidden="12,8", steps=80, lr=1e-2, batch=32, statistics_samples=3)


class TestFixed(MethodContract):
    name, settings = "datasetgan", QUICK


class TestMajority(MethodContract):
    name = "datasetgan"
    settings = replace(QUICK, vote="majority", sampling="balanced", members=4, schedule="constant", score_share=1.0)


class TestRelease(MethodContract):
    name = "datasetgan"
    settings = replace(QUICK, profile="release", steps=50)


def test_learns_a_labelling_that_the_features_decide():
    generator = TinyGenerator()
    exemplars = exemplars_of(generator, range(40), lambda p: linear_truth(p, classes=2, undecided=0.3))
    settings = DatasetGANSettings(members=3, hidden="32,16", steps=150)
    segmenter = DatasetGAN().fit(generator, exemplars[:25], LabelMap(("below", "above")), settings)
    synthesis = generator.synthesize(torch.cat([e.ws for e in exemplars[25:]]), taps=segmenter.taps)
    truth = np.stack([e.mask for e in exemplars[25:]])
    labels = segmenter.predict(generator, synthesis).labels.numpy()
    assert (labels == truth)[truth != 255].mean() > 0.93
    unsure = segmenter.uncertainty(generator, synthesis).numpy()
    assert unsure[truth == 255].mean() > 1.5 * unsure[truth != 255].mean()  # members differ where the truth is near
    wrong = (labels != truth) & (truth != 255)
    assert unsure[wrong].mean() > unsure[~wrong].mean()


def test_the_folded_stack_equals_the_ensemble_in_evaluation():
    stream = torch.Generator().manual_seed(0)
    net = Ensemble(4, (10, 6, 5, 3), "he", stream)
    mean, scale = torch.randn(10, generator=stream), torch.rand(10, generator=stream) + 0.5
    raw = torch.randn(1, 10, 4, 4, generator=stream) * 2 + 1
    for _ in range(60):
        net(((torch.randn(4, 50, 10, generator=stream) * 2 + 1) - mean) * scale)
    x = ((raw[0].flatten(1).T - mean) * scale).expand(4, -1, -1)  # [M, P, C]
    with torch.no_grad():
        for i in range(3):
            x = torch.baddbmm(net.biases[i], x, net.weights[i])
            if i < 2:
                m, v = getattr(net, f"mean{i}")[:, 0], getattr(net, f"variance{i}")[:, 0]
                rows = [
                    F.batch_norm(x[j].relu(), m[j], v[j], net.gains[i][j, 0], net.shifts[i][j, 0]) for j in range(4)
                ]
                x = torch.stack(rows)
    found = net.folded((mean, scale))(FeaturePyramid([raw], (4, 4)))  # [1, M, K, H, W]
    torch.testing.assert_close(found[0].flatten(2).transpose(1, 2), x, atol=1e-4, rtol=1e-4)


def test_batch_statistics_are_those_of_torch():
    stream = torch.Generator().manual_seed(0)
    net, x = Ensemble(1, (5, 4, 3, 2), "he", stream), torch.randn(1, 30, 5, generator=stream)
    plain = torch.nn.BatchNorm1d(4)
    wanted = plain(torch.baddbmm(net.biases[0], x, net.weights[0])[0].relu())
    net(x)
    torch.testing.assert_close(net.mean0[0, 0], plain.running_mean)
    torch.testing.assert_close(net.variance0[0, 0], plain.running_var)
    again = net._normalised(torch.baddbmm(net.biases[0], x, net.weights[0]).relu(), 0)
    torch.testing.assert_close(again[0], wanted)


def test_members_are_as_if_trained_alone():
    stream = torch.Generator().manual_seed(0)
    net, x = Ensemble(2, (5, 4, 3, 2), "he", stream), torch.randn(2, 20, 5, generator=stream)
    net(x)[1].square().sum().backward()
    assert all(not bool(p.grad[0].any()) and bool(p.grad[1].any()) for p in net.weights)


def test_one_projection_serves_all_members_unless_memory_is_short(monkeypatch):
    generator = TinyGenerator()
    segmenter = DatasetGAN().fit(generator, exemplars_of(generator, (3,)), LABELS, QUICK)
    synthesis = generator.synthesize(generator.latents([5]), taps=segmenter.taps)
    asked, plain = [], FeaturePyramid.project
    monkeypatch.setattr(FeaturePyramid, "project", lambda self, w, b=None: asked.append(len(w)) or plain(self, w, b))
    whole = segmenter.stack(synthesis.pyramid)
    assert asked == [36]
    monkeypatch.setattr(ensemble, "_BYTES_AT_ONCE", 2 * 12 * SIDE * SIDE * 4)
    torch.testing.assert_close(segmenter.stack(synthesis.pyramid), whole, atol=1e-5, rtol=1e-5)
    assert asked == [36, 24, 12]


def test_pixels_are_gathered_a_batch_at_a_time(monkeypatch):
    asked, plain = [], FeaturePyramid.at
    monkeypatch.setattr(FeaturePyramid, "at", lambda self, points: asked.append(len(points)) or plain(self, points))
    generator = TinyGenerator()
    DatasetGAN().fit(generator, exemplars_of(generator, (3, 5)), LABELS, replace(QUICK, steps=4))
    assert asked == [3 * 32] * 4


def segmenter_of(**settings):
    filled = {"vote": "mean", "divergence": "probabilities", "score_share": 0.1} | settings
    return datasetgan.DatasetGANSegmenter(
        "datasetgan", LABELS, (), (), "", filled, stack=StackedPerceptrons(2, (2, 2, 2))
    )


def test_divergence_is_entropy_of_the_mean_less_mean_entropy():
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])  # two members, two classes, one pixel
    logits = p.log()[:, :, None, None] + torch.tensor([3.0, -40.0])[:, None, None, None]  # softmax knows no offset

    def entropy(q):
        return -sum(v * math.log(v) for v in q)

    wanted = entropy([0.55, 0.45]) - (entropy([0.9, 0.1]) + entropy([0.2, 0.8])) / 2
    assert float(segmenter_of()._divergence(logits)) == pytest.approx(wanted / math.log(2), abs=1e-6)
    odds = math.sqrt(0.9 / 0.1 * 0.2 / 0.8)  # release: the softmax of the mean logits
    q = odds / (1 + odds)
    quirk = entropy([q, 1 - q]) - (entropy([0.9, 0.1]) + entropy([0.2, 0.8])) / 2
    found = segmenter_of(divergence="logits")._divergence(logits)
    assert float(found) == pytest.approx(quirk / math.log(2), abs=1e-6)
    assert float(segmenter_of()._divergence(logits[:1].expand(4, -1, -1, -1)).abs()) < 1e-6  # all agree
    sure = torch.tensor([[50.0, 0.0], [0.0, 50.0]])[:, :, None, None]
    assert float(segmenter_of()._divergence(sure)) == pytest.approx(1.0)
    assert float(segmenter_of()._divergence(sure[:1])) == 0.0


def test_votes_are_shares_and_the_mean_breaks_ties():
    logits = torch.tensor([[4.0, 0, 0], [0.2, 0, 0], [0, 9.0, 0], [0, 9.0, 0]])[:, :, None, None]
    p = segmenter_of(vote="majority")._vote(logits)[:, 0, 0]
    assert p.tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-3) and int(p.argmax()) == 1
    mean = segmenter_of()._vote(logits)[:, 0, 0]
    assert mean.tolist() == pytest.approx(logits[:, :, 0, 0].softmax(1).mean(0).tolist())


def test_the_score_is_the_mean_of_the_least_certain_share():
    generator = TinyGenerator()
    for share in (0.1, 0.5, 1.0):
        segmenter = DatasetGAN().fit(
            generator, exemplars_of(generator, (3,)), LABELS, replace(QUICK, steps=5, score_share=share)
        )
        synthesis = generator.synthesize(generator.latents([5, 6]), taps=segmenter.taps)
        flat = segmenter.uncertainty(generator, synthesis).flatten(1).sort(dim=1, descending=True).values
        wanted = flat[:, : round(share * flat.shape[1])].mean(dim=1)
        torch.testing.assert_close(segmenter.predict(generator, synthesis).score, wanted)


def test_small_classes_become_background_where_asked():
    exemplar = exemplars_of(TinyGenerator(), (3,))[0]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:3, :3], mask[8:, 8:], mask[0, 15] = 1, 2, 255
    for min_pixels, kept in ((0, [0, 1, 2]), (9, [0, 1, 2]), (10, [0, 2])):
        points, targets = fitting.all_pixels([replace(exemplar, mask=mask)], min_pixels)
        assert targets.unique().tolist() == kept and len(points) == SIDE**2 - 1
    assert not ((points[:, 1] == 0) & (points[:, 2] == 15)).any()


def test_the_release_profile_stops_early_in_its_fifth_epoch_or_later():
    generator = TinyGenerator()
    exemplars = exemplars_of(generator, (3, 5))
    settings = DatasetGANSettings(profile="release", members=2, hidden="4,3", batch=16)
    steps = DatasetGAN().fit(generator, exemplars, LABELS, settings).facts["steps"]
    bounded = DatasetGAN().fit(generator, exemplars, LABELS, replace(settings, steps=7))
    assert bounded.facts["steps"] == 7
    epoch = 2 * SIDE * SIDE // 16
    assert 4 * epoch + 50 < steps < 100 * epoch
    filled = DatasetGANSettings(profile="release").resolved(4)
    assert (filled.mode, filled.divergence) == ("bilinear", "probabilities")  # since the release was corrected
    assert (filled.vote, filled.min_pixels, filled.steps) == ("majority", 30, 0)


def scripted(monkeypatch, losses, pixels, batch):
    """Fit one member by epochs on losses that are given: the steps taken, and how many pixels each had."""
    asked, net = [], Ensemble(1, (2, 2, 2, 2), "he", torch.Generator().manual_seed(0))

    def gather(rows):
        asked.append(rows.shape[1])
        return None, None

    def step_loss(ensemble, x, target, step):
        return sum(p.sum() * 0 for p in ensemble.parameters()) + torch.tensor([losses(step)])

    monkeypatch.setattr(fitting, "_losses", step_loss)
    settings = DatasetGANSettings(profile="release", members=1, batch=batch).resolved(1)
    steps, _ = fitting.fit_by_epochs(net, gather, pixels, settings, torch.Generator().manual_seed(0))
    assert steps == len(asked)
    return steps, asked


def test_a_low_loss_in_the_first_epochs_is_no_bar_for_later_ones(monkeypatch):
    """Two batches an epoch, so the fifth begins with step 8. From there losses fall until step 60, never to the lowest
    one, that of step 0; 51 batches that are not lower follow."""
    steps, _ = scripted(monkeypatch, lambda step: 0.1 if step == 0 else 9.0 - 0.1 * min(step, 60), 32, 16)
    assert steps == 61 + 51
    steps, _ = scripted(monkeypatch, lambda step: 1.0, 32, 16)  # the first batch that is compared is always lower
    assert steps == 9 + 51


def test_the_last_batch_of_an_epoch_is_as_small_as_what_is_left(monkeypatch):
    _, asked = scripted(monkeypatch, lambda step: 1.0, 21, 8)
    assert asked[:6] == [8, 8, 5, 8, 8, 5]
    _, asked = scripted(monkeypatch, lambda step: 1.0, 17, 8)
    assert set(asked) == {8}  # not one pixel alone, of which batch-norm makes 0


def test_steps_grow_with_the_root_of_the_exemplars(monkeypatch):
    steps = [DatasetGANSettings().resolved(k).steps for k in (1, 4, 10)]
    assert steps == [220, 440, 696] and DatasetGANSettings(steps=9).resolved(10).steps == 9
    monkeypatch.setattr(datasetgan, "fit_by_steps", lambda net, gather, targets, filled, stream: (filled.steps, 0.0))
    generator = TinyGenerator()
    settings = replace(QUICK, steps=None, members=1, hidden="3,2")
    segmenter = DatasetGAN().fit(generator, exemplars_of(generator, (3, 5)), LABELS, settings)
    assert segmenter.settings["steps"] == segmenter.facts["steps"] == 311


def test_a_stopped_member_stays_as_it_was(monkeypatch):
    """With a patience of 0 every member stops at its first worse batch; the last one decides how many steps."""
    monkeypatch.setattr(fitting, "PATIENCE", 0)
    monkeypatch.setattr(fitting, "FIRST_STOP", 0)
    generator, taken = TinyGenerator(), {}
    exemplars = exemplars_of(generator, (3, 5))
    for members in (1, 6):
        settings = DatasetGANSettings(profile="release", members=members, hidden="4,3", batch=16, lr=0.5)
        taken[members] = DatasetGAN().fit(generator, exemplars, LABELS, settings).facts["steps"]
    assert taken[1] < 20 and taken[6] < 100


def test_the_wider_head_is_for_many_classes():
    assert DatasetGANSettings().widths(31) == (128, 32) and DatasetGANSettings().widths(32) == (256, 128)


def test_a_file_of_another_size_is_refused(tmp_path):
    generator = TinyGenerator()
    segmenter = DatasetGAN().fit(generator, exemplars_of(generator, (3,)), LABELS, replace(QUICK, steps=2))
    segmenter.save(tmp_path / "s")
    tensors = {k: v[:2] for k, v in segmenter.tensors().items()}
    segmenter_file.write(tmp_path / "wrong", methods.read_header(tmp_path / "s"), tensors)
    with pytest.raises(UsageError, match="ensemble"):
        methods.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    "wrong",
    [{"members": 0}, {"batch": 1}, {"hidden": "128"}, {"hidden": "a,b"}, {"vote": "x"}, {"score_share": 0.0}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        DatasetGANSettings(**wrong)


def test_balanced_draws_are_not_bounded_by_what_multinomial_takes():
    targets = torch.zeros(2**24 + 2, dtype=torch.uint8)
    targets[-1] = 3
    rows = fitting._balanced(*fitting._by_class(targets), (1000,), torch.Generator().manual_seed(0))
    assert 400 < int((rows == len(targets) - 1).sum()) < 600


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_an_ensemble_without_steps_is_refused(sampling):
    generator = TinyGenerator()
    for settings in (
        DatasetGANSettings(profile="release", members=2, hidden="12,8", batch=16, sampling=sampling),
        replace(QUICK, sampling=sampling, steps=0),
    ):
        with pytest.raises(UsageError, match=f"steps 0 with sampling {sampling}"):
            DatasetGAN().fit(generator, exemplars_of(generator, (3,)), LABELS, settings)


def test_balanced_pixels_are_of_every_class_alike_however_many_there_are():
    targets = torch.tensor([2] * 900 + [0] * 90 + [5] * 10)
    stream = torch.Generator().manual_seed(0)
    rows = fitting._balanced(*fitting._by_class(targets), (3, 4000), stream)
    assert rows.shape == (3, 4000)
    shares = torch.bincount(targets[rows.flatten()], minlength=6) / rows.numel()
    torch.testing.assert_close(shares[[0, 2, 5]], torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    of_rare = torch.bincount(rows[targets[rows] == 5] - 990, minlength=10).float()
    assert of_rare.min() > 0.8 * of_rare.mean()
