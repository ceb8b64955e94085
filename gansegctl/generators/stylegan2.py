"""StyleGAN2 in plain torch: any size, grey or colour, conditional or not, with feature taps.

Source: Karras et al. 2020 (StyleGAN2) and 2020b (ADA). Tensor names are those of the official networks, so weights
of that family load by name. No compiled operator; float32 on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl import kernels
from gansegctl.contracts import FeatureTap, GeneratorSpec, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.generators.base import StyleGAN, check_noise
from gansegctl.generators.latents import noise_of_seeds
from gansegctl.generators.layers import SQRT2, FullyConnected, fir_filter, upsample2d
from gansegctl.generators.mapping import Mapping
from gansegctl.generators.stylegan2_config import StyleGAN2Config

FAMILY = "stylegan2"
RESIDUAL_GAIN = math.sqrt(0.5)
"""Of each of the two branches of a residual block, so that their sum keeps its variance."""
HALVES: dict[str, torch.dtype | None] = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
HALF_BLOCKS = 4
"""Of the largest blocks, those that the official networks were trained to compute in float16."""
NoiseOf = Callable[[int, "StyledConv"], "Tensor | None"]
__all__ = ["FAMILY", "Mapping", "StyleGAN2", "StyleGAN2Config", "StyledConv", "SynthesisNetwork"]


class StyledConv(nn.Module):
    """Modulated 3×3 convolution, noise, bias, leaky ReLU. With `up`, its output is twice the size of its input.

    name: "b{r}.conv{i}", by which the configuration may give this one its own clamp or take its noise away.
    """

    resample_filter: Tensor
    noise_const: Tensor | None

    def __init__(
        self, channels_in: int, channels_out: int, resolution: int, config: StyleGAN2Config, up: bool, name: str = ""
    ) -> None:
        super().__init__()
        self.up, self.clamp, self.resolution = up, config.clamp_of(name), resolution
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.affine = FullyConnected(config.w_dim, channels_in, bias=1.0)
        self.register_buffer("resample_filter", fir_filter(config.filter_taps))
        if config.has_noise(name):
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        else:
            self.noise_const = None
        self._kept: tuple | None = None  # of `_prepared`

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        """x [N,C_in,h,w], w [N,w_dim], noise [1|N,1,r,r] or None → gain · [N,C_out,r,r] (StyleGAN2, section 2.2)."""
        style = self.affine(w)  # [N, C_in]
        weight, power, reach = self._prepared(x.dtype)
        # Scaling activations before and after equals scaling the kernel, and keeps one convolution for the batch.
        scale = torch.rsqrt(style.square() @ power.T + 1e-8)  # [N, C_out], of the demodulation
        if x.dtype == torch.float16:  # its largest number is 65,504: styles and kernel are brought to 1, and back after
            largest = style.abs().amax(dim=1, keepdim=True).clamp(min=1e-8)
            style, scale = style / largest, scale * largest * reach
        x = x * style.to(x.dtype)[:, :, None, None]
        fir: Tensor | None = None
        padding = (0, 0)
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [N, C_out, 2h+1, 2w+1]
            taps = self.resample_filter.shape[-1]
            padding = ((taps + 1) // 2 + 1 - 2, (taps - 2) // 2 + 1 - 1)
            # Times 2 for each axis that the filter covers: along it one pixel became two.
            fir = self.resample_filter * (4.0 if self.resample_filter.ndim == 2 else 2.0)
        else:
            x = F.conv2d(x, weight, padding=1)
        noise = None if noise is None else noise * self.noise_strength
        clamp = None if self.clamp is None else self.clamp * gain
        return kernels.filter_activate(x, scale, self.bias, noise, fir, padding, SQRT2 * gain, 0.2, clamp)

    def _prepared(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """The kernel in `dtype`, Σ of its squares [C_out,C_in], and for float16 the [C_out] it was divided by.

        Without gradients they are made once for these weights: at small batches they cost as much as a layer.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._prepare(dtype)
        version = (self.weight.data_ptr(), self.weight._version, dtype)
        if self._kept is None or self._kept[0] != version:
            self._kept = (version, self._prepare(dtype))
        return self._kept[1]

    def _prepare(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        power, reach = self.weight.square().sum(dim=(2, 3)), None
        if dtype == torch.float16:
            reach = (self.weight.abs().amax(dim=(1, 2, 3)) * math.sqrt(self.weight[0].numel())).clamp(min=1e-8)
            return (self.weight / reach[:, None, None, None]).to(dtype), power, reach
        return self.weight.to(dtype), power, reach


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to image channels, without demodulation."""

    def __init__(self, channels: int, config: StyleGAN2Config, name: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(config.image_channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.affine = FullyConnected(config.w_dim, channels, bias=1.0)
        self.gain, self.clamp = 1.0 / math.sqrt(channels), config.clamp_of(name)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) * self.gain
        x = F.conv2d(x * style.to(x.dtype)[:, :, None, None], self.weight.to(x.dtype)).float()
        x = x + self.bias.view(1, -1, 1, 1)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class Shortcut(nn.Module):
    """The other branch of a residual block: 1×1 convolution without bias, then twice the size."""

    resample_filter: Tensor

    def __init__(self, channels_in: int, channels_out: int, config: StyleGAN2Config, name: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, 1, 1))
        self.register_buffer("resample_filter", fir_filter(config.filter_taps))
        self.gain, self.clamp = 1.0 / math.sqrt(channels_in), dict(config.clamps).get(name)

    def forward(self, x: Tensor, gain: float) -> Tensor:
        """x [N,C_in,h,w] → [N,C_out,2h,2w], times gain."""
        x = upsample2d(F.conv2d(x, (self.weight * self.gain).to(x.dtype)), self.resample_filter) * gain
        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)


class Block(nn.Module):
    """One resolution: conv0 (upsampling, absent at 4 px), conv1, torgb (skip: always; else in the last block), skip."""

    resample_filter: Tensor

    def __init__(self, resolution: int, config: StyleGAN2Config) -> None:
        super().__init__()
        channels, name = config.channels(resolution), f"b{resolution}"
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(channels, 4, 4))
        else:
            before = config.channels(resolution // 2)
            self.conv0 = StyledConv(before, channels, resolution, config, up=True, name=f"{name}.conv0")
        self.conv1 = StyledConv(channels, channels, resolution, config, up=False, name=f"{name}.conv1")
        last = resolution == config.resolution
        rgb = last or config.architecture == "skip"
        self.torgb = ToRGB(channels, config, f"{name}.torgb") if rgb else None
        residual = resolution > 4 and config.architecture == "resnet"
        self.skip = Shortcut(before, channels, config, f"{name}.skip") if residual else None
        self.register_buffer("resample_filter", fir_filter(config.filter_taps))


class SynthesisNetwork(nn.Module):
    """ws → image; hands every activation it makes to `tap`."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.resolutions = config.resolutions
        self.half_dtype: torch.dtype | None = None  # of the blocks from `half_from` px on; None: float32
        self.half_from = max(8, self.resolutions[-HALF_BLOCKS:][0])
        for r in self.resolutions:
            self.add_module(f"b{r}", Block(r, config))

    def convs(self) -> list[tuple[str, StyledConv]]:
        """The styled convolutions from coarse to fine, named "b{r}.conv{0,1}"."""
        return [(name, m) for name, m in self.named_modules() if isinstance(m, StyledConv)]

    def forward(self, ws: Tensor, noise_of: NoiseOf, tap: Callable[[str, Tensor], None] | None = None) -> Tensor:
        """ws [N,num_ws,w] → [N,c,H,W]. The torgb of a block takes the same w as the first convolution of the next."""
        n, slot, layer = ws.shape[0], 0, 0
        image: Tensor | None = None
        for r in self.resolutions:
            block: Block = getattr(self, f"b{r}")
            if r == 4:
                x = block.const.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            elif self.half_dtype is not None and r >= self.half_from:
                x = x.to(self.half_dtype)
            shortcut = None if block.skip is None else block.skip(x, RESIDUAL_GAIN)
            for name in ("conv0", "conv1")[r == 4 :]:
                conv: StyledConv = getattr(block, name)
                gain = RESIDUAL_GAIN if name == "conv1" and shortcut is not None else 1.0
                x = conv(x, ws[:, slot], noise_of(layer, conv), gain)
                slot, layer = slot + 1, layer + 1
                if tap is not None:
                    tap(f"b{r}.{name}", x)
            if shortcut is not None:
                x = shortcut + x
            if block.torgb is not None:
                rgb = block.torgb(x, ws[:, slot])
                image = rgb if image is None else upsample2d(image, block.resample_filter) + rgb
        if image is None:
            raise ValueError("got a network without a torgb; wanted one in its last block")
        return image


class StyleGAN2(StyleGAN):
    """A StyleGAN2 generator that gives its activations with its images (protocol `contracts.Generator`).

    A tap is what a convolution gives after its non-linearity; in residual blocks before the shortcut is added.
    """

    config: StyleGAN2Config

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = c = config
        self.mapping = Mapping(
            c.z_dim, c.w_dim, c.c_dim, c.mapping_layers, c.mapping_lr, c.embed_features, c.layer_features
        )
        self.synthesis = SynthesisNetwork(config)
        taps = tuple(FeatureTap(name, conv.resolution, conv.weight.shape[0]) for name, conv in self.synthesis.convs())
        num_ws = 2 * len(c.resolutions)  # of all three architectures
        self.spec = GeneratorSpec(FAMILY, c.resolution, c.image_channels, c.z_dim, c.w_dim, c.c_dim, num_ws, taps)

    def synthesize(
        self, ws: Tensor, noise: str = "const", taps: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> Synthesis:
        """ws [N,num_ws,w_dim] → images and the pyramid of the named taps, coarse to fine (all when None).

        image: float32 [N,c,H,W], RGB or grey, nominally in [-1,1], not clamped. noise: const | seed | none; for "seed"
        the maps of a sample are drawn from its own of `seeds` [N]. Errors: UsageError for an unknown tap, an unknown
        noise mode, and other than N seeds.
        """
        noise_of, wanted = self._noise_of(noise, seeds, ws), self.wanted_taps(taps)
        kept: list[Tensor] = []
        image = self.synthesis(ws, noise_of, lambda name, x: kept.append(x) if name in wanted else None)
        size = (self.spec.resolution, self.spec.resolution)
        half = self.synthesis.half_dtype
        kept = kept if half is None else [x.to(half) for x in kept]
        return Synthesis(image, FeaturePyramid(kept, size) if kept else None)

    def use_precision(self, precision: str) -> None:
        """fp32, or fp16 | bf16 for the largest blocks (StyleGAN2-ADA, section 4: four); taps are then of that type.

        The mapping, small blocks and the sum of images stay float32. Weights are kept as they are.
        """
        self.synthesis.half_dtype = HALVES[precision]

    def compile_synthesis(self, backend: str = "inductor") -> None:
        """Let torch.compile make the synthesis network at its first call, once a batch size; on a GPU as a CUDA graph.

        Images then differ from uncompiled ones by rounding. On a GPU each call overwrites the result of the one before.
        """
        mode = "reduce-overhead" if backend == "inductor" and self.mapping.w_avg.is_cuda else None
        self.synthesis.compile(dynamic=False, backend=backend, mode=mode)

    def _noise_of(self, noise: str, seeds: Sequence[int] | None, ws: Tensor) -> NoiseOf:
        check_noise(noise)
        if noise == "none" or not self.config.use_noise:
            return lambda layer, conv: None
        if noise == "const":
            return lambda layer, conv: conv.noise_const
        if seeds is None or len(seeds) != ws.shape[0]:
            raise UsageError(f"got {0 if seeds is None else len(seeds)} seeds for noise", wanted=f"{ws.shape[0]} seeds")
        maps = [m.to(ws) for m in noise_of_seeds(seeds, [conv.resolution for _, conv in self.synthesis.convs()])]
        return lambda layer, conv: None if conv.noise_const is None else maps[layer]
