"""The learned projection: one step against plain autograd on the hypercolumn, and the controls."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers.methods.plain_sinkhorn import plain
from helpers.methods.tiny_generator import SIDE, TinyGenerator

from gansegctl.errors import GansegError
from gansegctl.methods.contrastive import pretraining as projection
from gansegctl.methods.contrastive.method import ContrastiveSettings
from gansegctl.methods.contrastive.pretraining import Source, pretrain, principal_axes, random_projection
from gansegctl.methods.contrastive.views import draw_warp

CPU = torch.device("cpu")
QUICK = ContrastiveSettings(dimension=10, pixels=64, prototypes=9, draws=2, pretrain_steps=1, epsilon=0.05).resolved(
    1, (SIDE, SIDE)
)
SIZE = (SIDE, SIDE)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def source(generator=None, mode="bilinear", standardise=False):
    generator = generator or TinyGenerator()
    channels = sum(t.channels for t in generator.spec.taps)
    statistics = (torch.linspace(-1, 1, channels), torch.linspace(0.5, 2, channels)) if standardise else None
    return Source(generator, [t.name for t in generator.spec.taps], mode, "const", statistics, CPU)


def written_down(src, weight, settings, seed, warp=None):
    """One step of pre-training by autograd on the dense hypercolumn, with the plain Sinkhorn in float64."""
    s, bound = stream(seed), weight.shape[0] ** -0.5
    prototypes = torch.empty(settings.prototypes, len(weight)).uniform_(-bound, bound, generator=s)
    bias = torch.empty(settings.prototypes).uniform_(-bound, bound, generator=s)
    prototypes = F.normalize(prototypes, dim=1).double().requires_grad_()
    bias = bias.double().requires_grad_()
    w = weight.double().clone().requires_grad_()
    pairs = projection.style_pairs(src.generator.spec, settings.perturb_from, settings.perturb_last)
    ws = projection.draw_views(
        src.generator, pairs, settings.truncation, settings.sigma, not settings.single_truncation, s, CPU
    )
    torch.randint(2**31, (1,), generator=s)
    dense = src.pyramid(ws, [0, 0]).dense().double().flatten(2)  # [2, ΣC, H·W]
    if not settings.aligned:
        warps = [draw_warp(SIZE, s), draw_warp(SIZE, s)]
        dense = torch.stack([dense[i][:, warp.source] * warp.inside for i, warp in enumerate(warps)])
    total = 0.0
    for _ in range(settings.draws):
        chosen = torch.randperm(SIDE * SIDE, generator=s)[: settings.pixels]
        scores = [F.linear(F.normalize((w @ view[:, chosen]).T, dim=1), prototypes, bias) for view in dense]
        codes = [plain(x.detach() / settings.epsilon, settings.sinkhorn_rounds) for x in scores]
        for mine, other in ((0, 1), (1, 0)):
            wanted = (scores[other] / settings.temperature).log_softmax(dim=1)
            total = total - (codes[mine] * wanted).sum(dim=1).mean() / 2 / settings.draws
    total.backward()
    step = settings.pretrain_lr * settings.trust * w.detach().norm() / w.grad.norm()
    return (w.detach() - step * w.grad).float(), float(total.detach())


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("profile", ["fixed", "release"])
def test_a_step_is_the_one_written_down_on_the_hypercolumn(profile, hold, monkeypatch):
    monkeypatch.setattr(projection, "HELD", 1 << 24 if hold else 0)
    monkeypatch.setattr(projection, "AT_ONCE", 200)  # blocks of 22 pixels
    changed = {k: getattr(QUICK, k) for k in CHANGED} | {"pretrain_lr": 5.0}  # so that a step shows
    settings = replace(ContrastiveSettings(profile=profile), **changed).resolved(1, SIZE)
    src = source(mode=settings.mode, standardise=profile == "fixed")
    weight = random_projection(10, 19, stream(4))
    found, losses = pretrain(src, weight, SIZE, settings, stream(7))
    wanted, loss = written_down(src, weight, settings, 7)
    assert losses == pytest.approx([loss], rel=1e-4)
    moved = float((wanted - weight).norm())
    assert moved == pytest.approx(0.05 * float(weight.norm()), rel=1e-3)  # the share that LARC grants
    assert float((found - wanted).norm()) < 2e-3 * moved


CHANGED = ("dimension", "pixels", "prototypes", "draws", "pretrain_steps", "epsilon")


def test_the_start_is_not_written_over():
    weight = random_projection(10, 19, stream(4))
    kept = weight.clone()
    pretrain(source(), weight, SIZE, QUICK, stream())
    assert torch.equal(weight, kept)


def test_the_loss_falls_when_it_is_given_time():
    settings = replace(QUICK, pretrain_steps=25, pretrain_lr=3.0, temperature=0.1)
    _, losses = pretrain(source(), random_projection(10, 19, stream(1)), SIZE, settings, stream(2))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_draw_of_all_pixels_is_made_once(monkeypatch):
    calls = []
    one = projection._draw
    monkeypatch.setattr(projection, "_draw", lambda *a: calls.append(a[3]) or one(*a))
    pretrain(source(), random_projection(10, 19, stream()), SIZE, replace(QUICK, pixels=SIDE * SIDE), stream())
    assert calls == [1]
    pretrain(source(), random_projection(10, 19, stream()), SIZE, QUICK, stream())
    assert calls == [1, 2, 2]


@pytest.mark.parametrize("marginals", ["uniform", "norm", "histogram"])
@pytest.mark.parametrize("aligned", [True, False])
def test_marginals_lead_to_different_but_finite_projections(marginals, aligned):
    settings = replace(QUICK, marginals=marginals, aligned=aligned)
    weight = random_projection(10, 19, stream())
    found, losses = pretrain(source(), weight, SIZE, settings, stream(3))
    assert found.isfinite().all() and len(losses) == 1
    other, _ = pretrain(source(), weight, SIZE, replace(settings, marginals="uniform"), stream(3))
    assert torch.equal(found, other) == (marginals == "uniform")


def test_histogram_shares_are_those_of_the_release():
    norms = torch.tensor([0.0] * 6 + [1.2, 1.3, 3.9, 4.0])  # bins of width 1: 6, 2, 0 and 2 of them
    shares = projection.histogram_shares(norms, 4)
    counts = torch.tensor([2.0, 2.0, 1e-9, 2.0])
    torch.testing.assert_close(shares, counts / counts.sum())
    assert float(shares[2]) > 0  # a share of 0 would have no logarithm


@pytest.mark.parametrize("aligned", [True, False])
def test_the_histogram_is_of_the_whole_view_and_norms_of_the_drawn_pixels(aligned, monkeypatch):
    seen, taken = [], []
    plain, one = projection.potentials, projection.histogram_shares
    monkeypatch.setattr(projection, "potentials", lambda logits, r, *s: seen.append(s) or plain(logits, r, *s))
    monkeypatch.setattr(projection, "histogram_shares", lambda n, bins: taken.append((n, bins)) or one(n, bins))
    src, s = source(), stream(3)
    pyramid = src.pyramid(src.generator.latents([1]), [0])
    norms = pyramid.dense()[0].norm(dim=0).flatten()
    warp = None if aligned else draw_warp(SIZE, s)
    view = projection._View(pyramid, warp, random_projection(10, 19, s), True)
    shown = norms if aligned else torch.where(warp.inside, norms[warp.source], 0.0)
    chosen, prototypes = torch.randperm(SIDE * SIDE, generator=s)[:40], torch.randn(9, 10, generator=s)
    for marginals in ("histogram", "norm"):
        settings = replace(QUICK, marginals=marginals)
        projection._potentials(view.rows(chosen).detach(), prototypes, torch.zeros(9), view, chosen, settings)
    assert [bins for _, bins in taken] == [9, 40]
    for found, _ in taken:
        torch.testing.assert_close(found, shown, atol=1e-5, rtol=1e-5)
    assert [len(x) for x in seen[0]] == [9, 40] and seen[1][0] is None
    torch.testing.assert_close(seen[1][1], shown[chosen] / shown[chosen].sum(), atol=1e-6, rtol=1e-4)


def test_a_loss_that_is_not_finite_is_an_error():
    class Broken(TinyGenerator):
        def synthesize(self, ws, noise="const", taps=None, seeds=None):
            synthesis = super().synthesize(ws, noise, taps, seeds)
            synthesis.pyramid = synthesis.pyramid.map(lambda x: x * float("nan"))
            return synthesis

    with pytest.raises(GansegError, match="step 0 of the pre-training"):
        pretrain(source(Broken()), random_projection(10, 19, stream()), SIZE, QUICK, stream())


def test_principal_axes_are_those_of_the_hypercolumns():
    src = source(standardise=True)
    axes = principal_axes(src, 4, 19, 6, stream(5))
    s, rows = stream(5), []
    for _ in range(6):
        z = torch.randn(1, 6, generator=s)
        torch.randint(2**31, (1,), generator=s)
        rows.append(src.pyramid(src.generator.map(z), [0]).dense()[0].flatten(1).T.double())
        torch.randperm(SIDE * SIDE, generator=s)
    x = torch.cat(rows)
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    wanted = vectors.flip(1)[:, :4].T
    unit = F.normalize(axes.double(), dim=1)
    torch.testing.assert_close((unit * wanted).sum(dim=1).abs(), torch.ones(4, dtype=torch.float64), atol=1e-4, rtol=0)
    assert bool((axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)) > 0).all())
    power = ((x - x.mean(dim=0)) @ axes.double().T).square().mean()
    assert float(power) == pytest.approx(float(values.sum()) / (3 * 19), rel=1e-3)


def test_there_are_never_more_axes_than_channels():
    assert principal_axes(source(), 512, 19, 2, stream()).shape == (19, 19)
    assert random_projection(512, 19, stream()).shape == (512, 19)


def test_a_random_projection_has_the_stated_bounds():
    weight = random_projection(300, 25, stream())
    assert 0.19 < float(weight.abs().max()) <= 0.2 and abs(float(weight.mean())) < 0.01


def test_principal_axes_lie_where_the_activations_do(monkeypatch):
    """Eigenvectors are taken on the CPU, wherever the generator is: "meta" stands for a GPU."""

    class Elsewhere(Source):
        def pyramid(self, ws, seeds):
            return SimpleNamespace(size=SIZE, at=lambda points: torch.zeros(len(points), 19, device="meta"))

    generator = SimpleNamespace(spec=TinyGenerator().spec, map=lambda z, c: z)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: torch.eye(len(self)))
    src = Elsewhere(generator, (), "bilinear", "const", None, torch.device("meta"))
    axes = principal_axes(src, 4, 19, 1, stream())
    assert axes.shape == (4, 19) and axes.device.type == "meta"


def test_activations_of_a_source_are_standardised():
    ws = TinyGenerator().latents([1, 2])
    raw, made = source().pyramid(ws, [0, 0]), source(standardise=True, mode="nearest").pyramid(ws, [0, 0])
    mean, scale = (t.view(1, -1, 1, 1) for t in (torch.linspace(-1, 1, 19), torch.linspace(0.5, 2, 19)))
    torch.testing.assert_close(made.dense(), (raw.with_mode("nearest").dense() - mean) * scale)
    assert made.mode == "nearest" and made.size == SIZE
