"""Files told apart by content; each kind of wrong file gets its own message and remedy."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct

import h5py
import numpy as np
import pytest
import torch
from helpers.checkpoints import authoring
from PIL import Image
from safetensors.torch import save

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.detect import CONTAINERS, detect
from gansegctl.generators.checkpoints.containers.reading import read


def hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["x"] = np.arange(1000)
    return buffer.getvalue()


def newer_hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        file["x"] = np.arange(1000)
    return buffer.getvalue()


GOOD = [
    *(("pickle", lambda p=p: authoring.dumps({"a": [1, 2]}, p)) for p in range(6)),
    *(("pickle", lambda v=v: pickle.dumps(v, 0)) for v in ([1], (1, 2), {"a": 1})),
    ("torch-zip", lambda: authoring.torch_bytes({"a": torch.ones(2)})),
    ("torch-legacy", lambda: authoring.torch_bytes({"a": torch.ones(2)}, legacy=True)),
    ("safetensors", lambda: save({"a": torch.ones(2)}, {"kind": "x"})),
    ("hdf5", hdf5),
    ("hdf5", newer_hdf5),
]


@pytest.mark.parametrize(("kind", "make"), GOOD, ids=[f"{k}-{i}" for i, (k, _) in enumerate(GOOD)])
@pytest.mark.parametrize("suffix", [".pkl", ".png"])
def test_the_content_decides_and_not_the_suffix(kind, make, suffix, tmp_path):
    path = tmp_path / f"network{suffix}"
    path.write_bytes(make())
    assert detect(path) == kind and kind in CONTAINERS


def test_a_newer_protocol_of_torch_is_still_the_older_stream(tmp_path):
    path = tmp_path / "x"
    buffer = io.BytesIO()
    torch.save({"a": 1}, buffer, _use_new_zipfile_serialization=False, pickle_protocol=4)
    path.write_bytes(buffer.getvalue())
    assert detect(path) == "torch-legacy" and read(path).value == {"a": 1}


def image(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, form)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 381673535\n"
QUOTA = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>"
BAD = {
    "empty": (b"", "an empty file", "download it again"),
    "LFS pointer": (LFS, "git-LFS pointer.*381673535 bytes", "git lfs pull"),
    "quota page": (QUOTA, "web page.*quota", "later"),
    "web page": (b"\n <html>\n<body>Not found</body>", "web page", "browser"),
    "error page": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page", "browser"),
    "PNG": (image("PNG"), "a PNG image", "the generator's file"),
    "JPEG": (image("JPEG"), "a JPEG image", "the generator's file"),
    "gzip": (gzip.compress(b"x"), "unpack it first", ""),
    "text": (b'{"error": "no such file"}', "a text that begins", ""),
    "other": (b"\x00\x01\x02\x03\x04", "a file that begins 00 01 02 03 04", ""),
    "one byte": (b"\x80", "newer protocol", ""),
    "newer protocol": (b"\x80\x0b}.", "newer protocol", ""),
    "zip, cut off": (authoring.torch_bytes({"a": torch.ones(200)})[:-200], "cut off", "download the file again"),
    "safetensors, cut off": (struct.pack("<Q", 500) + b'{"a":', "cut off", "download the file again"),
    "HDF5, cut off": (hdf5()[:-500], "cut off", "download the file again"),
    "newer HDF5, cut off": (newer_hdf5()[:-500], "cut off", "download the file again"),
}


@pytest.mark.parametrize(("content", "why", "remedy"), BAD.values(), ids=BAD)
def test_wrong_files_are_told_apart(content, why, remedy, tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    for function in (detect, read):
        with pytest.raises(UsageError, match=why) as caught:
            function(path)
        assert remedy in caught.value.remedy and caught.value.remedy and caught.value.wanted
        assert str(path) in caught.value.got


def test_every_message_is_its_own():
    assert len({why for _, why, _ in BAD.values()}) >= 11


def test_places_without_a_file(tmp_path):
    with pytest.raises(UsageError, match="a directory"):
        detect(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        detect(tmp_path / "absent.pkl")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        detect(tmp_path / "pipe")


def test_what_is_cut_off_within_its_objects_is_told_when_it_is_read(tmp_path):
    path = tmp_path / "network.pkl"
    whole = authoring.dumps(authoring.snapshot())
    for part in (0.01, 0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert detect(path) == "pickle"
        with pytest.raises(UsageError, match="ends in the middle, as a download that was cut off") as caught:
            read(path)
        assert "download the file again" in caught.value.remedy


def test_other_containers_are_read_or_refused(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(save({"a": torch.arange(3.0)}, {"kind": "test"}))
    loaded = read(path)
    assert loaded.container == "safetensors" and torch.equal(loaded.value["a"], torch.arange(3.0))
    assert loaded.metadata == {"kind": "test"} and len(loaded.sha256) == 64
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="damaged or abusive: not a whole safetensors file"):
        read(path)
    path.write_bytes(hdf5())
    with pytest.raises(UsageError, match="an HDF5 file"):
        read(path)
