"""`gansegctl generate` as a shell sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import h5py
import pytest

from gansegctl.store.manifest import Manifest


def test_generate_prints_one_json_object(generator_file, tmp_path, call):
    status, out, err = call(
        "generate", "--generator", generator_file, "--seeds", "3,7-8", "-o", tmp_path / "o", "--json"
    )
    assert status == 0
    assert json.loads(out)["samples"] == 3
    assert "generate: 3/3" in err


def test_dry_run_writes_nothing(generator_file, tmp_path, call):
    status, out, _ = call(
        "generate", "--generator", generator_file, "-n", "9", "-o", tmp_path / "o", "--dry-run", "--json"
    )
    assert status == 0
    assert json.loads(out)["raw_bytes"] == 9 * (16 * 16 * 3 + 4 * 8)
    assert not (tmp_path / "o").exists()


def test_sigterm_ends_in_143_and_the_command_goes_on_afterwards(generator_file, tmp_path, call):
    out = tmp_path / "o"
    arguments = ["generate", "--generator", str(generator_file), "-n", "3000", "--batch-size", "1", "--shard-size", "4"]
    process = subprocess.Popen([sys.executable, "-m", "gansegctl", *arguments, "-o", str(out)], stderr=subprocess.PIPE)
    for _ in range(2400):
        if list(out.glob("shard-*.json")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert b"terminated" in err
    assert not [p for p in os.listdir(out) if ".part" in p]
    done = sorted(out.glob("shard-*.json"))
    assert done
    status, text, _ = call("verify", out, "--json")
    assert status == 4
    assert not [p for p in json.loads(text)["problems"] if "damaged" in p]


def test_a_licence_is_kept_and_stays(generator_file, tmp_path, call):
    words = ("generate", "--generator", generator_file, "-n", 2, "-o", tmp_path / "d", "--licence")
    assert call(*words, "CC-BY-4.0")[0] == 0
    assert call(*words, "other")[0] == 0
    assert Manifest.read(tmp_path / "d").licence == "CC-BY-4.0"


BAD = {
    "a missing generator": (("generate", "--generator", "no.safetensors", "-n", "2", "-o", "{new}"), 2, "no such file"),
    "an image as generator": (("generate", "--generator", "{png}", "-n", "2", "-o", "{new}"), 2, "a PNG image"),
    "an unknown preset": (("generate", "--generator", "dmeo", "-n", "2", "-o", "{new}"), 2, "did you mean 'demo'"),
    "zero samples": (("generate", "--generator", "{gen}", "-n", "0", "-o", "{new}"), 2, "-n"),
    "a negative batch": (
        ("generate", "--generator", "{gen}", "-n", "1", "--batch-size", "-3", "-o", "{new}"),
        2,
        "batch",
    ),
    "no count": (("generate", "--generator", "{gen}", "-o", "{new}"), 2, "neither"),
    "bad seeds": (("generate", "--generator", "{gen}", "--seeds", "5-2", "-o", "{new}"), 2, "5-2"),
    "a folder in use": (("generate", "--generator", "{gen}", "-n", "1", "-o", "{full}"), 2, "empty folder"),
    "a file as folder": (("generate", "--generator", "{gen}", "-n", "1", "-o", "{png}"), 1, "png"),
    "other settings": (("generate", "--generator", "{gen}", "-n", "6", "--noise", "none", "-o", "{data}"), 4, "noise"),
    "a device that is not here": (
        ("generate", "--generator", "{gen}", "-n", "1", "-o", "{new}", "--device", "cuda:77"),
        3,
        "cuda",
    ),
    "a class without classes": (
        ("generate", "--generator", "{gen}", "-n", "1", "-o", "{new}", "--class", "1"),
        2,
        "class",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, refused):
    refused(*BAD[case])


@pytest.fixture
def generate(generator_file, tmp_path, call):
    """Run it on four seeds → (status, stdout, stderr)."""
    return partial(call, "generate", "--generator", generator_file, "-n", 4, "-o", tmp_path / "d")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--until", "eyes"), "eyes:500"),
        (("--until", "eyes:0"), "eyes:500"),
        (("--until", "eyes:x"), "eyes:500"),
        (("--until", "eyes:1", "--until", "eyes:2"), "every class once"),
        (("--until", "eyes:1"), "--segmenter"),
        (("--keep-below", "0.5"), "--segmenter"),
        (("--codec", "lz4"), "deflate"),
    ],
)
def test_what_means_nothing_is_a_usage_error(generate, tmp_path, more, word):
    status, out, err = generate(*more)
    assert status == 2 and out == "" and word in err
    assert not (tmp_path / "d").exists()


def test_a_codec_is_one_of_the_settings(generate, tmp_path):
    status, out, _ = generate("--codec", "none", "--json")
    assert status == 0 and json.loads(out)["samples"] == 4
    with h5py.File(tmp_path / "d" / "shard-00000.h5") as f:
        assert f["image"].compression is None and f["image"].chunks == (1, 16, 16, 3)
    status, _, err = generate("--codec", "delta")
    assert status == 4 and 'generate.codec: "none" there, "delta" asked for' in err


def test_zstd_that_is_not_installed_is_told_before_anything_is_made(generate, tmp_path, monkeypatch):
    monkeypatch.setattr("gansegctl.store.codec.zstandard", None)
    status, _, err = generate("--codec", "zstd")
    assert status == 2 and "gansegctl[zstd]" in err and not (tmp_path / "d").exists()
