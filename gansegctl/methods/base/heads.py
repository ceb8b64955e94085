"""Per-pixel classifiers whose first layer works on a FeaturePyramid at native size: no hypercolumn is built."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.errors import UsageError, did_you_mean
from gansegctl.features.pyramid import FeaturePyramid, fold_affine

CNN_HEADS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "cnn-s": ((128, 64, 64, 32), (1, 2, 1, 2, 1)),
    "cnn-m": ((128, 64, 64, 64, 64, 32), (1, 2, 4, 1, 2, 4, 1)),
    "cnn-l": ((128, 64, 64, 64, 64, 64, 64, 32), (1, 2, 4, 8, 1, 2, 4, 8, 1)),
}
"""Name → hidden widths, and the dilations of all 3×3 layers, the last of which makes the classes."""

CNN_SLOPE = 0.2

OFFICIAL_HEAD: tuple[tuple[int, ...], tuple[int, ...]] = (
    (128, 64, 64, 64, 64, 64, 64, 32),
    (1, 2, 4, 8, 1, 2, 4, 8, 1),
)
"""Hidden widths and dilations of the head that Tritrong et al. released, whose first layer is 1×1, all others 3×3."""

OFFICIAL_SLOPE = 0.01

HEADS = (*CNN_HEADS, "official", "mlp")


class Head(nn.Module):
    """k×k layers on a pyramid: channels → widths → classes, leaky ReLU between; k = 1 is a multi-layer perceptron.

    channels: ΣC of the pyramid; kernel: odd k of all layers, or one a layer; dilations: one a layer. Logits are
    [N,K,H,W]. After `fold`, the head reads raw activations and standardises them inside its first layer.
    init "he": hidden weights uniform with variance 2/((1+slope²)·fan_in), biases 0 (He et al. 2015, eq. 14), so that
    deep heads pass signal from the first step on; "torch": all uniform within ±1/√fan_in, which shrinks it at every
    layer. Drawn from `generator` alone.
    """

    border: Tensor  # [h,k,k]: the first layer's response to the means that `fold` took away

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        classes: int,
        kernel: int | Sequence[int],
        dilations: Sequence[int],
        slope: float,
        generator: torch.Generator | None = None,
        init: str = "he",
    ) -> None:
        super().__init__()
        sizes = (channels, *widths, classes)
        self.kernels = (kernel,) * (len(sizes) - 1) if isinstance(kernel, int) else tuple(kernel)
        self.dilations, self.slope = tuple(dilations), slope
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, ((c_in, c_out), k) in enumerate(zip(pairwise(sizes), self.kernels, strict=True)):
            bound = (c_in * k * k) ** -0.5
            spread = 0.0 if init == "he" else bound
            if init == "he" and i < len(sizes) - 2:
                bound *= (6 / (1 + slope**2)) ** 0.5
            self.weights.append(torch.empty(c_out, c_in, k, k).uniform_(-bound, bound, generator=generator))
            self.biases.append(torch.empty(c_out).uniform_(-spread, spread, generator=generator))
        self.register_buffer("border", torch.zeros(sizes[1], self.kernel, self.kernel))

    @property
    def kernel(self) -> int:
        """k of the first layer, the one that reads the pyramid."""
        return self.kernels[0]

    @property
    def per_pixel(self) -> bool:
        """Whether all layers are 1×1, so that `layers` is the whole head."""
        return max(self.kernels) == 1

    def forward(self, pyramid: FeaturePyramid, gain: Tensor | None = None) -> Tensor:
        """pyramid → logits [N,K,H,W]; gain [ΣC] multiplies the channels (dropout of whole features)."""
        first = self.weights[0] if gain is None else self.weights[0] * gain.view(1, -1, 1, 1)
        if self.per_pixel:
            (_, bias), *rest = self.layers()
            return pyramid.perceptron([(first[:, :, 0, 0], bias), *rest], self.slope)
        x = self._conv(pyramid, first) if self.kernel > 1 else pyramid.project(first[:, :, 0, 0], self.biases[0])
        for i in range(1, len(self.weights)):
            x = self._layer(self._activate(x), i)
        return x

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """A perceptron's (weight [K_out,K_in], bias [K_out]), as the pyramid's per-pixel operations take them."""
        return [(w[:, :, 0, 0], b) for w, b in zip(self.weights, self.biases, strict=True)]

    def fold(self, mean: Tensor, scale: Tensor) -> None:
        """Put (x − mean)·scale, per channel, into the first layer: mean, scale [ΣC]. Exact, borders included.

        Outside the image a standardised feature is 0, a raw one would have to be its mean; so the share of the mean
        is not a constant but the convolution of an image of ones, of which `border` holds the kernel.
        """
        first, bias = self.weights[0].data, self.biases[0].data
        if self.kernel == 1:
            weight, bias = fold_affine(first[:, :, 0, 0], bias, scale, -mean * scale)
            self.weights[0].data, self.biases[0].data = weight[:, :, None, None], bias
        else:
            folded = first * scale.view(1, -1, 1, 1)
            self.border = self.border - torch.einsum("kcij,c->kij", folded, mean)
            self.weights[0].data = folded

    def _conv(self, pyramid: FeaturePyramid, weight: Tensor) -> Tensor:
        x = pyramid.conv(weight, self.biases[0], self.dilations[0])  # [N, h, H, W]
        ones = torch.ones(1, 1, *pyramid.size, dtype=x.dtype, device=x.device)
        return x + self._padded(ones, self.border[:, None], 0)

    def _layer(self, x: Tensor, i: int) -> Tensor:
        return self._padded(x, self.weights[i], i, self.biases[i])

    def _padded(self, x: Tensor, weight: Tensor, i: int, bias: Tensor | None = None) -> Tensor:
        dilation = self.dilations[i]
        return F.conv2d(x, weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)

    def _activate(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)


def make_head(
    name: str,
    channels: int,
    classes: int,
    mlp_hidden: Sequence[int] = (2000, 200),
    generator: torch.Generator | None = None,
    init: str = "he",
) -> Head:
    """A head by name. Errors: UsageError for an unknown name, or a perceptron without hidden layers."""
    if name == "mlp":
        if not mlp_hidden or min(mlp_hidden) < 1:
            raise UsageError(f"got mlp_hidden {list(mlp_hidden)}", wanted="one hidden width or more, each positive")
        return Head(channels, mlp_hidden, classes, 1, (1,) * (len(mlp_hidden) + 1), 0.0, generator, init)
    if name == "official":
        kernels = (1, *(3 for _ in OFFICIAL_HEAD[0]))
        return Head(channels, OFFICIAL_HEAD[0], classes, kernels, OFFICIAL_HEAD[1], OFFICIAL_SLOPE, generator, init)
    if name not in CNN_HEADS:
        raise UsageError(f"got head {name!r}", wanted=" | ".join(HEADS), remedy=did_you_mean(name, HEADS))
    widths, dilations = CNN_HEADS[name]
    return Head(channels, widths, classes, 3, dilations, CNN_SLOPE, generator, init)
