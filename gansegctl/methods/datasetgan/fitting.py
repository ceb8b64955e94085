"""How the ensemble learns from pixels: by steps, or by epochs with an early stop for every member."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gansegctl.contracts import Exemplar
from gansegctl.errors import GansegError
from gansegctl.methods.base.exemplars import painted_pixels
from gansegctl.methods.datasetgan.ensemble import Ensemble
from gansegctl.methods.datasetgan.settings import DatasetGANValues

EPOCHS, FIRST_STOP, PATIENCE = 100, 4, 50

Gather = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows [M,B] of all pixels → their features [M,B,ΣC] and classes [M,B]."""


def all_pixels(exemplars: Sequence[Exemplar], min_pixels: int) -> tuple[Tensor, Tensor]:
    """Every pixel that is not ignored: points int64 [P,3] as (exemplar, row, column), classes int64 [P].

    Classes of fewer than `min_pixels` pixels in an exemplar are class 0 there.
    """
    points, targets = [], []
    for i, exemplar in enumerate(exemplars):
        rows, columns, classes = painted_pixels(exemplar)
        if not len(rows):
            continue
        classes = classes.where(torch.bincount(classes)[classes] >= min_pixels, 0)
        points.append(torch.stack([torch.full_like(rows, i), rows, columns], dim=1))
        targets.append(classes)
    return torch.cat(points), torch.cat(targets)


def _losses(ensemble: Ensemble, x: Tensor, target: Tensor, step: int) -> Tensor:
    """Mean cross-entropy of each member [M]. Error: GansegError when one is not finite."""
    logits = ensemble(x)
    picked = logits.log_softmax(dim=2).gather(2, target[:, :, None])[:, :, 0]  # [M, B]
    losses = -picked.mean(dim=1)
    if not bool(losses.detach().isfinite().all()):
        raise GansegError(f"got a loss that is not finite at step {step}", remedy="lower the method's lr")
    return losses


def fit_by_steps(
    ensemble: Ensemble, gather: Gather, targets: Tensor, settings: DatasetGANValues, stream: torch.Generator
) -> tuple[int, float]:
    """Every member its own pixels at every step → steps, last mean loss."""
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=settings.lr)
    by_class = _by_class(targets) if settings.sampling == "balanced" else None
    shape, loss = (settings.members, settings.batch), 0.0
    for step in range(settings.steps):
        if by_class is None:
            rows = torch.randint(len(targets), shape, generator=stream)
        else:
            rows = _balanced(*by_class, shape, stream)
        if settings.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        losses = _losses(ensemble, *gather(rows), step)
        optimizer.zero_grad()
        losses.sum().backward()  # members share nothing: each gets the gradient of its own loss
        optimizer.step()
        loss = float(losses.detach().mean())
    return step + 1, loss


def _by_class(targets: Tensor) -> tuple[Tensor, Tensor]:
    """targets [P] → pixels int64 [P], those of a class together, and how many each class has that is there at all."""
    counts = torch.bincount(targets)
    return targets.argsort(stable=True), counts[counts > 0]


def _balanced(order: Tensor, counts: Tensor, shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Pixels of this shape from `_by_class`: a class, each as likely, then one of its pixels, each as likely.

    Not torch.multinomial over pixels, which takes at most 2^24 of them.
    """
    classes = torch.randint(len(counts), shape, generator=stream)
    many, ends = counts[classes], counts.cumsum(dim=0)[classes]
    place = (torch.rand(shape, dtype=torch.float64, generator=stream) * many).long()  # below many: rand is below 1
    return order[ends - many + place]


def fit_by_epochs(
    ensemble: Ensemble, gather: Gather, pixels: int, settings: DatasetGANValues, stream: torch.Generator
) -> tuple[int, float]:
    """Epochs over all pixels, each member in its own order; a member that has stopped is put back as it was.

    Losses before FIRST_STOP count for nothing, so the lowest there is no bar for later ones. → steps, last mean loss.
    """
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=settings.lr)
    batch = min(settings.batch, pixels)
    best = torch.full((settings.members,), math.inf)
    waited, stopped, kept = torch.zeros(settings.members, dtype=torch.long), torch.zeros(settings.members) > 0, {}
    step, losses = 0, best
    for epoch in range(EPOCHS):
        orders = torch.stack([torch.randperm(pixels, generator=stream) for _ in range(settings.members)])
        alone = pixels % batch == 1 and pixels > 1  # batch-norm makes 0 of one pixel
        for rows in orders[:, : pixels - alone].split(batch, dim=1):
            losses = _losses(ensemble, *gather(rows), step)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            step += 1
            if epoch >= FIRST_STOP:
                now = losses.detach().cpu()
                waited = torch.where(now < best, 0, waited + 1)
                best = torch.minimum(best, now)
            for i in ((waited > PATIENCE) & ~stopped).nonzero().flatten().tolist():
                kept[i] = {name: t[i].clone() for name, t in ensemble.state_dict().items()}
                stopped[i] = True
            if bool(stopped.all()) or step == settings.steps:
                break
        if bool(stopped.all()) or step == settings.steps:
            break
    state = ensemble.state_dict()
    for i, tensors in kept.items():
        for name, tensor in tensors.items():
            state[name][i] = tensor
    return step, float(losses.detach().mean())
