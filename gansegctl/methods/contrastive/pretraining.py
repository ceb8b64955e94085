"""A linear map from hypercolumns to a few hundred channels, learned without labels; and its two controls.

Manerikar and Kak, 2023 (contrastive pre-training of one-shot segmenters on generator features): a projection and a set
of prototypes such that a pixel's soft assignment in one style predicts the one it has in another.

Let z_p = W·x_p/‖W·x_p‖ and s_p = C·z_p + b. With codes q from `sinkhorn` on s/ε, the loss of a draw of P pixels is
−½ [ mean_p Σ_k q_pk(view 1) log softmax(s_p(view 2)/τ)_k + the same with the views exchanged ].
No hypercolumn is built: W·x is `FeaturePyramid.project`, and the gradient Σ_p g_p xᵀ_p is `FeaturePyramid.pool`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Generator
from gansegctl.errors import GansegError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.methods.base.fitting import draw_class, standardised, trim
from gansegctl.methods.contrastive.larc import larc_
from gansegctl.methods.contrastive.settings import ContrastiveValues
from gansegctl.methods.contrastive.sinkhorn import AT_ONCE, codes, potentials, rows_at_once
from gansegctl.methods.contrastive.views import Warp, draw_views, draw_warp, style_pairs

HELD = 1 << 24
"""Numbers of a projected map (64 MB) up to which it and its gradient are kept between the draws of a step."""

PCA_POINTS = 4096  # pixels of every random sample that the principal axes are taken from


@dataclass
class Source:
    """Where activations come from: generator, taps, upsampling mode, noise mode.

    statistics: mean and 1/deviation [ΣC] each, or None for activations as they come.
    """

    generator: Generator
    taps: Sequence[str]
    mode: str
    noise: str
    statistics: tuple[Tensor, Tensor] | None
    device: torch.device

    @torch.no_grad()
    def pyramid(self, ws: Tensor, seeds: Sequence[int]) -> FeaturePyramid:
        """Activations of ws as the projection reads them: float32, standardised where there is a mean."""
        raw = self.generator.synthesize(ws, noise=self.noise, taps=self.taps, seeds=seeds).pyramid
        raw = raw.map(lambda x: x.float()).with_mode(self.mode)
        if self.statistics is None:
            return raw
        levels, size = list(raw.levels), raw.size
        means, scales = (x.split(raw.widths) for x in self.statistics)
        del raw  # so that raw and standardised activations exist together for one level only
        for i, (mean, scale) in enumerate(zip(means, scales, strict=True)):
            levels[i] = standardised(FeaturePyramid([levels[i]], size), mean, scale).levels[0]
        return FeaturePyramid(levels, size, self.mode)


def random_projection(dimension: int, channels: int, stream: torch.Generator) -> Tensor:
    """[dimension, channels], uniform within ±1/√channels: what pre-training starts from, and its first control."""
    return torch.empty(dimension, channels).uniform_(-(channels**-0.5), channels**-0.5, generator=stream)


@torch.no_grad()
def principal_axes(source: Source, dimension: int, channels: int, samples: int, stream: torch.Generator) -> Tensor:
    """The second control: the leading principal axes of sampled hypercolumns, [min(dimension, channels), channels].

    Scaled as a whole to the power that a random projection would give, so that a head's learning rate means the same;
    each axis points to where its largest entry is positive.
    """
    second = torch.zeros(channels, channels, device=source.device)
    first, count = torch.zeros(channels, device=source.device), 0
    for _ in range(max(samples, 1)):
        c = draw_class(source.generator.spec, stream, source.device)
        z = torch.randn(1, source.generator.spec.z_dim, generator=stream).to(source.device)
        pyramid = source.pyramid(source.generator.map(z, c), [int(torch.randint(2**31, (1,), generator=stream))])
        h, w = pyramid.size
        flat = torch.randperm(h * w, generator=stream)[:PCA_POINTS].to(source.device)
        points = torch.stack([torch.zeros_like(flat), flat // w, flat % w], dim=1)
        for part in points.split(max(AT_ONCE // channels, 1)):
            x = pyramid.at(part)  # [P, ΣC]
            second, first, count = second.add_(x.T @ x), first + x.sum(dim=0), count + len(x)
    covariance = second.div_(count).sub_(torch.outer(first, first).div_(count**2))  # each 116 MB at 256 px
    values, vectors = torch.linalg.eigh(covariance.cpu())  # ascending
    axes = vectors.flip(1).T[:dimension]
    signs = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    kept = values.flip(0).clamp(min=0)[:dimension]
    power = (values.clamp(min=0).sum() / (3 * channels) / kept.mean().clamp(min=1e-12)).sqrt()
    return (axes * signs * power).contiguous().to(source.device)


def pretrain(
    source: Source, weight: Tensor, size: tuple[int, int], settings: ContrastiveValues, stream: torch.Generator
) -> tuple[Tensor, list[float]]:
    """weight [d,ΣC] → the learned projection [d,ΣC] and the loss of every step. GansegError where it diverges."""
    device, dimension = source.device, weight.shape[0]
    bound = dimension**-0.5
    prototypes = torch.empty(settings.prototypes, dimension).uniform_(-bound, bound, generator=stream).to(device)
    bias = torch.empty(settings.prototypes).uniform_(-bound, bound, generator=stream).to(device)
    parameters = [weight.to(device).clone(), prototypes.requires_grad_(), bias.requires_grad_()]
    optimizer = torch.optim.SGD(parameters, lr=settings.pretrain_lr, momentum=settings.momentum)
    pairs = style_pairs(source.generator.spec, settings.perturb_from, settings.perturb_last)
    # A draw that takes every pixel is the same set as any other: the order changes neither codes nor loss.
    draws = 1 if settings.pixels >= size[0] * size[1] else settings.draws
    hold = dimension * size[0] * size[1] <= HELD
    losses = []
    for step in range(settings.pretrain_steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            prototypes.copy_(F.normalize(prototypes, dim=1))
        ws = draw_views(
            source.generator, pairs, settings.truncation, settings.sigma, not settings.single_truncation, stream, device
        )
        seed = int(torch.randint(2**31, (1,), generator=stream))
        pyramid = source.pyramid(ws, [seed, seed])
        if not hold:  # a step of so large maps takes many seconds on a CPU, this a few milliseconds
            trim()
        warps = [None, None] if settings.aligned else [draw_warp(size, stream), draw_warp(size, stream)]
        views = [_View(pyramid[i : i + 1], warps[i], parameters[0], hold) for i in range(2)]
        loss = 0.0
        for _ in range(draws):
            chosen = torch.randperm(size[0] * size[1], generator=stream)[: settings.pixels]
            loss += _draw(views, parameters, chosen, draws, settings)
        parameters[0].grad = views[0].gradient() + views[1].gradient()
        losses.append(loss)
        if not torch.tensor(loss).isfinite():
            raise GansegError(
                f"got a loss of {loss} at step {step} of the pre-training",
                wanted="a finite loss",
                remedy="lower the method's pretrain_lr, or raise temperature",
            )
        larc_(parameters, settings.trust)
        optimizer.step()
        del pyramid, views  # 250 MB at 256 px, which else wait for the next ones
    return parameters[0].detach(), losses


class _View:
    """One view's activations, its pixels W·x, and the gradient of the loss with respect to W.

    hold: keep the projected map and the map of gradients over the draws of a step; else both exist within a draw only.
    """

    def __init__(self, pyramid: FeaturePyramid, warp: Warp | None, weight: Tensor, hold: bool) -> None:
        self.pyramid, self.warp, self.weight, self.hold = pyramid, warp, weight, hold
        self.projected = self._project() if hold else None
        self.pulls: Tensor | None = None  # gradients [H·W,d] that are not in `total` yet
        self.total: Tensor | None = None  # gradient [d,ΣC]
        self.shown: Tensor | None = None  # norms [H·W]

    def rows(self, chosen: Tensor) -> Tensor:
        """W·x at the places that `chosen` int64 [P] of this view show: [P,d], a leaf that takes gradients."""
        self.flat = (chosen if self.warp is None else self.warp.source[chosen]).to(self.weight.device)
        self.inside = None if self.warp is None else self.warp.inside[chosen].to(self.weight)[:, None]
        rows = (self._project() if self.projected is None else self.projected)[self.flat]
        return (rows if self.inside is None else rows * self.inside).requires_grad_()

    def pull(self, gradient: Tensor) -> None:
        """Take in the gradient [P,d] of the rows handed out last."""
        h, w = self.pyramid.size
        if self.pulls is None:
            self.pulls = torch.zeros(h * w, len(self.weight), device=self.weight.device)
        self.pulls.index_add_(0, self.flat, gradient if self.inside is None else gradient * self.inside)
        if not self.hold:
            self.gradient()

    def gradient(self) -> Tensor:
        """Σ_p g_p xᵀ_p over all draws: [d,ΣC]."""
        if self.pulls is not None:
            pulls, self.pulls = self.pulls.T.contiguous(), None
            pooled = self.pyramid.pool(pulls.view(1, -1, *self.pyramid.size))
            self.total = pooled if self.total is None else self.total + pooled
        return torch.zeros_like(self.weight) if self.total is None else self.total

    def norms(self) -> Tensor:
        """‖x‖ at every place of this view, 0 outside the image: [H·W]."""
        if self.shown is None:
            norms = self.pyramid.sqnorm().sqrt().flatten()
            if self.warp is not None:
                norms = norms[self.warp.source.to(norms.device)] * self.warp.inside.to(norms)
            self.shown = norms
        return self.shown

    def _project(self) -> Tensor:
        return self.pyramid.project(self.weight).flatten(2)[0].T.contiguous()  # [H·W, d]


def _draw(
    views: Sequence[_View], parameters: list[Tensor], chosen: Tensor, draws: int, settings: ContrastiveValues
) -> float:
    """One draw of pixels, backward included: returns its share of the loss."""
    _, prototypes, bias = parameters
    rows = [view.rows(chosen) for view in views]
    a = [_potentials(x, prototypes, bias, view, chosen, settings) for x, view in zip(rows, views, strict=True)]
    total, block = 0.0, rows_at_once(len(prototypes), prototypes, AT_ONCE)
    for start in range(0, len(chosen), block):
        scores = [F.linear(F.normalize(x[start : start + block], dim=1), prototypes, bias) for x in rows]
        swapped = [
            (
                codes(scores[mine].detach() / settings.epsilon, a[mine])
                * (scores[other] / settings.temperature).log_softmax(dim=1)
            ).sum()
            for mine, other in ((0, 1), (1, 0))
        ]
        loss = -(swapped[0] + swapped[1]) / (2 * len(chosen) * draws)
        loss.backward()
        total += float(loss.detach())
    for x, view in zip(rows, views, strict=True):
        if x.grad is not None:
            view.pull(x.grad)
    return total


@torch.no_grad()
def _potentials(
    rows: Tensor, prototypes: Tensor, bias: Tensor, view: _View, chosen: Tensor, settings: ContrastiveValues
) -> Tensor:
    """The scales of prototypes, as logarithms [K], for rows [P,d] at the places `chosen` [P] of a view.

    Shares: uniform; norm, a pixel by the norm of its hypercolumn; histogram, see `histogram_shares`.
    """
    logits = F.linear(F.normalize(rows, dim=1), prototypes, bias).div_(settings.epsilon)  # [P, K], the largest tensor
    shares: tuple = (None, None)
    if settings.marginals == "norm":
        norms = view.norms()[chosen.to(rows.device)] + 1e-6
        shares = (None, norms / norms.sum())
    elif settings.marginals == "histogram":
        shares = tuple(histogram_shares(view.norms(), bins) for bins in (len(prototypes), len(rows)))
    return potentials(logits, settings.sinkhorn_rounds, *shares)


def histogram_shares(norms: Tensor, bins: int) -> Tensor:
    """norms [H·W] of a whole view → shares [bins] of prototypes or pixels, as released for cats.

    Counts of a histogram from the smallest norm to the largest, and 1e-9; the first, in which the zeros lie that a turn
    brings in, is overwritten by the second. Bin i is the share of prototype, or pixel, i: they have nothing in common.
    """
    counts = torch.histc(norms, bins) + 1e-9
    counts[0] = counts[1]
    return counts / counts.sum()
