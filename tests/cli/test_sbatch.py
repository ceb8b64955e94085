"""`gansegctl sbatch` as a shell sees it."""

from __future__ import annotations

import subprocess
from functools import partial

import pytest


@pytest.fixture
def printed(call):
    """What `gansegctl sbatch` prints → (status, stdout, stderr)."""
    return partial(call, "sbatch")


def test_the_demo_as_a_script_that_bash_can_read(printed, tmp_path):
    status, out, _ = printed("demo", "-o", tmp_path / "run", "--tasks", 3, "--partition", "gpu")
    assert status == 0 and out.startswith("#!/bin/bash\n#SBATCH --partition=gpu\n")
    assert f"gansegctl run demo -o {tmp_path}/run --until generate" in out and "--array=0-2" in out
    assert subprocess.run(["bash", "-n"], input=out, text=True, capture_output=True, check=False).returncode == 0


def test_distillation_on_several_devices(printed, tmp_path):
    asked = ("--ranks", 4, "--cpus", 3, "--gres", "gpu:a100:1")
    _, out, _ = printed("demo", "-o", tmp_path / "run", *asked)
    assert f"  stage torchrun --standalone --nproc-per-node 4 -m gansegctl run demo -o {tmp_path}/run\n" in out
    assert out.count("--gres=gpu:a100:4 --cpus-per-task=12 -- distill") == 1
    assert out.count("torchrun") == 1 and f"  stage gansegctl run demo -o {tmp_path}/run --until annotate\n" in out
    _, out, _ = printed("demo", "-o", tmp_path / "run")
    assert "torchrun" not in out


def test_files_are_named_from_the_root(printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('[generate]\ngenerator = "demo"\n')
    (tmp_path / "net.safetensors").write_bytes(b"")
    status, out, _ = printed("mine.toml", "-o", "run", "--generator", "net.safetensors")
    assert status == 0
    assert f"run {tmp_path}/mine.toml -o {tmp_path}/run --generator {tmp_path}/net.safetensors --until generate" in out


def test_masks_painted_since_lead_on_to_a_student(printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = '[generate]\ngenerator = "demo"\n[annotate]\nshots = 1\n[distill]\nsteps = 1\n'
    (tmp_path / "mine.toml").write_text(own)
    (tmp_path / "painted").mkdir()
    _, before, _ = printed("mine.toml", "-o", "run")
    assert "distill)" not in before and "again with --masks" in before
    status, out, _ = printed("mine.toml", "-o", "run", "--masks", "painted")
    assert status == 0 and "distill)" in out and "again with --masks" not in out
    assert f"stage gansegctl run {tmp_path}/mine.toml -o {tmp_path}/run --masks {tmp_path}/painted\n" in out


def test_a_preset_that_is_none(printed, tmp_path):
    status, out, err = printed("dmo", "-o", tmp_path)
    assert status == 2 and out == "" and "demo" in err


@pytest.mark.parametrize(("limit", "status"), [("4h", 2), ("04:00:00", 0), ("90", 0), ("1-12", 0), ("1:2:3:4", 2)])
def test_a_time_limit_is_one_that_slurm_takes(printed, tmp_path, limit, status):
    found, out, err = printed("demo", "-o", tmp_path / "run", "--time", limit)
    assert found == status and (f"--time={limit}\n" in out) == (status == 0)
    assert status == 0 or "as in 04:00:00" in err
