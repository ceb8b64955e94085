"""TensorFlow StyleGAN2 and StyleGAN2-ADA pickles, (G, D, Gs): the third network, as a StyleGAN2 record.

Dense weights are transposed, kernels go from [k, k, in, out] to [out, in, k, k], the upsampling ones are flipped in
both axes, and the 1 of every style bias, added at run time there, is added here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.families.layout import (
    LR_MULTIPLIER,
    Assumptions,
    as_float,
    fill_in,
    mean_w,
    refuse_left_over,
    stylegan2_record,
)
from gansegctl.generators.checkpoints.records import CheckpointReport, ModuleRecord
from gansegctl.generators.layers import fir_filter

FAMILY = "stylegan2 (TensorFlow)"
STYLEGAN2_VERSION = 4
"""`version` of the network state that StyleGAN2 writes; ProGAN and StyleGAN1 write lower ones."""
IGNORED = ("lod", "dlatent_avg")


def state_of(network: Any) -> Mapping[str, Any]:
    """The stored state of an inert `dnnlib.tflib.network.Network`; empty for anything else."""
    for name in ("state", "attributes"):
        state = getattr(network, name, None)
        if isinstance(state, Mapping) and "variables" in state and "static_kwargs" in state:
            return state
    return network if isinstance(network, Mapping) and {"variables", "static_kwargs"} <= set(network) else {}


def matches(value: Any) -> bool:
    """Whether this is a TensorFlow network, or a tuple of them."""
    networks = value if isinstance(value, tuple | list) else (value,)
    return bool(networks) and any(state_of(n) for n in networks)


def read(value: Any, container: str = "", sha256: str = "") -> tuple[ModuleRecord, CheckpointReport]:
    """The averaged generator's record. UsageError for StyleGAN1, ProGAN, discriminators, tensors without a place."""
    state = _generator(value)
    kwargs, assumed = dict(state.get("static_kwargs") or {}), Assumptions()
    _refuse_others(state, kwargs)
    source = {re.sub(r"^(G_)?(mapping|synthesis)/", "", k): v for k, v in _variables(state)}
    lr_multiplier = float(kwargs.get("mapping_lrmul", LR_MULTIPLIER))
    tensors = _renamed(source)
    if "dlatent_avg" in source:
        tensors["mapping.w_avg"] = as_float(source["dlatent_avg"]).flatten()
    else:
        tensors["mapping.w_avg"] = mean_w(tensors, lr_multiplier)
        assumed.note("w_avg: not stored, estimated from 4096 samples (seed 0)")
    taps = kwargs.get("resample_kernel") or (1, 3, 3, 1)
    kernel = fir_filter([float(t) for t in taps])
    owners = {k.rsplit(".", 1)[0] for k in tensors if re.search(r"\.conv\d\.weight$", k)}
    tensors |= {f"{o}.resample_filter": kernel for o in owners | {o.rsplit(".", 1)[0] for o in owners}}
    tensors = fill_in(tensors, assumed)
    clamp = kwargs.get("conv_clamp")
    skipped = ["G", "D"] if isinstance(value, tuple | list) and len(value) == 3 else []
    facts = {"version": state.get("version"), "name": str(state.get("name", ""))}
    report = CheckpointReport(FAMILY, container, sha256, skipped=skipped, assumed=assumed.lines, facts=facts)
    return stylegan2_record(tensors, None if clamp is None else float(clamp), lr_multiplier), report


def _generator(value: Any) -> Mapping[str, Any]:
    networks = value if isinstance(value, tuple | list) else (value,)
    states = [s for s in map(state_of, networks) if s]
    if any(_version(s) < STYLEGAN2_VERSION for s in states):
        return states[-1]  # refused by name in a moment
    generators = [s for s in states if any("Const/const" in k or "Dense0/weight" in k for k, _ in _variables(s))]
    if not generators:
        raise UsageError(
            "got a TensorFlow pickle without a generator", wanted="(G, D, Gs)", remedy="pass the whole file"
        )
    return generators[-1]


def _version(state: Mapping[str, Any]) -> int:
    version = state.get("version", 0)
    return int(version) if isinstance(version, int | float) else 0


def _refuse_others(state: Mapping[str, Any], kwargs: Mapping[str, Any]) -> None:
    names = [k for k, _ in _variables(state)]
    if _version(state) < STYLEGAN2_VERSION or any("/StyleMod/" in k for k in names):
        which = "StyleGAN1" if any("StyleMod" in k or "Dense0" in k for k in names) else "ProGAN or StyleGAN1"
        raise UsageError(
            f"got a TensorFlow pickle of {which} (network version {state.get('version')}), another network",
            wanted=f"StyleGAN2: version {STYLEGAN2_VERSION} or later",
            remedy="use the StyleGAN2 file of that domain",
        )
    if any("ToRGB_lod" in k for k in names):
        raise UsageError("got a TensorFlow StyleGAN2 of configs A-D", wanted="config E or F (the published networks)")
    if any("LabelConcat" in k for k in names):
        raise UsageError(
            "got a conditional TensorFlow StyleGAN2 from before ADA, which normalises label and z together",
            wanted="an unconditional one, or one of StyleGAN2-ADA",
        )
    for key in ("nonlinearity", "mapping_nonlinearity"):
        if kwargs.get(key, "lrelu") != "lrelu":
            raise UsageError(f"got a TensorFlow StyleGAN2 with {key} {kwargs[key]!r}", wanted="lrelu")


def _variables(state: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, Any]]:
    found = [(prefix + str(name), array) for name, array in state.get("variables") or ()]
    components = state.get("components")
    if isinstance(components, Mapping) and depth < 4:
        for name, network in components.items():
            found += _variables(state_of(network), f"{name}/", depth + 1)
    return found


def _renamed(source: Mapping[str, Any]) -> dict[str, Tensor]:
    result, used = {}, {k for k in source if k in IGNORED}
    for name, array in source.items():
        found = _place(name)
        if found is not None:
            ours, change = found
            result[ours] = change(as_float(array)).contiguous()
            used.add(name)
    refuse_left_over(source, used, FAMILY)
    return result


def _kernel(x: Tensor) -> Tensor:
    return x.permute(3, 2, 0, 1)


def _flipped_kernel(x: Tensor) -> Tensor:
    return _kernel(x).flip(-1, -2)


Change = Callable[[Tensor], Tensor]
LAYERS = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb"}
"""Layer there → layer here."""
RULES: tuple[tuple[str, Callable[[re.Match[str]], str], Change], ...] = (
    (r"Dense(\d+)/weight", lambda m: f"mapping.fc{m[1]}.weight", lambda x: x.T),
    (r"Dense(\d+)/bias", lambda m: f"mapping.fc{m[1]}.bias", Tensor.flatten),
    (r"LabelEmbed/weight", lambda m: "mapping.embed.weight", lambda x: x.T),
    (r"LabelEmbed/bias", lambda m: "mapping.embed.bias", Tensor.flatten),
    (r"4x4/Const/const", lambda m: "synthesis.b4.const", lambda x: x[0]),
    (r"noise(\d+)", lambda m: f"synthesis.{_nth(int(m[1]))}.noise_const", lambda x: x[0, 0]),
    (r"(\d+)x\d+/Skip/weight", lambda m: f"synthesis.b{m[1]}.skip.weight", _flipped_kernel),
    (r"(\d+)x\d+/Conv0_up/weight", lambda m: f"synthesis.b{m[1]}.conv0.weight", _flipped_kernel),
    (r"(\d+)x\d+/(\w+)/weight", lambda m: f"synthesis.b{m[1]}.{LAYERS[m[2]]}.weight", _kernel),
    (r"(\d+)x\d+/(\w+)/bias", lambda m: f"synthesis.b{m[1]}.{LAYERS[m[2]]}.bias", Tensor.flatten),
    (r"(\d+)x\d+/(\w+)/noise_strength", lambda m: f"synthesis.b{m[1]}.{LAYERS[m[2]]}.noise_strength", lambda x: x),
    (r"(\d+)x\d+/(\w+)/mod_weight", lambda m: f"synthesis.b{m[1]}.{LAYERS[m[2]]}.affine.weight", lambda x: x.T),
    (r"(\d+)x\d+/(\w+)/mod_bias", lambda m: f"synthesis.b{m[1]}.{LAYERS[m[2]]}.affine.bias", lambda x: x.flatten() + 1),
)
"""TensorFlow name → NVlabs name → what is done to the array; the first rule that fits."""


def _place(name: str) -> tuple[str, Change] | None:
    for pattern, ours, change in RULES:
        found = re.fullmatch(pattern, name)
        if found and ((found.lastindex or 0) < 2 or found[2] in LAYERS):
            return ours(found), change
    return None


def _nth(layer: int) -> str:
    """The n-th convolution: 0 is at 4 px, then two a resolution."""
    return "b4.conv1" if layer == 0 else f"b{4 * 2 ** ((layer + 1) // 2)}.conv{1 - layer % 2}"
