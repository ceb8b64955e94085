"""lucidrains/stylegan2-pytorch: recognised, and refused by name; it is another network without NVlabs equivalent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from gansegctl.errors import UsageError

FAMILY = "lucidrains/stylegan2-pytorch"


def matches(value: Any) -> bool:
    """Whether this is a `model_N.pt` of that project, or its bare state dict."""
    if not isinstance(value, Mapping):
        return False
    state = value.get("GAN", value)
    names = [k for k in state if isinstance(k, str)] if isinstance(state, Mapping) else []
    return any(k.startswith(("SE.net.", "GE.blocks.", "G.blocks.", "S.net.")) for k in names)


def read(value: Any, container: str = "", sha256: str = "") -> NoReturn:
    """Always a UsageError that names the family and why."""
    raise UsageError(
        "got a checkpoint of lucidrains/stylegan2-pytorch: another network (unscaled mapping, bilinear upsampling"
        " before the convolutions, one shared uniform noise map, images in [0, 1])",
        wanted="NVlabs StyleGAN2 or StyleGAN3, StyleGAN-XL, rosinality, genforce, mmgeneration, TensorFlow StyleGAN2",
        remedy="train the domain again with one of those, or with `gansegctl train`",
    )
