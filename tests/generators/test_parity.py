"""Our StyleGAN2 against images that another implementation's own code rendered from the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config


def from_rosinality(file) -> StyleGAN2:
    """That layout's tensors under our names; the test's own reading, tensors only."""
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    source = checkpoint["g_ema"]
    count = sum(1 for k in source if k.startswith("convs.") and k.endswith("conv.weight"))
    resolution = 4 * 2 ** (count // 2)
    layers = sum(1 for k in source if k.startswith("style.") and k.endswith(".weight"))
    last = source[f"convs.{count - 1}.conv.weight"].shape[1]
    config = StyleGAN2Config(
        resolution=resolution,
        z_dim=source["style.1.weight"].shape[1],
        w_dim=source["style.1.weight"].shape[0],
        channel_base=last * resolution,
        channel_max=source["conv1.conv.weight"].shape[1],
        mapping_layers=layers,
    )
    tensors = {"mapping.w_avg": checkpoint["latent_avg"].flatten(), "synthesis.b4.const": source["input.input"][0]}
    for i in range(layers):
        for part in ("weight", "bias"):
            tensors[f"mapping.fc{i}.{part}"] = source[f"style.{i + 1}.{part}"]
    convs = [("conv1", "b4.conv1", 0)]
    convs += [(f"convs.{i}", f"b{8 * 2 ** (i // 2)}.conv{i % 2}", i + 1) for i in range(count)]
    for theirs, ours, noise in convs:
        ours = f"synthesis.{ours}"
        tensors[f"{ours}.weight"] = source[f"{theirs}.conv.weight"][0]
        tensors[f"{ours}.bias"] = source[f"{theirs}.activate.bias"]
        tensors[f"{ours}.noise_strength"] = source[f"{theirs}.noise.weight"][0]
        tensors[f"{ours}.noise_const"] = source[f"noises.noise_{noise}"][0, 0]
        for part in ("weight", "bias"):
            tensors[f"{ours}.affine.{part}"] = source[f"{theirs}.conv.modulation.{part}"]
    rgbs = [("to_rgb1", "b4"), *((f"to_rgbs.{i}", f"b{8 * 2**i}") for i in range(count // 2))]
    for theirs, ours in rgbs:
        ours = f"synthesis.{ours}.torgb"
        tensors[f"{ours}.weight"] = source[f"{theirs}.conv.weight"][0]
        tensors[f"{ours}.bias"] = source[f"{theirs}.bias"].flatten()
        for part in ("weight", "bias"):
            tensors[f"{ours}.affine.{part}"] = source[f"{theirs}.conv.modulation.{part}"]
    generator = StyleGAN2(config).eval()
    missing, unexpected = generator.load_state_dict(tensors, strict=False)
    assert unexpected == []
    assert all(k.endswith("resample_filter") for k in missing)  # theirs is the same 1-3-3-1, times 4
    return generator


@pytest.mark.parametrize("psi", [1.0, 0.7])
def test_images_equal_those_of_the_other_implementation(shared, psi):
    generator = from_rosinality(shared / "parity" / "rosinality_small.pt")
    with np.load(shared / "parity" / "rosinality_small.npz") as wanted:
        image = torch.from_numpy(wanted[f"image_psi{psi}"])
    with torch.no_grad():
        made = generator.synthesize(generator.map(z_of_seeds(range(4), generator.spec.z_dim), truncation=psi)).image
    assert made.shape == image.shape
    assert (made - image).abs().max() < 2e-4
