"""The discriminator that lies in a checkpoint: of `gansegctl train`, of NVlabs' snapshots (`D`), of rosinality's (`d`).

All three are the residual StyleGAN2 discriminator (Karras et al. 2020) under other names; read as data, like generator
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers import reading
from gansegctl.generators.checkpoints.families import nvlabs
from gansegctl.generators.checkpoints.families.layout import as_float
from gansegctl.generators.checkpoints.opening import our_header
from gansegctl.generators.checkpoints.record_access import attribute, clamp_of
from gansegctl.generators.checkpoints.records import ModuleRecord
from gansegctl.generators.discriminator import FADING, Discriminator
from gansegctl.generators.layers import Conv
from gansegctl.generators.stylegan2_config import StyleGAN2Config
from gansegctl.io.training_state import load_state

TRAINING = "gansegctl.training"
"""The kind of file in which `train` keeps its discriminator."""
WANTED = (
    "OUT.ckpt of `gansegctl train`, or a StyleGAN2 snapshot that holds its discriminator (NVlabs: D; rosinality: d)"
)
_LAST = {"final_conv.0": "conv", "final_conv.1": "conv", "final_linear.0": "fc", "final_linear.1": "out"}


def open_discriminator(path: Path) -> Discriminator:
    """The discriminator of a file, in eval mode, float32 on the CPU, without gradients.

    Errors: UsageError for a file that is missing, damaged or holds none, for one with classes, and for another
    architecture (StyleGAN-XL's judges by other networks' features).
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"got {path}: no such file", wanted=WANTED)
    header = our_header(path)
    try:
        if header is not None or path.suffix == ".ckpt":
            network = _of_training(path)
        else:
            network = _of_other(reading.read(path).value)
    except UsageError as e:
        if str(path) in e.got:
            raise
        raise UsageError(f"got {path}: {e.got.removeprefix('got ')}", wanted=e.wanted, remedy=e.remedy) from e
    return network.eval().requires_grad_(False)


def _of_training(path: Path) -> Discriminator:
    state = load_state(path, TRAINING)
    tensors = {k: v for k, v in state.below("discriminator").items() if not k.startswith(FADING)}
    try:
        with torch.random.fork_rng(devices=[]):
            network = Discriminator(StyleGAN2Config(**state.facts["settings"]["network"]))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as e:
        raise UsageError(f"got {path}: {e}", wanted="a whole discriminator", remedy="train again") from e
    return network


def _of_other(value: Any) -> Discriminator:
    if nvlabs.is_snapshot(value):
        return _of_nvlabs(nvlabs.discriminator_record(value))
    if isinstance(value, Mapping):
        for name in ("d", "discriminator", ""):
            part = value.get(name) if name else value
            if isinstance(part, Mapping) and "final_linear.1.weight" in {_plain(k) for k in part}:
                return _of_rosinality({_plain(k): v for k, v in part.items()})
    raise UsageError("got no discriminator", wanted=WANTED, remedy="take another --perceptual")


def _plain(key: Any) -> str:
    return str(key).removeprefix("module.")


def _of_nvlabs(record: ModuleRecord) -> Discriminator:
    sizes = sorted((int(n[1:]) for n in record.children if re.fullmatch(r"b\d+", n)), reverse=True)
    others = sorted(set(record.children) - {f"b{r}" for r in sizes})
    if others == ["mapping"]:
        raise _classes()
    if others or sizes[-1:] != [4] or "fc" not in record.children["b4"].children:
        parts = ", ".join([*others, *(f"b{r}" for r in sizes)]) or "none"
        raise UsageError(f"got a {record.class_name} with the parts {parts}", wanted="StyleGAN2's discriminator")
    for r in sizes:
        kind = attribute(record.children[f"b{r}"], f"b{r}", "architecture")
        if kind != "resnet":
            raise UsageError(f"got a discriminator of architecture {kind!r}", wanted="resnet, as StyleGAN2 has it")
    deviation = record.children["b4"].children.get("mbstd")
    if deviation is None or attribute(deviation, "b4.mbstd", "num_channels") != 1:
        raise UsageError("got a discriminator without one channel of minibatch deviation", wanted="one, as StyleGAN2")
    theirs = {"fromrgb": f"b{sizes[0]}.fromrgb", "conv": "b4.conv", "fc": "b4.fc", "out": "b4.out"}
    for i, r in enumerate(sizes[:-1]):
        theirs |= {f"blocks.{i}.{part}": f"b{r}.{part}" for part in ("conv0", "conv1", "skip")}
    records, tensors = dict(record.walk()), record.state_dict()
    renamed = {
        f"{ours}.{name.rpartition('.')[2]}": tensor
        for ours, place in theirs.items()
        for name, tensor in tensors.items()
        if name.rpartition(".")[0] == place
    }
    unused = [n for n in tensors if n.rpartition(".")[0] not in theirs.values() and not n.endswith("resample_filter")]
    clamps = {
        ours: clamp_of(records[place], place) for ours, place in theirs.items() if "conv" in place or ours == "fromrgb"
    }
    return _built(renamed, unused, attribute(deviation, "b4.mbstd", "group_size"), clamps)


def _of_rosinality(tensors: Mapping[str, Tensor]) -> Discriminator:
    blocks = sum(1 for k in tensors if re.fullmatch(r"convs\.\d+\.skip\.1\.weight", k))
    theirs = {"convs.0.0": "fromrgb", "convs.0.1": "fromrgb", **_LAST}
    for i in range(blocks):
        places = {"conv1.0": "conv0", "conv1.1": "conv0", "conv2.0": "conv1", "conv2.1": "conv1", "conv2.2": "conv1"}
        places |= {"skip.0": "skip", "skip.1": "skip"}
        theirs |= {f"convs.{i + 1}.{place}": f"blocks.{i}.{ours}" for place, ours in places.items()}
    renamed, unused = {}, []
    for name, tensor in tensors.items():
        place, _, what = name.rpartition(".")
        if place not in theirs or what not in ("weight", "bias", "kernel"):
            unused.append(name)
            continue
        what = "resample_filter" if what == "kernel" else what
        renamed[f"{theirs[place]}.{what}"] = tensor.flatten() if what == "bias" else tensor
    return _built(renamed, unused, 4, {})


def _built(
    tensors: dict[str, Tensor], unused: list[str], group: int | None, clamps: Mapping[str, float | None]
) -> Discriminator:
    """The network of these tensors by our names. Filters that are not named are the usual one."""
    if unused:
        raise UsageError(f"got tensors without a place: {', '.join(unused[:5])}", wanted="StyleGAN2's discriminator")
    count = sum(1 for k in tensors if re.fullmatch(r"blocks\.\d+\.skip\.weight", k))
    try:
        widths = [tensors["conv.weight"].shape[0], *(len(tensors[f"blocks.{i}.conv0.weight"]) for i in range(count))]
        config = StyleGAN2Config(
            resolution=4 << count,
            image_channels=tensors["fromrgb.weight"].shape[1],
            channel_table=(widths[0], *widths[:0:-1]),
        )
        if tensors["out.weight"].shape[0] != 1:
            raise _classes()
        with torch.random.fork_rng(devices=[]):
            network = Discriminator(config, group or 1 << 30)
        usual = {k: v for k, v in network.state_dict().items() if k.endswith("resample_filter")}
        network.load_state_dict(usual | {k: as_float(v) for k, v in tensors.items()})
    except (KeyError, IndexError, RuntimeError) as e:
        reason = " ".join(str(e).split())[:300]
        raise UsageError(f"got a discriminator that is not whole ({reason})", wanted="StyleGAN2's discriminator") from e
    for name, clamp in clamps.items():
        layer = network.get_submodule(name)
        if isinstance(layer, Conv):
            layer.clamp = clamp
    return network


def _classes() -> UsageError:
    return UsageError(
        "got a discriminator of a generator with classes",
        wanted="an unconditional one",
        remedy="--perceptual gradients",
    )
