"""rosinality/stylegan2-pytorch: `.pt` files with `g_ema` (converted or written while training), as a StyleGAN2 record.

Neither transposes nor flips: the kernels are those of NVlabs' networks under other names. The multiplication by
1/√fan_in before demodulation changes only the share of the 1e-8, so weights are kept as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gansegctl.generators.checkpoints.families.layout import (
    Assumptions,
    Getter,
    as_float,
    fill_in,
    stylegan2_record,
    unlike,
)
from gansegctl.generators.checkpoints.records import CheckpointReport, ModuleRecord

FAMILY = "rosinality/stylegan2-pytorch"
PARTS = ("g_ema", "generator_ema", "g", "generator")
"""Where the generator lies in a file, the averaged one first."""
KEY = "style.1.weight"


@dataclass(frozen=True)
class Names:
    """How a layout of this structure spells its tensors; {i} is a running number."""

    style: str = "style.{i}.weight"
    style_bias: str = "style.{i}.bias"
    const: str = "input.input"
    kernel: str = "conv.weight"
    affine: str = "conv.modulation.weight"
    affine_bias: str = "conv.modulation.bias"
    strength: str = "noise.weight"
    noise: str = "noises.noise_{i}"


def matches(value: Any) -> bool:
    """Whether this is such a file, or its bare state dict."""
    return find_part(value) is not None


def find_part(value: Any) -> tuple[dict[str, Any], str] | None:
    """The generator's state dict, without any leading `module.`, and where it lay ("" for a bare one)."""
    if not isinstance(value, Mapping):
        return None
    for name in (*PARTS, ""):
        part = value.get(name) if name else value
        if isinstance(part, Mapping) and all(isinstance(k, str) for k in part):
            part = {k.removeprefix("module."): v for k, v in part.items()}
            if KEY in part and any(k.startswith("convs.") for k in part):
                return part, name
    return None


def read(value: Any, container: str = "", sha256: str = "") -> tuple[ModuleRecord, CheckpointReport]:
    """The generator's record. UsageError for missing tensors and for those without a place, each by name."""
    found = find_part(value)
    if found is None:
        raise unlike(FAMILY)
    (part, name), assumed = found, Assumptions()
    tensors = renamed(part, Names(), assumed)
    if name not in ("g_ema", "generator_ema"):
        where = name or "a bare state dict"
        assumed.note(f"weights: from {where}, there being no g_ema; averaged weights draw better images")
    if isinstance(value, Mapping) and isinstance(value.get("latent_avg"), Tensor):
        tensors["mapping.w_avg"] = as_float(value["latent_avg"]).flatten()
    tensors = fill_in(tensors, assumed)
    assumed.note("mapping learning-rate multiplier 0.01, conv_clamp none: not stored, as that project trains")
    record = stylegan2_record(tensors, None)
    skipped = sorted(str(k) for k in value if k not in (name, "latent_avg")) if name else []
    facts = {"part": name or "state dict"}
    return record, CheckpointReport(FAMILY, container, sha256, skipped=skipped, assumed=assumed.lines, facts=facts)


def renamed(source: Mapping[str, Any], names: Names, assumed: Assumptions) -> dict[str, Tensor]:
    """Every tensor of a state dict of this structure under its NVlabs name; none may be left over."""
    get = Getter(source, FAMILY)
    layers = _count(source, names.style)
    convs = sum(1 for k in source if re.fullmatch(rf"convs\.\d+\.{re.escape(names.kernel)}", k))
    result = {}
    for i in range(layers):
        result[f"mapping.fc{i}.weight"] = get(names.style.format(i=i + 1))
        result[f"mapping.fc{i}.bias"] = get(names.style_bias.format(i=i + 1))
    result["synthesis.b4.const"] = get(names.const)[0]
    for i in range(-1, convs):  # -1 is the convolution at 4 px
        theirs = "conv1" if i < 0 else f"convs.{i}"
        ours = "synthesis.b4.conv1" if i < 0 else f"synthesis.b{8 * 2 ** (i // 2)}.conv{i % 2}"
        result |= _modulated(get, theirs, ours, names)
        result[f"{ours}.bias"] = get(f"{theirs}.activate.bias")
        result[f"{ours}.noise_strength"] = get(f"{theirs}.{names.strength}").reshape(())
        noise = names.noise.format(i=i + 1)
        if noise in source:
            result[f"{ours}.noise_const"] = get(noise)[0, 0]
        _filter(source, get, f"{theirs}.conv.blur.kernel", f"{ours}.resample_filter", result)
    for i in range(-1, convs // 2):
        theirs = "to_rgb1" if i < 0 else f"to_rgbs.{i}"
        block = f"synthesis.b{4 if i < 0 else 8 * 2**i}"
        result |= _modulated(get, theirs, f"{block}.torgb", names)
        result[f"{block}.torgb.bias"] = get(f"{theirs}.bias").flatten()
        _filter(source, get, f"{theirs}.upsample.kernel", f"{block}.resample_filter", result)
    get.refuse_left_over()
    return result


def _modulated(get: Getter, theirs: str, ours: str, names: Names) -> dict[str, Tensor]:
    return {
        f"{ours}.weight": get(f"{theirs}.{names.kernel}")[0],
        f"{ours}.affine.weight": get(f"{theirs}.{names.affine}"),
        f"{ours}.affine.bias": get(f"{theirs}.{names.affine_bias}"),
    }


def _filter(source: Mapping[str, Any], get: Getter, theirs: str, ours: str, result: dict[str, Tensor]) -> None:
    if theirs in source:  # stored with the gain of 4 that upsampling needs
        result[ours] = get(theirs) / 4.0


def _count(source: Mapping[str, Any], pattern: str) -> int:
    count = 0
    while pattern.format(i=count + 1) in source:
        count += 1
    return count
