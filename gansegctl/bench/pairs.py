"""`gansegctl bench pairs`: what a mask costs beside its image, on real generator sizes with random weights."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gansegctl.bench.checks import check_conv, check_heads, random_head, random_points
from gansegctl.bench.common import Row, interleaved, make_generator, median_ratio
from gansegctl.contracts import Annotation, Generator
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.io.image import to_uint8
from gansegctl.methods.base.annotations import annotation_of
from gansegctl.methods.base.heads import CNN_HEADS, make_head
from gansegctl.pipeline.runtime.memory import peak_extra

HEADS = ("linear", "mlp", *CNN_HEADS, "ensemble")
CLASSES, UNITS, MEMBERS = 10, 128, 10
IMAGE = "image alone"
_POINTS = 512

Mask = Callable[[FeaturePyramid], Annotation]


@torch.no_grad()
def bench_pairs(
    shapes: Sequence[str], heads: Sequence[str], repeats: int, device: str = "cpu", batch: int = 1
) -> Iterator[Row]:
    """Rows of the image alone and of image and mask in one pass, both as uint8 arrays on the host; `ratio` is pair
    over image, the median over repeats, and `peak` the mask's own extra memory.

    linear: 10 classes. mlp: one perceptron of 128 units. cnn-s, cnn-m, cnn-l: heads of `repurpose`. ensemble: ten
    perceptrons of 128 and 32 units. Each head is first held against sampled hypercolumns. Errors: UsageError for an
    unknown head, GansegError for disagreement.
    """
    for head in heads:
        if head not in HEADS:
            raise UsageError(f"got head {head!r}", wanted=" | ".join(HEADS), remedy=did_you_mean(head, HEADS))
    for shape in shapes:
        generator = make_generator(shape, device)
        z = torch.randn(batch, generator.spec.z_dim, generator=torch.Generator().manual_seed(0)).to(device)
        ws, seeds = generator.map(z), tuple(range(batch))
        pyramid = generator.synthesize(ws, "const", None, seeds).pyramid
        masks = {name: _mask(name, pyramid, device) for name in heads}
        del pyramid

        image = partial(_image, generator, ws, seeds)
        image()
        for name, mask in masks.items():  # each beside its own images: a row's ratio is of neighbours in time
            seconds = interleaved({IMAGE: image, name: partial(_pair, generator, ws, seeds, mask)}, repeats, device)
            peak = peak_extra(partial(mask, generator.synthesize(ws, "const", None, seeds).pyramid), device)
            alone, both = seconds[IMAGE], seconds[name]
            facts = {"image_seconds": statistics.median(alone), "batch": batch}
            ratio = median_ratio(both, alone)
            note = f"image alone {1e3 * facts['image_seconds']:,.0f} ms"
            operation, middle = f"{batch} × image + mask", statistics.median(both)
            yield Row(shape, operation, name, middle, min(both), peak, None, ratio, note, facts)


def _image(generator: Generator, ws: Tensor, seeds: tuple[int, ...]) -> np.ndarray:
    return to_uint8(generator.synthesize(ws, "const", (), seeds).image)


def _pair(generator: Generator, ws: Tensor, seeds: tuple[int, ...], mask: Mask) -> tuple[np.ndarray, ...]:
    """Image, labels, confidence and score, all on the host."""
    made = generator.synthesize(ws, "const", None, seeds)
    found = mask(made.pyramid)
    of_mask = (x.cpu().numpy() for x in (found.labels, found.confidence, found.score))
    return to_uint8(made.image), *of_mask


def _mask(name: str, pyramid: FeaturePyramid, device: str) -> Mask:
    """A random head by name, after it was held against hypercolumns at sampled pixels of `pyramid`."""
    stream, channels = torch.Generator().manual_seed(1), pyramid.channels
    points = random_points(pyramid, _POINTS)
    if name in CNN_HEADS:
        head = make_head(name, channels, CLASSES, generator=stream).requires_grad_(False).to(device)
        check_conv(pyramid, head.weights[0], points)
        return lambda p: annotation_of(torch.cat([head(p[i : i + 1]) for i in range(len(p))]))
    widths = {"linear": (), "mlp": (UNITS,), "ensemble": (UNITS, 32)}[name]
    members = MEMBERS if name == "ensemble" else 1
    heads = [random_head((channels, *widths, CLASSES), stream, device) for _ in range(members)]
    check_heads(pyramid, heads, points)

    def mask(p: FeaturePyramid) -> Annotation:
        labels, confidence, uncertainty = p.classify(heads)
        return Annotation(labels, confidence, uncertainty.mean(dim=(1, 2)))

    return mask
