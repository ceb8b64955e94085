"""‖U(x)(p)‖² from inner products of neighbouring native pixels: two kernels, the channels are read at native size only.

Kernel 1 reads x once and writes four maps [N,h,w] in float32 (float64 for float64): ⟨q,q⟩, ⟨q,q+x⟩, ⟨q,q+y⟩ and
⟨q,q+xy⟩ + ⟨q+x,q+y⟩, where a neighbour beyond the edge is the edge itself. Kernel 2 is the quadratic form of the four
taps of every pixel (reference.squared_norm). Forward only.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from gansegctl.kernels import launch
from gansegctl.kernels.sampling_triton import TYPES, index_type


@triton.jit
def inner_products_kernel(
    x: tl.tensor, x_n: tl.tensor, x_c: tl.tensor, x_y: tl.tensor, x_x: tl.tensor, out: tl.tensor, N: tl.tensor,
    C: tl.tensor, H: tl.tensor, W: tl.tensor,
    INDEX: tl.constexpr, ACC: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """The four maps of BLOCK native pixels of one sample; out [4,N,H,W] with native H, W."""
    blocks = tl.cdiv(H * W, BLOCK)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    q = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = q < H * W
    y, column = q // W, q % W
    here_y, here_x = y.to(INDEX) * x_y, column.to(INDEX) * x_x
    next_y = tl.minimum(y + 1, H - 1).to(INDEX) * x_y
    next_x = tl.minimum(column + 1, W - 1).to(INDEX) * x_x
    own = tl.zeros([BLOCK], ACC)
    ahead = tl.zeros([BLOCK], ACC)
    down = tl.zeros([BLOCK], ACC)
    diagonal = tl.zeros([BLOCK], ACC)
    for begin in range(0, C, BLOCK_C):
        c = begin + tl.arange(0, BLOCK_C)
        plane = (x + n * x_n + c.to(INDEX) * x_c)[:, None]
        mask = (c < C)[:, None] & inside[None, :]
        q00 = tl.load(plane + (here_y + here_x)[None, :], mask=mask, other=0.0).to(ACC)
        q01 = tl.load(plane + (here_y + next_x)[None, :], mask=mask, other=0.0).to(ACC)
        q10 = tl.load(plane + (next_y + here_x)[None, :], mask=mask, other=0.0).to(ACC)
        q11 = tl.load(plane + (next_y + next_x)[None, :], mask=mask, other=0.0).to(ACC)
        own += tl.sum(q00 * q00, axis=0)
        ahead += tl.sum(q00 * q01, axis=0)
        down += tl.sum(q00 * q10, axis=0)
        diagonal += tl.sum(q00 * q11 + q01 * q10, axis=0)
    size = N.to(tl.int64) * H * W
    at = out + n * H * W + q
    tl.store(at, own, mask=inside)
    tl.store(at + size, ahead, mask=inside)
    tl.store(at + 2 * size, down, mask=inside)
    tl.store(at + 3 * size, diagonal, mask=inside)


@triton.jit
def quadratic_form_kernel(
    maps: tl.tensor, rows: tl.tensor, row_weights: tl.tensor, columns: tl.tensor, column_weights: tl.tensor,
    out: tl.tensor, N: tl.tensor, h: tl.tensor, w: tl.tensor, H: tl.tensor, W: tl.tensor,
    LINEAR: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """BLOCK pixels of out [N,H,W] from maps [4,N,h,w]."""
    blocks = tl.cdiv(H * W, BLOCK)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    p = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = p < H * W
    y, x = p // W, p % W
    size = N.to(tl.int64) * h * w
    own = maps + n * h * w
    y0 = tl.load(rows + y, mask=inside, other=0) * w
    x0 = tl.load(columns + x, mask=inside, other=0)
    total = tl.load(own + y0 + x0, mask=inside, other=0.0)
    if LINEAR:
        y1 = tl.load(rows + H + y, mask=inside, other=0) * w
        x1 = tl.load(columns + W + x, mask=inside, other=0)
        fy = tl.load(row_weights + H + y, mask=inside, other=0.0)
        fx = tl.load(column_weights + W + x, mask=inside, other=0.0)
        a, b, c, d = (1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx
        total = a * a * total + b * b * tl.load(own + y0 + x1, mask=inside, other=0.0)
        total += c * c * tl.load(own + y1 + x0, mask=inside, other=0.0)
        total += d * d * tl.load(own + y1 + x1, mask=inside, other=0.0)
        ahead, down, diagonal = own + size, own + 2 * size, own + 3 * size
        total += 2 * a * b * tl.load(ahead + y0 + x0, mask=inside, other=0.0)
        total += 2 * c * d * tl.load(ahead + y1 + x0, mask=inside, other=0.0)
        total += 2 * a * c * tl.load(down + y0 + x0, mask=inside, other=0.0)
        total += 2 * b * d * tl.load(down + y0 + x1, mask=inside, other=0.0)
        total += 2 * a * d * tl.load(diagonal + y0 + x0, mask=inside, other=0.0)
    total = tl.maximum(total, 0.0)  # rounding must not make a norm negative
    tl.store(out + n * H * W + p, total.to(ACC), mask=inside)


def squared_norm(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """x [N,C,h,w] → [N,H,W]."""
    launch.check_maps([x], size, mode, same_channels=False)
    n, c, native_h, native_w = x.shape
    h, w = size
    dtype = launch.accumulator(x.dtype)
    maps = launch.empty((4, n, native_h, native_w), dtype, x.device)
    out = launch.empty((n, h, w), dtype, x.device)
    if out.numel() == 0:
        return out
    row = launch.taps(native_h, h, mode, x.device, dtype)
    column = launch.taps(native_w, w, mode, x.device, dtype)
    block = launch.power_of_two(native_h * native_w, 16, 64)
    with launch.on(x.device):
        inner_products_kernel[(n * triton.cdiv(native_h * native_w, block),)](
            x, *x.stride(), maps, n, c, native_h, native_w,
            INDEX=index_type(x), ACC=TYPES[dtype], BLOCK_C=launch.power_of_two(c, 1, 32), BLOCK=block,
            **launch.OPTIONS,
        )  # fmt: skip
        quadratic_form_kernel[(n * triton.cdiv(h * w, 512),)](
            maps, row.source, row.weight, column.source, column.weight, out, n, native_h, native_w, h, w,
            LINEAR=launch.kind((native_h, native_w), (h, w), mode) == launch.LINEAR, ACC=TYPES[dtype], BLOCK=512,
            **launch.OPTIONS,
        )  # fmt: skip
    return out
