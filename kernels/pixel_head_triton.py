"""A whole per-pixel head in one kernel: upsample and sum, layers, softmax, ensemble, argmax; out go two uint8 maps.

Unfused, the K_0 summed maps alone are 4·K_0 bytes a pixel written and read (512 at 128 units), and again for each layer
and head. Here a tile of pixels goes through all layers in registers, the first layer's units in chunks, and 2 bytes a
pixel and one float a tile are written. The floats are summed by torch in a fixed order, so scores repeat.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch
from gansegctl.kernels.reference import Layers, Maps, Size
from gansegctl.kernels.sampling_triton import TYPES, index_type, merged, operands, sampled_sum


@triton.jit
def pixel_head_kernel(
    maps: tl.tuple, rows: tl.tuple, row_weights: tl.tuple, columns: tl.tuple, column_weights: tl.tuple,
    strides: tl.tuple, bias: tl.tensor, weight_1: tl.tensor, bias_1: tl.tensor, weight_2: tl.tensor, bias_2: tl.tensor,
    labels: tl.tensor, confidence: tl.tensor, partial: tl.tensor, H: tl.tensor, W: tl.tensor, slope: tl.tensor,
    unit: tl.tensor,
    KINDS: tl.constexpr, HEADS: tl.constexpr, DEPTH: tl.constexpr, HAS_BIAS: tl.constexpr, PER_PIXEL: tl.constexpr,
    HIDDEN: tl.constexpr, MIDDLE: tl.constexpr, CLASSES: tl.constexpr, DOT: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of BLOCK_Y·BLOCK_X pixels. DEPTH layers follow the sum; MIDDLE is the width after the first of two."""
    across = tl.cdiv(W, BLOCK_X)
    tiles = across * tl.cdiv(H, BLOCK_Y)
    tile = tl.program_id(0) % tiles
    n = tl.program_id(0) // tiles
    pixel = tl.arange(0, BLOCK_Y * BLOCK_X)
    y = (tile // across) * BLOCK_Y + pixel // BLOCK_X
    x = (tile % across) * BLOCK_X + pixel % BLOCK_X
    inside = (y < H) & (x < W)
    c = tl.arange(0, BLOCK_C)
    m = tl.arange(0, BLOCK_M)
    logits = tl.zeros([BLOCK_Y * BLOCK_X, BLOCK_C], tl.float32)
    mean = tl.zeros([BLOCK_Y * BLOCK_X, BLOCK_C], tl.float32)
    entropy = tl.zeros([BLOCK_Y * BLOCK_X], tl.float32)
    for e in range(0, HEADS):
        # The first product: [pixels, MIDDLE], or the sum itself where no layer follows.
        product = tl.zeros([BLOCK_Y * BLOCK_X, BLOCK_M], tl.float32)
        for begin in range(0, HIDDEN, BLOCK_K):
            k = begin + tl.arange(0, BLOCK_K)
            channel = e * HIDDEN + k
            hidden = sampled_sum(
                maps, rows, row_weights, columns, column_weights, strides, n,
                channel[None, :], (k < HIDDEN)[None, :], y[:, None], (y < H)[:, None], x[:, None], (x < W)[:, None],
                H, W, KINDS, INDEX, tl.float32,
            )  # fmt: skip
            if HAS_BIAS:
                hidden += tl.load(bias + channel, mask=k < HIDDEN, other=0.0).to(tl.float32)[None, :]
            if DEPTH == 0:
                product += hidden  # BLOCK_K = BLOCK_M: there is one chunk
            else:
                hidden = tl.where(hidden > 0, hidden, hidden * slope).to(DOT)
                at = (e * MIDDLE + m)[None, :] * HIDDEN + k[:, None]
                w = tl.load(weight_1 + at, mask=(m < MIDDLE)[None, :] & (k < HIDDEN)[:, None], other=0.0)
                product = tl.dot(hidden, w, product, input_precision="ieee")
        if DEPTH > 0:
            product += tl.load(bias_1 + e * MIDDLE + m, mask=m < MIDDLE, other=0.0).to(tl.float32)[None, :]
        if DEPTH == 2:
            product = tl.where(product > 0, product, product * slope).to(DOT)
            at = (e * CLASSES + c)[None, :] * MIDDLE + m[:, None]
            w = tl.load(weight_2 + at, mask=(c < CLASSES)[None, :] & (m < MIDDLE)[:, None], other=0.0)
            logits = tl.dot(product, w, input_precision="ieee")
            logits += tl.load(bias_2 + e * CLASSES + c, mask=c < CLASSES, other=0.0).to(tl.float32)[None, :]
        else:
            logits = product  # BLOCK_M = BLOCK_C
        logits = tl.where((c < CLASSES)[None, :], logits, float("-inf"))
        highest = tl.max(logits, axis=1)
        scaled = tl.exp(logits - highest[:, None])
        total = tl.sum(scaled, axis=1)
        p = scaled / total[:, None]
        log_p = tl.where((c < CLASSES)[None, :], logits - highest[:, None] - tl.log(total)[:, None], 0.0)
        entropy -= tl.sum(p * log_p, axis=1) / HEADS
        mean += p / HEADS
    if HEADS == 1:
        label = tl.argmax(logits, axis=1)
        spread = entropy
    else:
        label = tl.argmax(tl.where((c < CLASSES)[None, :], mean, -1.0), axis=1)
        own = -tl.sum(tl.where(mean > 0, mean * tl.log(tl.where(mean > 0, mean, 1.0)), 0.0), axis=1)
        spread = tl.maximum(own - entropy, 0.0)
    at = (n.to(tl.int64) * H + y) * W + x
    tl.store(labels + at, label.to(tl.int32).to(tl.uint8), mask=inside)
    sure = tl.max(mean, axis=1) * 255.0 + 0.5
    tl.store(confidence + at, sure.to(tl.int32).to(tl.uint8), mask=inside)
    if PER_PIXEL:
        tl.store(partial + at, spread * unit, mask=inside)
    else:
        tl.store(partial + tl.program_id(0), tl.sum(tl.where(inside, spread * unit, 0.0), axis=0))


def pixel_head(
    maps: Maps, size: Size, layers: Layers, heads: int, mode: str, bias: Tensor | None, slope: float, per_pixel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(labels, confidence, score) of `kernels.pixel_head`. The dtype of the maps is that of the products."""
    launch.check_maps(maps, size, mode, same_channels=True)
    maps = merged([x.detach() for x in maps])
    n, channels = maps[0].shape[:2]
    h, w = size
    device, dtype = maps[0].device, maps[0].dtype
    flat = [t.detach().to(dtype).contiguous() for pair in layers for t in pair]
    hidden = channels // heads
    middle = layers[0][0].shape[1] if layers else hidden
    classes = layers[-1][0].shape[1] if layers else hidden
    depth = len(layers)
    block_c = launch.power_of_two(classes, 16, 128)
    block_m = launch.power_of_two(middle, 16, 256) if depth == 2 else block_c
    block_k = launch.power_of_two(hidden, 16, 32) if depth else block_m
    block_x = launch.power_of_two(w, 4, 16)
    block_y = 64 // block_x
    tiles = triton.cdiv(h, block_y) * triton.cdiv(w, block_x)
    labels = launch.empty((n, h, w), torch.uint8, device)
    confidence = launch.empty((n, h, w), torch.uint8, device)
    partial = launch.empty((n, h, w) if per_pixel else (n, tiles), torch.float32, device)
    arguments, kinds = operands(maps, size, mode)
    flat += [partial] * (4 - len(flat))  # a pointer for a layer that is not there
    with launch.on(device):
        pixel_head_kernel[(n * tiles,)](
            *arguments, partial if bias is None else bias.detach().contiguous(), *flat, labels, confidence, partial,
            h, w, slope, 1 / math.log(max(classes, 2)),
            KINDS=kinds, HEADS=heads, DEPTH=depth, HAS_BIAS=bias is not None,
            PER_PIXEL=per_pixel, HIDDEN=hidden, MIDDLE=middle, CLASSES=classes,
            DOT=TYPES[dtype], INDEX=index_type(*maps),
            BLOCK_Y=block_y, BLOCK_X=block_x, BLOCK_K=block_k, BLOCK_M=block_m, BLOCK_C=block_c,
            num_warps=8 if block_m > 64 else 4, num_stages=1,  # staging all taps of all levels outgrows shared memory
            **launch.OPTIONS,
        )  # fmt: skip
    return labels, confidence, partial if per_pixel else partial.sum(dim=1) / (h * w)
