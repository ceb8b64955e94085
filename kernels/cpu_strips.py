"""Backend "cpu", its inner part: sums of upsampled maps, a strip of rows at a time, so that the sums stay in cache.

Maps are pixel-major, [h,w,K], as channels-last activations are: each stage is then a matrix product. Along rows few
native rows feed a strip; along columns few native columns feed a block of 64; all levels are one product. Nothing of
full size exists but the result, and a per-pixel head needs not even its first layer's maps: `perceptron`, `classify`.

No gradients: cpu_ops.py gives the sum one. float16 and bfloat16 are summed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.kernels.interpolation import axis_matrix, axis_taps
from gansegctl.kernels.reference import Layers, Maps, Size

STRIP = 1 << 20
"""Numbers that a strip holds: 4 MB of float32, what stays in the last cache, in few enough pieces."""
BLOCK = 64
"""Columns of the image that are summed at one time."""
BAND = 1 << 28
"""Bytes of native products that exist at one time; an image that needs more is made in bands of rows."""
CHUNK = 256
"""Hidden units of a wide first layer that exist at one time."""


class _Sum:
    """Σ over levels and taps of upsampled, shifted maps, for rows first…last of the image.

    maps: for each level a list over row taps of [rows,w,S·K], S column taps; firsts: the native row that each level's
    maps begin with; natives: (h, w) of each level; shifts: of the taps, in pixels of the image.
    """

    def __init__(
        self,
        maps: Sequence[Sequence[Tensor]],
        firsts: Sequence[int],
        natives: Sequence[tuple[int, int]],
        size: tuple[int, int],
        mode: str,
        shifts: Sequence[int],
    ) -> None:
        self.maps, self.firsts, self.natives, self.shifts = maps, firsts, natives, shifts
        self.scratch: dict[object, Tensor] = {}  # memory that is asked for anew is paged in anew, at every strip
        dtype = maps[0][0].dtype
        self.rows = [_axis(h, size[0], mode, dtype) for h, _ in natives]
        columns = [_axis(w, size[1], mode, dtype) for _, w in natives]
        self.blocks = []
        for start in range(0, size[1], BLOCK):
            stop = min(start + BLOCK, size[1])
            bands = [[_band(axis, start + s, stop + s) for s in shifts] for axis in columns]
            spans = [[(lo, hi) for lo, hi, _ in taps] for taps in bands]
            self.blocks.append((start, stop, spans, torch.cat([m for taps in bands for _, _, m in taps], dim=1)))

    def add_to(self, out: Tensor, start: int, stop: int) -> None:
        """Add rows start…stop of the sum to out [stop−start,W,K]."""
        t, s, k = stop - start, len(self.shifts), out.shape[2]
        done = []
        for level, (taps, first, (_, w), axis) in enumerate(
            zip(self.maps, self.firsts, self.natives, self.rows, strict=True)
        ):
            total, seen = self._take(level, (t, w * s * k), out), False
            for x, shift in zip(taps, self.shifts, strict=True):
                low, high, matrix = _band(axis, start + shift, stop + shift)
                if low == high:  # this tap sees only what is outside the image
                    continue
                rows = x[low - first : high - first].reshape(high - low, -1)
                total.addmm_(matrix, rows) if seen else torch.mm(matrix, rows, out=total)
                seen = True
            done.append(total.view(t, w, s, k))
        for left, right, spans, matrix in self.blocks:
            parts = [x[:, lo:hi, j] for x, taps in zip(done, spans, strict=True) for j, (lo, hi) in enumerate(taps)]
            near = torch.cat(parts, dim=1, out=self._take("near", (t, matrix.shape[1], k), out))
            here = self._take("here", (t, right - left, k), out)
            # not baddbmm into the slice: torch takes it apart into one product a row
            out[:, left:right].add_(torch.bmm(matrix.expand(t, -1, -1), near, out=here))

    def _take(self, key: object, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Room of this shape, the same memory for the same key."""
        count = math.prod(shape)
        if key not in self.scratch or self.scratch[key].numel() < count:
            self.scratch[key] = torch.empty(count, dtype=like.dtype)
        return self.scratch[key][:count].view(shape)


@torch.no_grad()
def upsample_sum(maps: Sequence[Tensor], size: tuple[int, int], mode: str, bias: Tensor | None = None) -> Tensor:
    """`reference.upsample_sum`: maps [N,K,h_i,w_i] → [N,K,H,W], channels-last in memory."""
    kind, grouped = maps[0].dtype, _by_size(maps)
    n, k = maps[0].shape[:2]
    out = torch.empty(n, *size, k, dtype=_wide(kind))
    for i in range(n):
        small, whole = [], None
        for native, group in grouped.items():
            total = group[0][i].to(out.dtype)
            for x in group[1:]:
                total = total + x[i].to(out.dtype)
            total = total.permute(1, 2, 0)  # [h, w, K]
            if native == tuple(size):
                whole = total
            else:
                small.append((native, total.contiguous()))
        adder = (
            _Sum([[x] for _, x in small], [0] * len(small), [s for s, _ in small], size, mode, (0,)) if small else None
        )
        for start, stop in _strips(size, k):
            here = out[i, start:stop]
            here.copy_(whole[start:stop]) if whole is not None else here.zero_()
            if bias is not None:
                here += bias
            if adder:
                adder.add_to(here, start, stop)
    return out.to(kind).permute(0, 3, 1, 2)


@torch.no_grad()
def project(
    levels: Sequence[Tensor], weight: Tensor, size: tuple[int, int], mode: str, bias: Tensor | None = None
) -> Tensor:
    """Σ U(W_i a_i) + bias: levels [N,C_i,h_i,w_i], weight [K,ΣC] → [N,K,H,W], channels-last in memory."""
    kind, n, k = levels[0].dtype, levels[0].shape[0], weight.shape[0]
    out = torch.empty(n, *size, k, dtype=_wide(kind))
    for i in range(n):
        for start, stop, add in _projected([x[i] for x in levels], weight, size, mode, bias):
            add(out[i, start:stop])
    return out.to(kind).permute(0, 3, 1, 2)


@torch.no_grad()
def conv(levels: Maps, weight: Tensor, size: Size, mode: str, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """k×k convolution of the hypercolumn, 0 outside: weight [K,ΣC,k,k] → [N,K,H,W], channels-last in memory.

    The k² taps are projected at native size; a strip gathers its taps by shifted rows and columns of the matrices.
    """
    kind, n, k, kernel = levels[0].dtype, levels[0].shape[0], weight.shape[0], weight.shape[2]
    shifts = [dilation * (i - kernel // 2) for i in range(kernel)]
    out = torch.empty(n, *size, k, dtype=_wide(kind))
    weights = weight.to(out.dtype).split([x.shape[1] for x in levels], dim=1)
    full = [(x, w) for x, w in zip(levels, weights, strict=True) if tuple(x.shape[2:]) == tuple(size)]
    small = [(x, w) for x, w in zip(levels, weights, strict=True) if tuple(x.shape[2:]) != tuple(size)]
    for i in range(n):
        for top, bottom in _bands(small, size, kernel * kernel * k, out.element_size()):
            band = out[i, top:bottom]
            band.copy_(bias) if bias is not None else band.zero_()
            for x, w in full:
                band += _rows_convolved(x[i : i + 1].to(out.dtype), w, top, bottom, dilation)
            if not small:
                continue
            # order of a native map's channels: column tap, output; one map a row tap
            kernels = [(x[i], w.permute(2, 1, 3, 0).flatten(2).contiguous()) for x, w in small]  # [k, C, k·K]
            by_row = [[(x, w[r]) for x, w in kernels] for r in range(kernel)]
            adder = _adder(by_row, size, mode, shifts, top, bottom)
            for start, stop in _strips(size, k, top, bottom):
                adder.add_to(out[i, start:stop], start, stop)
    return out.to(kind).permute(0, 3, 1, 2)


@torch.no_grad()
def perceptron(levels: Sequence[Tensor], layers: Layers, size: tuple[int, int], mode: str, slope: float) -> Tensor:
    """A per-pixel head on the hypercolumn, leaky ReLU between its layers → logits [N,K,H,W], channels-last in memory.

    The maps of its first layer exist for one strip; of a layer wider than `CHUNK`, for so many units of it.
    """
    kind = levels[0].dtype
    out = torch.empty(levels[0].shape[0], *size, len(layers[-1][0]), dtype=_wide(kind))
    for i in range(len(out)):
        for start, stop, logits in _logits([x[i] for x in levels], layers, size, mode, slope):
            out[i, start:stop] = logits.view(stop - start, size[1], -1)
    return out.to(kind).permute(0, 3, 1, 2)


@torch.no_grad()
def classify(
    levels: Sequence[Tensor], heads: Sequence[Layers], size: tuple[int, int], mode: str, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One or several heads → labels uint8, confidence uint8, uncertainty float32, [N,H,W] each.

    Probabilities p are the mean over heads; label argmax p, confidence round(255·max p). Uncertainty: of one head the
    entropy H(p); of several the Jensen-Shannon divergence H(mean p) − mean H(p); both over log K, so within 0…1.
    """
    n, k = levels[0].shape[0], len(heads[0][-1][0])
    labels, confidence = (torch.empty(n, *size, dtype=torch.uint8) for _ in range(2))
    uncertainty = torch.empty(n, *size)
    unit = torch.tensor(float(max(k, 2))).log().item()
    several = len(heads) > 1
    for i in range(n):
        mean, own = (torch.zeros(*size, k), torch.zeros(*size)) if several else (None, None)
        for turn, head in enumerate(heads):
            for start, stop, logits in _logits([x[i] for x in levels], head, size, mode, slope):
                log_p = logits.float().log_softmax(dim=1).view(stop - start, size[1], k)
                p = log_p.exp()
                entropy = -(p * log_p).sum(dim=2)  # [T, W]
                if mean is not None and own is not None:
                    mean[start:stop] += p / len(heads)
                    own[start:stop] += entropy / len(heads)
                    if turn < len(heads) - 1:
                        continue
                    p = mean[start:stop]
                    entropy = (torch.special.entr(p).sum(dim=2) - own[start:stop]).clamp(min=0)
                top, winner = p.max(dim=2)
                labels[i, start:stop], uncertainty[i, start:stop] = winner, entropy / unit
                confidence[i, start:stop] = (top * 255).round()
    return labels, confidence, uncertainty


def _logits(
    levels: list[Tensor], layers: Layers, size: tuple[int, int], mode: str, slope: float
) -> Iterator[tuple[int, int, Tensor]]:
    """(first row, end, logits [T·W,K]) of one sample, strip by strip."""
    (first, bias), rest, width = layers[0], layers[1:], size[1]
    kind = _wide(levels[0].dtype)
    rest = [(w.to(kind).T.contiguous(), b.to(kind)) for w, b in rest]
    if not rest or len(first) <= CHUNK:
        scratch = None
        for start, stop, add in _projected(levels, first, size, mode, bias):
            scratch = torch.empty(stop - start, width, len(first), dtype=kind) if scratch is None else scratch
            here = scratch[: stop - start]
            add(here)
            yield start, stop, _layers(here.view(-1, len(first)), rest, slope)
        return
    hidden = rest[0][1].expand(*size, -1).contiguous()  # [H, W, second width]
    for units in torch.arange(len(first)).split(CHUNK):
        part = rest[0][0][units]
        for start, stop, add in _projected(levels, first[units], size, mode, bias[units]):
            here = torch.empty(stop - start, width, len(units), dtype=kind)
            add(here)
            hidden[start:stop].view(-1, hidden.shape[2]).addmm_(F.leaky_relu_(here.view(-1, len(units)), slope), part)
    for start, stop in _strips(size, hidden.shape[2]):
        yield start, stop, _layers(hidden[start:stop].view(-1, hidden.shape[2]), rest[1:], slope)


def _layers(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]], slope: float) -> Tensor:
    for weight, bias in layers:
        x = torch.addmm(bias, F.leaky_relu_(x, slope), weight)
    return x


def _projected(
    levels: Sequence[Tensor], weight: Tensor, size: tuple[int, int], mode: str, bias: Tensor | None
) -> Iterator:
    """(first row, end, function that fills [T,W,K]) of one sample's projection, strip by strip: levels [C_i,h_i,w_i].

    Levels of full size are projected in the strip itself, so their native maps never exist whole.
    """
    kind, k = _wide(levels[0].dtype), weight.shape[0]
    # [C_i, K], contiguous: the product of a transposed view takes a third longer
    weights = [w.to(kind).T.contiguous() for w in weight.split([x.shape[0] for x in levels], dim=1)]
    full = [(_pixels(x), w) for x, w in zip(levels, weights, strict=True) if tuple(x.shape[1:]) == tuple(size)]
    small = [(x, w) for x, w in zip(levels, weights, strict=True) if tuple(x.shape[1:]) != tuple(size)]
    constant = torch.zeros(k, dtype=kind) if bias is None else bias.to(kind)
    for top, bottom in _bands([(x[None], w) for x, w in small], size, k, weights[0].element_size()):
        adder = _adder([small], size, mode, (0,), top, bottom) if small else None
        for start, stop in _strips(size, k, top, bottom):

            def add(out: Tensor, start: int = start, stop: int = stop, adder: _Sum | None = adder) -> None:
                flat, rows = out.view(-1, k), slice(start * size[1], stop * size[1])
                begun = constant
                for x, w in full:
                    torch.addmm(begun, x[rows].to(kind), w, out=flat)
                    begun = flat
                if not full:
                    flat.copy_(constant)
                if adder is not None:
                    adder.add_to(out, start, stop)

            yield start, stop, add


def _adder(
    by_row: Sequence[Sequence[tuple[Tensor, Tensor]]],
    size: tuple[int, int],
    mode: str,
    shifts: Sequence[int],
    top: int,
    bottom: int,
) -> _Sum:
    """Native products for rows top…bottom of the image. by_row: for each row tap (level [C,h,w], weight [C,S·K])."""
    natives, maps, firsts = [], [], []
    for native in dict.fromkeys((x.shape[1], x.shape[2]) for x, _ in by_row[0]):
        axis = _axis(native[0], size[0], mode, by_row[0][0][1].dtype)
        bands = [_band(axis, top + s, bottom + s) for s in shifts]
        low = min(lo for lo, hi, _ in bands if lo < hi)
        high = max(hi for _, hi, _ in bands)
        taps = []
        for pairs in by_row:
            same = [(_pixels(x[:, low:high]), w) for x, w in pairs if (x.shape[1], x.shape[2]) == native]
            taps.append(_products(same).view(high - low, native[1], -1))
        natives.append(native)
        maps.append(taps)
        firsts.append(low)
    return _Sum(maps, firsts, natives, size, mode, shifts)


def _products(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Σ x·w over levels of one size, some pixels at a time: x [P,C], w [C,M] → [P,M]."""
    pixels, width = len(pairs[0][0]), pairs[0][1].shape[1]
    out = torch.empty(pixels, width, dtype=pairs[0][1].dtype)
    step = max(256, STRIP // width)
    for i in range(0, pixels, step):
        here = out[i : i + step]
        for turn, (x, w) in enumerate(pairs):
            rows = x[i : i + step].to(w.dtype)
            here.addmm_(rows, w) if turn else torch.mm(rows, w, out=here)
    return out


def _rows_convolved(x: Tensor, weight: Tensor, top: int, bottom: int, dilation: int) -> Tensor:
    """Rows top…bottom of conv2d(x [1,C,H,W], weight), zero padding → [rows,W,K]."""
    reach = dilation * (weight.shape[2] // 2)
    low, high = max(top - reach, 0), min(bottom + reach, x.shape[2])
    part = x[:, :, low:high]
    if (above := low - (top - reach)) + (below := bottom + reach - high):
        part = F.pad(part, (0, 0, above, below))
    return F.conv2d(part, weight, padding=(0, reach), dilation=dilation)[0].permute(1, 2, 0)


@lru_cache(maxsize=64)
def _axis(native: int, full: int, mode: str, dtype: torch.dtype) -> tuple[Tensor, list[int], list[int]]:
    """The axis matrix [full,native], and for each position the first native tap and one past the last."""
    with torch.inference_mode(False):
        first, second, _ = axis_taps(native, full, mode)
        matrix = axis_matrix(native, full, mode, torch.empty((), dtype=dtype))
    return matrix, first.tolist(), (second + 1).tolist()


def _band(axis: tuple[Tensor, list[int], list[int]], start: int, stop: int) -> tuple[int, int, Tensor]:
    """Native taps lo…hi of the positions start…stop, and their matrix [stop−start,hi−lo], 0 for positions outside."""
    matrix, firsts, ends = axis
    low, high = max(start, 0), min(stop, len(firsts))
    if low >= high:
        return 0, 0, matrix.new_zeros(stop - start, 0)
    lo, hi = firsts[low], ends[high - 1]
    part = matrix[low:high, lo:hi]
    if (low, high) != (start, stop):
        part = F.pad(part, (0, 0, low - start, stop - high))
    return lo, hi, part


def _strips(size: tuple[int, int], channels: int, top: int = 0, bottom: int | None = None) -> Iterator[tuple[int, int]]:
    """Rows top…bottom in runs that hold about `STRIP` numbers."""
    rows = max(1, STRIP // (size[1] * channels))
    bottom = size[0] if bottom is None else bottom
    for start in range(top, bottom, rows):
        yield start, min(start + rows, bottom)


def _bands(
    small: Sequence[tuple[Tensor, Tensor]], size: tuple[int, int], channels: int, itemsize: int
) -> Iterator[tuple[int, int]]:
    """The image's rows in runs whose native products [h,w,channels] of all levels stay within `BAND` bytes."""
    pixels = sum(h * w for h, w in {(x.shape[2], x.shape[3]) for x, _ in small})
    count = min(size[0], -(-pixels * channels * itemsize // BAND) or 1)
    rows = -(-size[0] // count)
    for top in range(0, size[0], rows):
        yield top, min(top + rows, size[0])


def _pixels(x: Tensor) -> Tensor:
    """[C,h,w] → [h·w,C], a view wherever the memory allows."""
    return x.flatten(1).T


def _by_size(maps: Sequence[Tensor]) -> dict[tuple[int, int], list[Tensor]]:
    grouped: dict[tuple[int, int], list[Tensor]] = {}
    for x in maps:
        grouped.setdefault((x.shape[2], x.shape[3]), []).append(x)
    return grouped


def _wide(kind: torch.dtype) -> torch.dtype:
    return torch.float32 if kind in (torch.float16, torch.bfloat16) else kind
