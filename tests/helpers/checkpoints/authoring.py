"""Writes checkpoints in the official containers, tiny and of random weights, with a text of ours where theirs has code.

Run as a script it writes the committed fixtures: `python tests/helpers/checkpoints/authoring.py FOLDER`.
A loader that runs the source text fails: it is one line that raises.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

SOURCE = 'raise RuntimeError("a checkpoint is data: its source text must not be run")\n'


class EasyDict(dict):
    """Pickles as `dnnlib.util.EasyDict`."""


EasyDict.__module__ = "dnnlib.util"


def _reconstruct_persistent_obj(meta):  # the name is what matters
    raise RuntimeError("only its name is written")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent(nn.Module):
    """A module that pickles as an object of NVlabs persistence: `class_name`, `source`, and its `__dict__` as state."""

    def __init__(self, class_name: str, source: str = SOURCE, **attributes: Any) -> None:
        super().__init__()
        object.__setattr__(self, "_named", (class_name, source))
        for name, value in attributes.items():
            setattr(self, name, value)

    def __reduce__(self):
        class_name, source = self._named
        state = {k: v for k, v in self.__dict__.items() if k != "_named"}
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}
        return _reconstruct_persistent_obj, (meta,)


class _ModulesNamedLikeTheirs(contextlib.AbstractContextManager):
    """While open, the stand-ins can be pickled by name; afterwards no module of those names is left."""

    def __enter__(self):
        wanted = {
            "torch_utils": types.ModuleType("torch_utils"),
            "torch_utils.persistence": types.ModuleType("torch_utils.persistence"),
            "dnnlib": types.ModuleType("dnnlib"),
            "dnnlib.util": types.ModuleType("dnnlib.util"),
        }
        wanted["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
        wanted["dnnlib.util"].EasyDict = EasyDict
        sys.modules.update(wanted)
        self.names = list(wanted)

    def __exit__(self, *_):
        for name in self.names:
            del sys.modules[name]


def dumps(value: Any, protocol: int = 4) -> bytes:
    """The object stream of a value that may hold `Persistent` modules."""
    with _ModulesNamedLikeTheirs():
        return pickle.dumps(value, protocol)


def torch_bytes(value: Any, legacy: bool = False) -> bytes:
    """A torch file: the zip archive, or the stream of versions before 1.6."""
    buffer = io.BytesIO()
    with _ModulesNamedLikeTheirs():
        torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape), requires_grad=False)


def fully_connected(inputs: int, outputs: int, lr: float = 1.0, activation: str = "linear", start: float = 0.0, **more):
    layer = Persistent(
        "FullyConnectedLayer",
        **more,
        in_features=inputs,
        out_features=outputs,
        activation=activation,
        weight_gain=lr / np.sqrt(inputs),
        bias_gain=lr,
        _init_args=(inputs, outputs),
        _init_kwargs={"activation": activation, "lr_multiplier": lr},
    )
    layer.weight = _parameter(outputs, inputs)
    layer.bias = nn.Parameter(torch.full([outputs], start), requires_grad=False)
    return layer


def mapping(z: int, c: int, w: int, num_ws: int, layers: int = 2) -> Persistent:
    module = Persistent("MappingNetwork", z_dim=z, c_dim=c, w_dim=w, num_ws=num_ws, num_layers=layers, w_avg_beta=0.995)
    module._init_args, module._init_kwargs = (), EasyDict(z_dim=z, c_dim=c, w_dim=w, num_ws=num_ws, num_layers=layers)
    if c:
        module.embed = fully_connected(c, w)
    for i in range(layers):
        module.add_module(f"fc{i}", fully_connected(z + (w if c else 0) if i == 0 else w, w, 0.01, "lrelu"))
    module.register_buffer("w_avg", torch.randn(w))
    return module


def fir() -> torch.Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def _convolution(inputs: int, outputs: int, w: int, resolution: int, up: int) -> Persistent:
    layer = Persistent(
        "SynthesisLayer",
        resolution=resolution,
        up=up,
        use_noise=True,
        activation="lrelu",
        conv_clamp=256,
        padding=1,
        act_gain=np.sqrt(2),
        _init_args=(inputs, outputs),
        _init_kwargs={"w_dim": w, "resolution": resolution, "up": up},
    )
    layer.affine = fully_connected(w, inputs, start=1.0)
    layer.weight = _parameter(outputs, inputs, 3, 3)
    layer.noise_strength = nn.Parameter(torch.tensor(0.1), requires_grad=False)
    layer.bias = _parameter(outputs)
    layer.register_buffer("resample_filter", fir())
    layer.register_buffer("noise_const", torch.randn(resolution, resolution))
    return layer


def _to_rgb(inputs: int, colours: int, w: int) -> Persistent:
    layer = Persistent("ToRGBLayer", conv_clamp=256, weight_gain=1 / np.sqrt(inputs), _init_args=(), _init_kwargs={})
    layer.affine = fully_connected(w, inputs, start=1.0)
    layer.weight, layer.bias = _parameter(colours, inputs, 1, 1), _parameter(colours)
    return layer


def stylegan2(c: int = 0, colours: int = 3, resolution: int = 16, base: int = 128, most: int = 8) -> Persistent:
    """StyleGAN2-ADA's generator, skip architecture."""
    z, w = 6, 5
    sizes = [2**i for i in range(2, resolution.bit_length())]
    num_ws = 2 * len(sizes)
    synthesis = Persistent(
        "SynthesisNetwork", w_dim=w, img_resolution=resolution, img_channels=colours, block_resolutions=sizes
    )
    synthesis._init_args, synthesis._init_kwargs, synthesis.num_ws = (), {"channel_base": base}, num_ws
    inputs = 0
    for size in sizes:
        outputs = min(base // size, most)
        block = Persistent(
            "SynthesisBlock",
            in_channels=inputs,
            w_dim=w,
            resolution=size,
            img_channels=colours,
            is_last=size == resolution,
            architecture="skip",
            use_fp16=np.bool_(size > 8),
            channels_last=False,
            num_conv=1 if inputs == 0 else 2,
            num_torgb=1,
            _init_args=(inputs, outputs),
            _init_kwargs={"conv_clamp": 256},
        )
        block.register_buffer("resample_filter", fir())
        if inputs == 0:
            block.const = _parameter(outputs, size, size)
        else:
            block.conv0 = _convolution(inputs, outputs, w, size, 2)
        block.conv1 = _convolution(outputs, outputs, w, size, 1)
        block.torgb = _to_rgb(outputs, colours, w)
        synthesis.add_module(f"b{size}", block)
        inputs = outputs
    kwargs = EasyDict(
        z_dim=z,
        c_dim=c,
        w_dim=w,
        img_resolution=resolution,
        img_channels=colours,
        mapping_kwargs=EasyDict(num_layers=2),
        synthesis_kwargs=EasyDict(channel_base=base, channel_max=most, num_fp16_res=1, conv_clamp=256),
    )
    top = Persistent("Generator", z_dim=z, c_dim=c, w_dim=w, img_resolution=resolution, img_channels=colours)
    top._init_args, top._init_kwargs, top.num_ws = (), kwargs, num_ws
    top.synthesis, top.mapping = synthesis, mapping(z, c, w, num_ws)
    return top.eval()


def stylegan3(kernel: int = 3, layers: int = 2) -> Persistent:
    """The parts of a StyleGAN3 generator that its records show; too few layers to draw with."""
    z, w, channels = 6, 5, 4
    synthesis = Persistent("SynthesisNetwork", w_dim=w, num_ws=layers + 2, img_resolution=16, margin_size=10)
    synthesis._init_args, synthesis._init_kwargs = (), {}
    first = Persistent(
        "SynthesisInput",
        w_dim=w,
        channels=channels,
        size=np.array([36, 36]),
        sampling_rate=np.float64(16),
        bandwidth=2,
        _init_args=(),
        _init_kwargs={},
    )
    first.weight, first.affine = _parameter(channels, channels), fully_connected(w, 4)
    for name, value in (("transform", torch.eye(3)), ("freqs", torch.randn(channels, 2)), ("phases", torch.rand(4))):
        first.register_buffer(name, value)
    synthesis.input = first
    names = [f"L{i}_36_{channels}" for i in range(layers)] + [f"L{layers}_16_3"]
    for i, name in enumerate(names):
        last = i == layers
        layer = Persistent(
            "SynthesisLayer",
            w_dim=w,
            is_torgb=last,
            in_size=np.array([36, 36]),
            conv_kernel=1 if last else kernel,
            padding=[9, 8, 9, 8],
            up_factor=2,
            down_factor=2,
            conv_clamp=256,
            _init_args=(),
            _init_kwargs={"is_critically_sampled": np.bool_(last)},
        )
        size = 1 if last else kernel
        layer.weight, layer.bias = _parameter(3 if last else channels, channels, size, size), _parameter(3)
        layer.affine = fully_connected(w, channels, start=1.0)
        layer.register_buffer("magnitude_ema", torch.ones([]))
        layer.register_buffer("up_filter", None if last else torch.rand(12))
        layer.register_buffer("down_filter", None if last else torch.rand(12))
        synthesis.add_module(name, layer)
    synthesis.layer_names = names
    top = Persistent("Generator", z_dim=z, c_dim=0, w_dim=w, img_resolution=16, img_channels=3, num_ws=layers + 2)
    top._init_args, top._init_kwargs = (), EasyDict(z_dim=z, channel_base=128, channel_max=4)
    top.synthesis, top.mapping = synthesis, mapping(z, 0, w, layers + 2)
    return top.eval()


def stylegan_xl() -> Persistent:
    """StyleGAN3's form with a plain torch Embedding in the mapping, and the class of its upper stages."""
    top = stylegan3()
    object.__setattr__(top, "_named", ("SuperresGenerator", SOURCE))
    top.mapping.embed = nn.Embedding(7, 3)
    top.mapping.embed_proj = fully_connected(3, 6, activation="lrelu")
    top._init_kwargs = EasyDict(path_stem="https://example.org/stem.pkl", up_factor=[2])
    return top


def discriminator() -> Persistent:
    top = Persistent("Discriminator", c_dim=0, img_resolution=16, _init_args=(), _init_kwargs={})
    top.b16, top.b4 = fully_connected(4, 4), fully_connected(4, 1)
    return top.eval()


def snapshot(generator: nn.Module | None = None, whole: bool = True, **more: Any) -> dict[str, Any]:
    """A snapshot as NVlabs' training writes it; `whole` with the networks that are not used."""
    generator = stylegan2() if generator is None else generator
    facts = EasyDict(class_name="training.dataset.ImageFolderDataset", path="/home/trainer/secret.zip")
    facts.update(use_labels=False, max_size=None, xflip=True, resolution=16)
    value = {"G": generator if whole else None, "D": discriminator() if whole else None, "G_ema": generator}
    return {**value, "augment_pipe": None, "training_set_kwargs": facts, **more}


def plain_tensors(shared: bool = True) -> dict[str, Any]:
    """A state dict of every dtype, with views, an empty tensor, a scalar and, if `shared`, one storage used twice."""
    kinds = [
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "complex64",
    ]
    tensors = {kind: torch.arange(6).reshape(2, 3).to(getattr(torch, kind)) for kind in kinds}
    tensors["transposed"] = torch.randn(3, 4).t()
    tensors["channels_last"] = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    tensors["empty"], tensors["scalar"] = torch.empty(0, 3), torch.tensor(2.5)
    tensors["parameter"] = nn.Parameter(torch.randn(2))
    if shared:
        whole = torch.randn(10)
        tensors["head"], tensors["tail"] = whole[:4], whole[3:]
    return tensors


def training_file() -> dict[str, Any]:
    """The form of rosinality's training files: state dicts, an optimizer's state, the trainer's settings."""
    module = nn.Sequential(nn.Linear(3, 2), nn.Conv2d(1, 2, 3))
    optimizer = torch.optim.Adam(module.parameters())
    module[0](torch.zeros(1, 3)).sum().backward()
    optimizer.step()
    return {
        "g_ema": OrderedDict(module.state_dict()),
        "g_optim": optimizer.state_dict(),
        "args": argparse.Namespace(size=16, path="/home/trainer/x", nested=argparse.Namespace(lr=0.002)),
        "ada_aug_p": 0.25,
    }


def fixtures(resolution: int = 16) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of the fixtures, the same weights each time; StyleGAN2 of the given size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield "stylegan2-ada.pkl", dumps(snapshot(stylegan2(resolution=resolution)))
        conditional = stylegan2(c=3, resolution=resolution)
        yield "stylegan2-ada-conditional-protocol2.pkl", dumps(snapshot(conditional, whole=False), 2)
        yield "stylegan2-ada-protocol0.pkl", dumps(snapshot(stylegan2(resolution=resolution), whole=False), 0)
        yield "stylegan3-t.pkl", dumps(snapshot(stylegan3(), whole=False), 5)
        yield "stylegan3-r.pkl", dumps(snapshot(stylegan3(1), whole=False), 3)
        yield "stylegan-xl.pkl", dumps(snapshot(stylegan_xl(), whole=False))
        yield "tensors.pt", torch_bytes(plain_tensors())
        yield "tensors-legacy.pt", torch_bytes(plain_tensors(), legacy=True)
        yield "training.pt", torch_bytes(training_file())
        yield "training-legacy.pt", torch_bytes(training_file(), legacy=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in fixtures():
        (folder / name).write_bytes(content)
        print(f"{len(content):8d}  {name}")
