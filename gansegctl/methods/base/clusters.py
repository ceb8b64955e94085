"""Shared by methods without exemplars: class names of clusters, and rules for which clusters are foreground."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from gansegctl.contracts import Exemplar
from gansegctl.errors import UsageError
from gansegctl.labels import CLUSTER, LabelMap

FOREGROUND = LabelMap(("background", "foreground"), ((0, 0, 0), (244, 190, 142)))
"""The classes of a two-part mask that nobody painted."""

RULES = ("least-central", "centre", "border", "agreement")
SIDES = "tlrb"


def segments(count: int) -> LabelMap:
    """Classes of clusters without names: segment-0, segment-1, …"""
    return LabelMap(tuple(CLUSTER.format(i) for i in range(count)))


def no_exemplars(name: str, exemplars: Sequence[Exemplar]) -> None:
    """UsageError when a method that reads no exemplars is given some."""
    if exemplars:
        raise UsageError(f"got {len(exemplars)} exemplars for {name}", wanted="none", remedy="pass --shots 0")


def check_sides(sides: str | None) -> None:
    """UsageError unless these are letters of "tlrb", one at least; None passes."""
    if sides is not None and (not sides or set(sides) - set(SIDES)):
        raise UsageError(f"got sides {sides!r}", wanted=f"letters of {SIDES!r}: top, left, right, bottom")


def stream_of(*parts: object) -> torch.Generator:
    """A random stream that is a function of these values alone: the same for an image whatever batch it is in."""
    name = "/".join(map(str, parts)).encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name).digest()[:8], "little") >> 1)


def centre_prior(height: int, width: int) -> Tensor:
    """A Gaussian about the middle, deviation H/2 and W/2, scaled to a mean of 1: [H,W]."""
    rows, columns = (((torch.arange(n) + 0.5) / n - 0.5) / 0.5 for n in (height, width))
    prior = torch.exp(-0.5 * (rows[:, None].square() + columns.square()))
    return prior / prior.mean()


def border(height: int, width: int, sides: str = SIDES) -> Tensor:
    """The outermost pixels of these sides (of t, l, r, b): bool [H,W]."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    for side, place in (("t", (0, ...)), ("b", (-1, ...)), ("l", (..., 0)), ("r", (..., -1))):
        if side in sides:
            mask[place] = True
    return mask


def centrality(labels: Tensor, k: int) -> Tensor:
    """The mean of the centre prior over each cluster of labels [N,H,W]: [K]; 0 for one without pixels."""
    prior = centre_prior(*labels.shape[1:]).to(labels.device).expand(labels.shape)
    sums = torch.bincount(labels.flatten(), prior.flatten(), minlength=k)
    return sums / torch.bincount(labels.flatten(), minlength=k).clamp(min=1)


def foreground_clusters(labels: Tensor, k: int, rule: str, sides: str = SIDES) -> Tensor:
    """Which clusters of labels int64 [N,H,W] are foreground: bool [K].

    least-central: all but the cluster whose mean centre prior is lowest. centre: those whose mean centre prior is above
    that of the whole image. border: those with a smaller share of the border (of these sides) than of the area.
    agreement: those that are both. Where a rule leaves no foreground, the most central cluster is; where it leaves no
    background, the least central one is. A cluster without pixels is background.
    """
    there = torch.bincount(labels.flatten(), minlength=k) > 0
    central = centrality(labels, k)
    order = central.where(there, torch.inf).argsort()
    least, most = int(order[0]), int(order[int(there.sum()) - 1])
    inside = central > 1
    if rule == "least-central":
        inside = torch.ones_like(there)
        inside[least] = False
    if rule in ("border", "agreement"):
        height, width = labels.shape[1:]
        rim = border(height, width, sides).to(labels.device)
        area = torch.bincount(labels.flatten(), minlength=k) / labels.numel()
        touch = torch.bincount(labels[:, rim].flatten(), minlength=k) / (len(labels) * int(rim.sum()))
        inside = (touch < area) & (inside if rule == "agreement" else there)
    inside = inside & there
    if not bool(inside.any()):
        inside[most] = True
    elif bool((inside | ~there).all()) and least != most:
        inside[least] = False
    return inside
