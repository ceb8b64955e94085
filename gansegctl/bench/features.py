"""`gansegctl bench features`: what a pyramid computes, against upsample-and-concatenate, as the field does it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.bench.checks import Head, check_conv, check_heads, picked, random_head, random_points, vote
from gansegctl.bench.common import (
    Row,
    check_equal,
    check_labels,
    compiled,
    interleaved,
    median_ratio,
    random_pyramid,
)
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.features.kmeans import kmeans
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.pipeline.runtime.memory import available_memory, peak_extra

OPERATIONS = ("project", "conv", "ensemble", "kmeans")
WIDTH, CLASSES, MEMBERS, CLUSTERS, ROUNDS, IMAGES = 128, 16, 10, 12, 10, 2
DENSE, COMPILED, KEPT, OURS = "upsample and concatenate", "the same, torch.compile", "hypercolumns kept", "pyramid"
_POINTS = 2048


def hypercolumn(levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """[N,ΣC,H,W] the usual way: every level through F.interpolate, then one torch.cat."""
    return torch.cat([F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in levels], dim=1)


@torch.no_grad()
def bench_features(
    shapes: Sequence[str], operations: Sequence[str], repeats: int, device: str = "cpu", try_compile: bool = False
) -> Iterator[Row]:
    """Rows of each operation on each shape, one image at a time, random activations and weights.

    project: 1×1 to 128 maps. conv: 3×3 to 128. ensemble: the mask of ten perceptrons ΣC → 128 → 32 → 16 (DatasetGAN).
    kmeans: 12 clusters, 10 rounds over two images. No speed before both agree; where the hypercolumn does not fit
    into memory ours is checked at sampled pixels and stands alone. Errors: UsageError, GansegError for disagreement.
    """
    for operation in operations:
        if operation not in OPERATIONS:
            raise UsageError(
                f"got operation {operation!r}",
                wanted=" | ".join(OPERATIONS),
                remedy=did_you_mean(operation, OPERATIONS),
            )
    run = {"project": _project, "conv": _conv, "ensemble": _ensemble, "kmeans": _kmeans}
    for shape in shapes:
        pyramid = random_pyramid(shape, device=device)
        for operation in operations:
            yield from run[operation](shape, pyramid, repeats, device, try_compile)


def _project(shape: str, p: FeaturePyramid, repeats: int, device: str, try_compile: bool) -> Iterator[Row]:
    stream = torch.Generator().manual_seed(1)
    weight = (torch.randn(WIDTH, p.channels, generator=stream) / p.channels**0.5).to(device)

    def dense(*levels: Tensor) -> Tensor:
        return F.conv2d(hypercolumn(levels, p.size), weight[:, :, None, None])

    def at_points(points: Tensor) -> None:
        check_equal("projections", picked(p.project(weight), points), p.at(points) @ weight.T)

    ours = _native_bytes(p) + 2 * WIDTH * _small_pixels(p) * 4 + _map_bytes(p, WIDTH)
    moved = (_dense_bytes(p) + _map_bytes(p, WIDTH), ours)
    yield from _against(
        shape, f"1×1, {WIDTH} maps", p, dense, lambda: p.project(weight), at_points, check_equal, moved,
        repeats, device, try_compile,
    )  # fmt: skip


def _conv(shape: str, p: FeaturePyramid, repeats: int, device: str, try_compile: bool) -> Iterator[Row]:
    stream = torch.Generator().manual_seed(1)
    weight = (torch.randn(WIDTH, p.channels, 3, 3, generator=stream) / (9 * p.channels) ** 0.5).to(device)

    def dense(*levels: Tensor) -> Tensor:
        return F.conv2d(hypercolumn(levels, p.size), weight, padding=1)

    def at_points(points: Tensor) -> None:
        check_conv(p, weight, points)

    ours = _native_bytes(p) + 2 * 9 * WIDTH * _small_pixels(p) * 4 + _map_bytes(p, WIDTH)
    moved = (_dense_bytes(p) + _map_bytes(p, WIDTH), ours)
    yield from _against(
        shape, f"3×3, {WIDTH} maps", p, dense, lambda: p.conv(weight), at_points, check_equal, moved,
        repeats, device, try_compile,
    )  # fmt: skip


def _ensemble(shape: str, p: FeaturePyramid, repeats: int, device: str, try_compile: bool) -> Iterator[Row]:
    stream = torch.Generator().manual_seed(1)
    heads = [random_head((p.channels, WIDTH, 32, CLASSES), stream, device) for _ in range(MEMBERS)]

    def dense(*levels: Tensor) -> Tensor:
        x = hypercolumn(levels, p.size)

        def logits(head: Head) -> Tensor:
            y = F.conv2d(x, head[0][0][:, :, None, None], head[0][1])
            for weight, bias in head[1:]:
                y = F.conv2d(F.relu(y), weight[:, :, None, None], bias)
            return y

        return vote(logits, heads).argmax(dim=1)

    def at_points(points: Tensor) -> None:
        check_heads(p, heads, points)

    products = MEMBERS * 2 * WIDTH * _small_pixels(p) * 4
    ours = MEMBERS * _native_bytes(p) + products + (2 * MEMBERS - 1) * _map_bytes(p, CLASSES) + 2 * _map_bytes(p, 1)
    moved = (_dense_bytes(p) + (MEMBERS - 1) * p.hypercolumn_bytes + MEMBERS * 4 * _map_bytes(p, WIDTH), ours)
    yield from _against(
        shape, f"mask of {MEMBERS} perceptrons", p, dense, lambda: p.classify(heads)[0], at_points, check_labels,
        moved, repeats, device, try_compile,
    )  # fmt: skip


def _kmeans(shape: str, p: FeaturePyramid, repeats: int, device: str, try_compile: bool) -> Iterator[Row]:
    images = [p, random_pyramid(shape, device=device, seed=1)]
    points = random_points(p, CLUSTERS)
    start = p.at(points)
    operation = f"k-means, {CLUSTERS} clusters, {ROUNDS} rounds, {IMAGES} images"

    def ours() -> Tensor:
        return kmeans(images, CLUSTERS, iterations=ROUNDS, tol=0.0, start=start).centroids

    def dense(kept: Sequence[Tensor] | None = None) -> Tensor:
        centroids = start
        for _ in range(ROUNDS):
            sums, counts = torch.zeros_like(centroids), torch.zeros(len(centroids), device=centroids.device)
            for i, one in enumerate(images):
                x = (hypercolumn(one.levels, one.size) if kept is None else kept[i])[0].flatten(1)  # [ΣC, H·W]
                scores = centroids @ x - 0.5 * centroids.square().sum(dim=1, keepdim=True)
                onehot = F.one_hot(scores.argmax(dim=0), len(centroids)).to(x.dtype)  # [H·W, K]
                sums += (x @ onehot).T
                counts += onehot.sum(dim=0)
            centroids = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centroids)
        return centroids

    if not _fits(p, device):
        yield Row(shape, operation, DENSE, note=_too_large(p, device))
        yield Row(shape, operation, OURS, note="not run: nothing to hold it against")
        return
    theirs = dense()
    for image in images:
        check_labels("labels of k-means", image.assign(ours()), image.assign(theirs))
    seconds = interleaved({DENSE: dense, OURS: ours}, repeats, device)
    moved = IMAGES * ROUNDS * (_dense_bytes(p) + p.hypercolumn_bytes)
    yield _row(shape, operation, DENSE, seconds, peak_extra(dense, device), moved)
    read = 2 * _native_bytes(p) * IMAGES * (ROUNDS + 1)
    yield _row(shape, operation, OURS, seconds, peak_extra(ours, device), read)
    if (IMAGES + 2) * p.hypercolumn_bytes < 0.8 * available_memory(device):
        kept = [hypercolumn(one.levels, one.size) for one in images]
        seconds = interleaved({KEPT: lambda: dense(kept), OURS: ours}, repeats, device)
        row = _row(shape, operation, KEPT, seconds, None, moved - IMAGES * (ROUNDS - 1) * _dense_bytes(p))
        row.note = f"{median_ratio(seconds[KEPT], seconds[OURS]):.1f} times the pyramid's time, building them left out"
        yield row


def _against(
    shape: str,
    operation: str,
    p: FeaturePyramid,
    dense: Callable[..., Tensor],
    ours: Callable[[], Tensor],
    at_points: Callable[[Tensor], None],
    check: Callable[[str, Tensor, Tensor], float],
    moved: tuple[int, int],
    repeats: int,
    device: str,
    try_compile: bool,
) -> Iterator[Row]:
    """Rows of (a) dense, (b) compiled, (c) ours, after they agree."""
    if not _fits(p, device):
        at_points(random_points(p, _POINTS))
        yield Row(shape, operation, DENSE, note=_too_large(p, device), moved=moved[0])
        seconds = interleaved({OURS: ours}, repeats, device)
        note = f"agrees at {_POINTS} sampled pixels"
        yield _row(shape, operation, OURS, seconds, peak_extra(ours, device), moved[1], note)
        return
    what = f"results of {operation} on {shape}"
    theirs = dense(*p.levels)
    check(what, ours(), theirs)
    functions: dict[str, Callable[[], Any]] = {DENSE: lambda: dense(*p.levels), OURS: ours}
    note = "not asked for: --compile"
    if try_compile:
        made, note = compiled(dense, *p.levels)
        if made is not None:
            check(what + ", compiled", made(*p.levels), theirs)
            functions[COMPILED] = lambda: made(*p.levels)
    del theirs
    seconds = interleaved(functions, repeats, device)
    peaks = {name: peak_extra(function, device) for name, function in functions.items()}
    yield _row(shape, operation, DENSE, seconds, peaks[DENSE], moved[0])
    if COMPILED in functions:
        yield _row(shape, operation, COMPILED, seconds, peaks[COMPILED], None)
    else:
        yield Row(shape, operation, COMPILED, note=note)
    yield _row(shape, operation, OURS, seconds, peaks[OURS], moved[1])


def _row(
    shape: str,
    operation: str,
    path: str,
    seconds: dict[str, list[float]],
    peak: int | None,
    moved: int | None,
    note: str = "",
) -> Row:
    own = seconds[path]
    ratio = median_ratio(seconds[DENSE], own) if DENSE in seconds else None
    return Row(shape, operation, path, statistics.median(own), min(own), peak, moved, ratio, note)


def _native_bytes(p: FeaturePyramid) -> int:
    return sum(x.numel() * x.element_size() for x in p.levels)


def _small_pixels(p: FeaturePyramid) -> int:
    return sum(h * w for h, w in {(x.shape[2], x.shape[3]) for x in p.levels} - {p.size})


def _map_bytes(p: FeaturePyramid, channels: int) -> int:
    return 4 * p.batch * channels * p.size[0] * p.size[1]


def _dense_bytes(p: FeaturePyramid) -> int:
    """Read the levels, write them upsampled, read and write them concatenated, read them in the layer."""
    return _native_bytes(p) + 4 * p.hypercolumn_bytes


def _fits(p: FeaturePyramid, device: str) -> bool:
    return 2 * p.hypercolumn_bytes < 0.8 * available_memory(device)


def _too_large(p: FeaturePyramid, device: str) -> str:
    return f"needs {2 * p.hypercolumn_bytes / 1e9:.0f} GB of {available_memory(device) / 1e9:.0f} GB free: not run"
