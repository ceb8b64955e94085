"""`gansegctl run` as a shell sees it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gansegctl.store.manifest import Manifest


def test_run_a_preset_file(generator_file, tmp_path, call):
    toml = tmp_path / "p.toml"
    toml.write_text(f'[generate]\ngenerator = "{generator_file}"\nseeds = "0-3"\n')
    assert call("run", toml, "-o", tmp_path / "out")[0] == 0
    status, out, _ = call("run", toml, "-o", tmp_path / "out", "--json")
    assert status == 0
    assert json.loads(out)["dataset"]["samples"] == 4
    assert json.loads(call("run", "demo", "-o", tmp_path, "--dry-run", "--json")[1])["annotate"]["shots"] == 1


def test_a_file_of_ones_own_stops_for_the_painting_and_goes_on(generator_file, tmp_path, call):
    preset, out = tmp_path / "mine.toml", tmp_path / "out"
    preset.write_text(
        f"""[generator]
licence = "CC-BY-4.0"
[exemplars]
classes = ["ground", "figure"]
[generate]
generator = "{generator_file}"
seeds = "0-7"
[annotate]
shots = 1
[annotate.options]
steps = 2
"""
    )
    status, said, err = call("run", preset, "-o", out, "--device", "cpu")
    assert status == 0, err
    folder = out / "dataset" / "exemplars"
    assert f"--masks {folder}" in said and Manifest.read(out / "dataset").licence == "CC-BY-4.0"
    assert [r["name"] for r in json.loads((folder / "labels.json").read_text())] == ["ground", "figure"]
    mask = next(folder.glob("*.mask.png"))
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 1
    Image.fromarray(painted).save(mask)
    status, _, err = call("run", preset, "-o", out, "--masks", folder, "--device", "cpu")
    assert status == 0, err
    assert Manifest.read(out / "dataset").stage == "pairs"


BAD = {
    "an unknown preset to run": (("run", "demmo", "-o", "{new}"), 2, "did you mean 'demo'"),
    "an unknown key": (("run", "{toml}", "-o", "{new}"), 2, "generate.trunkation"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, refused):
    refused(*BAD[case])
