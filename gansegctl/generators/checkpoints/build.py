"""A generator from what a checkpoint says of it: behaviour from stored attributes, sizes from the tensors themselves.

No number comes from a constructor's default: the official repositories give the same names different ones.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.base import StyleGAN
from gansegctl.generators.checkpoints.record_access import (
    REMEDY,
    attribute,
    check_linear,
    child,
    clamp_of,
    number,
    tensor_of,
    whole,
)
from gansegctl.generators.checkpoints.records import ModuleRecord
from gansegctl.generators.layers import SQRT2, fir_filter
from gansegctl.generators.stylegan2 import StyleGAN2
from gansegctl.generators.stylegan2_config import DEFAULT_TAPS, StyleGAN2Config
from gansegctl.generators.stylegan3 import StyleGAN3
from gansegctl.generators.stylegan3_config import LayerConfig, StyleGAN3Config
from gansegctl.generators.weights import network_of_tensors

_UNUSED_XL = re.compile(r"synthesis\.L[^.]*\.(up|down)_filter\d+$")
"""Filters that StyleGAN-XL's training blends between; the ones in use are stored as up_filter and down_filter."""


def generator_from_record(record: ModuleRecord) -> StyleGAN:
    """StyleGAN2, StyleGAN3 or StyleGAN-XL with the record's weights, in eval mode, without gradients.

    What the record does not say and could be filled is listed in `assumed` of the result. Errors: UsageError for other
    architectures, for behaviour that these networks do not have, and for missing, unexpected or misshapen tensors.
    """
    family = family_of(record)
    return _stylegan2(record) if family == "stylegan2" else _stylegan3(record, family)


def family_of(record: ModuleRecord) -> str:
    """stylegan2 | stylegan3 | stylegan-xl, from the children there are. UsageError for anything else, by its names."""
    parts = set(record.children)
    if parts == {"mapping", "synthesis"}:
        mapping, inner = record.children["mapping"], record.children["synthesis"].children
        if "b4" in inner and all(re.fullmatch(r"b\d+", name) for name in inner):
            return "stylegan2"
        if "input" in inner and all(name == "input" or re.match(r"L\d+_", name) for name in inner):
            embed = mapping.children.get("embed")
            table = "embed_proj" in mapping.children or (embed is not None and embed.class_name == "Embedding")
            return "stylegan-xl" if table or record.class_name == "SuperresGenerator" else "stylegan3"
        parts = set(inner)
    raise UsageError(
        f"got a {record.class_name} with the parts {', '.join(sorted(parts)[:8]) or 'none'}",
        wanted="a StyleGAN2, StyleGAN3 or StyleGAN-XL generator",
        remedy=REMEDY,
    )


# -- StyleGAN2 ----------------------------------------------------------------------------------------------------


def _stylegan2(record: ModuleRecord) -> StyleGAN2:
    synthesis = record.children["synthesis"]
    assumed: list[str] = []
    sizes = sorted(int(name[1:]) for name in synthesis.children)
    if sizes != [2 ** (i + 2) for i in range(len(sizes))]:
        raise UsageError(f"got blocks at {sizes} px", wanted="4, 8, 16, … px, each once", remedy=REMEDY)
    blocks = {r: synthesis.children[f"b{r}"] for r in sizes}
    kinds = sorted({str(attribute(b, f"b{r}", "architecture")) for r, b in blocks.items()})
    if len(kinds) > 1:
        raise UsageError(f"got blocks of {' and '.join(kinds)}", wanted="one architecture", remedy=REMEDY)
    convs, bounded, shortcuts = {}, {}, {}
    for r, block in blocks.items():
        for name in ("conv0", "conv1")[r == 4 :]:
            convs[f"b{r}.{name}"] = child(block, f"b{r}", name)
        if "torgb" in block.children:
            bounded[f"b{r}.torgb"] = block.children["torgb"]
            check_linear(child(block.children["torgb"], f"b{r}.torgb", "affine"), f"b{r}.torgb.affine", "linear")
        if "skip" in block.children:
            shortcuts[f"b{r}.skip"] = block.children["skip"]
    for name, conv in convs.items():
        _check_conv(conv, name, SQRT2, "lrelu", 2 if name.endswith("conv0") else 1)
        check_linear(child(conv, name, "affine"), f"{name}.affine", "linear")
    for name, shortcut in shortcuts.items():
        _check_conv(shortcut, name, 1.0, "linear", 2)
    clamps = {name: clamp_of(module, name) for name, module in (convs | bounded).items()}
    common = max(clamps.values(), key=list(clamps.values()).count)
    bounds = tuple((name, clamp) for name, clamp in clamps.items() if clamp != common)
    bounds += tuple((n, clamp_of(s, n)) for n, s in shortcuts.items() if clamp_of(s, n) is not None)
    noisy = [name for name, conv in convs.items() if attribute(conv, name, "use_noise")]
    widths = tuple(int(tensor_of(blocks[r], f"b{r}", "conv1.weight").shape[0]) for r in sizes)
    base, most = widths[-1] * sizes[-1], max(widths)
    by_rule = all(min(base // r, most) == width for r, width in zip(sizes, widths, strict=True))
    taps = _filter_taps(blocks, assumed)
    mapping = _mapping(record)
    config = StyleGAN2Config(
        resolution=sizes[-1],
        image_channels=int(tensor_of(blocks[sizes[-1]], f"b{sizes[-1]}", "torgb.weight").shape[0]),
        z_dim=mapping.z_dim,
        w_dim=mapping.w_dim,
        c_dim=mapping.c_dim,
        channel_base=base,
        channel_max=most,
        mapping_layers=mapping.layers,
        conv_clamp=common,
        use_noise=bool(noisy),
        filter_taps=taps,
        architecture=kinds[0],
        mapping_lr=mapping.lr_multiplier,
        embed_features=mapping.embed_features,
        layer_features=mapping.layer_features,
        channel_table=None if by_rule else widths,
        clamps=bounds,
        noiseless=tuple(name for name in convs if noisy and name not in noisy),
    )
    _check_num_ws(record, 2 * len(sizes))
    tensors = _usable(record)
    for name, conv in convs.items():
        if name not in noisy:  # switched off after training: the maps may still be stored
            for part in ("noise_const", "noise_strength"):
                tensors.pop(f"synthesis.{name}.{part}", None)
        if number(attribute(conv, name, "up"), name, "up") != 2:  # stored in every convolution, used in none of these
            tensors[f"synthesis.{name}.resample_filter"] = fir_filter(taps)
    for name in [f"b{r}" for r in sizes] + [n for n in convs if n.endswith("conv0")] + list(shortcuts):
        tensors.setdefault(f"synthesis.{name}.resample_filter", fir_filter(taps))
    generator = network_of_tensors(lambda: StyleGAN2(config), tensors, f"a {record.class_name}")
    generator.assumed = assumed
    return generator


def _check_conv(record: ModuleRecord, where: str, gain: float, activation: str, up: int) -> None:
    stored = (attribute(record, where, "activation"), number(attribute(record, where, "up"), where, "up"))
    if stored != (activation, up):
        raise UsageError(f"got {where}: {stored[0]}, up {stored[1]:g}", wanted=f"{activation}, up {up}", remedy=REMEDY)
    found = number(attribute(record, where, "act_gain"), where, "act_gain")
    if not math.isclose(found, gain, rel_tol=1e-6):
        raise UsageError(f"got {where}: activation gain {found:g}", wanted=f"{gain:g}", remedy=REMEDY)


def _filter_taps(blocks: dict[int, ModuleRecord], assumed: list[str]) -> tuple[float, ...]:
    """The 1-D low-pass of the first block that stores one."""
    for r, block in blocks.items():
        stored = [block.tensors.get("resample_filter")]
        stored += [c.tensors.get("resample_filter") for n, c in block.children.items() if n in ("conv0", "skip")]
        for kernel in stored:
            if kernel is None:
                continue
            kernel = kernel.detach().double()
            line = kernel.sum(dim=0) if kernel.ndim == 2 else kernel
            if kernel.ndim > 2 or (kernel.ndim == 2 and not torch.allclose(torch.outer(line, line), kernel, atol=1e-6)):
                raise UsageError(f"got b{r}: a filter {list(kernel.shape)}", wanted="a separable one", remedy=REMEDY)
            if kernel.ndim == 2 and torch.allclose(kernel, fir_filter().double(), atol=1e-6):
                return DEFAULT_TAPS
            return tuple(line.tolist())
    assumed.append("resample filter: not stored, taken as 1-3-3-1")
    return DEFAULT_TAPS


# -- StyleGAN3 and StyleGAN-XL ------------------------------------------------------------------------------------


def _stylegan3(record: ModuleRecord, family: str) -> StyleGAN3:
    synthesis = record.children["synthesis"]
    names = [str(name) for name in attribute(synthesis, "synthesis", "layer_names")]
    layers = tuple(_layer(child(synthesis, "synthesis", name), name) for name in names)
    if not layers:
        raise UsageError("got a network without layers", wanted="layer_names", remedy=REMEDY)
    source = child(synthesis, "synthesis", "input")
    check_linear(child(source, "input", "affine"), "input.affine", "linear")
    mapping = _mapping(record)
    embed = record.children["mapping"].children.get("embed")
    table: tuple[int, int] | None = None
    if family == "stylegan-xl" and mapping.c_dim and embed is not None:
        rows, width = tensor_of(embed, "mapping.embed", "weight").shape[:2]
        table = int(rows), int(width)
    config = StyleGAN3Config(
        family=family,
        resolution=layers[-1].out_size,
        image_channels=layers[-1].out_channels,
        z_dim=mapping.z_dim,
        w_dim=mapping.w_dim,
        c_dim=mapping.c_dim,
        layers=layers,
        input_channels=int(tensor_of(source, "input", "weight").shape[0]),
        input_size=whole(source, "input", "size"),
        input_rate=number(attribute(source, "input", "sampling_rate"), "input", "sampling_rate"),
        bandwidth=number(attribute(source, "input", "bandwidth"), "input", "bandwidth"),
        output_scale=number(attribute(synthesis, "synthesis", "output_scale"), "synthesis", "output_scale"),
        mapping_layers=mapping.layers,
        mapping_lr=mapping.lr_multiplier,
        embed_features=mapping.embed_features,
        layer_features=mapping.layer_features,
        class_table=table,
    )
    _check_num_ws(record, config.num_ws)
    tensors = {k: v for k, v in _usable(record).items() if not _UNUSED_XL.match(k)}
    if family == "stylegan-xl" and table is None:
        tensors.pop("mapping.embed.weight", None)  # stored in unconditional networks too, and never read there
    return network_of_tensors(lambda: StyleGAN3(config), tensors, f"a {record.class_name}")


def _layer(record: ModuleRecord, name: str) -> LayerConfig:
    check_linear(child(record, name, "affine"), f"{name}.affine", "linear")
    weight = tensor_of(record, name, "weight")
    padding = [int(p) for p in np.asarray(attribute(record, name, "padding")).reshape(-1)]
    if len(padding) != 4 or padding[:2] != padding[2:]:
        raise UsageError(f"got {name}: padding {padding}", wanted="the same on both axes", remedy=REMEDY)
    up, down = record.tensors.get("up_filter"), record.tensors.get("down_filter")
    known = {k: record.attributes.get(k) for k in ("in_cutoff", "out_cutoff", "in_half_width", "out_half_width")}
    return LayerConfig(
        name=name,
        in_channels=int(weight.shape[1]),
        out_channels=int(weight.shape[0]),
        in_size=whole(record, name, "in_size"),
        out_size=whole(record, name, "out_size"),
        in_rate=whole(record, name, "in_sampling_rate"),
        out_rate=whole(record, name, "out_sampling_rate"),
        kernel=int(weight.shape[-1]),
        up=whole(record, name, "up_factor"),
        down=whole(record, name, "down_factor"),
        up_taps=1 if up is None else int(up.shape[0]),
        down_taps=1 if down is None else int(down.shape[0]),
        padding=(padding[0], padding[1]),
        radial=down is not None and down.ndim == 2,
        torgb=bool(attribute(record, name, "is_torgb")),
        clamp=clamp_of(record, name),
        **{k: 0.0 if v is None else number(v, name, k) for k, v in known.items()},
    )


# -- what both share ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _MappingSizes:
    """The settings of a mapping network, as the configurations have them."""

    z_dim: int
    w_dim: int
    c_dim: int
    layers: int
    lr_multiplier: float
    embed_features: int | None
    layer_features: int | None


def _mapping(record: ModuleRecord) -> _MappingSizes:
    """Read off the mapping network, checked layer by layer."""
    mapping = record.children["mapping"]
    names = [n for n in mapping.children if re.fullmatch(r"fc\d+", n)]
    layers = [child(mapping, "mapping", f"fc{i}") for i in range(max(len(names), 1))]
    rates = {check_linear(fc, f"mapping.fc{i}", "lrelu") for i, fc in enumerate(layers)}
    if len(rates) > 1:
        raise UsageError(f"got mapping layers of multipliers {sorted(rates)}", wanted="one", remedy=REMEDY)
    widths = [int(tensor_of(fc, f"mapping.fc{i}", "weight").shape[0]) for i, fc in enumerate(layers)]
    features_in, w_dim = int(tensor_of(layers[0], "mapping.fc0", "weight").shape[1]), widths[-1]
    if len(set(widths[:-1])) > 1:
        raise UsageError(f"got mapping layers {widths} wide", wanted="one width between the ends", remedy=REMEDY)
    c_dim, embedded = 0, 0
    if "embed_proj" in mapping.children:
        if check_linear(mapping.children["embed_proj"], "mapping.embed_proj", "lrelu") != 1.0:
            raise UsageError("got mapping.embed_proj with a multiplier", wanted="1", remedy=REMEDY)
        embedded = int(tensor_of(mapping.children["embed_proj"], "mapping.embed_proj", "weight").shape[0])
        c_dim = int(tensor_of(mapping, "mapping", "w_avg").shape[0])  # one w_avg a class
    elif "embed" in mapping.children and mapping.children["embed"].class_name != "Embedding":
        if check_linear(mapping.children["embed"], "mapping.embed", "linear") != 1.0:
            raise UsageError("got mapping.embed with a multiplier", wanted="1", remedy=REMEDY)
        embedded, c_dim = (int(n) for n in tensor_of(mapping.children["embed"], "mapping.embed", "weight").shape)
    if features_in <= embedded:
        raise UsageError("got a generator without z", wanted="z_dim of 1 or more", remedy=REMEDY)
    between = widths[0] if len(widths) > 1 and widths[0] != w_dim else None
    aside = embedded if c_dim and "embed_proj" not in mapping.children and embedded != w_dim else None
    return _MappingSizes(features_in - embedded, w_dim, c_dim, len(layers), rates.pop(), aside, between)


def _check_num_ws(record: ModuleRecord, wanted: int) -> None:
    stored = record.attributes.get("num_ws", record.children["synthesis"].attributes.get("num_ws", wanted))
    if number(stored, "the network", "num_ws") != wanted:
        raise UsageError(f"got num_ws {stored}", wanted=f"{wanted}, as its layers take", remedy=REMEDY)


def _usable(record: ModuleRecord) -> dict[str, Tensor]:
    """The record's tensors; single numbers, stored as [] or [1], as []."""
    scalars = ("noise_strength", "magnitude_ema")
    return {k: v.reshape(()) if k.endswith(scalars) and v.numel() == 1 else v for k, v in record.state_dict().items()}
