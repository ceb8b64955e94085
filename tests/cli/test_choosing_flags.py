"""`gansegctl generate` with --codec, --keep-below and --until, as a shell sees it."""

from __future__ import annotations

import json

import h5py
import pytest

from gansegctl.cli import main


@pytest.fixture
def generate(generator_file, tmp_path, capsys):
    """Run it on four seeds → exit status, output, talk."""

    def run(*more):
        with pytest.raises(SystemExit) as stopped:
            main(["generate", "--generator", str(generator_file), "-n", "4", "-o", str(tmp_path / "d"), *more])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


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
    assert status == 4 and 'generate.codec: "none" in the dataset, "delta" asked for' in err


def test_zstd_that_is_not_installed_is_told_before_anything_is_made(generate, tmp_path, monkeypatch):
    monkeypatch.setattr("gansegctl.store.codec.zstandard", None)
    status, _, err = generate("--codec", "zstd")
    assert status == 2 and "gansegctl[zstd]" in err and not (tmp_path / "d").exists()
