"""Our own files: every family comes back as it was, the shipped one loads, and what does not fit is named."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gansegctl import presets
from gansegctl.errors import UsageError
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from gansegctl.generators.stylegan3 import StyleGAN3
from gansegctl.generators.stylegan3_config import StyleGAN3Config, design
from gansegctl.generators.weights import FILE, KIND, load_generator, read_header, save_generator

PLAIN = {"resolution": 8, "z_dim": 4, "w_dim": 4, "channel_base": 32, "channel_max": 4, "mapping_layers": 1}


def small(family: str):
    torch.manual_seed(1)
    if family == "stylegan2":
        g = StyleGAN2(StyleGAN2Config(**PLAIN, architecture="resnet", clamps=[("b8.torgb", 0.5)]))
    else:
        config = design(16, "R", z_dim=4, w_dim=4, channel_base=64, channel_max=4, num_layers=4, c_dim=2)
        if family == "stylegan-xl":
            config = StyleGAN3Config(**config.to_json() | {"family": family, "class_table": (3, 5)})
        g = StyleGAN3(config)
        g.synthesis.input.transform[0, 2] = 0.25
    g.mapping.w_avg.normal_()
    return g.eval().requires_grad_(False)


def image(g):
    c = torch.eye(2)[:1] if g.spec.c_dim else None
    return g.synthesize(g.map(z_of_seeds([0], 4), c, 0.5)).image


@pytest.mark.parametrize("family", ["stylegan2", "stylegan3", "stylegan-xl"])
def test_every_family_comes_back_as_it_was(family, tmp_path):
    g = small(family)
    g.assumed = ["the moon is of cheese"]
    save_generator(g, tmp_path / "g.safetensors", {"licence": "none"}, dtype=None)
    before = torch.get_rng_state()
    h = load_generator(tmp_path / "g.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert type(h) is type(g) and h.config == g.config and h.spec == g.spec and h.spec.family == family
    assert h.state_dict().keys() == g.state_dict().keys()  # StyleGAN3's ToRGB has no filters, before as after
    assert torch.equal(image(h), image(g))
    assert not h.training and not any(p.requires_grad for p in h.parameters())
    assert h.facts == {"licence": "none", "assumed": ["the moon is of cheese"]} and h.assumed == g.assumed
    assert len(h.sha256) == 64
    save_generator(h, tmp_path / "again.safetensors", dtype=None)  # facts go along by themselves
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "g.safetensors").read_bytes()


def test_own_types_are_kept_on_request(tmp_path):
    g = small("stylegan2").double()
    g.mapping.fc0.bias.fill_(1 / 3)
    path = tmp_path / "g.safetensors"
    save_generator(g, path, dtype=None)
    assert torch.equal(load_generator(path).mapping.fc0.bias, g.mapping.fc0.bias)
    save_generator(g, path)
    assert load_generator(path).mapping.fc0.bias.dtype == torch.float32
    save_generator(g, path, dtype=torch.float16)
    with safe_open(str(path), "pt") as f:
        assert f.get_tensor("mapping.fc0.bias").dtype == torch.float16
    assert image(load_generator(path)).dtype == torch.float32


def test_the_demo_generator_loads_as_before():
    path = presets.resource("demo-generator.safetensors")
    header = read_header(path)
    g = load_generator(path)
    assert isinstance(g, StyleGAN2) and g.spec.family == "stylegan2"
    stored = header["config"] | {"filter_taps": tuple(header["config"]["filter_taps"])}
    assert {k: getattr(g.config, k) for k in stored} == stored
    assert stored.items() <= g.config.to_json().items() and g.facts == header["facts"]
    with safe_open(str(path), "pt") as f:
        assert all(torch.equal(tensor, f.get_tensor(k).float()) for k, tensor in g.state_dict().items())


def test_a_header_may_leave_out_what_has_a_default(tmp_path):
    g = StyleGAN2(StyleGAN2Config(**PLAIN)).eval()
    header = {"kind": KIND, "format": 1, "family": "stylegan2", "config": PLAIN, "facts": {}}
    path = tmp_path / "short.safetensors"
    save_file(g.state_dict(), path, {"gansegctl": json.dumps(header)})
    h = load_generator(path)
    assert h.config == g.config and torch.equal(image(h), image(g))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gansegctl.student"}, "student"),
        ({"format": FILE.newest + 1}, "format"),
        ({"family": "stylegan9"}, "stylegan9"),
        ({"family": None}, "family None"),
        ({"config": PLAIN | {"colour": "red"}}, "colour"),
        ({"config": PLAIN | {"resolution": 12}}, "12"),
        ({"config": PLAIN | {"architecture": "orig"}}, "synthesis.b4.torgb.weight unexpected"),
        ({"config": PLAIN | {"mapping_layers": 2}}, "mapping.fc1.weight missing"),
        ({"config": PLAIN | {"w_dim": 5}}, r"mapping.w_avg is \[4\], not \[5\]"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path):
    g = StyleGAN2(StyleGAN2Config(**PLAIN)).eval()
    header = {"kind": KIND, "format": 1, "family": "stylegan2", "config": PLAIN, "facts": {}} | change
    save_file(g.state_dict(), tmp_path / "g.safetensors", {"gansegctl": json.dumps(header)})
    with pytest.raises(UsageError, match=message):
        load_generator(tmp_path / "g.safetensors")


def test_one_missing_and_one_foreign_tensor_are_both_named(tmp_path):
    g = StyleGAN2(StyleGAN2Config(**PLAIN)).eval()
    tensors = dict(g.state_dict())
    tensors["synthesis.b4.attention"] = tensors.pop("synthesis.b4.const")
    header = {"kind": KIND, "format": 1, "family": "stylegan2", "config": PLAIN, "facts": {}}
    save_file(tensors, tmp_path / "g.safetensors", {"gansegctl": json.dumps(header)})
    with pytest.raises(UsageError, match=r"b4\.const missing; synthesis\.b4\.attention unexpected"):
        load_generator(tmp_path / "g.safetensors")
