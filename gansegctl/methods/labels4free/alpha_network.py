"""The alpha network of Labels4Free: a generator's native activations → one soft foreground mask.

Abdal, Zhu, Mitra, Wonka: Labels4Free: Unsupervised Segmentation using StyleGAN, ICCV 2021. Of the six finest
resolutions above 4 px: every map is reduced to a few channels by a 1×1 convolution, six a resolution; from coarse to
fine they are joined, mixed by another 1×1, and doubled in size by bicubic interpolation; a last 1×1 and a sigmoid make
alpha. 14,947 weights for a StyleGAN2 of 256 px. No map is ever larger than its own resolution has channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.contracts import FeatureTap, GeneratorSpec
from gansegctl.errors import UsageError

LEVELS = 6  # resolutions that are read
WIDTH = 6  # channels of each, over all its maps
SLOPE = 0.2


def alpha_taps(spec: GeneratorSpec) -> tuple[FeatureTap, ...]:
    """The taps of the finest six resolutions above the coarsest, coarse to fine. UsageError where there are not two."""
    known = sorted({t.resolution for t in spec.taps})
    chosen = known[1:][-LEVELS:]
    if len(chosen) < 2:
        raise UsageError(
            f"got a generator with activations at {', '.join(map(str, known))} px",
            wanted="three resolutions or more",
            remedy="use another method",
        )
    return tuple(t for t in spec.taps if t.resolution in chosen)


class AlphaNetwork(nn.Module):
    """Native maps [N,C_i,h_i,w_i] → alpha logits [N,1,H,W].

    resolutions, channels: of each map, coarse to fine, as in a table of taps. Weights uniform within ±1/√fan_in, drawn
    from `stream` alone (None: a stream of its own).
    """

    def __init__(
        self, resolutions: Sequence[int], channels: Sequence[int], stream: torch.Generator | None = None
    ) -> None:
        super().__init__()
        stream = stream or torch.Generator()
        self.resolutions = tuple(resolutions)
        self.levels = sorted(set(self.resolutions))
        widths = []
        for i, resolution in enumerate(self.resolutions):
            same = [j for j, r in enumerate(self.resolutions) if r == resolution]
            widths.append(WIDTH // len(same) + (same.index(i) < WIDTH % len(same)))
        self.reduce = nn.ModuleList(_conv(c, w, stream) for c, w in zip(channels, widths, strict=True))
        self.merge = nn.ModuleList(_conv(2 * WIDTH, WIDTH, stream) for _ in self.levels[1:-1])
        self.last = _conv(WIDTH, 1, stream)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Alpha before the sigmoid, [N,1,*size]."""
        state = None
        for level, resolution in enumerate(self.levels):
            mine = [i for i, r in enumerate(self.resolutions) if r == resolution]
            own = torch.cat([self.reduce[i](maps[i]) for i in mine], dim=1)  # [N, 6, h, w]
            if state is None:
                state = own
                continue
            state = bicubic(state, (own.shape[2], own.shape[3]))
            if resolution == self.levels[-1]:
                state = state + own
            else:
                state = F.leaky_relu(self.merge[level - 1](torch.cat([state, own], dim=1)), SLOPE)
        return bicubic(self.last(state), size)

    @torch.no_grad()
    def fold(self, mean: Tensor, scale: Tensor) -> None:
        """Put (x − mean)·scale, per channel, into the first 1×1 layers: mean, scale [ΣC]."""
        weights = [layer.get_parameter("weight") for layer in self.reduce]
        biases = [layer.get_parameter("bias") for layer in self.reduce]
        widths = [weight.shape[1] for weight in weights]
        for weight, bias, m, s in zip(weights, biases, mean.split(widths), scale.split(widths), strict=True):
            bias.sub_(weight[:, :, 0, 0] @ (m * s))
            weight.mul_(s.view(1, -1, 1, 1))


def bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x [N,C,h,w] → [N,C,H,W], corners coinciding; by two small matrices, so that its gradient repeats to the bit."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    rows, columns = (_axis(n, m).to(x) for n, m in zip(x.shape[2:], size, strict=True))
    return rows @ x @ columns.T


def _axis(native: int, full: int) -> Tensor:
    """Bicubic interpolation along one axis as a matrix [full, native]."""
    eye = torch.eye(native).view(1, 1, native, native)
    return F.interpolate(eye, size=(full, native), mode="bicubic", align_corners=True)[0, 0]


def _conv(channels_in: int, channels_out: int, stream: torch.Generator) -> nn.Conv2d:
    conv = nn.utils.skip_init(nn.Conv2d, channels_in, channels_out, 1)
    bound = channels_in**-0.5
    for parameter in (conv.weight, conv.bias):
        parameter.data.uniform_(-bound, bound, generator=stream)
    return conv
