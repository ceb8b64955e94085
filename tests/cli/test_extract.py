"""`gansegctl extract` as a shell sees it."""

from __future__ import annotations

import json

import h5py
import pytest


@pytest.mark.parametrize(
    ("flags", "kind", "shape"),
    [
        ((), "pca", [6, 32, 16, 16]),
        (("--pca", "3"), "pca", [6, 3, 16, 16]),
        (("--random", "4"), "random", [6, 4, 16, 16]),
        (("--points", "9"), "points", None),
        (("--dense",), "dense", None),
    ],
)
def test_features_of_a_dataset(flags, kind, shape, dataset, tmp_path, call):
    out = tmp_path / "features.h5"
    status, said, err = call("extract", dataset, "-o", out, *flags, "--json")
    assert status == 0, err
    facts = json.loads(said)
    assert facts["kind"] == kind and shape in (None, facts["shape"])
    with h5py.File(out) as f:
        assert list(f["features"].shape) == facts["shape"] and str(f["features"].dtype) == facts["dtype"]
    assert (tmp_path / "features.png").is_file()
    assert call("extract", dataset, "-o", out, *flags)[0] == 0  # again: nothing to do


def test_a_dry_run_writes_nothing(dataset, tmp_path, call):
    status, said, _ = call("extract", dataset, "-o", tmp_path / "f.h5", "--dry-run", "--json")
    assert status == 0
    assert json.loads(said)["bytes"] == 6 * 32 * 16 * 16 * 2
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["extract", "{data}", "-o", "{new}", "--dense", "--pca", "3"], 2, "--pca and --dense"),
        (["extract", "{data}", "-o", "{new}", "--pca", "0"], 2, "--pca"),
        (["extract", "{data}", "-o", "{new}", "--points", "300"], 2, "256 pixels"),
        (["extract", "{data}", "-o", "{png}"], 2, "gansegctl extract"),
        (["extract", "{full}", "-o", "{new}"], 4, "manifest"),
        (["extract", "{data}", "-o", "{new}", "--generator", "demo"], 4, "sha256"),
        (["extract", "{data}", "-o", "{new}", "--backend", "cuda"], 3, "cuda"),
    ],
)
def test_bad_input_is_named_and_loses_nothing(arguments, status, word, refused):
    refused(arguments, status, word)
