"""`gansegctl bench` and `--batch-size auto` as a shell sees them."""

from __future__ import annotations

import json

import pytest

from gansegctl.bench import common as benching


@pytest.fixture(autouse=True)
def no_bandwidth(monkeypatch):
    """Measuring it takes longer than all tests here."""
    monkeypatch.setattr(benching, "copy_bandwidth", lambda device: 1e10)


def test_features_as_json_says_how_to_repeat_it(call):
    flags = ("--shapes", "demo", "--operations", "project", "--repeats", "1")
    status, out, err = call("bench", "features", *flags, "--device", "cpu", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["command"] == f"gansegctl bench features {' '.join(flags)} --device cpu"
    assert found["machine"]["copy_bytes_a_second"] == 10**10
    assert [r["path"] for r in found["rows"]][-1] == "pyramid"
    assert "pyramid" in err


def test_a_table_goes_to_stdout_and_into_a_page(call, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Figures\n\n<!-- bench-store -->\n<!-- /bench-store -->\n")
    status, out, _ = call("bench", "store", "-n", 2, "--size", 32, "--repeats", 1, "--into", page)
    assert status == 0
    assert "| 32 px | write 2 pairs | shard |" in out
    assert "`gansegctl bench store -n 2 --size 32 --repeats 1`" in page.read_text()
    assert "| 32 px | read 2 pairs | h5py gzip 4 |" in page.read_text()


def test_pairs(call):
    status, out, _ = call("bench", "pairs", "--shapes", "demo", "--heads", "linear", "--repeats", 1, "--device", "cpu")
    assert status == 0
    assert "pair ÷ image" in out


def test_kernels_without_a_gpu_end_in_status_3(call):
    status, out, err = call("bench", "kernels", "--device", "cpu")
    assert (status, out) == (3, "")
    assert "measured on a GPU" in err


@pytest.mark.parametrize(
    "arguments", [("features", "--shapes", "x"), ("pairs", "--heads", "x"), ("features", "--operations", "x")]
)
def test_unknown_names_are_usage_errors(call, arguments):
    status, _, err = call("bench", *arguments, "--device", "cpu")
    assert status == 2
    assert "wanted" in err


def test_batch_size_auto_is_chosen_said_and_recorded(call, generator_file, tmp_path):
    flags = ("--generator", generator_file, "-n", 3, "-o", tmp_path / "out", "--device", "cpu", "--batch-size", "auto")
    status, out, _ = call("generate", *flags, "--dry-run", "--json")
    planned = json.loads(out)
    assert status == 0
    assert planned["settings"]["batch_size"] >= 1
    status, _, err = call("generate", *flags)
    assert status == 0
    assert f"{planned['settings']['batch_size']} samples per batch, about" in err
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert written["settings"]["generate"]["batch_size"] == planned["settings"]["batch_size"]
    assert call("generate", *flags[:-1], "many")[0] == 2
