"""Mapping networks, z (and a class) → w: that of StyleGAN2 and StyleGAN3, and StyleGAN-XL's class table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gansegctl.errors import UsageError
from gansegctl.generators.layers import FullyConnected


class Mapping(nn.Module):
    """z (and a class vector) → w. Both inputs are normalised to unit mean square, each by itself.

    embed_features: width of the embedded class vector; layer_features: of the layers between; w_dim when None.
    """

    embed: FullyConnected | nn.Embedding | None
    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        c_dim: int = 0,
        layers: int = 8,
        lr_multiplier: float = 0.01,
        embed_features: int | None = None,
        layer_features: int | None = None,
    ) -> None:
        super().__init__()
        self.layers = layers
        embedded = (embed_features or w_dim) if c_dim else 0
        self.embed = FullyConnected(c_dim, embedded) if c_dim else None
        self._add_layers(z_dim + embedded, layer_features or w_dim, w_dim, lr_multiplier)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def _add_layers(self, features_in: int, between: int, w_dim: int, lr_multiplier: float) -> None:
        widths = [features_in] + [between] * (self.layers - 1) + [w_dim]
        for i in range(self.layers):
            self.add_module(f"fc{i}", FullyConnected(widths[i], widths[i + 1], lr_multiplier, activate=True))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N,z_dim], c [N,c_dim] or None → w [N,w_dim]."""
        x, embedded = unit_mean_square(z), self.embedded(c)
        if embedded is not None:
            x = torch.cat([x, unit_mean_square(embedded)], dim=1)
        for i in range(self.layers):
            x = getattr(self, f"fc{i}")(x)
        return x

    def embedded(self, c: Tensor | None) -> Tensor | None:
        """c [N,c_dim] → its features beside z, before normalisation; None for a network without classes."""
        return None if self.embed is None else self.embed(class_vector(c))

    def average(self, c: Tensor | None) -> Tensor:
        """The w that truncation pulls towards, to be broadcast to [N,num_ws,w_dim]."""
        return self.w_avg


class ClassTableMapping(Mapping):
    """StyleGAN-XL (Sauer et al. 2022, section 3.2): a pretrained vector a class, projected to z_dim; one w_avg a class.

    table: (rows, width) of the stored embedding. The class is the largest entry of c.
    """

    embed: nn.Embedding

    def __init__(
        self, z_dim: int, w_dim: int, c_dim: int, layers: int, lr_multiplier: float, table: tuple[int, int]
    ) -> None:
        nn.Module.__init__(self)
        self.layers = layers
        self.embed = nn.Embedding(*table)
        self.embed_proj = FullyConnected(table[1], z_dim, activate=True)
        self._add_layers(2 * z_dim, w_dim, w_dim, lr_multiplier)
        self.register_buffer("w_avg", torch.zeros(c_dim, w_dim))

    def embedded(self, c: Tensor | None) -> Tensor:
        return self.embed_proj(self.embed(class_vector(c).argmax(dim=1)))

    def average(self, c: Tensor | None) -> Tensor:
        return self.w_avg[class_vector(c).argmax(dim=1)][:, None]  # [N, 1, w_dim]


def class_vector(c: Tensor | None) -> Tensor:
    """The class vector that a conditional network needs. UsageError where there is none."""
    if c is None:
        raise UsageError("got no class vector", wanted="one for each sample", remedy="pass --class INDEX")
    return c


def unit_mean_square(x: Tensor) -> Tensor:
    """x [N,D] scaled row by row to mean square 1 (but for an eps of 1e-8)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
