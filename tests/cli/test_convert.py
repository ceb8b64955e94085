"""Checkpoints of other projects through the commands: parity, conversion, and one message for each wrong file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.checkpoints.foreign import (
    like_rosinality,
    tiny,
    weights,
    write_network,
    write_tensorflow,
    write_torch,
)
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    g = tiny()
    value = {"g_ema": like_rosinality(g), "latent_avg": weights(g)["mapping.w_avg"]}
    return write_torch(value, folder / "g.pt")


def images(folder: Path) -> tuple[np.ndarray, list[int]]:
    with h5py.File(folder / "shard-00000.h5") as f:
        return f["image"][()], [int(s) for s in f["seed"][()]]


@pytest.mark.parametrize("psi", ["1.0", "0.7"])
@pytest.mark.parametrize("name", ["sg2ada_uncond.pkl", "sg3t.pkl", "rosinality_small.pt"])
def test_generate_gives_the_official_images(name, psi, shared, tmp_path, call):
    """Within one grey level of what the network's own official code rendered."""
    file = shared / "parity" / name
    sampling = ("--seeds", "0-3", "--truncation", psi, "--noise", "const")
    status, _, err = call("generate", "--generator", file, *sampling, "-o", tmp_path / "d")
    assert status == 0, err
    made, seeds = images(tmp_path / "d")
    with np.load(file.with_suffix(".npz")) as official:
        wanted = official[f"uint8_psi{psi}"]
    assert seeds == [0, 1, 2, 3]
    assert made.shape == wanted.shape
    assert np.abs(made.astype(int) - wanted.astype(int)).max() <= 1


def test_generate_takes_every_sampling_flag_for_a_foreign_generator(foreign, tmp_path, call):
    def made(*flags):
        out = tmp_path / f"d{len(list(tmp_path.iterdir()))}"
        status, _, err = call("generate", "--generator", foreign, "--seeds", "0-1,7", *flags, "-o", out)
        assert status == 0, err
        return images(out)

    plain, seeds = made()
    assert seeds == [0, 1, 7]
    others = [
        made(*flags)[0]
        for flags in (
            ("--truncation", "0.5"),
            ("--truncation", "0.5", "--truncation-cutoff", "2"),
            ("--noise", "seed"),
            ("--noise", "none"),
        )
    ]
    for i, one in enumerate(others):
        assert not np.array_equal(one, plain)
        assert not any(np.array_equal(one, other) for other in others[:i])


def test_generate_takes_a_class(tmp_path, call):
    save_file(weights(tiny(c_dim=3)), tmp_path / "c.safetensors")
    for i in (0, 2):
        call("generate", "--generator", tmp_path / "c.safetensors", "-n", "1", "--class", i, "-o", tmp_path / f"{i}")
    assert not np.array_equal(images(tmp_path / "0")[0], images(tmp_path / "2")[0])


def test_convert_and_use(foreign, tmp_path, call):
    out = tmp_path / "g.safetensors"
    status, text, _ = call("convert", foreign, "-o", out, "--json")
    assert status == 0
    assert json.loads(text)["family"] == "stylegan2"
    assert json.loads(text)["bytes"] == out.stat().st_size
    for name, file in (("a", foreign), ("b", out)):
        assert call("generate", "--generator", file, "-n", "2", "-o", tmp_path / name)[0] == 0
    assert np.array_equal(images(tmp_path / "a")[0], images(tmp_path / "b")[0])
    status, text, err = call("convert", foreign, "-o", out)
    assert (status, text) == (2, "")
    assert "there already" in err


def test_inspect_and_run_take_foreign_files(foreign, tmp_path, call):
    status, text, _ = call("inspect", foreign, "--json")
    assert status == 0
    assert json.loads(text)["family"] == "rosinality/stylegan2-pytorch"
    status, text, _ = call("run", "celebahq-256", "--generator", foreign, "-o", tmp_path, "--dry-run", "--json")
    assert json.loads(text)["generate"]["generator"] == str(foreign)
    status, _, err = call("run", "celebahq-256", "-o", tmp_path / "r")
    assert status == 2
    assert "--generator FILE" in err


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 364000000\n"
PAGE = "<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"
WRONG = {
    "an LFS pointer": (lambda p, _: p.write_text(LFS), "LFS", "git lfs pull"),
    "a web page": (
        lambda p, _: p.write_text("<!DOCTYPE html><html><title>Quota exceeded</title></html>"),
        "web page",
        "download",
    ),
    "a truncated zip": (lambda p, f: p.write_bytes(f.read_bytes()[:-4000]), "cut off", "download"),
    "a truncated pickle": (lambda p, f: _half(write_tensorflow(tiny(), p)), "", "download"),
    "a directory": (lambda p, _: p.mkdir(), "directory", "file"),
    "an empty file": (lambda p, _: p.write_bytes(b""), "empty", "download"),
    "no file": (lambda p, _: None, "no such file", "check"),
    "an image": (lambda p, _: Image.new("RGB", (8, 8)).save(p, "png"), "PNG image", "generator"),
    "a StyleGAN1 pickle": (lambda p, _: write_tensorflow(tiny(), p, version=3), "StyleGAN1", "StyleGAN2 file"),
    "a discriminator alone": (lambda p, _: write_network(p, "Discriminator", "D"), "discriminator", "G_ema"),
    "lucidrains": (
        lambda p, _: write_torch({"GAN": {"SE.net.0.weight": weights(tiny())["mapping.w_avg"]}}, p),
        "lucidrains",
        "gansegctl train",
    ),
    "an HDF5 file": (lambda p, _: _hdf5(p), "HDF5", "convert"),
}


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as f:
        f["w"] = np.zeros(3)


@pytest.mark.parametrize("command", ["generate", "convert", "inspect"])
@pytest.mark.parametrize("case", WRONG)
def test_each_wrong_file_has_its_own_message(case, command, foreign, tmp_path, call):
    make, word, remedy = WRONG[case]
    file = tmp_path / "network.pkl"
    make(file, foreign)
    if command == "inspect" and file.is_dir():
        pytest.skip("a directory may be a dataset")
    arguments = {
        "generate": ("generate", "--generator", file, "-n", "1", "-o", tmp_path / "new"),
        "convert": ("convert", file, "-o", tmp_path / "new.safetensors"),
        "inspect": ("inspect", file),
    }[command]
    status, out, err = call(*arguments)
    assert status == 2, err
    assert out == ""
    assert word in err
    assert remedy in err
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ([] if case == "no file" else ["network.pkl"])


def test_the_messages_differ(foreign, tmp_path, call):
    said = set()
    for i, (make, _, _) in enumerate(WRONG.values()):
        file = tmp_path / str(i) / "n.pkl"
        file.parent.mkdir()
        make(file, foreign)
        said.add(call("convert", file, "-o", tmp_path / "x.safetensors")[2].replace(str(file), "FILE"))
    assert len(said) == len(WRONG)


def test_wrong_classes_are_named(foreign, tmp_path, call):
    conditional = tmp_path / "c.safetensors"
    save_file(weights(tiny(c_dim=3)), conditional)
    cases = ((conditional, ("--class", "3"), "--class 0 to 2"), (conditional, (), "--class 0 to 2"))
    cases += ((foreign, ("--class", "0"), "no classes"),)
    for file, flags, words in cases:
        status, out, err = call("generate", "--generator", file, "-n", "1", *flags, "-o", tmp_path / "new")
        assert (status, out) == (2, "")
        assert words in err
    assert not (tmp_path / "new").exists()


def test_the_file_name_does_not_matter(foreign, tmp_path, call):
    for name in ("g.safetensors", "g.pkl", "g.h5", "network"):
        shutil.copy(foreign, tmp_path / name)
        assert call("inspect", tmp_path / name, "--json")[0] == 0
