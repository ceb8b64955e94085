"""What determines the tensors and the behaviour of a StyleGAN2, as one frozen table that goes into a file's header."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gansegctl.errors import UsageError

ARCHITECTURES = ("skip", "resnet", "orig")
"""skip: every block adds to the image; resnet: residual blocks, one image at the end; orig: neither."""
DEFAULT_TAPS = (1, 3, 3, 1)


@dataclass(frozen=True)
class StyleGAN2Config:
    """What determines the tensors of a StyleGAN2. Channels at r pixels: min(channel_base // r, channel_max).

    channel_table replaces that rule: one number for 4, 8, …, resolution. filter_taps: the 1-D low-pass; 8 taps or more
    are kept 1-D and applied along each axis. conv_clamp bounds activations (None: unbounded); clamps lists the modules
    ("b8.conv0", "b8.torgb", "b8.skip") that a file bounds otherwise. noiseless lists convolutions without noise in a
    network that uses_noise. embed_features, layer_features: widths inside the mapping, w_dim when None.
    Errors: UsageError for a resolution that is no power of two, an unknown architecture, a table of another length.
    """

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
    filter_taps: tuple[float, ...] = DEFAULT_TAPS
    architecture: str = "skip"
    mapping_lr: float = 0.01
    embed_features: int | None = None
    layer_features: int | None = None
    channel_table: tuple[int, ...] | None = None
    clamps: tuple[tuple[str, float | None], ...] = ()
    noiseless: tuple[str, ...] = ()

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
        """What goes into a header; `StyleGAN2Config(**table)` reads it."""
        return asdict(self)
