"""Networks from hand-authored records with the official attributes, and from official files where they are at hand."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from gansegctl.errors import UsageError
from gansegctl.generators.base import StyleGAN
from gansegctl.generators.checkpoints.build import family_of, generator_from_record
from gansegctl.generators.checkpoints.containers.reading import read
from gansegctl.generators.checkpoints.families.nvlabs import generator_record
from gansegctl.generators.checkpoints.records import ModuleRecord
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.layers import fir_filter
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from gansegctl.generators.stylegan3 import StyleGAN3
from gansegctl.generators.stylegan3_config import LayerConfig, StyleGAN3Config, design

TWELVE = (1, 2, 4, 7, 10, 12, 12, 10, 7, 4, 2, 1)


def drawn(make, seed: int = 0) -> StyleGAN:
    """A network whose every tensor matters: no zeros, no ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        g = make().eval().requires_grad_(False)
        for name, tensor in g.state_dict().items():
            if not name.endswith(("filter", "transform", "magnitude_ema", "freqs")):
                tensor.add_(torch.randn_like(tensor) * 0.3)
        return g


def small2(**changes) -> StyleGAN2:
    settings = {"resolution": 16, "z_dim": 6, "w_dim": 5, "channel_base": 64, "channel_max": 8, "mapping_layers": 2}
    return drawn(lambda: StyleGAN2(StyleGAN2Config(**settings | changes)))


def small3(kind: str = "T", table: tuple[int, int] | None = None, **changes) -> StyleGAN3:
    settings = {"z_dim": 6, "w_dim": 5, "channel_base": 64, "channel_max": 6, "num_layers": 4} | changes
    config = design(16, kind, **settings)
    if table is not None:
        config = StyleGAN3Config(**config.to_json() | {"family": "stylegan-xl", "class_table": table})
    return drawn(lambda: StyleGAN3(config))


def record_of(g: StyleGAN) -> ModuleRecord:
    """The record of an official snapshot of this network: its tensors, and the attributes that its constructors set."""
    record = _bare("", g, "Generator")
    record.attributes["num_ws"] = g.spec.num_ws
    mapping, synthesis = record.children["mapping"], record.children["synthesis"]
    for name, child in mapping.children.items():
        if name.startswith("fc"):
            _linear(child, "lrelu", g.config.mapping_lr)
        elif name == "embed_proj":
            _linear(child, "lrelu")
        elif "bias" in child.tensors:
            _linear(child, "linear")
        else:
            child.class_name = "Embedding"
    return _finish2(g, record) if isinstance(g, StyleGAN2) else _finish3(g, record, synthesis)


def _bare(name: str, module: torch.nn.Module, class_name: str) -> ModuleRecord:
    record = ModuleRecord(class_name, {"training": False})
    record.tensors = {k: p.detach().clone() for k, p in module.named_parameters(recurse=False)}
    record.tensors |= {k: None if b is None else b.clone() for k, b in module._buffers.items()}
    record.children = {k: _bare(k, child, type(child).__name__) for k, child in module.named_children()}
    return record


def _linear(record: ModuleRecord, activation: str, lr: float = 1) -> None:
    gain = np.float64(lr / math.sqrt(record.tensors["weight"].shape[1]))  # the official code leaves numpy scalars
    record.attributes |= {"activation": activation, "weight_gain": gain, "bias_gain": lr}


def _finish2(g: StyleGAN2, record: ModuleRecord) -> ModuleRecord:
    for r in g.config.resolutions:
        name, block = f"b{r}", record.children["synthesis"].children[f"b{r}"]
        block.attributes |= {"architecture": g.config.architecture, "resolution": r, "use_fp16": r > 4}
        for part, child in block.children.items():
            child.attributes["conv_clamp"] = g.config.clamp_of(f"{name}.{part}")
            if part == "skip":
                child.attributes |= {"activation": "linear", "up": 2, "act_gain": 1, "conv_clamp": None}
                continue
            _linear(child.children["affine"], "linear")
            if part != "torgb":
                up = 2 if part == "conv0" else 1
                child.attributes |= {"activation": "lrelu", "up": up, "act_gain": np.sqrt(2), "padding": 1}
                child.attributes["use_noise"] = g.config.has_noise(f"{name}.{part}")
            if part == "conv1":  # never told of a longer filter, and never using one
                child.tensors["resample_filter"] = fir_filter()
    return record


def _finish3(g: StyleGAN3, record: ModuleRecord, synthesis: ModuleRecord) -> ModuleRecord:
    synthesis.attributes |= {"layer_names": [x.name for x in g.config.layers], "output_scale": 0.25}
    source = synthesis.children["input"]
    size = np.broadcast_to(np.asarray(g.config.input_size), [2])
    source.attributes |= {"size": size, "sampling_rate": np.float64(g.config.input_rate), "bandwidth": 2.0}
    _linear(source.children["affine"], "linear")
    for layer in g.config.layers:
        child = synthesis.children[layer.name]
        _linear(child.children["affine"], "linear")
        child.attributes |= {
            "is_torgb": layer.torgb,
            "conv_clamp": layer.clamp,
            "in_size": [layer.in_size] * 2,
            "out_size": np.array([layer.out_size] * 2),
            "in_sampling_rate": layer.in_rate,
            "out_sampling_rate": layer.out_rate,
            "up_factor": layer.up,
            "down_factor": layer.down,
            "padding": list(layer.padding) * 2,
            "use_fp16": np.bool_(True),
        }
    return record


def image(g: StyleGAN, truncation: float = 0.7) -> torch.Tensor:
    c = torch.eye(g.spec.c_dim)[[0, 1]] if g.spec.c_dim else None
    return g.synthesize(g.map(z_of_seeds([3, 4], g.spec.z_dim), c, truncation)).image


MAKERS = {
    "skip": lambda: small2(conv_clamp=0.7),
    "resnet": lambda: small2(architecture="resnet", conv_clamp=256.0),
    "orig": lambda: small2(architecture="orig"),
    "grey-12-quiet": lambda: small2(image_channels=1, filter_taps=TWELVE, use_noise=False),
    "conditional": lambda: small2(c_dim=3),
    "widths": lambda: small2(
        c_dim=3, embed_features=4, layer_features=7, mapping_layers=3, mapping_lr=0.1, channel_table=(5, 9, 4)
    ),
    "modules": lambda: small2(conv_clamp=0.9, clamps=[("b8.conv0", 0.2), ("b4.torgb", None)], noiseless=["b8.conv1"]),
    "t": lambda: small3("T"),
    "r": lambda: small3("R", image_channels=1),
    "t-conditional": lambda: small3("T", c_dim=3, clamp=0.8),
    "xl": lambda: small3("T", (4, 7), c_dim=3),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_record_becomes_the_network_that_it_was_taken_from(kind):
    g = MAKERS[kind]()
    before = torch.get_rng_state()
    made = generator_from_record(record_of(g))
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    assert made.assumed == [] and not made.training and not any(p.requires_grad for p in made.parameters())
    assert made.spec == g.spec
    assert torch.equal(image(made), image(g))
    stored = record_of(g).state_dict()
    own = made.state_dict()
    unused = {k for k in own if k.endswith("conv1.resample_filter")}
    assert own.keys() == stored.keys()
    assert all(torch.equal(own[k], stored[k]) for k in own.keys() - unused)


def test_channels_follow_the_rule_where_they_can():
    assert generator_from_record(record_of(small2())).config == small2().config
    table = generator_from_record(record_of(MAKERS["widths"]())).config.channel_table
    assert table == (5, 9, 4)


def test_behaviour_is_that_of_each_stored_module():
    record = record_of(small2(conv_clamp=256.0))
    inner = record.children["synthesis"].children
    inner["b8"].children["conv1"].attributes["conv_clamp"] = np.float32(0.25)
    inner["b16"].children["conv0"].attributes["use_noise"] = False  # its maps stay in the file
    g = generator_from_record(record)
    assert g.config.clamps == (("b8.conv1", 0.25),) and g.config.noiseless == ("b16.conv0",)
    s = g.synthesize(g.map(z_of_seeds([0], 6)), taps=["b8.conv1"])
    assert s.pyramid.levels[0].abs().max() == 0.25
    assert not torch.allclose(s.image, small2().synthesize(g.map(z_of_seeds([0], 6))).image)


def test_layer_attributes_of_stylegan3_are_used():
    g = small3()
    record = record_of(g)
    record.children["synthesis"].attributes["output_scale"] = 0.5
    assert torch.allclose(image(generator_from_record(record)), 2 * image(g))
    record = record_of(g)
    record.children["synthesis"].children["input"].tensors["transform"][0, 2] = 0.3  # an editor's shift
    assert not torch.allclose(image(generator_from_record(record)), image(g), atol=1e-2)


def test_missing_filters_are_filled_and_said():
    g = small2(architecture="resnet")
    record = record_of(g)
    for _, module in record.walk():
        if "resample_filter" in module.tensors:
            module.tensors["resample_filter"] = None
    made = generator_from_record(record)
    assert torch.equal(image(made), image(g))
    assert made.assumed == ["resample filter: not stored, taken as 1-3-3-1"]


def test_other_float_types_lose_nothing():
    g = small2()
    record = record_of(g)
    conv = record.children["synthesis"].children["b8"].children["conv1"]
    conv.tensors["weight"] = conv.tensors["weight"].half()
    conv.tensors["noise_strength"] = conv.tensors["noise_strength"].reshape(1)
    made = generator_from_record(record)
    assert torch.equal(made.synthesis.b8.conv1.weight, conv.tensors["weight"].float())
    third = torch.full((6,), 1 / 3, dtype=torch.float64)
    record.children["mapping"].children["fc0"].tensors["bias"] = third[:5].clone()
    wide = generator_from_record(record)
    assert torch.equal(wide.mapping.fc0.bias, third[:5])
    assert image(wide).dtype == torch.float64


def test_tensors_are_copies():
    record = record_of(small2())
    g = generator_from_record(record)
    before = image(g)
    for tensor in record.state_dict().values():
        tensor.zero_()
    assert torch.equal(image(g), before)


def superres() -> ModuleRecord:
    """A StyleGAN-XL head: layer names skip a number, and nothing but stored attributes tells what the layers do."""
    g = small3("T", (4, 7), c_dim=3)
    layers = [dict(x) for x in g.config.to_json()["layers"]]
    for i, layer in enumerate(layers):
        layer["name"] = f"L{i + (i > 2)}_{layer['out_size']}_{layer['out_channels']}"
    config = StyleGAN3Config(**g.config.to_json() | {"layers": [LayerConfig(**x) for x in layers]})
    record = record_of(drawn(lambda: StyleGAN3(config)))
    record.class_name, record.init_kwargs = "SuperresGenerator", {"path_stem": "elsewhere.pkl", "head_layers": 2}
    for name in ("L1_36_6", "L2_36_6"):
        if name in record.children["synthesis"].children:
            record.children["synthesis"].children[name].tensors["up_filter4"] = torch.ones(12)
    return record


def test_stylegan_xl_from_its_stored_layers():
    record = superres()
    names = record.children["synthesis"].attributes["layer_names"]
    g = generator_from_record(record)
    assert g.spec.family == "stylegan-xl" and [t.name for t in g.spec.taps] == names[:-1]
    assert g.spec.c_dim == 3 and g.mapping.w_avg.shape == (3, 5)
    assert any("up_filter4" in k for k in record.state_dict()) and not any("up_filter4" in k for k in g.state_dict())


def test_unconditional_stylegan_xl_leaves_its_table_aside():
    record = record_of(small3())
    record.children["mapping"].children["embed"] = ModuleRecord("Embedding", {}, {"weight": torch.randn(4, 7)})
    g = generator_from_record(record)
    assert g.spec.family == "stylegan-xl" and g.spec.c_dim == 0
    assert torch.equal(image(g), image(small3()))


def _set(record, path, value):
    *names, last = path.split(".")
    for name in names:
        record = record.children[name]
    if last in record.tensors:
        record.tensors[last] = value
    else:
        record.attributes[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("synthesis.b8.conv0.up", 1, "b8.conv0: lrelu, up 1"),
        ("synthesis.b8.conv0.activation", "swish", "swish"),
        ("synthesis.b8.conv0.act_gain", 1.0, "activation gain 1"),
        ("synthesis.b8.conv0.affine.activation", "relu", "b8.conv0.affine: activation relu"),
        ("synthesis.b8.conv0.conv_clamp", [1, 2], "conv_clamp"),
        ("synthesis.b8.conv0.conv_clamp", "much", "conv_clamp 'much'"),
        ("synthesis.b8.architecture", "orig", "orig and skip"),
        ("mapping.fc1.bias_gain", 1.0, "mapping.fc1: gains"),
        ("num_ws", 7, "num_ws 7"),
        ("synthesis.b8.conv0.weight", None, "b8.conv0.weight missing"),
        ("synthesis.b8.conv0.bias", None, "synthesis.b8.conv0.bias missing"),
        ("synthesis.b8.conv0.extra", torch.ones(1), None),
        ("synthesis.b4.const", torch.ones(8, 2, 2), r"synthesis.b4.const is \[8, 2, 2\], not \[8, 4, 4\]"),
        ("synthesis.b4.resample_filter", torch.rand(4, 4), "separable"),
        ("mapping.w_avg", None, "mapping.w_avg missing"),
    ],
)
def test_what_stylegan2_does_not_do_is_refused(path, value, message):
    record = record_of(small2())
    if message is None:
        owner = record.children["synthesis"].children["b8"].children["conv0"]
        owner.tensors["extra"], message = value, "synthesis.b8.conv0.extra unexpected"
    else:
        _set(record, path, value)
    with pytest.raises(UsageError, match=message):
        generator_from_record(record)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("synthesis.L1_36_6.padding", [9, 8, 3, 2], "both axes"),
        ("synthesis.L1_36_6.up_factor", 1, "L1_36_6"),
        ("synthesis.L1_36_6.up_factor", 1.5, "whole number"),
        ("synthesis.L1_36_6.in_size", [36, 20], "in_size"),
        ("synthesis.L1_36_6.up_filter", None, "L1_36_6"),
        ("synthesis.L1_36_6.magnitude_ema", None, "magnitude_ema missing"),
        ("synthesis.layer_names", ["L0_36_6", "L9_36_6"], "without L9_36_6"),
        ("synthesis.input.bandwidth", float("nan"), "bandwidth"),
        ("num_ws", 16, "num_ws 16"),
    ],
)
def test_what_stylegan3_does_not_do_is_refused(path, value, message):
    record = record_of(small3())
    assert "L1_36_6" in record.children["synthesis"].children
    _set(record, path, value)
    with pytest.raises(UsageError, match=message):
        generator_from_record(record)


@pytest.mark.parametrize("name", ["architecture", "conv_clamp", "use_noise", "up", "activation"])
def test_no_default_stands_in_for_a_missing_attribute(name):
    record = record_of(small2())
    for _, module in record.walk():
        module.attributes.pop(name, None)
    with pytest.raises(UsageError, match=name):
        generator_from_record(record)


def test_other_architectures_are_refused_by_their_parts():
    record = record_of(small2())
    assert family_of(record) == "stylegan2"
    other = copy.copy(record)
    other.children = record.children | {"renderer": ModuleRecord("Renderer")}
    with pytest.raises(UsageError, match="renderer"):
        family_of(other)
    other.children = {k: v for k, v in record.children.items() if k != "mapping"}
    with pytest.raises(UsageError, match="synthesis"):
        family_of(other)
    record.children["synthesis"].children.pop("b8")
    with pytest.raises(UsageError, match=r"\[4, 16\]"):
        generator_from_record(record)
    record.children["synthesis"].children["head"] = ModuleRecord("Head")
    with pytest.raises(UsageError, match="head"):
        family_of(record)


@pytest.mark.parametrize("name", ["sg2ada_uncond", "sg3t"])
@pytest.mark.parametrize("psi", [1.0, 0.7])
def test_official_files_give_the_official_images(shared, name, psi):
    record, _ = generator_record(read(shared / "parity" / f"{name}.pkl"))
    g = generator_from_record(record)
    with np.load(shared / "parity" / f"{name}.npz") as wanted:
        image, levels = torch.from_numpy(wanted[f"image_psi{psi}"]), wanted[f"uint8_psi{psi}"].astype(int)
    made = g.synthesize(g.map(z_of_seeds(range(4), g.spec.z_dim), truncation=psi)).image
    assert (made - image).abs().max() <= 2e-5 * image.abs().max()
    grey = (made * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(grey - levels).max() <= 1
