"""Every layout of a StyleGAN through the real path: the same images, the assumptions listed, the rest refused."""

from __future__ import annotations

import pytest
import torch
from helpers.checkpoints.foreign import (
    convolutions,
    images,
    like_genforce,
    like_mmgeneration,
    like_rosinality,
    tiny,
    training_form,
    weights,
    write_network,
    write_tensorflow,
    write_torch,
)
from safetensors.torch import save_file

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.families import bare, mmgeneration, refused, rosinality
from gansegctl.generators.checkpoints.families.layout import AVERAGE_SAMPLES, mean_w
from gansegctl.generators.checkpoints.opening import open_checkpoint, our_header
from gansegctl.generators.checkpoints.records import ModuleRecord
from gansegctl.generators.weights import save_generator


@pytest.fixture(scope="module")
def original():
    return tiny()


def same(generator, original, **how):
    assert generator.spec.resolution == original.spec.resolution
    assert generator.spec.taps == original.spec.taps
    assert (images(generator, **how) - images(original, **how)).abs().max() < 1e-5


LAYOUTS = {
    "rosinality": lambda g: {"g_ema": like_rosinality(g), "latent_avg": weights(g)["mapping.w_avg"]},
    "rosinality, one latent a layer": lambda g: {
        "g_ema": {f"module.{k}": v for k, v in like_rosinality(g).items()},
        "latent_avg": weights(g)["mapping.w_avg"][None],
    },
    "genforce": lambda g: {"generator_smooth": like_genforce(g), "generator": {}},
    "genforce, newer": lambda g: {"models": {"generator_smooth": like_genforce(g)}, "running_metadata": {}},
    "nvlabs": weights,
    "nvlabs, nested": lambda g: {"G_ema": weights(g), "iteration": 3},
    "nvlabs, prefixed": lambda g: {f"G_ema.{k}": v for k, v in weights(g).items()},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_images_are_the_same(layout, legacy, original, tmp_path):
    path = write_torch(LAYOUTS[layout](original), tmp_path / "g.pt", legacy)
    generator, report = open_checkpoint(path)
    same(generator, original)
    assert report.container == ("torch-legacy" if legacy else "torch-zip")
    assert generator.sha256 == report.file_sha256
    assert not generator.training
    assert not any(p.requires_grad for p in generator.parameters())


def test_a_training_checkpoint_has_no_average_and_gets_an_estimate(original, tmp_path):
    """The Namespace in it, which torch's own safe reader refuses, is skipped and listed."""
    generator, report = open_checkpoint(write_torch(training_form(original), tmp_path / "g.pt"))
    same(generator, original, truncation=1.0)
    assert any("w_avg" in line and str(AVERAGE_SAMPLES) in line for line in report.assumed)
    assert {"args", "g", "d", "ada_aug_p"} <= set(report.skipped)
    again, _ = open_checkpoint(tmp_path / "g.pt")
    assert torch.equal(generator.mapping.w_avg, again.mapping.w_avg)
    with torch.no_grad():
        z = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(9))
        wanted = original.mapping(z)
    error = (generator.mapping.w_avg - wanted.mean(dim=0)).abs()
    assert (error < 6 * wanted.std(dim=0) / AVERAGE_SAMPLES**0.5).all()


def test_missing_noises_are_drawn_from_a_seed_and_said(original, tmp_path):
    state = {k: v for k, v in like_rosinality(original).items() if not k.startswith("noises.")}
    value = {"g_ema": state, "latent_avg": weights(original)["mapping.w_avg"]}
    generator, report = open_checkpoint(write_torch(value, tmp_path / "g.pt"))
    same(generator, original, noise="none")
    assert any("noise maps: 5 of 5" in line for line in report.assumed)
    again, _ = open_checkpoint(tmp_path / "g.pt")
    assert torch.equal(images(generator), images(again))
    assert generator.synthesis.b16.conv1.noise_const.std() > 0.5


def test_the_averaged_weights_are_taken_and_their_absence_is_said(original, tmp_path):
    value = training_form(original)
    del value["g_ema"]
    value["g"] = like_rosinality(original)
    _, report = open_checkpoint(write_torch(value, tmp_path / "g.pt"))
    assert any("no g_ema" in line for line in report.assumed)


def test_channels_and_depth_are_inferred(tmp_path):
    original = tiny(resolution=32, channel_base=256, channel_max=24, mapping_layers=5, w_dim=6)
    value = {"g_ema": like_rosinality(original), "latent_avg": weights(original)["mapping.w_avg"]}
    generator, _ = open_checkpoint(write_torch(value, tmp_path / "g.pt"))
    same(generator, original)
    assert (generator.spec.z_dim, generator.spec.w_dim, generator.spec.num_ws) == (8, 6, 8)


@pytest.mark.parametrize("prefix", ["generator_ema.", "generator_ema.module.", "generator.", ""])
def test_mmgeneration(prefix, original, tmp_path):
    value = {"state_dict": like_mmgeneration(original, prefix), "meta": {"mmgen_version": "0.7"}}
    generator, report = open_checkpoint(write_torch(value, tmp_path / "g.pth"))
    same(generator, original, truncation=1.0)
    assert report.family == "mmgeneration"
    assert any(line.startswith("channel order: RGB") for line in report.assumed)
    assert any("no generator_ema" in line for line in report.assumed) != prefix.startswith("generator_ema")


def test_mmgeneration_says_bgr_and_is_swapped(original, tmp_path):
    meta = {"config": "metrics = dict(fid50k=dict(type='FID', num_images=50000, bgr2rgb = True))"}
    value = {"state_dict": like_mmgeneration(original), "meta": meta, "optimizer": {}}
    generator, report = open_checkpoint(write_torch(value, tmp_path / "g.pth"))
    swapped = images(generator, truncation=1.0).flip(1)
    assert (swapped - images(original, truncation=1.0)).abs().max() < 1e-5
    assert any("swapped to RGB" in line for line in report.assumed)
    assert not mmgeneration.says_bgr({"meta": {"config": "bgr2rgb=False"}})
    assert not mmgeneration.says_bgr({"meta": None})


@pytest.mark.parametrize(
    "changes", [{}, {"c_dim": 3}, {"architecture": "resnet"}, {"architecture": "orig"}, {"conv_clamp": 0.5}], ids=str
)
def test_tensorflow(changes, tmp_path):
    original = tiny(**changes)
    clamp = {"conv_clamp": 0.5} if "conv_clamp" in changes else {}
    path = write_tensorflow(original, tmp_path / "g.pkl", resample_kernel=[1, 3, 3, 1], **clamp)
    generator, report = open_checkpoint(path)
    same(generator, original, c=1 if changes.get("c_dim") else None)
    assert report.family == "stylegan2 (TensorFlow)"
    assert report.container == "pickle"
    assert report.facts["name"] == "Gs"


def test_tensorflow_kernel_of_its_own(tmp_path):
    original = tiny(filter_taps=(1, 4, 2, 1))
    generator, _ = open_checkpoint(write_tensorflow(original, tmp_path / "g.pkl", resample_kernel=[1, 4, 2, 1]))
    same(generator, original)


def test_genforce_without_intermediate_images(tmp_path):
    original = tiny(architecture="orig")
    generator, _ = open_checkpoint(write_torch({"generator_smooth": like_genforce(original)}, tmp_path / "g.pth"))
    same(generator, original)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"c_dim": 4},
        {"architecture": "resnet"},
        {"architecture": "orig"},
        {"use_noise": False},
        {"image_channels": 1},
        {"filter_taps": (1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1)},
    ],
    ids=str,
)
def test_bare_safetensors(changes, tmp_path):
    original = tiny(**changes)
    save_file(weights(original), tmp_path / "g.safetensors")
    generator, report = open_checkpoint(tmp_path / "g.safetensors")
    same(generator, original, c=2 if changes.get("c_dim") else None)
    assert report.container == "safetensors"
    assert any("256" in line for line in report.assumed)
    assert generator.config.architecture == changes.get("architecture", "skip")


def test_bare_halves_are_widened(original, tmp_path):
    halves = {k: v.half() for k, v in weights(original).items()}
    save_file(halves, tmp_path / "g.safetensors")
    generator, _ = open_checkpoint(tmp_path / "g.safetensors")
    assert all(torch.equal(v, halves[k].float()) for k, v in generator.state_dict().items())


def test_bare_doubles_are_not_narrowed(original, tmp_path):
    doubles = {k: v.double() + 1e-12 if v.ndim > 1 else v.double() for k, v in weights(original).items()}
    save_file(doubles, tmp_path / "g.safetensors")
    generator, _ = open_checkpoint(tmp_path / "g.safetensors")
    stored = generator.state_dict()
    assert all(torch.equal(v, doubles[k]) for k, v in stored.items() if not k.endswith("filter"))


def test_bare_stylegan3_layers_follow_from_names_and_shapes(shared, tmp_path):
    original, _ = open_checkpoint(shared / "parity" / "sg3t.pkl")
    save_file(weights(original), tmp_path / "g.safetensors")
    generator, report = open_checkpoint(tmp_path / "g.safetensors")
    assert generator.spec.taps == original.spec.taps
    assert (images(generator) - images(original)).abs().max() < 1e-5
    assert any("margin 10" in line for line in report.assumed)


def test_ours_is_told_by_its_header(original, tmp_path):
    save_generator(original, tmp_path / "g.safetensors", {"images_seen": 5})
    generator, report = open_checkpoint(tmp_path / "g.safetensors")
    same(generator, original)
    assert report.facts["images_seen"] == 5
    assert our_header(tmp_path / "g.safetensors")["kind"] == "gansegctl.generator"
    save_file(weights(original), tmp_path / "b.safetensors")
    assert our_header(tmp_path / "b.safetensors") is None
    assert our_header(tmp_path / "none") is None


BROKEN = {
    "a convolution": (lambda g: _without(LAYOUTS["rosinality"](g), "g_ema", "convs.2.conv.weight"), "convs.2"),
    "a bias": (lambda g: _without(LAYOUTS["rosinality"](g), "g_ema", "convs.1.activate.bias"), "convs.1.activate.bias"),
    "an extra": (lambda g: _with(LAYOUTS["rosinality"](g), "g_ema", "convs.9.attention"), "convs.9.attention"),
    "genforce, a style": (
        lambda g: _without(LAYOUTS["genforce"](g), "generator_smooth", "synthesis.layer2.style.bias"),
        "synthesis.layer2.style.bias",
    ),
    "genforce, an extra": (lambda g: _with(LAYOUTS["genforce"](g), "generator_smooth", "more"), "more"),
    "mmgeneration, a noise": (
        lambda g: {"state_dict": _less(like_mmgeneration(g), "generator_ema.convs.0.noise_injector.weight")},
        "convs.0.noise_injector.weight",
    ),
    "nvlabs, an affine": (lambda g: _less(weights(g), "synthesis.b8.torgb.affine.bias"), "b8.torgb.affine.bias"),
    "nvlabs, a block": (lambda g: _less(weights(g), "synthesis.b8."), "[4, 16]"),
    "nvlabs, an extra": (lambda g: weights(g) | {"synthesis.b8.attention": torch.zeros(2)}, "synthesis.b8.attention"),
}


def _less(state, name):
    return {k: v for k, v in state.items() if not k.startswith(name)}


def _without(value, part, name):
    return value | {part: _less(value[part], name)}


def _with(value, part, name):
    return value | {part: value[part] | {name: torch.zeros(1)}}


@pytest.mark.parametrize("case", BROKEN)
def test_a_partial_load_is_an_error_with_names(case, original, tmp_path):
    make, name = BROKEN[case]
    path = write_torch(make(original), tmp_path / "g.pt")
    with pytest.raises(UsageError) as stopped:
        open_checkpoint(path)
    assert name in str(stopped.value)
    assert str(path) in str(stopped.value)


REFUSED = {
    "lucidrains": (
        {"GAN": {"SE.net.0.weight": torch.zeros(2, 2), "GE.blocks.0.conv1.weight": torch.zeros(1)}},
        "lucid",
    ),
    "stylegan1 of genforce": (
        {"generator_smooth": {"mapping.dense0.weight": torch.zeros(2), "synthesis.lod": 0}},
        "StyleGAN1",
    ),
    "stylegan1 in torch": ({"g_running": {"generator.progression.0.conv1.weight": torch.zeros(2)}}, "StyleGAN1"),
    "eg3d": ({"backbone.synthesis.b4.const": torch.zeros(1), "decoder.net.0.weight": torch.zeros(1)}, "EG3D"),
    "a discriminator": (
        {"d": {"final_linear.0.weight": torch.zeros(1), "convs.0.0.weight": torch.zeros(1)}},
        "discriminator",
    ),
    "a diffusion model": ({"state_dict": {"model.diffusion_model.out.2.bias": torch.zeros(1)}}, "diffusion"),
    "a classifier": ({"layer1.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}, "classifier"),
    "something": ({"epoch": 3, "weird": torch.zeros(1)}, "epoch, weird"),
    "numbers": ([1, 2], "list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_families_are_refused_by_name(case, tmp_path):
    value, word = REFUSED[case]
    with pytest.raises(UsageError) as stopped:
        open_checkpoint(write_torch(value, tmp_path / "x.pt"))
    assert word in str(stopped.value)
    assert "wanted" in str(stopped.value)


def test_conditional_and_residual_genforce_are_refused(original, tmp_path):
    state = like_genforce(original) | {"mapping.label_weight": torch.zeros(2, 8)}
    with pytest.raises(UsageError, match="conditional genforce"):
        open_checkpoint(write_torch({"generator": state}, tmp_path / "g.pth"))
    state = like_genforce(original) | {"synthesis.skip_layer0.weight": torch.zeros(2, 2, 1, 1)}
    with pytest.raises(UsageError, match="residual"):
        open_checkpoint(write_torch({"generator": state}, tmp_path / "g.pth"))


def test_older_tensorflow_networks_are_refused(original, tmp_path):
    with pytest.raises(UsageError, match=r"StyleGAN1 \(network version 3\)"):
        open_checkpoint(write_tensorflow(original, tmp_path / "g.pkl", version=3))
    with pytest.raises(UsageError, match="nonlinearity 'relu'"):
        open_checkpoint(write_tensorflow(original, tmp_path / "g.pkl", nonlinearity="relu"))


def test_other_networks_of_nvlabs_are_refused(tmp_path):
    for name, key, word in (("Discriminator", "D", "discriminator"), ("TriPlaneGenerator", "G_ema", "EG3D")):
        with pytest.raises(UsageError, match=word):
            open_checkpoint(write_network(tmp_path / "x.pkl", name, key))
    with pytest.raises(UsageError, match="EG3D"):
        refused.refuse_record(
            ModuleRecord("Anything", children={n: ModuleRecord("x") for n in ("backbone", "decoder")})
        )
    refused.refuse_record(ModuleRecord("Generator"))


def test_no_reader_claims_what_is_anothers(original):
    """The first that matches reads, so at most one may match each layout."""
    readers = (rosinality, mmgeneration, bare)
    for value, owner in (
        (LAYOUTS["rosinality"](original), rosinality),
        ({"state_dict": like_mmgeneration(original)}, mmgeneration),
        (weights(original), bare),
        ({}, None),
        (None, None),
        ([1], None),
        ({3: 4}, None),
    ):
        assert [r for r in readers if r.matches(value)] == ([owner] if owner else [])


def test_mean_w_of_a_conditional_mapping_takes_every_class():
    g = tiny(c_dim=3)
    found = mean_w(weights(g))
    with torch.no_grad():
        z = torch.randn(6000, 8, generator=torch.Generator().manual_seed(5))
        ws = g.mapping(z, torch.eye(3)[torch.arange(6000) % 3])
    assert (found - ws.mean(dim=0)).abs().max() < 0.2 * ws.std()
    assert len(convolutions(g)) == 5


def test_names_of_an_unknown_file_are_shown_without_terminal_escapes(tmp_path):
    path = tmp_path / "odd.pt"
    torch.save({"\x1b[31mred": torch.zeros(2), (1, 2): 3}, path)
    with pytest.raises(UsageError, match="unknown family") as raised:
        open_checkpoint(path)
    assert "\x1b" not in str(raised.value)
    assert "red" in str(raised.value)
