"""The heads that Manerikar and Kak put on their projection, and how a projection is folded into one."""

from __future__ import annotations

import torch
from torch import Tensor

from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.methods.base.heads import CNN_HEADS, CNN_SLOPE, Head

HEADS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "linear": ((), (1,)),
    "xxs": ((), (1,)),
    "xs": ((16, 8), (1, 2, 1)),
    "s": CNN_HEADS["cnn-s"],
    "m": CNN_HEADS["cnn-m"],
    "l": CNN_HEADS["cnn-l"],
}
"""Name → hidden widths and dilations. linear works on single pixels; all others are 3×3 convolutions."""


class OneShotHead(Head):
    """A `Head` of these sizes; `linear` is its first layer alone, on single pixels.

    leaky: the activation follows the last layer too, as in the released `linear`.
    """

    leaky = False

    @property
    def per_pixel(self) -> bool:
        """Whether `layers` is the whole head: not with an activation after the last."""
        return super().per_pixel and not self.leaky

    def forward(self, pyramid: FeaturePyramid, gain: Tensor | None = None) -> Tensor:
        """pyramid → logits [N,K,H,W]; gain [ΣC] multiplies the channels."""
        if self.kernel > 1:
            x = super().forward(pyramid, gain)
        else:
            first = self.weights[0][:, :, 0, 0]
            x = pyramid.project(first if gain is None else first * gain, self.biases[0])
        return self._activate(x) if self.leaky else x

    @torch.no_grad()
    def behind(self, projection: Tensor) -> OneShotHead:
        """The head that says of x what this one says of projection·x: projection [d,ΣC]. Exact, borders included."""
        weights = [torch.einsum("kdij,dc->kcij", self.weights[0], projection), *self.weights[1:]]
        widths, own = [len(b) for b in self.biases], torch.Generator()  # not torch's: the weights are replaced
        sizes = (projection.shape[1], widths[:-1], widths[-1])
        head = OneShotHead(*sizes, self.kernels, self.dilations, self.slope, own)
        head.leaky = self.leaky
        head.load_state_dict(self.state_dict() | {f"weights.{i}": w for i, w in enumerate(weights)})
        return head.to(projection.device)

    @torch.no_grad()
    def keep(self, classes: int) -> None:
        """Drop the outputs from `classes` on."""
        self.weights[-1].data, self.biases[-1].data = self.weights[-1].data[:classes], self.biases[-1].data[:classes]
        if len(self.weights) == 1:
            self.border = self.border[:classes]


def one_shot_head(
    name: str,
    channels: int,
    classes: int,
    stream: torch.Generator | None = None,
    init: str = "he",
    leaky: bool = False,
) -> OneShotHead:
    """A head by name (`HEADS`), weights drawn from `stream`. leaky: see `OneShotHead`."""
    widths, dilations = HEADS[name]
    kernel = 1 if name == "linear" else 3
    head = OneShotHead(channels, widths, classes, kernel, dilations, CNN_SLOPE, stream, init)
    head.leaky = leaky
    return head
