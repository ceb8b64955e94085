"""StyleGAN2 with skip connections, in plain torch: any size, grey or colour, conditional or not, with feature taps.

Source: Karras et al. 2020 (StyleGAN2) and 2020b (ADA). Tensor names are those of the official networks, so weights
of that family load by name. No compiled operator; float32 on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.contracts import NOISE_MODES, FeatureTap, GeneratorSpec, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.generators.latents import noise_of_seeds
from gansegctl.generators.layers import FullyConnected, filter2d, fir_filter, leaky, upsample2d

FAMILY = "stylegan2"
NoiseOf = Callable[[int, "StyledConv"], "Tensor | None"]


@dataclass(frozen=True)
class StyleGAN2Config:
    """What determines the tensors of a StyleGAN2. Channels at r pixels: min(channel_base // r, channel_max)."""

    resolution: int = 64
    image_channels: int = 3
    z_dim: int = 128
    w_dim: int = 128
    c_dim: int = 0
    channel_base: int = 2048
    channel_max: int = 128
    mapping_layers: int = 4
    conv_clamp: float | None = None
    use_noise: bool = True
    filter_taps: tuple[float, ...] = (1, 3, 3, 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "filter_taps", tuple(self.filter_taps))
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise UsageError(f"got resolution {self.resolution}", wanted="a power of two, at least 8")

    @property
    def resolutions(self) -> list[int]:
        """4, 8, …, resolution."""
        return [2**i for i in range(2, self.resolution.bit_length())]

    def channels(self, resolution: int) -> int:
        """Feature channels at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    def to_json(self) -> dict:
        return asdict(self)


class Mapping(nn.Module):
    """z (and a class vector) → w. Both inputs are normalised to unit mean square, each by itself."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.layers = config.mapping_layers
        self.embed = FullyConnected(config.c_dim, config.w_dim) if config.c_dim else None
        width = config.z_dim + (config.w_dim if config.c_dim else 0)
        for i in range(config.mapping_layers):
            features_in = width if i == 0 else config.w_dim
            self.add_module(f"fc{i}", FullyConnected(features_in, config.w_dim, lr_multiplier=0.01, activate=True))
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N,z_dim], c [N,c_dim] or None → w [N,w_dim]."""
        x = _unit_mean_square(z)
        if self.embed is not None:
            x = torch.cat([x, _unit_mean_square(self.embed(c))], dim=1)
        for i in range(self.layers):
            x = getattr(self, f"fc{i}")(x)
        return x


class StyledConv(nn.Module):
    """Modulated 3×3 convolution, noise, bias, leaky ReLU. With `up`, its output is twice the size of its input."""

    def __init__(self, channels_in: int, channels_out: int, resolution: int, config: StyleGAN2Config, up: bool) -> None:
        super().__init__()
        self.up, self.clamp, self.resolution = up, config.conv_clamp, resolution
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.affine = FullyConnected(config.w_dim, channels_in, bias=1.0)
        self.register_buffer("resample_filter", fir_filter(config.filter_taps))
        if config.use_noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        else:
            self.noise_const = None

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N,C_in,h,w], w [N,w_dim], noise [1|N,1,r,r] or None → [N,C_out,r,r] (StyleGAN2 section 2.2)."""
        style = self.affine(w)  # [N, C_in]
        # Scaling activations before and after equals scaling the kernel, and keeps one convolution for the batch.
        demodulation = torch.rsqrt(style.square() @ self.weight.square().sum(dim=(2, 3)).T + 1e-8)  # [N, C_out]
        x = x * style[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)  # [N, C_out, 2h+1, 2w+1]
            taps = self.resample_filter.shape[-1]
            low, high = (taps + 1) // 2 + 1 - 2, (taps - 2) // 2 + 1 - 1
            x = filter2d(x, self.resample_filter, (low, high), gain=4.0)
        else:
            x = F.conv2d(x, self.weight, padding=1)
        x = x * demodulation[:, :, None, None]
        if noise is not None:
            x = x + noise * self.noise_strength
        return leaky(x + self.bias.view(1, -1, 1, 1), clamp=self.clamp)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to image channels, without demodulation."""

    def __init__(self, channels: int, config: StyleGAN2Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(config.image_channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.affine = FullyConnected(config.w_dim, channels, bias=1.0)
        self.gain, self.clamp = 1.0 / math.sqrt(channels), config.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) * self.gain
        x = F.conv2d(x * style[:, :, None, None], self.weight) + self.bias.view(1, -1, 1, 1)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class Block(nn.Module):
    """One resolution: conv0 (upsampling, absent at 4 px), conv1, torgb."""

    def __init__(self, resolution: int, config: StyleGAN2Config) -> None:
        super().__init__()
        channels = config.channels(resolution)
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(channels, 4, 4))
        else:
            self.conv0 = StyledConv(config.channels(resolution // 2), channels, resolution, config, up=True)
        self.conv1 = StyledConv(channels, channels, resolution, config, up=False)
        self.torgb = ToRGB(channels, config)
        self.register_buffer("resample_filter", fir_filter(config.filter_taps))


class SynthesisNetwork(nn.Module):
    """ws → picture; hands every activation it makes to `tap`."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.resolutions = config.resolutions
        for r in self.resolutions:
            self.add_module(f"b{r}", Block(r, config))

    def convs(self) -> list[tuple[str, StyledConv]]:
        """The styled convolutions from coarse to fine, named "b{r}.conv{0,1}"."""
        return [(name, m) for name, m in self.named_modules() if isinstance(m, StyledConv)]

    def forward(self, ws: Tensor, noise_of: NoiseOf, tap: Callable[[str, Tensor], None] | None = None) -> Tensor:
        """ws [N,num_ws,w] → [N,c,H,W]. The torgb of a block takes the same w as the first convolution of the next."""
        n, slot, layer, image = ws.shape[0], 0, 0, None
        for r in self.resolutions:
            block: Block = getattr(self, f"b{r}")
            if r == 4:
                x = block.const.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            for name in ("conv0", "conv1")[r == 4 :]:
                conv: StyledConv = getattr(block, name)
                x = conv(x, ws[:, slot], noise_of(layer, conv))
                slot, layer = slot + 1, layer + 1
                if tap is not None:
                    tap(f"b{r}.{name}", x)
            rgb = block.torgb(x, ws[:, slot])
            image = rgb if image is None else upsample2d(image, block.resample_filter) + rgb
        return image


class StyleGAN2(nn.Module):
    """A StyleGAN2 generator that gives its activations with its pictures (protocol `contracts.Generator`)."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.synthesis = SynthesisNetwork(config)
        self.sha256 = ""
        taps = tuple(
            FeatureTap(name, conv.resolution, config.channels(conv.resolution)) for name, conv in self.synthesis.convs()
        )
        num_ws = 2 * len(config.resolutions)
        self.spec = GeneratorSpec(
            FAMILY, config.resolution, config.image_channels, config.z_dim, config.w_dim, config.c_dim, num_ws, taps
        )

    def map(self, z: Tensor, c: Tensor | None = None, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim], c [N,c_dim] → ws [N,num_ws,w_dim]; the first `cutoff` slots (all when None) are truncated.

        Truncation: w_avg + psi·(w − w_avg). Errors: UsageError for a class vector that is missing or of another size.
        """
        if self.spec.c_dim and (c is None or c.shape != (z.shape[0], self.spec.c_dim)):
            got = "none" if c is None else list(c.shape)
            raise UsageError(
                f"got class vector {got}", wanted=f"[{z.shape[0]}, {self.spec.c_dim}]", remedy="pass --class INDEX"
            )
        if not self.spec.c_dim and c is not None and c.shape[1]:
            raise UsageError("got a class for a generator without classes", wanted="no --class")
        ws = self.mapping(z, c).unsqueeze(1).repeat(1, self.spec.num_ws, 1)  # [N, num_ws, w_dim]
        if truncation != 1.0:
            cutoff = self.spec.num_ws if cutoff is None else cutoff
            ws[:, :cutoff] = self.mapping.w_avg.lerp(ws[:, :cutoff], truncation)
        return ws

    def synthesize(
        self, ws: Tensor, noise: str = "const", taps: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> Synthesis:
        """ws [N,num_ws,w_dim] → image [N,c,H,W] and the pyramid of the named taps, coarse to fine (all when None)."""
        noise_of = self._noise_of(noise, seeds, ws)
        wanted = {t.name for t in self.spec.taps} if taps is None else set(taps)
        unknown = wanted - {t.name for t in self.spec.taps}
        if unknown:
            raise UsageError(f"got tap {sorted(unknown)[0]!r}", wanted="a tap of this generator's table")
        kept: list[Tensor] = []
        image = self.synthesis(ws, noise_of, lambda name, x: kept.append(x) if name in wanted else None)
        size = (self.spec.resolution, self.spec.resolution)
        return Synthesis(image, FeaturePyramid(kept, size) if kept else None)

    def _noise_of(self, noise: str, seeds: Sequence[int] | None, ws: Tensor) -> NoiseOf:
        if noise not in NOISE_MODES:
            raise UsageError(f"got noise {noise!r}", wanted=" | ".join(NOISE_MODES))
        if noise == "none" or not self.config.use_noise:
            return lambda layer, conv: None
        if noise == "const":
            return lambda layer, conv: conv.noise_const
        if seeds is None or len(seeds) != ws.shape[0]:
            raise UsageError(f"got {0 if seeds is None else len(seeds)} seeds for noise", wanted=f"{ws.shape[0]} seeds")
        maps = [m.to(ws) for m in noise_of_seeds(seeds, [conv.resolution for _, conv in self.synthesis.convs()])]
        return lambda layer, conv: maps[layer]


def _unit_mean_square(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
