"""StyleGAN3 (T and R) and StyleGAN-XL in plain torch, built layer by layer from their table, with feature taps.

Sources: Karras et al. 2021 (StyleGAN3), Sauer et al. 2022 (StyleGAN-XL). Tensor names are those of the official
networks. Every number that shapes the forward pass comes from the configuration, none from a constructor's default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.contracts import FeatureTap, GeneratorSpec, Synthesis
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.generators.base import StyleGAN, check_noise
from gansegctl.generators.layers import FullyConnected
from gansegctl.generators.mapping import ClassTableMapping, Mapping
from gansegctl.generators.stylegan3_config import LayerConfig, StyleGAN3Config
from gansegctl.generators.stylegan3_filters import filtered_leaky_relu, lowpass


class SynthesisInput(nn.Module):
    """Fourier features that w turns and shifts; `transform` [3,3] is the user's own, inverse, of the image."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        c = config.input_channels
        self.size, self.rate, self.bandwidth = config.input_size, config.input_rate, config.bandwidth
        frequencies = torch.randn(c, 2)
        radii = frequencies.norm(dim=1, keepdim=True)
        frequencies = frequencies / (radii * radii.square().exp().pow(0.25)) * self.bandwidth  # even over the disc
        self.weight = nn.Parameter(torch.randn(c, c))
        self.affine = FullyConnected(config.w_dim, 4)
        self.affine.weight.data.zero_()
        self.affine.bias.data[0] = 1.0
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", frequencies)
        self.register_buffer("phases", torch.rand(c) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        """w [N,w_dim] → [N,C,size,size] (appendix F): sin 2π(frequency·place + phase), mixed by `weight`."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, zero, one = t[:, 0], t[:, 1], torch.zeros_like(t[:, 0]), torch.ones_like(t[:, 0])
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
        shift = torch.stack([one, zero, -t[:, 2], zero, one, -t[:, 3], zero, zero, one], dim=1).view(-1, 3, 3)
        total = turn @ shift @ self.transform  # [N, 3, 3]
        phases = self.phases + (self.freqs @ total[:, :2, 2:]).squeeze(2)  # [N, C]
        frequencies = self.freqs @ total[:, :2, :2]  # [N, C, 2]
        # A transform that enlarges frequencies beyond what the grid carries fades them out instead of aliasing.
        excess = (frequencies.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)  # [N, C]
        place = (torch.arange(self.size, device=w.device, dtype=w.dtype) + 0.5 - self.size / 2) / self.rate
        across = place.view(1, 1, -1, 1) * frequencies[:, None, None, :, 0]  # [N, 1, W, C]
        along = place.view(1, -1, 1, 1) * frequencies[:, None, None, :, 1]  # [N, H, 1, C]
        x = torch.sin((across + along + phases[:, None, None]) * (2 * math.pi)) * amplitudes[:, None, None]
        x = x @ (self.weight / math.sqrt(len(self.weight))).T  # [N, H, W, C]
        return x.permute(0, 3, 1, 2).contiguous()


class SynthesisLayer(nn.Module):
    """Modulated convolution and filtered leaky ReLU; the last one, torgb, is linear and not demodulated.

    The official code divides the styles by their root mean square over the whole batch, so that a sample depends on its
    batch mates through the 1e-8 in the demodulation. Here it is each sample's own: the same but for that 1e-8, which a
    unit style and a unit kernel outweigh by 1e-8 / fan-in; images do not depend on their batch.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, layer: LayerConfig, w_dim: int) -> None:
        super().__init__()
        self.layer = layer
        self.affine = FullyConnected(w_dim, layer.in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(layer.out_channels, layer.in_channels, layer.kernel, layer.kernel))
        self.bias = nn.Parameter(torch.zeros(layer.out_channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        inner = layer.in_rate * layer.up
        up = _filter(layer.up_taps, layer.in_cutoff, layer.in_half_width, inner, False)
        down = _filter(layer.down_taps, layer.out_cutoff, layer.out_half_width, inner, layer.radial)
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N,C_in,h,w], w [N,w_dim] → [N,C_out,h',w']."""
        layer, style = self.layer, self.affine(w)
        if layer.torgb:
            style = style / math.sqrt(self.weight[0].numel())
        else:
            style = style * style.square().mean(dim=1, keepdim=True).rsqrt()
        # Scaling activations before and after equals scaling the kernel, and keeps one convolution for the batch.
        x = x * (style * self.magnitude_ema.rsqrt())[:, :, None, None]
        x = F.conv2d(x, self.weight, padding=layer.kernel - 1)
        if layer.torgb:
            x = F.pad(x + self.bias.view(1, -1, 1, 1), (*layer.padding, *layer.padding))
            return x if layer.clamp is None else x.clamp(-layer.clamp, layer.clamp)
        power = self.weight.square()
        unit = power.mean(dim=(1, 2, 3)).rsqrt()  # [C_out], the kernel's own normalisation
        demodulation = (style.square() @ power.sum(dim=(2, 3)).T * unit.square() + 1e-8).rsqrt()  # [N, C_out]
        filters, factors = (self.up_filter, self.down_filter), (layer.up, layer.down)
        return filtered_leaky_relu(x, demodulation * unit, self.bias, filters, factors, layer.padding, layer.clamp)


def _filter(taps: int, cutoff: float, half_width: float, rate: float, radial: bool) -> Tensor | None:
    """The designed low-pass; zeros where the table does not say what it passes, to be filled from a file."""
    if taps == 1 or cutoff > 0:
        return lowpass(taps, cutoff, 2 * half_width, rate, radial)
    return torch.zeros(taps, taps) if radial else torch.zeros(taps)


class SynthesisNetwork(nn.Module):
    """ws → image; hands every activation it makes to `tap`."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.layer_names, self.output_scale = [x.name for x in config.layers], config.output_scale
        self.input = SynthesisInput(config)
        for layer in config.layers:
            self.add_module(layer.name, SynthesisLayer(layer, config.w_dim))

    def forward(self, ws: Tensor, tap: Callable[[str, Tensor], None] | None = None) -> Tensor:
        """ws [N,num_ws,w] → [N,c,H,W]: the input takes the first style, layer i the one after its predecessor's."""
        x = self.input(ws[:, 0])
        for i, name in enumerate(self.layer_names):
            x = getattr(self, name)(x, ws[:, i + 1])
            if tap is not None:
                tap(name, x)
        return x * self.output_scale


class StyleGAN3(StyleGAN):
    """A StyleGAN3 or StyleGAN-XL generator (protocol `contracts.Generator`). It has no noise: all modes are one.

    A tap is a layer's output, named as the layer; its resolution is the sampling rate, and the margin that lies outside
    the image is cropped, so that every level of the pyramid covers exactly the image.
    """

    config: StyleGAN3Config

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = c = config
        if c.class_table is None:
            widths = (c.embed_features, c.layer_features)
            self.mapping = Mapping(c.z_dim, c.w_dim, c.c_dim, c.mapping_layers, c.mapping_lr, *widths)
        else:
            self.mapping = ClassTableMapping(c.z_dim, c.w_dim, c.c_dim, c.mapping_layers, c.mapping_lr, c.class_table)
        self.synthesis = SynthesisNetwork(c)
        taps = tuple(FeatureTap(x.name, x.out_rate, x.out_channels, x.margin) for x in c.layers if not x.torgb)
        self.spec = GeneratorSpec(c.family, c.resolution, c.image_channels, c.z_dim, c.w_dim, c.c_dim, c.num_ws, taps)

    def synthesize(
        self, ws: Tensor, noise: str = "const", taps: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> Synthesis:
        """ws [N,num_ws,w_dim] → images and the pyramid of the named taps, coarse to fine (all when None).

        image: float32 [N,c,H,W], RGB or grey, nominally in [-1,1], not clamped. noise and seeds change nothing here.
        Errors: UsageError for an unknown tap and an unknown noise mode.
        """
        check_noise(noise)
        wanted = self.wanted_taps(taps)
        kept: list[Tensor] = []

        def keep(name: str, x: Tensor) -> None:
            if name in wanted:
                m = wanted[name].margin
                kept.append(x[:, :, m : x.shape[2] - m, m : x.shape[3] - m].contiguous())

        image = self.synthesis(ws, keep)
        size = (self.spec.resolution, self.spec.resolution)
        return Synthesis(image, FeaturePyramid(kept, size) if kept else None)
