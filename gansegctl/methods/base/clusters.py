"""What methods without exemplars share: class names of clusters, rules for what is foreground, many k-means at once,
and boxes about the things of a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.labels import CLUSTER, IGNORE, LabelMap

FOREGROUND = LabelMap(("background", "foreground"), ((0, 0, 0), (244, 190, 142)))
"""The classes of a two-part mask that nobody painted."""

RULES = ("least-central", "centre", "border", "agreement")
SIDES = "tlrb"
_SEEDING = 2048  # pixels among which k-means++ draws


def segments(count: int) -> LabelMap:
    """Classes of clusters without names: segment-0, segment-1, …"""
    return LabelMap(tuple(CLUSTER.format(i) for i in range(count)))


def instances(count: int) -> LabelMap:
    """Classes of things that boxes were drawn about: background, instance-1, instance-2, …"""
    return LabelMap(("background", *(f"instance-{i + 1}" for i in range(count))))


Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are the first column and row that lie outside."""


def read_boxes(source: str | Mapping[str, Any], side: int) -> dict[str, list[list[int]]]:
    """{seed: [[left, top, right, bottom], …]} of a JSON file, or as a table → the same, checked, in whole pixels.

    side: of the pictures. The table is as JSON has it. Errors: UsageError for a missing file or another content, a seed
    that is no number, or as `check_boxes`.
    """
    table: Any = source
    if isinstance(source, str):
        try:
            table = json.loads(Path(source).read_text(encoding="utf-8"))
        except OSError as e:
            raise UsageError(f"got boxes {source}: {e.strerror}", wanted="a JSON file of boxes by seed") from None
        except ValueError as e:
            raise UsageError(f"got boxes {source}: no JSON ({e})", wanted="a JSON file of boxes by seed") from None
    if not isinstance(table, Mapping):
        raise UsageError(f"got boxes as a {type(table).__name__}", wanted="{seed: [[left, top, right, bottom], …]}")
    wrong = [key for key in table if not (str(key).isascii() and str(key).isdecimal())]
    if wrong:
        raise UsageError(f"got boxes of {wrong[0]!r}", wanted="the number of a seed")
    return {str(int(seed)): [list(b) for b in check_boxes(int(seed), x, side, side)] for seed, x in table.items()}


def check_boxes(seed: int, boxes: Any, height: int, width: int) -> list[Box]:
    """The boxes of one picture, rounded to whole pixels.

    UsageError for what is no list of four numbers each, for a box without pixels or beyond the picture, and for more
    boxes than a mask has values.
    """
    try:
        rows = [tuple(round(float(value)) for value in box) for box in boxes]
    except (TypeError, ValueError, OverflowError):  # round of nan and inf are of these
        rows = [()]
    for box in rows:
        if len(box) != 4:
            raise UsageError(f"got boxes {boxes!r:.80} for seed {seed}", wanted="[[left, top, right, bottom], …]")
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise UsageError(
                f"got box {list(box)} for seed {seed}",
                wanted=f"0 ≤ left < right ≤ {width} and 0 ≤ top < bottom ≤ {height}, in pixels of the picture",
            )
    if len(rows) >= IGNORE:
        raise UsageError(
            f"got {len(rows)} boxes for seed {seed}",
            wanted=f"at most {IGNORE - 1}: a mask has {IGNORE} values, one of them the background",
            remedy="leave the boxes of the smallest things out",
        )
    return rows


def no_exemplars(name: str, exemplars: Sequence) -> None:
    """UsageError when a method that reads no exemplars is given some."""
    if exemplars:
        raise UsageError(f"got {len(exemplars)} exemplars for {name}", wanted="none", remedy="pass --shots 0")


def check_sides(sides: str | None) -> None:
    """UsageError unless these are letters of "tlrb", one at least; None passes."""
    if sides is not None and (not sides or set(sides) - set(SIDES)):
        raise UsageError(f"got sides {sides!r}", wanted=f"letters of {SIDES!r}: top, left, right, bottom")


def stream_of(*parts: object) -> torch.Generator:
    """A random stream that is a function of these values alone: the same for a picture whatever batch it is in."""
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
    that of the whole picture. border: those with a smaller share of the border (of these sides) than of the area.
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
        rim = border(*labels.shape[1:], sides).to(labels.device)
        area = torch.bincount(labels.flatten(), minlength=k) / labels.numel()
        touch = torch.bincount(labels[:, rim].flatten(), minlength=k) / (len(labels) * int(rim.sum()))
        inside = (touch < area) & (inside if rule == "agreement" else there)
    inside = inside & there
    if not bool(inside.any()):
        inside[most] = True
    elif bool((inside | ~there).all()) and least != most:
        inside[least] = False
    return inside


def parallel_kmeans(
    x: Tensor,
    keep: Tensor,
    k: int,
    iterations: int,
    stream: torch.Generator,
    start: Tensor | None = None,
    sample: int | None = None,
) -> Tensor:
    """R runs of Lloyd's k-means on the rows of x [P,D], run r with the columns keep [R,D] only: labels int64 [R,P].

    All runs share two matrix products a round. A run starts from k-means++ on sampled rows, or from the means of the
    clusters `start` [P]. sample: rows that the centroids are fitted on (None = all). A cluster that loses all its rows
    keeps its centroid.
    """
    runs, (rows, width) = len(keep), x.shape
    mask = keep.to(x.dtype)[:, None]  # [R, 1, D]
    if start is None:
        some = x[torch.randperm(rows, generator=stream)[:_SEEDING].to(x.device)]
        centroids = torch.stack([_plus_plus(some * m, k, stream) for m in mask])  # [R, K, D]
    else:
        onehot = torch.nn.functional.one_hot(start, k).to(x.dtype)
        means = (onehot.T @ x) / onehot.sum(dim=0).clamp(min=1)[:, None]
        centroids = means * mask
    fitted = x if sample is None or sample >= rows else x[torch.randperm(rows, generator=stream)[:sample].to(x.device)]
    before = None
    for _ in range(iterations):
        labels = _nearest(fitted, centroids)  # [R, P]
        if before is not None and torch.equal(labels, before):
            break
        onehot = torch.nn.functional.one_hot(labels, k).to(x.dtype)  # [R, P, K]
        counts = onehot.sum(dim=1)  # [R, K]
        sums = (onehot.permute(0, 2, 1).reshape(runs * k, -1) @ fitted).view(runs, k, width) * mask
        means = sums / counts.clamp(min=1)[:, :, None]
        centroids = torch.where((counts > 0)[:, :, None], means, centroids)
        before = labels
    return _nearest(x, centroids)


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """Columns that a run leaves out are 0 in its centroids, and so in c·x − ½‖c‖²."""
    runs, k, width = centroids.shape
    scores = x @ centroids.view(runs * k, width).T - 0.5 * centroids.square().sum(dim=2).flatten()
    return scores.view(-1, runs, k).argmax(dim=2).T


def _plus_plus(x: Tensor, k: int, stream: torch.Generator) -> Tensor:
    chosen = [int(torch.randint(len(x), (1,), generator=stream))]
    distance = (x - x[chosen[0]]).square().sum(dim=1)
    while len(chosen) < k:
        odds = distance.double().cpu()
        odds = odds if bool(odds.sum() > 0) else torch.ones_like(odds)
        chosen.append(int(torch.multinomial(odds, 1, generator=stream)))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(dim=1))
    return x[chosen]
