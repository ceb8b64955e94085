"""--compile: torch.compile takes the whole synthesis as one graph, images stay, and what cannot is refused."""

from __future__ import annotations

import shutil

import pytest
import torch

from gansegctl.config import GenerateSettings, to_dict
from gansegctl.errors import DeviceError, UsageError
from gansegctl.generators.base import StyleGAN
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from gansegctl.pipeline.generate.stage import plan_generate


def tiny() -> StyleGAN2:
    torch.manual_seed(0)
    config = StyleGAN2Config(16, channel_base=64, channel_max=8, z_dim=8, w_dim=8, mapping_layers=2)
    return StyleGAN2(config).eval().requires_grad_(False)


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")  # slower, not wrong
@torch.no_grad()
def test_the_network_is_one_graph_and_gives_the_same_images_and_taps():
    network, graphs = tiny(), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    ws = network.map(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)))
    plain = network.synthesize(ws)
    network.compile_synthesis(backend=count)
    made = network.synthesize(ws)
    torch.testing.assert_close(made.image, plain.image)
    for a, b in zip(made.pyramid.levels, plain.pyramid.levels, strict=True):
        torch.testing.assert_close(a, b)
    network.synthesize(ws)
    assert len(graphs) == 1
    with_seeds = network.synthesize(ws, noise="seed", seeds=[1, 2]).image
    torch.testing.assert_close(with_seeds, tiny().synthesize(ws, noise="seed", seeds=[1, 2]).image)


def test_it_is_part_of_the_settings_and_needs_a_compiler(generator_file, monkeypatch):
    settings = GenerateSettings(generator=str(generator_file), seeds="0-1", compile=True)
    assert to_dict(settings)["compile"] is True and "compile" not in to_dict(GenerateSettings())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match="--compile"):
        plan_generate(settings, None, "cpu")


def test_another_family_refuses():
    other = StyleGAN()
    other.spec = tiny().spec
    with pytest.raises(UsageError, match="leave --compile out"):
        other.compile_synthesis()
