"""The settings of a StyleGAN2, which determine its tensors and its behaviour: one frozen table for a file's header."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gansegctl.errors import UsageError

ARCHITECTURES = ("skip", "resnet", "orig")
"""skip: every block adds to the image; resnet: residual blocks, one image at the end; orig: neither."""
DEFAULT_TAPS = (1, 3, 3, 1)


@dataclass(frozen=True)
class StyleGAN2Config:
    """The settings of a StyleGAN2.

    Errors: UsageError for a resolution that is no power of two, an unknown architecture, a table of another length.
    """

    resolution: int = 64  # pixels of a side, a power of two
    image_channels: int = 3  # 3 RGB, 1 grey
    z_dim: int = 128
    w_dim: int = 128
    c_dim: int = 0  # classes, 0 for an unconditional network
    channel_base: int = 2048  # channels at r pixels: min(channel_base // r, channel_max)
    channel_max: int = 128
    mapping_layers: int = 4
    conv_clamp: float | None = None  # ±bound on activations, None for none
    use_noise: bool = True
    filter_taps: tuple[float, ...] = DEFAULT_TAPS  # the 1-D low-pass; from 8 taps on applied along each axis
    architecture: str = "skip"  # one of ARCHITECTURES
    mapping_lr: float = 0.01  # learning-rate multiplier of the mapping network
    embed_features: int | None = None  # width of the embedded class vector, w_dim when None
    layer_features: int | None = None  # width of the mapping's layers but the last, w_dim when None
    channel_table: tuple[int, ...] | None = None  # in place of the rule: channels at 4, 8, …, resolution
    clamps: tuple[tuple[str, float | None], ...] = ()  # modules ("b8.conv0", "b8.torgb", "b8.skip") bounded otherwise
    noiseless: tuple[str, ...] = ()  # convolutions without noise in a network that uses noise

    def __post_init__(self) -> None:
        object.__setattr__(self, "filter_taps", tuple(self.filter_taps))
        object.__setattr__(self, "clamps", tuple((str(name), clamp) for name, clamp in self.clamps))
        object.__setattr__(self, "noiseless", tuple(self.noiseless))
        if self.channel_table is not None:
            object.__setattr__(self, "channel_table", tuple(self.channel_table))
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise UsageError(f"got resolution {self.resolution}", wanted="a power of two, at least 8")
        if self.architecture not in ARCHITECTURES:
            raise UsageError(f"got architecture {self.architecture!r}", wanted=" | ".join(ARCHITECTURES))
        if self.channel_table is not None and len(self.channel_table) != len(self.resolutions):
            raise UsageError(
                f"got {len(self.channel_table)} numbers of channels", wanted=f"one for each of {self.resolutions}"
            )

    @property
    def resolutions(self) -> list[int]:
        """4, 8, …, resolution."""
        return [2**i for i in range(2, self.resolution.bit_length())]

    def channels(self, resolution: int) -> int:
        """Feature channels at a resolution."""
        if self.channel_table is not None:
            return self.channel_table[self.resolutions.index(resolution)]
        return min(self.channel_base // resolution, self.channel_max)

    def clamp_of(self, module: str) -> float | None:
        """The bound of one module, "b{r}.conv{i}" or "b{r}.torgb"."""
        return dict(self.clamps).get(module, self.conv_clamp)

    def has_noise(self, conv: str) -> bool:
        """Whether this convolution, "b{r}.conv{i}", adds noise."""
        return self.use_noise and conv not in self.noiseless

    def to_json(self) -> dict[str, Any]:
        """The table for a header; `StyleGAN2Config(**table)` reads it."""
        return asdict(self)
