"""--precision: part of the settings; images and masks come from the same half activations; old datasets go on."""

from __future__ import annotations

import json

import numpy as np
from click.testing import CliRunner

from gansegctl.cli import cli
from gansegctl.config import GenerateSettings, from_dict, to_dict
from gansegctl.pipeline.inputs.labelled_sets import load_labelled
from gansegctl.store.dataset import ShardDataset


def run(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == status, result.output
    return result


def test_half_precision_changes_pixels_a_little_and_is_kept_with_the_dataset(tmp_path):
    seeds = ("--seeds", "0-3", "--batch-size", 2)
    for precision in ("fp32", "bf16"):
        run("generate", "--generator", "demo", *seeds, "-o", tmp_path / precision, "--precision", precision)
    a, b = (
        np.stack([np.asarray(s["image"]) for s in ShardDataset(tmp_path / p, ("image",))]).astype(int)
        for p in ("fp32", "bf16")
    )
    assert 0 < np.abs(a - b).mean() < 3
    manifest = json.loads((tmp_path / "bf16" / "manifest.json").read_text())
    assert manifest["settings"]["generate"]["precision"] == "bf16"
    refused = run("generate", "--generator", "demo", *seeds, "-o", tmp_path / "bf16", status=1)
    assert "precision" in str(refused.exception)


def test_annotating_makes_the_same_half_activations_again(tmp_path):
    run("generate", "--generator", "demo", "--seeds", "0-5", "-o", tmp_path / "d", "--precision", "bf16")
    run("annotate", tmp_path / "d", "--method", "linear", "--set", "steps=5", "--masks", "demo")
    made = load_labelled(tmp_path / "d")
    assert made.mask.shape[0] == 6 and len(np.unique(made.mask)) > 1


def test_settings_of_before_there_was_a_precision_are_the_same_settings():
    old = {k: v for k, v in to_dict(GenerateSettings()).items()}
    assert "precision" not in old
    assert from_dict(GenerateSettings, old, "x") == GenerateSettings()
