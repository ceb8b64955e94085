"""How far two images are apart to the eye, and how to get it from a discriminator, from LPIPS, or from neither.

Every measure is in two steps, so that a target's part is computed once: `features(image)`, then `distance(a, b)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.choices import MEASURES
from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.discriminators import open_discriminator
from gansegctl.generators.discriminator import Discriminator

_SMALLEST = 8  # pixels of a side, below which an image is not reduced further


class Perceptual(Protocol):
    """A measure. `name` goes into records."""

    name: str

    def features(self, image: Tensor) -> list[Tensor]:
        """image [N,c,H,W] in [-1,1] → what is compared, each [N, …]."""

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Two lists of features of N images (or of 1, which is repeated) → [N], 0 for equal images."""


def scales(image: Tensor, smallest: int = _SMALLEST) -> list[Tensor]:
    """The image and its halves by 2×2 means, down to `smallest` pixels a side."""
    rows = [image]
    while min(rows[-1].shape[2:]) >= 2 * smallest:
        rows.append(F.avg_pool2d(rows[-1], 2))
    return rows


def pixel_distance(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Mean over scales of the mean squared difference → [N]. a, b: what `scales` gives."""
    return torch.stack([(x - y).square().mean(dim=(1, 2, 3)) for x, y in zip(a, b, strict=True)]).mean(dim=0)


def normalised_distance(a: list[Tensor], b: list[Tensor], floor: float) -> Tensor:
    """Mean over levels of ‖â − b̂‖² where â is scaled to length 1 over channels at every pixel (as LPIPS does) → [N].

    floor: lengths well below it count as no response rather than being blown up.
    """
    total = []
    for x, y in zip(a, b, strict=True):
        x = x * (x.square().sum(dim=1, keepdim=True) + floor**2).rsqrt()
        y = y * (y.square().sum(dim=1, keepdim=True) + floor**2).rsqrt()
        total.append((x - y).square().sum(dim=1).mean(dim=(1, 2)))
    return torch.stack(total).mean(dim=0)


class Gradients:
    """Needs no network: direction and presence of edges at every scale, whatever their contrast.

    Features are horizontal and vertical differences of every channel at full size, ½, ¼, … ; where both images have
    an edge, what counts is its direction and colour, as in histograms of gradients (Dalal & Triggs 2005).
    """

    name = "gradients"
    floor = 0.1  # of a range of 2: a step of 5 % counts half

    def features(self, image: Tensor) -> list[Tensor]:
        rows = []
        for x in scales(image):
            dx = F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1))
            dy = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
            rows.append(torch.cat([dx, dy], dim=1))  # [N, 2c, h, w]
        return rows

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        return normalised_distance(a, b, self.floor)


class DiscriminatorFeatures:
    """Activations of a trained discriminator after its first layer and each block but the last two.

    The coarsest maps judge the whole image, not what is where: they are left out where there are others.
    """

    name = "discriminator"

    def __init__(self, discriminator: Discriminator) -> None:
        self.network = discriminator.eval().requires_grad_(False)
        count = len(discriminator.blocks)
        self.used = max(1, count - 2)

    def features(self, image: Tensor) -> list[Tensor]:
        x = self.network.fromrgb(image)
        rows = [x]
        for block in list(self.network.blocks)[: self.used]:
            x = block(x)
            rows.append(x)
        return rows

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        return normalised_distance(a, b, 1e-3)


class Lpips:
    """LPIPS (Zhang et al. 2018) by the package of that name, an optional extra. Grey images are repeated in colour.

    Error: UsageError when the package is not installed.
    """

    name = "lpips"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        try:
            import lpips
        except ImportError as e:
            raise UsageError(
                f"got --perceptual lpips, and {e}",
                wanted="the package lpips and its weights",
                remedy="pip install 'gansegctl[lpips]', or take --perceptual gradients",
            ) from e
        self.network: nn.Module = lpips.LPIPS(net="alex", verbose=False).to(device).eval().requires_grad_(False)

    def features(self, image: Tensor) -> list[Tensor]:
        image = image.expand(-1, 3, -1, -1)
        side = min(image.shape[2:])
        return [F.interpolate(image, scale_factor=-(-64 // side), mode="nearest") if side < 64 else image]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        return self.network(a[0], b[0].expand_as(a[0])).flatten()


def choose_perceptual(
    name: str, discriminator: Path | None, resolution: int, channels: int, device: torch.device | str = "cpu"
) -> Perceptual:
    """The measure of that name; "auto" is the discriminator where one is given, else gradients.

    Errors: UsageError for an unknown name, "discriminator" without a file, or one of another size than the images.
    """
    if name not in MEASURES:
        raise UsageError(f"got --perceptual {name}", wanted=" | ".join(MEASURES))
    if name == "auto":
        name = "gradients" if discriminator is None else "discriminator"
    elif discriminator is not None and name != "discriminator":
        raise UsageError(f"got --discriminator with --perceptual {name}", wanted="one measure")
    if name == "gradients":
        return Gradients()
    if name == "lpips":
        return Lpips(device)
    if discriminator is None:
        raise UsageError(
            "got --perceptual discriminator without one",
            wanted="--discriminator FILE",
            remedy="pass the OUT.ckpt of `gansegctl train` or a whole snapshot, or --perceptual gradients",
        )
    network = open_discriminator(discriminator)
    takes = (network.channels, network.resolution)
    if takes != (channels, resolution):
        raise UsageError(
            f"got a discriminator of {takes[1]} px and {takes[0]} channels",
            wanted=f"{resolution} px and {channels}, as the generator's images",
        )
    return DiscriminatorFeatures(network.to(device))
