"""--backend: what is asked for computes, or the command ends with status 3; the feature path asks the preferred one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from gansegctl import kernels
from gansegctl.cli import cli
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.kernels import backend


@pytest.fixture(autouse=True)
def as_before():
    yield
    backend.prefer("auto")


def test_a_backend_that_cannot_run_here_ends_with_status_3_and_writes_nothing(tmp_path):
    command = ["generate", "--generator", "demo", "-n", "1", "-o", str(tmp_path / "d"), "--backend", "cuda"]
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    made = subprocess.run(
        [sys.executable, "-m", "gansegctl", *command],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert made.returncode == 3, made.stderr
    assert "cuda" in made.stderr and "--backend auto" in made.stderr
    assert not (tmp_path / "d").exists()


def test_the_flag_holds_for_its_command_alone(tmp_path):
    runner, command = CliRunner(), ["generate", "--generator", "demo", "-n", "1", "--dry-run"]
    assert runner.invoke(cli, [*command, "-o", str(tmp_path / "d"), "--backend", "reference"]).exit_code == 0
    assert backend.preferred() == "reference"
    assert runner.invoke(cli, [*command, "-o", str(tmp_path / "d")]).exit_code == 0
    assert backend.preferred() == "auto"


def test_a_pyramid_computes_with_the_preferred_backend(monkeypatch):
    seen = []
    real = kernels.upsample_sum
    monkeypatch.setattr(
        kernels, "upsample_sum", lambda *a, **o: seen.append(backend.pick(o["backend"], a[0])) or real(*a, **o)
    )
    monkeypatch.setattr(backend, "_preferred", "triton")
    monkeypatch.setattr(backend, "available", lambda: {"triton": None})
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    pyramid = FeaturePyramid([torch.ones(1, 2, 2, 2)], (4, 4))
    with pytest.raises(ValueError, match="lie on cpu"):  # and no silent return to plain torch
        pyramid.project(torch.ones(3, 2))
    assert seen == []  # it was asked, and refused
