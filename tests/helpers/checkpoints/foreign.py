"""One tiny generator of ours, written down in the layouts of other projects; our own text where theirs would be."""

from __future__ import annotations

import argparse
import pickle
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config

SOURCE = "raise RuntimeError('the text that is stored with a network must never run')\n"


def tiny(seed: int = 3, **changes) -> StyleGAN2:
    """16 px, random in every tensor: biases, noise strengths and w_avg too, so that none can be forgotten unseen."""
    settings = {"resolution": 16, "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 12, "mapping_layers": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        g = StyleGAN2(StyleGAN2Config(**settings | changes))
        for name, tensor in g.state_dict().items():
            if name.endswith((".bias", "w_avg")):
                tensor.add_(torch.randn_like(tensor) * 0.3)
            if name.endswith("noise_strength"):
                tensor.fill_(0.2)
    return g.eval().requires_grad_(False)


@torch.no_grad()
def images(g, truncation: float = 0.7, noise: str = "const", c=None) -> torch.Tensor:
    """[2,3,H,W] of seeds 0 and 1."""
    c = None if c is None else torch.eye(g.spec.c_dim)[[c, c]]
    return g.synthesize(g.map(z_of_seeds([0, 1], g.spec.z_dim), c, truncation), noise, taps=None).image


def weights(g) -> dict[str, torch.Tensor]:
    """NVlabs' names, copies."""
    return {k: v.clone() for k, v in g.state_dict().items()}


def convolutions(g):
    """(number, name in NVlabs' layout) of every styled convolution, coarse to fine."""
    return [(i, f"synthesis.{name}") for i, (name, _) in enumerate(g.synthesis.convs())]


def like_rosinality(g, style="style.{i}", kernel="conv.weight", mod="conv.modulation", noise="noise", **names) -> dict:
    """The `g_ema` of rosinality/stylegan2-pytorch; the keywords respell it for mmgeneration."""
    w, out = weights(g), {}
    for i in range(g.config.mapping_layers):
        dense = style.format(i=i + 1)
        out[f"{dense}{names.get('raw', '.weight')}"] = w[f"mapping.fc{i}.weight"]
        out[f"{dense}.bias"] = w[f"mapping.fc{i}.bias"]
    out[names.get("const", "input.input")] = w["synthesis.b4.const"][None]
    raw = names.get("raw", ".weight")

    def modulated(theirs, ours):
        out[f"{theirs}.{kernel}"] = w[f"{ours}.weight"][None]
        out[f"{theirs}.{mod}{raw}"] = w[f"{ours}.affine.weight"]
        out[f"{theirs}.{mod}.bias"] = w[f"{ours}.affine.bias"]

    for i, ours in convolutions(g):
        theirs = "conv1" if i == 0 else f"convs.{i - 1}"
        modulated(theirs, ours)
        out[f"{theirs}.activate.bias"] = w[f"{ours}.bias"]
        out[f"{theirs}.{noise}.weight"] = w[f"{ours}.noise_strength"].reshape(1)
        out[names.get("maps", "noises.noise_{i}").format(i=i)] = w[f"{ours}.noise_const"][None, None]
        if i % 2:
            out[f"{theirs}.conv.blur.kernel"] = w[f"{ours}.resample_filter"] * 4
    for j, r in enumerate(g.config.resolutions):
        theirs = "to_rgb1" if j == 0 else f"to_rgbs.{j - 1}"
        modulated(theirs, f"synthesis.b{r}.torgb")
        out[f"{theirs}.bias"] = w[f"synthesis.b{r}.torgb.bias"].view(1, 3, 1, 1)
        if j:
            out[f"{theirs}.upsample.kernel"] = w[f"synthesis.b{r}.resample_filter"] * 4
    return out


def like_mmgeneration(g, prefix="generator_ema.") -> dict:
    """The `state_dict` of mmgeneration."""
    state = like_rosinality(
        g,
        style="style_mapping.{i}",
        raw=".linear.weight_orig",
        kernel="conv.weight_orig",
        mod="conv.style_modulation",
        noise="noise_injector",
        const="constant_input.input",
        maps="injected_noise_{i}",
    )
    return {f"{prefix}{k}": v for k, v in state.items()}


def like_genforce(g) -> dict:
    """The `generator_smooth` of genforce: upsampling kernels turned round, style biases without their 1."""
    w, out = weights(g), {}
    for i in range(g.config.mapping_layers):
        for kind in ("weight", "bias"):
            out[f"mapping.dense{i}.{kind}"] = w[f"mapping.fc{i}.{kind}"]
    out["truncation.w_avg"] = w["mapping.w_avg"]
    out["synthesis.early_layer.const"] = w["synthesis.b4.const"][None]
    rows = [(f"synthesis.layer{i}", ours) for i, ours in convolutions(g)]
    rgb = [(f"synthesis.output{j}", f"synthesis.b{r}.torgb") for j, r in enumerate(g.config.resolutions)]
    for theirs, ours in rows + [row for row in rgb if f"{row[1]}.weight" in w]:
        flip = ours.endswith("conv0")
        out[f"{theirs}.weight"] = w[f"{ours}.weight"].flip(2, 3) if flip else w[f"{ours}.weight"]
        out[f"{theirs}.bias"] = w[f"{ours}.bias"]
        out[f"{theirs}.style.weight"] = w[f"{ours}.affine.weight"]
        out[f"{theirs}.style.bias"] = w[f"{ours}.affine.bias"] - 1
        if "conv" in ours:
            out[f"{theirs}.noise"] = w[f"{ours}.noise_const"][None, None]
            out[f"{theirs}.noise_strength"] = w[f"{ours}.noise_strength"]
        if flip:
            out[f"{theirs}.filter.kernel"] = w[f"{ours}.resample_filter"][None, None] * 4
    if g.config.architecture == "skip":
        out["synthesis.upsample.kernel"] = w["synthesis.b8.resample_filter"][None, None] * 4
    return out


def tensorflow_variables(g) -> tuple[list, list, list]:
    """(own, mapping, synthesis) variables as (name, array), in TensorFlow's orientation."""
    w = {k: v.numpy() for k, v in weights(g).items()}
    mapping = []
    for i in range(g.config.mapping_layers):
        mapping.append((f"Dense{i}/weight", w[f"mapping.fc{i}.weight"].T))
        mapping.append((f"Dense{i}/bias", w[f"mapping.fc{i}.bias"]))
    if g.config.c_dim:
        mapping.append(("LabelEmbed/weight", w["mapping.embed.weight"].T))
        mapping.append(("LabelEmbed/bias", w["mapping.embed.bias"]))
    synthesis = [("lod", np.float32(0)), ("4x4/Const/const", w["synthesis.b4.const"][None])]
    rows = [(ours.rpartition(".")[0], ours.rpartition(".")[2]) for _, ours in convolutions(g)]
    rows += [(f"synthesis.b{r}", "torgb") for r in g.config.resolutions]
    names = {"conv0": "Conv0_up", "conv1": "Conv1", "torgb": "ToRGB", "skip": "Skip"}
    for block, layer in rows:
        ours, r = f"{block}.{layer}", int(block.rpartition("b")[2])
        if f"{ours}.weight" not in w:
            continue
        theirs = f"{r}x{r}/{'Conv' if ours == 'synthesis.b4.conv1' else names[layer]}"
        kernel = w[f"{ours}.weight"].transpose(2, 3, 1, 0)
        synthesis.append((f"{theirs}/weight", kernel[::-1, ::-1] if layer == "conv0" else kernel))
        synthesis.append((f"{theirs}/bias", w[f"{ours}.bias"]))
        synthesis.append((f"{theirs}/mod_weight", w[f"{ours}.affine.weight"].T))
        synthesis.append((f"{theirs}/mod_bias", w[f"{ours}.affine.bias"] - 1))
        if layer != "torgb":
            synthesis.append((f"{theirs}/noise_strength", w[f"{ours}.noise_strength"]))
    for r in g.config.resolutions[1:] if g.config.architecture == "resnet" else ():
        synthesis.append((f"{r}x{r}/Skip/weight", w[f"synthesis.b{r}.skip.weight"].transpose(2, 3, 1, 0)[::-1, ::-1]))
    for i, ours in convolutions(g):
        synthesis.append((f"noise{i}", w[f"{ours}.noise_const"][None, None]))
    return [("lod", np.float32(0)), ("dlatent_avg", w["mapping.w_avg"])], mapping, synthesis


def write_tensorflow(g, path: Path, version: int = 4, **kwargs) -> Path:
    """A (G, D, Gs) pickle; G and D are empty of variables, as only the third network counts."""
    own, mapping, synthesis = ([(n, np.ascontiguousarray(a)) for n, a in rows] for rows in tensorflow_variables(g))
    with stub("dnnlib.tflib.network", "Network") as network:

        def net(name, variables, components=None):
            made = network()
            made.__dict__ |= {
                "version": version,
                "name": name,
                "static_kwargs": kwargs,
                "components": components or {},
                "build_module_src": SOURCE,
                "build_func_name": name,
                "variables": variables,
            }
            return made

        parts = {"mapping": net("G_mapping", mapping), "synthesis": net("G_synthesis", synthesis)}
        path.write_bytes(pickle.dumps((net("G", []), net("D", []), net("Gs", own, parts)), protocol=3))
    return path


def write_network(path: Path, class_name: str, key: str) -> Path:
    """An NVlabs snapshot that holds one network without tensors under `key`."""
    state = {"training": False, "_parameters": {}, "_buffers": {}, "_modules": {}, "_init_kwargs": {}}
    meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": class_name, "state": state}
    with stub("torch_utils.persistence", "_reconstruct_persistent_obj") as function:

        class Persistent:
            def __reduce__(self):
                return function, (meta,)

        path.write_bytes(pickle.dumps({key: Persistent(), "training_set_kwargs": None}, protocol=4))
    return path


@contextmanager
def stub(module: str, name: str):
    """A class importable as `module.name` while something is pickled; gone afterwards."""
    parts = module.split(".")
    paths = [".".join(parts[: i + 1]) for i in range(len(parts))]
    kept = {p: sys.modules.get(p) for p in paths}
    try:
        for p in paths:
            sys.modules[p] = types.ModuleType(p)
        made = type(name, (), {"__module__": module, "__qualname__": name})
        setattr(sys.modules[module], name, made)
        yield made
    finally:
        for p, before in kept.items():
            if before is None:
                del sys.modules[p]
            else:
                sys.modules[p] = before


def write_torch(value, path: Path, legacy: bool = False) -> Path:
    """torch's own writer."""
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def training_form(g) -> dict:
    """A file as rosinality's training writes it: no latent_avg, a Namespace beside the weights."""
    state = like_rosinality(g)
    raw = {k: torch.zeros_like(v) for k, v in state.items()}
    return {"g": raw, "d": {}, "g_ema": state, "args": argparse.Namespace(size=16, path="/somewhere"), "ada_aug_p": 0.0}
