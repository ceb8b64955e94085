"""What all tests share: one thread, and a tiny generator, labelled set and student made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the tensors of the tests are small: a second thread only waits


@pytest.fixture(scope="session")
def shared() -> Path:
    """Optional data beside the repository; tests that need it skip where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs {folder.name}/ beside the repository")
    return folder


@pytest.fixture
def call(capsys):
    """Run a command line in this process → (status, stdout, stderr)."""
    from gansegctl.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture(scope="session")
def generator_file(tmp_path_factory) -> Path:
    """A random StyleGAN2 of 16 px, big enough for every stage and quick enough for all tests."""
    from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
    from gansegctl.generators.weights import save_generator

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = StyleGAN2Config(resolution=16, z_dim=8, w_dim=8, channel_base=256, channel_max=16, mapping_layers=2)
        g = StyleGAN2(config)
        g.mapping.w_avg.normal_()
        for _, conv in g.synthesis.convs():
            conv.noise_strength.data.fill_(0.1)
    path = tmp_path_factory.mktemp("generator") / "tiny.safetensors"
    save_generator(g, path)
    return path
