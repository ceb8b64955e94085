"""What is installed: every package and data file, under one name, with a script that runs anywhere."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*pip, str(source)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_package_list_is_the_tree():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    there = {"gansegctl.kernels", "gansegctl.presets"}
    for init in (ROOT / "gansegctl").rglob("__init__.py"):
        there.add(".".join(init.parent.relative_to(ROOT).parts))
    assert listed == there


def test_the_wheel_holds_everything_under_one_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if not n.split("/")[0].endswith(".dist-info")} == {"gansegctl"}
    for folder, suffixes in (("presets", (".py", ".toml", ".safetensors", ".png")), ("kernels", (".py", ".cu"))):
        for path in (ROOT / folder).iterdir():
            if path.suffix in suffixes:
                assert f"gansegctl/{folder}/{path.name}" in names
    for path in (ROOT / "gansegctl").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    for wanted in (
        "presets/demo.toml",
        "presets/demo-generator.safetensors",
        "presets/demo-reference-segmenter.safetensors",
        "py.typed",
    ):
        assert f"gansegctl/{wanted}" in names


def test_the_script_runs_outside_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(target)}
    run = [str(target / "bin" / "gansegctl"), "inspect", "demo", "--json"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert str(target) in done.stdout
    assert "stylegan2" in done.stdout


def test_shipped_weights_are_small():
    for path in (ROOT / "presets").glob("*.safetensors"):
        assert path.stat().st_size < 8_000_000, path.name
