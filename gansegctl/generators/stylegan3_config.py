"""The settings of a StyleGAN3 or StyleGAN-XL: its layers one by one, as stored, or designed by the paper's rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gansegctl.errors import UsageError

FAMILIES = ("stylegan3", "stylegan-xl")
KINDS = {"T": (3, 32768, 512), "R": (1, 65536, 1024)}
"""Kernel size, channel_base and channel_max of the translation- and the rotation-equivariant network."""


@dataclass(frozen=True)
class LayerConfig:
    """One layer. Sizes in pixels, margins included; rates, cutoffs and half-widths in cycles per image width.

    Errors: UsageError for sizes, factors, taps and padding that do not belong together.
    """

    name: str
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    in_rate: int  # samples per image width, margins left out
    out_rate: int
    kernel: int  # pixels of a side of the convolution
    up: int  # factor of the first filter
    down: int  # factor of the second filter
    up_taps: int  # length of the first filter, 1 for none
    down_taps: int  # length of the second filter, 1 for none
    padding: tuple[int, int]  # (low, high) of the oversampled map on both axes
    radial: bool = False  # the second filter is [n,n], not separable
    torgb: bool = False  # the last layer: linear, not demodulated
    clamp: float | None = 256.0  # ±bound on activations, None for none
    in_cutoff: float = 0.0  # 0: not known, the filters are only those that the file stores
    out_cutoff: float = 0.0
    in_half_width: float = 0.0
    out_half_width: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", tuple(self.padding))
        oversampled = (self.in_size + self.kernel - 1) * self.up + sum(self.padding) - self.up_taps + 1
        made = (oversampled - self.down_taps) // self.down + 1
        if made != self.out_size:
            raise UsageError(
                f"got layer {self.name} that makes {made} px of {self.in_size}",
                wanted=f"{self.out_size} px",
                remedy="its sizes, factors, taps and padding do not belong together",
            )
        if self.margin < 0 or self.out_size - self.out_rate != 2 * self.margin:
            raise UsageError(f"got layer {self.name} of {self.out_size} px at rate {self.out_rate}", wanted="a margin")

    @property
    def margin(self) -> int:
        """Pixels on every side of the output that lie outside the image."""
        return (self.out_size - self.out_rate) // 2


@dataclass(frozen=True)
class StyleGAN3Config:
    """The whole network. Errors: UsageError for an unknown family and layers that do not follow on each other."""

    family: str  # one of FAMILIES
    resolution: int  # pixels of a side
    image_channels: int  # 3 RGB, 1 grey
    z_dim: int
    w_dim: int
    c_dim: int  # classes, 0 for an unconditional network
    layers: tuple[LayerConfig, ...]  # coarse to fine, ToRGB last
    input_channels: int  # Fourier features
    input_size: int  # pixels of a side of their map, margins included
    input_rate: float  # their samples per image width
    bandwidth: float  # their highest frequency
    output_scale: float = 0.25  # of the image
    mapping_layers: int = 2
    mapping_lr: float = 0.01  # learning-rate multiplier of the mapping network
    embed_features: int | None = None  # width of the embedded class vector, w_dim when None
    layer_features: int | None = None  # width of the mapping's layers but the last, w_dim when None
    class_table: tuple[int, int] | None = None  # (rows, width) of StyleGAN-XL's class embedding

    def __post_init__(self) -> None:
        layers = tuple(x if isinstance(x, LayerConfig) else LayerConfig(**x) for x in self.layers)
        object.__setattr__(self, "layers", layers)
        if self.class_table is not None:
            object.__setattr__(self, "class_table", tuple(self.class_table))
        if self.family not in FAMILIES:
            raise UsageError(f"got family {self.family!r}", wanted=" | ".join(FAMILIES))
        before = (self.input_channels, self.input_size)
        for layer in layers:
            if (layer.in_channels, layer.in_size) != before:
                raise UsageError(
                    f"got layer {layer.name} for {layer.in_channels} channels of {layer.in_size} px",
                    wanted=f"{before[0]} of {before[1]}",
                )
            before = (layer.out_channels, layer.out_size)
        if before != (self.image_channels, self.resolution) or not layers[-1].torgb:
            raise UsageError(
                f"got a last layer of {before[0]} channels of {before[1]} px",
                wanted=f"a ToRGB of {self.image_channels} channels of {self.resolution} px",
            )

    @property
    def num_ws(self) -> int:
        """One style for the input and one a layer."""
        return len(self.layers) + 1

    def to_json(self) -> dict[str, Any]:
        """The table for a header; `StyleGAN3Config(**table)` reads it."""
        return asdict(self)


def design(
    resolution: int,
    kind: str = "T",
    *,
    z_dim: int = 512,
    w_dim: int = 512,
    c_dim: int = 0,
    image_channels: int = 3,
    channel_base: int | None = None,
    channel_max: int | None = None,
    channels: Sequence[int] | None = None,
    num_layers: int = 14,
    num_critical: int = 2,
    margin: int = 10,
    clamp: float | None = 256.0,
    mapping_layers: int = 2,
) -> StyleGAN3Config:
    """The network of the paper's rule (appendix C and D) for a size and a kind, "T" or "R"; nothing is stored for it.

    channel_base, channel_max: as the constructor takes them, those of `KINDS` when None; `channels` [num_layers+1]
    gives the channels outright, the image's last. Filters are six taps a factor; activations run at twice the rate.
    """
    if kind not in KINDS:
        raise UsageError(f"got StyleGAN3 kind {kind!r}", wanted=" | ".join(KINDS))
    if resolution < 16 or resolution & (resolution - 1) or num_layers <= num_critical:
        raise UsageError(f"got resolution {resolution}, {num_layers} layers", wanted="a power of two, at least 16")
    kernel, base, most = KINDS[kind]
    # Cutoffs and stopbands rise geometrically up to the critically sampled layers, which keep the last ones.
    share = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
    cutoffs = 2 * (resolution / 2 / 2) ** share
    stopbands = 2**2.1 * (resolution / 2 * 2**0.3 / 2**2.1) ** share
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, resolution)))).astype(int)
    halves = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + 2 * margin
    sizes[-2:] = resolution
    if channels is None:
        widths = np.rint(np.minimum((channel_base or base) / 2 / cutoffs, channel_max or most)).astype(int)
        widths[-1] = image_channels
    else:
        widths = np.array(channels)
    layers = []
    for i in range(num_layers + 1):
        p, torgb = max(i - 1, 0), i == num_layers
        inner = max(rates[p], rates[i]) * (1 if torgb else 2)
        up, down = int(inner // rates[p]), int(inner // rates[i])
        up_taps, down_taps = (6 * up if up > 1 else 1), (6 * down if down > 1 else 1)
        k = 1 if torgb else kernel
        total = (sizes[i] - 1) * down + 1 - (sizes[p] + k - 1) * up + up_taps + down_taps - 2
        low = int(total + up) // 2
        layers.append(
            LayerConfig(
                name=f"L{i}_{sizes[i]}_{widths[i]}",
                in_channels=int(widths[p]),
                out_channels=int(widths[i]),
                in_size=int(sizes[p]),
                out_size=int(sizes[i]),
                in_rate=int(rates[p]),
                out_rate=int(rates[i]),
                kernel=k,
                up=up,
                down=down,
                up_taps=up_taps,
                down_taps=down_taps,
                padding=(low, int(total) - low),
                radial=kind == "R" and i < num_layers - num_critical,
                torgb=torgb,
                clamp=clamp,
                in_cutoff=float(cutoffs[p]),
                out_cutoff=float(cutoffs[i]),
                in_half_width=float(halves[p]),
                out_half_width=float(halves[i]),
            )
        )
    return StyleGAN3Config(
        "stylegan3",
        resolution,
        int(widths[-1]),
        z_dim,
        w_dim,
        c_dim,
        tuple(layers),
        input_channels=int(widths[0]),
        input_size=int(sizes[0]),
        input_rate=float(rates[0]),
        bandwidth=float(cutoffs[0]),
        mapping_layers=mapping_layers,
    )
