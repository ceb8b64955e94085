"""Flattened state dicts in NVlabs' names, from safetensors ports or torch: StyleGAN2 and StyleGAN3.

There are no constructor arguments in such a file. Sizes, depth and architecture follow from names and shapes; clamp,
activation and learning-rate multiplier are those of the official training scripts, and the report lists them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.families.layout import (
    LR_MULTIPLIER,
    Assumptions,
    Getter,
    as_float,
    dense_record,
    fill_in,
    is_state_dict,
    linear_layers,
    mapping_record,
    stylegan2_record,
    take,
    unlike,
    without_prefix,
)
from gansegctl.generators.checkpoints.records import CheckpointReport, ModuleRecord

CLAMP = 256.0
"""conv_clamp of the official training scripts (none with --fp32); far beyond what a trained float32 network reaches."""
MARGIN = 10
"""Extra pixels on every side of StyleGAN3's maps; those of the last layers have none."""
FIRST_CUTOFF, FIRST_RATE = 2.0, 16
OUTPUT_SCALE = 0.25
PREFIXES = ("G_ema.", "g_ema.", "generator_ema.", "G.", "generator.", "module.", "")
PARTS = ("G_ema", "g_ema", "generator_ema", "state_dict", "model", "G", "generator", "")


def matches(value: Any) -> bool:
    """Whether somewhere in this there is a flat dict with NVlabs' tensor names."""
    return _find(value) is not None


def read(value: Any, container: str = "", sha256: str = "") -> tuple[ModuleRecord, CheckpointReport]:
    """The generator's record. UsageError for missing tensors and for those without a place, each by name."""
    found = _find(value)
    if found is None:
        raise unlike("NVlabs' tensor names")
    (part, tensors, skipped), assumed = found, Assumptions()
    if "synthesis.input.weight" in tensors:
        family, record = "stylegan3, flattened", _stylegan3(tensors, assumed)
    else:
        family, tensors = "stylegan2, flattened", fill_in(tensors, assumed)
        assumed.note("conv_clamp ±256, leaky ReLU, mapping learning-rate multiplier 0.01: the official training's")
        record = stylegan2_record(tensors, CLAMP)
    report = CheckpointReport(family, container, sha256, skipped=skipped, assumed=assumed.lines)
    report.facts = {"part": part or "state dict"}
    return record, report


def _find(value: Any) -> tuple[str, dict[str, Tensor], list[str]] | None:
    if not isinstance(value, Mapping):
        return None
    for part in PARTS:
        state = value.get(part) if part else value
        if not isinstance(state, Mapping) or not is_state_dict(state):
            continue
        for prefix in PREFIXES:
            if f"{prefix}mapping.fc0.weight" not in state:
                continue
            if f"{prefix}synthesis.b4.const" in state or f"{prefix}synthesis.input.weight" in state:
                others = {k.split(".")[0] for k in state if not k.startswith(prefix)}
                others |= {str(k) for k in value if k != part} if part else set()
                return part or prefix.rstrip("."), without_prefix(state, prefix), sorted(others)
    return None


def _stylegan3(tensors: Mapping[str, Tensor], assumed: Assumptions) -> ModuleRecord:
    tensors = {k: as_float(v) for k, v in tensors.items()}
    get = Getter(tensors, "StyleGAN3")
    found = {m.group(1) for k in tensors if (m := re.match(r"synthesis\.(L\d+_\d+_\d+)\.", k))}
    names = sorted(found, key=lambda n: int(n[1:].split("_")[0]))
    if [int(n[1:].split("_")[0]) for n in names] != list(range(len(names))) or len(names) < 3:
        raise UsageError(f"got StyleGAN3 layers {', '.join(names)}", wanted="L0, L1, …, each once")
    resolution = int(names[-1].split("_")[1])
    mapping, sizes = mapping_record(tensors, get, len(names) + 1)
    source, rate, size = _input(tensors, get), FIRST_RATE, FIRST_RATE + 2 * MARGIN
    children = {"input": source}
    for i, name in enumerate(names):
        out = int(name.split("_")[1])
        out_rate = out if out & (out - 1) == 0 else out - 2 * MARGIN
        children[name] = _layer(tensors, get, f"synthesis.{name}", (size, out), (rate, out_rate), i == len(names) - 1)
        size, rate = out, out_rate
    colours = take(tensors, f"synthesis.{names[-1]}.weight").shape[0]
    get.refuse_left_over()
    assumed.note("conv_clamp ±256, leaky ReLU, mapping learning-rate multiplier 0.01: the official training's")
    assumed.note(
        f"input: {FIRST_RATE + 2 * MARGIN} px at rate {FIRST_RATE}, bandwidth 2; margin {MARGIN}; 2× oversampled"
    )
    assumed.note(f"output scale {OUTPUT_SCALE}")
    shared = {"img_resolution": resolution, "img_channels": colours, "num_ws": len(names) + 1, "w_dim": sizes["w_dim"]}
    attributes = shared | {
        "num_layers": len(names) - 1,
        "num_critical": 2,
        "margin_size": MARGIN,
        "output_scale": OUTPUT_SCALE,
        "num_fp16_res": 0,
        "layer_names": list(names),
    }
    synthesis = ModuleRecord("SynthesisNetwork", attributes, {}, children)
    kwargs: dict[str, Any] = sizes | {"img_resolution": resolution, "img_channels": colours}
    kwargs |= {"mapping_kwargs": {"num_layers": linear_layers(tensors), "lr_multiplier": LR_MULTIPLIER}}
    return ModuleRecord("Generator", shared | sizes, {}, {"synthesis": synthesis, "mapping": mapping}, (), kwargs)


def _input(tensors: Mapping[str, Tensor], get: Getter) -> ModuleRecord:
    name = "synthesis.input"
    weight = get(f"{name}.weight")
    own: dict[str, Tensor | None] = {"weight": weight}
    own |= {k: get(f"{name}.{k}") for k in ("transform", "freqs", "phases")}
    w_dim = take(tensors, f"{name}.affine.weight").shape[1]
    affine = dense_record(get(f"{name}.affine.weight"), get(f"{name}.affine.bias"), 1.0, "linear")
    attributes = {
        "w_dim": w_dim,
        "channels": weight.shape[0],
        "size": [FIRST_RATE + 2 * MARGIN] * 2,
        "sampling_rate": FIRST_RATE,
        "bandwidth": FIRST_CUTOFF,
    }
    return ModuleRecord("SynthesisInput", attributes, own, {"affine": affine})


def _layer(
    tensors: Mapping[str, Tensor], get: Getter, name: str, sizes: tuple[int, int], rates: tuple[int, int], torgb: bool
) -> ModuleRecord:
    weight, kernel = get(f"{name}.weight"), tensors[f"{name}.weight"].shape[-1]
    own: dict[str, Tensor | None] = {"weight": weight, "bias": get(f"{name}.bias").flatten()}
    own["magnitude_ema"] = get(f"{name}.magnitude_ema").reshape(())
    filters = {k: f"{name}.{k}" for k in ("up_filter", "down_filter")}
    own |= {k: get(full) if full in tensors or not torgb else None for k, full in filters.items()}
    inner = max(rates) * (1 if torgb else 2)  # the activation runs at twice the rate, to keep it free of aliases
    up, down = inner // rates[0], inner // rates[1]
    taps = [1 if f is None else f.shape[-1] for f in (own["up_filter"], own["down_filter"])]
    # Padding: the size wanted before the second filter's stride, less what arrives, plus what filters eat.
    total = (sizes[1] - 1) * down + 1 - (sizes[0] + kernel - 1) * up + sum(taps) - 2
    low = (total + up) // 2
    attributes = {
        "w_dim": take(tensors, f"{name}.affine.weight").shape[1],
        "is_torgb": torgb,
        "in_channels": weight.shape[1],
        "out_channels": weight.shape[0],
        "in_size": [sizes[0]] * 2,
        "out_size": [sizes[1]] * 2,
        "in_sampling_rate": rates[0],
        "out_sampling_rate": rates[1],
        "tmp_sampling_rate": inner,
        "conv_kernel": kernel,
        "conv_clamp": CLAMP,
        "use_fp16": False,
        "up_factor": up,
        "up_taps": taps[0],
        "down_factor": down,
        "down_taps": taps[1],
        "down_radial": own["down_filter"] is not None and own["down_filter"].ndim == 2,
        "padding": [low, total - low, low, total - low],
        "act_gain": 1.0 if torgb else math.sqrt(2.0),
    }
    affine = dense_record(get(f"{name}.affine.weight"), get(f"{name}.affine.bias"), 1.0, "linear")
    return ModuleRecord("SynthesisLayer", attributes, own, {"affine": affine})
