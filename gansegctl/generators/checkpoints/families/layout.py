"""From bare tensors in NVlabs' names to the record of a StyleGAN2: every size inferred from the shapes, none asked for.

The readers of the other StyleGAN2 layouts rename their tensors to these names and end here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.records import ModuleRecord
from gansegctl.generators.latents import noise_of_seeds
from gansegctl.generators.layers import fir_filter, leaky
from gansegctl.generators.mapping import unit_mean_square

LR_MULTIPLIER = 0.01
"""Of the mapping network, in every released StyleGAN2 and StyleGAN3."""
AVERAGE_SAMPLES = 4096
"""How many z a missing w_avg is estimated from, those of RandomState(0)."""


@dataclass
class Assumptions:
    """Values that a file does not say and those taken instead, collected while it is read."""

    lines: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Add a line, once."""
        if line not in self.lines:
            self.lines.append(line)


def as_float(value: Tensor | np.ndarray | float) -> Tensor:
    """A tensor or array as float32, or float64 where it is that already: halves are widened, nothing is lost."""
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    return tensor.detach().to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).contiguous()


def is_state_dict(value: object) -> bool:
    """Whether this is a flat mapping of names to tensors or arrays, with nothing but numbers beside them."""
    if not isinstance(value, Mapping) or not value:
        return False
    return any(isinstance(v, Tensor) for v in value.values()) and all(isinstance(k, str) for k in value)


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name starts with `prefix`, under the rest of their name."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix) and isinstance(v, Tensor)}


def take(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """The tensor of this name. UsageError names it when it is missing: a partial load is an error."""
    if name not in tensors:
        raise UsageError(
            f"got a checkpoint without {name}",
            wanted="every tensor of the network",
            remedy="the file is incomplete: export or download it again",
        )
    return as_float(tensors[name])


class Getter:
    """Hands out the tensors of a state dict by name, and knows which were never asked for."""

    def __init__(self, tensors: Mapping[str, Any], layout: str) -> None:
        self.tensors, self.layout = tensors, layout
        self.used: set[str] = set()

    def __call__(self, name: str) -> Tensor:
        """The tensor of this name. UsageError when it is missing."""
        self.used.add(name)
        return take(self.tensors, name)

    def refuse_left_over(self) -> None:
        """UsageError that names the tensors which nobody asked for."""
        refuse_left_over(self.tensors, self.used, self.layout)


def unlike(family: str) -> UsageError:
    """The error for content that a reader was given although it is not of its family."""
    return UsageError(f"got a checkpoint that is none of {family}", wanted=f"the layout of {family}")


def refuse_left_over(tensors: Mapping[str, object], used: set[str], layout: str) -> None:
    """UsageError that names the tensors which the layout has no place for."""
    left = sorted(set(tensors) - used)
    if left:
        raise UsageError(
            f"got {len(left)} tensors that {layout} has no place for: {', '.join(left[:5])}",
            wanted="every tensor of the network, no other",
            remedy="the network was changed by its trainer; this version of gansegctl does not read it",
        )


def check_sizes(tensors: Mapping[str, Tensor], size: int = 4) -> list[int]:
    """The resolutions 4, 8, … of the blocks there are. UsageError for gaps, or a constant that is not 4×4."""
    found = sorted({int(m.group(1)) for k in tensors if (m := re.match(r"synthesis\.b(\d+)\.", k))})
    wanted = [size * 2**i for i in range(len(found))]
    if len(found) < 2 or found != wanted:
        raise UsageError(
            f"got blocks at {found} px", wanted="4, 8, 16, … px, each once", remedy="the file is incomplete"
        )
    const = take(tensors, "synthesis.b4.const")
    if const.shape[1:] != (size, size):
        raise UsageError(f"got a constant of {list(const.shape[1:])} px", wanted="4×4", remedy="square StyleGAN2 only")
    return found


def linear_layers(tensors: Mapping[str, Tensor]) -> int:
    """How many mapping layers fc0, fc1, … there are."""
    count = 0
    while f"mapping.fc{count}.weight" in tensors:
        count += 1
    return count


def mean_w(tensors: Mapping[str, Tensor], lr_multiplier: float = LR_MULTIPLIER) -> Tensor:
    """w_avg [W] estimated from AVERAGE_SAMPLES z of RandomState(0), classes in turn; for files that do not store it."""
    tensors = {k: v.float() for k, v in tensors.items() if k.startswith("mapping.")}
    embed = tensors.get("mapping.embed.weight")
    width = tensors["mapping.fc0.weight"].shape[1] - (embed.shape[0] if embed is not None else 0)
    z = torch.from_numpy(np.random.RandomState(0).randn(AVERAGE_SAMPLES, width)).float()  # [N, z_dim]
    x = unit_mean_square(z)
    if embed is not None:
        c = torch.eye(embed.shape[1])[torch.arange(AVERAGE_SAMPLES) % embed.shape[1]]  # [N, c_dim]
        y = F.linear(c, embed / math.sqrt(embed.shape[1]), tensors.get("mapping.embed.bias"))
        x = torch.cat([x, unit_mean_square(y)], dim=1)
    for i in range(linear_layers(tensors)):
        weight, bias = tensors[f"mapping.fc{i}.weight"], tensors[f"mapping.fc{i}.bias"]
        x = leaky(F.linear(x, weight * (lr_multiplier / math.sqrt(weight.shape[1])), bias * lr_multiplier))
    return x.mean(dim=0)


def fill_in(tensors: dict[str, Tensor], assumed: Assumptions) -> dict[str, Tensor]:
    """Add what a layout may leave out: w_avg (estimated), noise maps (drawn), filters (1-3-3-1); each is noted."""
    done = dict(tensors)
    if "mapping.w_avg" not in done and "mapping.fc0.weight" in done:
        done["mapping.w_avg"] = mean_w(done)
        assumed.note(f"w_avg: not stored, estimated from {AVERAGE_SAMPLES} samples (seed 0)")
    convs = sorted(
        {k.rsplit(".", 1)[0] for k in done if re.fullmatch(r"synthesis\.b\d+\.conv\d\.weight", k)}, key=_order
    )
    drawn = [c for c in convs if f"{c}.noise_strength" in done and f"{c}.noise_const" not in done]
    if drawn:
        maps = noise_of_seeds([0], [_resolution(c) for c in drawn])
        done |= {f"{c}.noise_const": m[0, 0] for c, m in zip(drawn, maps, strict=True)}
        assumed.note(f"noise maps: {len(drawn)} of {len(convs)} not stored, drawn from seed 0")
    owners = convs + sorted({f"synthesis.b{_resolution(c)}" for c in convs}, key=_resolution)
    stored = next((done[k] for k in sorted(done) if k.endswith(".resample_filter")), None)
    if stored is None:
        assumed.note("resample filter: not stored, taken as 1-3-3-1")
    for owner in owners:
        done.setdefault(f"{owner}.resample_filter", fir_filter() if stored is None else stored)
    return done


def stylegan2_record(
    tensors: Mapping[str, Tensor], conv_clamp: float | None, lr_multiplier: float = LR_MULTIPLIER
) -> ModuleRecord:
    """The record of a StyleGAN2 from its tensors in NVlabs' names, all of them; sizes and architecture from the shapes.

    conv_clamp: ±bound on activations, None for none. lr_multiplier: of the mapping. Errors: UsageError with the names
    of missing tensors and of those without a place.
    """
    tensors = {k: as_float(v) for k, v in tensors.items()}
    resolutions, get = check_sizes(tensors), Getter(tensors, "StyleGAN2")
    mapping, sizes = mapping_record(tensors, get, 2 * len(resolutions), lr_multiplier)
    colours = take(tensors, f"synthesis.b{resolutions[-1]}.torgb.weight").shape[0]
    architecture = _architecture(tensors, resolutions)
    blocks = {f"b{r}": _block(tensors, get, r, resolutions[-1], architecture, conv_clamp) for r in resolutions}
    get.refuse_left_over()
    shared = {
        "w_dim": sizes["w_dim"],
        "img_resolution": resolutions[-1],
        "img_channels": colours,
        "num_ws": 2 * len(resolutions),
    }
    synthesis = ModuleRecord(
        "SynthesisNetwork",
        shared | {"img_resolution_log2": len(resolutions) + 1, "block_resolutions": list(resolutions)},
        {},
        blocks,
        (),
        {"architecture": architecture, "conv_clamp": conv_clamp, "num_fp16_res": 0},
    )
    constructor = sizes | {"img_resolution": resolutions[-1], "img_channels": colours}
    kwargs = constructor | {
        "mapping_kwargs": {"num_layers": linear_layers(tensors)},
        "synthesis_kwargs": dict(synthesis.init_kwargs),
    }
    return ModuleRecord("Generator", shared | sizes, {}, {"synthesis": synthesis, "mapping": mapping}, (), kwargs)


def dense_record(weight: Tensor, bias: Tensor, lr_multiplier: float, activation: str) -> ModuleRecord:
    """A fully connected layer: weight [out, in], bias [out], both stored before their gains."""
    attributes = {
        "activation": activation,
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "weight_gain": lr_multiplier / math.sqrt(weight.shape[1]),
        "bias_gain": lr_multiplier,
    }
    kwargs = {"activation": activation, "lr_multiplier": lr_multiplier}
    return ModuleRecord(
        "FullyConnectedLayer", attributes, {"weight": weight, "bias": bias}, {}, tuple(weight.shape[::-1]), kwargs
    )


def mapping_record(
    tensors: Mapping[str, Tensor], get: Getter, num_ws: int, lr_multiplier: float = LR_MULTIPLIER
) -> tuple[ModuleRecord, dict[str, int]]:
    """The mapping network under `mapping.` and its sizes z_dim, c_dim, w_dim; `get(name)` takes a tensor."""
    layers, children, c_dim, embedded = linear_layers(tensors), {}, 0, 0
    if not layers:
        raise UsageError("got a checkpoint without mapping.fc0.weight", wanted="every tensor of the network")
    if "mapping.embed.weight" in tensors:
        weight = get("mapping.embed.weight")
        embedded, c_dim = weight.shape
        children["embed"] = dense_record(weight, get("mapping.embed.bias"), 1.0, "linear")
    for i in range(layers):
        weight, bias = get(f"mapping.fc{i}.weight"), get(f"mapping.fc{i}.bias")
        children[f"fc{i}"] = dense_record(weight, bias, lr_multiplier, "lrelu")
    w_avg = get("mapping.w_avg")
    sizes = {
        "z_dim": tensors["mapping.fc0.weight"].shape[1] - embedded,
        "c_dim": c_dim,
        "w_dim": tensors[f"mapping.fc{layers - 1}.weight"].shape[0],
    }
    attributes = sizes | {"num_ws": num_ws, "num_layers": layers, "w_avg_beta": None}
    kwargs = sizes | {"num_ws": num_ws, "num_layers": layers, "lr_multiplier": lr_multiplier}
    return ModuleRecord("MappingNetwork", attributes, {"w_avg": w_avg.flatten()}, children, (), kwargs), sizes


def _architecture(tensors: Mapping[str, Tensor], resolutions: list[int]) -> str:
    if any(re.fullmatch(r"synthesis\.b\d+\.skip\.weight", k) for k in tensors):
        return "resnet"
    coarse = f"synthesis.b{resolutions[0]}.torgb.weight"
    return "skip" if coarse in tensors else "orig"


def _block(
    tensors: Mapping[str, Tensor], get: Getter, r: int, last: int, architecture: str, clamp: float | None
) -> ModuleRecord:
    name, children = f"synthesis.b{r}", {}
    own: dict[str, Tensor | None] = {}
    if r == 4:
        own["const"] = get(f"{name}.const")
    own["resample_filter"] = get(f"{name}.resample_filter")
    for conv in ("conv0", "conv1")[r == 4 :]:
        children[conv] = _conv(tensors, get, f"{name}.{conv}", r, 2 if conv == "conv0" else 1, clamp)
    torgb = r == last or architecture == "skip"
    if torgb:
        weight = get(f"{name}.torgb.weight")
        children["torgb"] = ModuleRecord(
            "ToRGBLayer",
            {"conv_clamp": clamp, "weight_gain": 1.0 / math.sqrt(weight.shape[1] * weight.shape[2] ** 2)},
            {"weight": weight, "bias": get(f"{name}.torgb.bias").flatten()},
            {"affine": _affine(get, f"{name}.torgb")},
        )
    if r > 4 and architecture == "resnet":
        weight = get(f"{name}.skip.weight")
        filters = tensors.get(f"{name}.skip.resample_filter")
        if filters is not None:
            get(f"{name}.skip.resample_filter")
        children["skip"] = ModuleRecord(
            "Conv2dLayer",
            {
                "activation": "linear",
                "up": 2,
                "down": 1,
                "conv_clamp": None,
                "padding": weight.shape[-1] // 2,
                "weight_gain": 1.0 / math.sqrt(weight[0].numel()),
                "act_gain": 1.0,
            },
            {"weight": weight, "bias": None, "resample_filter": own["resample_filter"] if filters is None else filters},
        )
    attributes = {
        "in_channels": 0 if r == 4 else take(tensors, f"{name}.conv0.weight").shape[1],
        "out_channels": take(tensors, f"{name}.conv1.weight").shape[0],
        "w_dim": take(tensors, f"{name}.conv1.affine.weight").shape[1],
        "resolution": r,
        "img_channels": take(tensors, f"synthesis.b{last}.torgb.weight").shape[0],
        "is_last": r == last,
        "architecture": architecture,
        "use_fp16": False,
        "num_conv": 1 if r == 4 else 2,
        "num_torgb": int(torgb),
    }
    return ModuleRecord("SynthesisBlock", attributes, own, children)


def _conv(tensors: Mapping[str, Tensor], get: Getter, name: str, r: int, up: int, clamp: float | None) -> ModuleRecord:
    weight = get(f"{name}.weight")
    own: dict[str, Tensor | None] = {"weight": weight, "bias": get(f"{name}.bias").flatten()}
    own["resample_filter"] = get(f"{name}.resample_filter")
    use_noise = f"{name}.noise_strength" in tensors or f"{name}.noise_const" in tensors
    if use_noise:
        noise = get(f"{name}.noise_const")
        own |= {"noise_const": noise, "noise_strength": get(f"{name}.noise_strength").reshape(())}
        if noise.shape != (r, r):
            raise UsageError(f"got {name}.noise_const of {list(noise.shape)}", wanted=f"[{r}, {r}]")
    attributes = {
        "in_channels": weight.shape[1],
        "out_channels": weight.shape[0],
        "resolution": r,
        "up": up,
        "use_noise": use_noise,
        "activation": "lrelu",
        "conv_clamp": clamp,
        "padding": weight.shape[-1] // 2,
        "act_gain": math.sqrt(2.0),
    }
    return ModuleRecord("SynthesisLayer", attributes, own, {"affine": _affine(get, name)})


def _affine(get: Getter, owner: str) -> ModuleRecord:
    return dense_record(get(f"{owner}.affine.weight"), get(f"{owner}.affine.bias"), 1.0, "linear")


def _resolution(name: str) -> int:
    return int(name.removeprefix("synthesis.b").partition(".")[0])


def _order(name: str) -> tuple[int, str]:
    return _resolution(name), name
