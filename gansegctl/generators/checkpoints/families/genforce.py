"""genforce, higan, sefa, interfacegan, idinvert: `.pth` with `generator_smooth`, as a StyleGAN2 record.

Two traps of that layout: the upsampling kernels keep TensorFlow's orientation and are flipped at run time, and the 1 of
every style bias is added at run time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.families.layout import (
    Assumptions,
    Getter,
    fill_in,
    stylegan2_record,
    unlike,
)
from gansegctl.generators.checkpoints.records import CheckpointReport, ModuleRecord

FAMILY = "genforce"
PARTS = ("generator_smooth", "generator", "")
KEY = "mapping.dense0.weight"


def matches(value: Any) -> bool:
    """Whether this is a file of these projects; StyleGAN1 files among them too, which `read` refuses by name."""
    return _part(value) is not None


def read(value: Any, container: str = "", sha256: str = "") -> tuple[ModuleRecord, CheckpointReport]:
    """The generator's record. UsageError for StyleGAN1, conditional and resnet networks, missing and extra tensors."""
    found = _part(value)
    if found is None:
        raise unlike(FAMILY)
    part, name = found
    _refuse_others(part)
    assumed = Assumptions()
    tensors = fill_in(_renamed(part), assumed)
    if name != "generator_smooth":
        assumed.note(f"weights: from {name or 'a bare state dict'}, there being no generator_smooth")
    assumed.note(
        "mapping learning-rate multiplier 0.01, conv_clamp none, no final tanh: not stored, those projects' own"
    )
    skipped = sorted(str(k) for k in value if k != name) if name else []
    facts = {"part": name or "state dict"}
    report = CheckpointReport(FAMILY, container, sha256, skipped=skipped, assumed=assumed.lines, facts=facts)
    return stylegan2_record(tensors, None), report


def _part(value: Any) -> tuple[dict[str, Any], str] | None:
    if not isinstance(value, Mapping):
        return None
    if isinstance(value.get("models"), Mapping):  # newer runs
        value = value["models"]
    for name in PARTS:
        part = value.get(name) if name else value
        if isinstance(part, Mapping) and all(isinstance(k, str) for k in part):
            part = {k.removeprefix("module."): v for k, v in part.items()}
            if KEY in part:
                return part, name
    return None


def _refuse_others(part: Mapping[str, Any]) -> None:
    if "synthesis.lod" in part or not any(re.fullmatch(r"synthesis\.layer\d+\.noise_strength", k) for k in part):
        raise UsageError(
            "got a genforce checkpoint of StyleGAN1, another network under similar names",
            wanted="a StyleGAN2 or StyleGAN3 generator",
            remedy="use a StyleGAN2 of that domain",
        )
    if "mapping.label_weight" in part:
        raise UsageError(
            "got a conditional genforce checkpoint, which normalises label and z together",
            wanted="an unconditional one",
            remedy="use the NVlabs file that it was converted from",
        )
    if any("skip_layer" in k for k in part):
        raise UsageError("got a genforce checkpoint with residual connections", wanted="the skip or origin form")


def _renamed(part: Mapping[str, Any]) -> dict[str, Tensor]:
    get = Getter(part, FAMILY)
    result = {"synthesis.b4.const": get("synthesis.early_layer.const")[0]}
    dense = sorted(int(m.group(1)) for k in part if (m := re.fullmatch(r"mapping\.dense(\d+)\.weight", k)))
    for i in range(max(dense) + 1):
        for kind in ("weight", "bias"):
            result[f"mapping.fc{i}.{kind}"] = get(f"mapping.dense{i}.{kind}")
    if "truncation.w_avg" in part:
        w_avg = get("truncation.w_avg").flatten()
        width = result[f"mapping.fc{max(dense)}.weight"].shape[0]
        if w_avg.numel() != width:
            raise UsageError(f"got a w_avg of {w_avg.numel()} numbers", wanted=f"{width}: one w for all layers")
        result["mapping.w_avg"] = w_avg
    layers = sorted(int(m.group(1)) for k in part if (m := re.fullmatch(r"synthesis\.layer(\d+)\.weight", k)))
    for i in range(max(layers, default=0) + 1):
        theirs, up = f"synthesis.layer{i}", i % 2 == 1
        ours = f"synthesis.b{4 * 2 ** ((i + 1) // 2)}.{'conv0' if up else 'conv1'}"
        result |= _modulated(get, theirs, ours, flip=up)
        result[f"{ours}.noise_strength"] = get(f"{theirs}.noise_strength").reshape(())
        if f"{theirs}.noise" in part:
            result[f"{ours}.noise_const"] = get(f"{theirs}.noise")[0, 0]
        if f"{theirs}.filter.kernel" in part:  # stored with the gain of 4 that upsampling needs
            result[f"{ours}.resample_filter"] = get(f"{theirs}.filter.kernel")[0, 0] / 4.0
    for j in range(max(layers, default=0) // 2 + 1):
        if f"synthesis.output{j}.weight" in part:
            result |= _modulated(get, f"synthesis.output{j}", f"synthesis.b{4 * 2**j}.torgb", flip=False)
    if "synthesis.upsample.kernel" in part:
        kernel = get("synthesis.upsample.kernel")[0, 0] / 4.0
        result |= {f"synthesis.b{4 * 2**j}.resample_filter": kernel for j in range(max(layers, default=0) // 2 + 1)}
    get.refuse_left_over()
    return result


def _modulated(get: Getter, theirs: str, ours: str, flip: bool) -> dict[str, Tensor]:
    weight = get(f"{theirs}.weight")
    return {
        f"{ours}.weight": weight.flip(-1, -2) if flip else weight,
        f"{ours}.bias": get(f"{theirs}.bias").flatten(),
        f"{ours}.affine.weight": get(f"{theirs}.style.weight"),
        f"{ours}.affine.bias": get(f"{theirs}.style.bias") + 1.0,
    }
