"""Several small perceptrons on single pixels, trained side by side and applied as one stack.

Each is linear → ReLU → batch-norm → linear → ReLU → batch-norm → linear. Batch-norm follows the ReLU, so once fitted
it folds into the layer after it, and the standardisation of the features into the first: M members are then one
[M·h,ΣC] projection of a FeaturePyramid and two grouped 1x1 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.features.pyramid import FeaturePyramid

MOMENTUM, EPSILON = 0.1, 1e-5
_BYTES_AT_ONCE = 128 << 20  # of hidden maps of the first layer


class Ensemble(nn.Module):
    """M perceptrons in training: sizes (ΣC, h_1, h_2, K).

    init: he (deviation √(2/fan-in); √(1/fan-in) for the last layer) | small (deviation 0.02). Biases start at 0.
    """

    def __init__(self, members: int, sizes: Sequence[int], init: str, stream: torch.Generator) -> None:
        super().__init__()
        self.members, self.sizes = members, tuple(sizes)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.gains, self.shifts = nn.ParameterList(), nn.ParameterList()
        for i, (c_in, c_out) in enumerate(pairwise(self.sizes)):
            deviation = 0.02 if init == "small" else ((1 if i == len(self.sizes) - 2 else 2) / c_in) ** 0.5
            self.weights.append(torch.randn(members, c_in, c_out, generator=stream) * deviation)
            self.biases.append(torch.zeros(members, 1, c_out))
            if i < len(self.sizes) - 2:
                self.gains.append(torch.ones(members, 1, c_out))
                self.shifts.append(torch.zeros(members, 1, c_out))
                self.register_buffer(f"mean{i}", torch.zeros(members, 1, c_out))
                self.register_buffer(f"variance{i}", torch.ones(members, 1, c_out))

    def forward(self, x: Tensor) -> Tensor:
        """Pixels x [M,B,ΣC], B for each member → logits [M,B,K]; batch statistics are used and remembered."""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if i < last:
                x = self._normalised(x.relu(), i)
        return x

    def _normalised(self, x: Tensor, i: int) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        count = x.shape[1]
        with torch.no_grad():
            getattr(self, f"mean{i}").lerp_(mean, MOMENTUM)
            getattr(self, f"variance{i}").lerp_(variance * (count / max(count - 1, 1)), MOMENTUM)
        return (x - mean) * (variance + EPSILON).rsqrt() * self.gains[i] + self.shifts[i]

    @torch.no_grad()
    def folded(self, statistics: tuple[Tensor, Tensor] | None = None) -> StackedPerceptrons:
        """The fitted stack, its batch-norm by the remembered statistics.

        statistics: mean and scale [ΣC] each, where the ensemble was fitted on (x − mean)·scale.
        """
        stack = StackedPerceptrons(self.members, self.sizes)
        scales, offsets = [torch.ones(1, self.sizes[0], 1)], [torch.zeros(1, 1, self.sizes[0])]
        if statistics is not None:
            mean, scale = statistics
            scales, offsets = [scale.view(1, -1, 1).cpu()], [-(mean * scale).view(1, 1, -1).cpu()]
        for i, (gain, shift) in enumerate(zip(self.gains, self.shifts, strict=True)):
            factor = gain * (getattr(self, f"variance{i}") + EPSILON).rsqrt()  # [M, 1, h]
            scales.append(factor.transpose(1, 2).cpu())
            offsets.append((shift - getattr(self, f"mean{i}") * factor).cpu())
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight, bias = weight.cpu(), bias.cpu()
            bias = bias + offsets[i].expand(self.members, -1, -1) @ weight  # [M, 1, out]
            stack.weights[i].copy_((weight * scales[i]).transpose(1, 2).flatten(0, 1))
            stack.biases[i].copy_(bias.flatten())
        return stack


class StackedPerceptrons(nn.Module):
    """The fitted ensemble as plain layers: weights [M·out, in] each, no batch-norm left."""

    def __init__(self, members: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.members, self.sizes = members, tuple(sizes)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for c_in, c_out in pairwise(self.sizes):
            self.weights.append(nn.Parameter(torch.zeros(members * c_out, c_in), requires_grad=False))
            self.biases.append(nn.Parameter(torch.zeros(members * c_out), requires_grad=False))

    def heads(self) -> list[list[tuple[Tensor, Tensor]]]:
        """The members, each as layers (weight [K_out,K_in], bias [K_out])."""
        split = [(w.chunk(self.members), b.chunk(self.members)) for w, b in zip(self.weights, self.biases, strict=True)]
        return [[(w[m], b[m]) for w, b in split] for m in range(self.members)]

    @torch.no_grad()
    def forward(self, pyramid: FeaturePyramid) -> Tensor:
        """pyramid → logits [N,M,K,H,W]: one projection for all members, or for as many as 128 MB of maps allow."""
        (height, width), hidden = pyramid.size, self.sizes[1]
        at_once = max(1, _BYTES_AT_ONCE // (4 * hidden * height * width * pyramid.batch))
        parts = [self._some(pyramid, i, min(at_once, self.members - i)) for i in range(0, self.members, at_once)]
        return torch.cat(parts, dim=1)

    def _some(self, pyramid: FeaturePyramid, first: int, count: int) -> Tensor:
        def rows(i: int) -> tuple[Tensor, Tensor]:
            one = slice(first * self.sizes[i + 1], (first + count) * self.sizes[i + 1])
            return self.weights[i][one], self.biases[i][one]

        x = pyramid.project(*rows(0))  # [N, count·h, H, W]
        for i in range(1, len(self.weights)):
            weight, bias = rows(i)
            x = F.conv2d(x.relu_(), weight[:, :, None, None], bias, groups=count)
        return x.unflatten(1, (count, self.sizes[-1]))
