"""Tensor files: the bytes they always had, a header that is checked, and every other file refused with the reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from gansegctl.errors import UsageError
from gansegctl.io.digest import file_digest
from gansegctl.io.tensors import FileKind, read_header, read_metadata, read_tensors
from gansegctl.labels import LabelMap
from gansegctl.methods.base import segmenter_file
from gansegctl.pipeline.project.projector import Projection, load_with_record, save_projection
from gansegctl.students.student import Student, build

FIELDS = {"size": list, "note": str}
TABLE = FileKind("gansegctl.test", "a test file", "delete {path}", FIELDS)
TEXT = FileKind("gansegctl.text", "a text file", "delete {path}", FIELDS, table=False)
HEADERS = {TABLE.name: {"size": [1, 2], "note": "é"}, TEXT.name: {"size": "[1, 2]", "note": "é"}}
TENSORS = {"w": torch.tensor([[1.0, 2.0]]), "count": torch.tensor(3), "A": torch.zeros(0)}
KINDS = pytest.mark.parametrize("kind", [TABLE, TEXT], ids=["table", "text"])


def stored(header: str, data: bytes) -> bytes:
    """A safetensors file of these parts."""
    text = header.encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


DATA = b"\3\0\0\0\0\0\0\0" + b"\0\0\x80\x3f\0\0\0\x40"  # count, then w: the widest type first
BYTES = {
    TABLE.name: stored(
        r'{"__metadata__":{"gansegctl":"{\"format\": 1, \"kind\": \"gansegctl.test\", '
        r'\"note\": \"\\u00e9\", \"size\": [1, 2]}"},'
        '"count":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        '"A":{"dtype":"F32","shape":[0],"data_offsets":[8,8]},'
        '"w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}}',
        DATA,
    ),
    TEXT.name: stored(  # its keys are in order, at every level
        '{"A":{"data_offsets":[8,8],"dtype":"F32","shape":[0]},'
        r'"__metadata__":{"format":"1","kind":"gansegctl.text","note":"\u00e9","size":"[1, 2]"},'
        '"count":{"data_offsets":[0,8],"dtype":"I64","shape":[]},'
        '"w":{"data_offsets":[8,16],"dtype":"F32","shape":[1,2]}}',
        DATA,
    ),
}


def write(path, kind, **changed):
    kind.write(path, TENSORS, HEADERS[kind.name] | changed)
    return path


@KINDS
def test_the_bytes_are_these(tmp_path, kind):
    assert write(tmp_path / "a", kind).read_bytes() == BYTES[kind.name]
    for _ in range(5):  # the library orders texts by chance
        kind.write(tmp_path / "b", dict(reversed(TENSORS.items())), dict(reversed(HEADERS[kind.name].items())))
        assert file_digest(tmp_path / "b") == file_digest(tmp_path / "a")


@KINDS
def test_header_and_tensors_come_back(tmp_path, kind):
    path = write(tmp_path / "a", kind)
    header, tensors = kind.read(path)
    version = 1 if kind.table else "1"
    assert header == {"kind": kind.name, "format": version} | HEADERS[kind.name] == kind.read_header(str(path))
    assert {k: v.tolist() for k, v in tensors.items()} == {"w": [[1.0, 2.0]], "count": 3, "A": []}
    assert read_header(path) == header and read_tensors(path).keys() == TENSORS.keys()
    assert read_metadata(path) == ({"gansegctl": json.dumps(header, sort_keys=True)} if kind.table else header)


def test_views_and_gradients_are_written_as_their_values(tmp_path):
    whole = torch.arange(6.0, requires_grad=True).view(2, 3)
    TABLE.write(tmp_path / "a", {"turned": whole.T, "row": whole[1]}, HEADERS[TABLE.name])
    tensors = TABLE.read(tmp_path / "a")[1]
    assert tensors["turned"].tolist() == [[0, 3], [1, 4], [2, 5]] and tensors["row"].tolist() == [3, 4, 5]


def refused(kind, path) -> str:
    """What both readers say, which is the same."""
    with pytest.raises(UsageError) as of_header:
        kind.read_header(path)
    with pytest.raises(UsageError) as of_all:
        kind.read(path)
    assert str(of_header.value) == str(of_all.value)
    assert str(of_all.value).startswith(f"got {path}: ") and "wanted: a" in str(of_all.value)
    return str(of_all.value)


@KINDS
def test_what_is_no_such_file_is_refused_with_the_remedy(tmp_path, kind):
    path = tmp_path / "a"
    assert refused(kind, path) == f"got {path}: no such file\n  wanted: {kind.noun}\n  remedy: delete {path}"
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        assert "not a safetensors file (it is a folder or a device)" in refused(kind, place)
    for content in (b"", b"hello, no tensors here", b"\xff" * 200):
        path.write_bytes(content)
        assert "not a safetensors file (its first bytes are no length of a header)" in refused(kind, path)
    for header in ("[]", '{"a":1}', '{"a":{"data_offsets":[0]}}', '{"a":{"data_offsets":[0,"8"]}}', "[" * 100_000):
        path.write_bytes(stored(header, b""))
        assert "not a safetensors file (its header is no table of tensors)" in refused(kind, path)
    path.write_bytes(stored('{"__metadata__":{"gansegctl":"[]"}}', b""))
    assert "its gansegctl header is no table" in refused(kind, path)
    path.write_bytes(stored('{"__metadata__":{"kind":1}}', b""))
    assert "not a safetensors file" in refused(kind, path)


@KINDS
def test_other_kinds_are_refused_by_name(tmp_path, kind):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain")
    assert "no gansegctl header in it" in refused(kind, tmp_path / "plain")
    other = write(tmp_path / "other", TEXT if kind is TABLE else TABLE)
    told = refused(kind, other)
    assert "a file of kind gansegctl.te" in told and f"wanted: {kind.noun} (kind {kind.name})" in told


@KINDS
def test_a_newer_format_asks_for_an_update(tmp_path, kind):
    path = write(tmp_path / "a", kind, format=2 if kind.table else "2")
    assert refused(kind, path) == f"got {path}: format 2\n  wanted: {kind.noun}, format 1\n  remedy: update gansegctl"
    path = write(tmp_path / "b", kind, format="one")
    assert "format 'one' in its header" in refused(kind, path)


@KINDS
@pytest.mark.parametrize("cut", [1, 9, -1])
def test_a_file_of_another_length_than_its_header_says_is_refused(tmp_path, kind, cut):
    path = write(tmp_path / "a", kind)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut] if cut > 0 else whole + b"x")
    with pytest.raises(UsageError, match=rf"{len(whole) - cut:,} bytes, where its header says {len(whole):,}"):
        kind.read_header(path)
    with pytest.raises(ValueError, match=r"\w"):
        read_tensors(path)
    assert read_header(path)["kind"] == kind.name  # which kind it was can be told all the same


@KINDS
def test_every_field_of_the_header_is_checked(tmp_path, kind):
    path = tmp_path / "a"
    kind.write(path, TENSORS, {"note": "n"})
    with pytest.raises(UsageError, match=r"no size in its header[\s\S]*with size of type list"):
        kind.read(path)
    write(path, kind, size={"w": 1} if kind.table else '{"w": 1}')
    with pytest.raises(UsageError, match=r"size .*w.*: 1\}. in its header"):
        kind.read(path)
    write(path, kind, size="no JSON")
    with pytest.raises(UsageError, match="size 'no JSON' in its header"):
        kind.read(path)


def test_damage_that_only_the_library_sees_is_told(tmp_path):
    path = write(tmp_path / "a", TABLE)
    path.write_bytes(path.read_bytes().replace(b'"dtype":"I64"', b'"dtype":"Q64"'))
    assert TABLE.read_header(path)["size"] == [1, 2]
    with pytest.raises(UsageError, match=r"not a whole safetensors file \(.*Q64"):
        TABLE.read(path)


def test_a_header_is_read_without_torch(tmp_path):
    path = write(tmp_path / "a", TABLE)
    program = (
        "import sys; from pathlib import Path; from gansegctl.io.tensors import read_header; "
        "print(read_header(Path(sys.argv[1]))['note'], "
        "'torch' in sys.modules or 'safetensors' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["é", "False"]


def counted(network):
    """The network with its numbers counted through."""
    with torch.no_grad():
        for i, p in enumerate([*network.parameters(), *network.buffers()]):
            p.copy_((torch.arange(p.numel()).view(p.shape) / 8 + i).to(p.dtype))
    return network


class TestFilesOfBefore:
    """Written by the code that had a writer for each kind: whatever changes, these are the bytes."""

    def test_segmenter(self, tmp_path):
        header = {"method": "linear", "generator": "ab" * 32, "labels": '[["é", [0, 0, 0]]]', "facts": "{}"}
        header |= {"taps": '[["b4.conv1", 3]]', "settings": '{"l2": 1.0}'}
        tensors = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.arange(2), "Mean": torch.tensor(0.5)}
        segmenter_file.write(tmp_path / "s", header, tensors)
        assert file_digest(tmp_path / "s") == "7dba4a4abc29ccfc5ef6d7570b3e5bb4816026e9229ea18e88813d26faa4b1e5"
        assert segmenter_file.read(tmp_path / "s")[0].items() >= header.items()

    def test_student(self, tmp_path):
        labels = LabelMap(("ground", "figure"), ((0, 0, 0), (200, 30, 30)))
        model = counted(build("unet", 1, 2, (4, 6)))
        Student(model, labels, (16, 16), 1, widths=(4, 6), facts={"steps": 2}).save(tmp_path / "s")
        assert file_digest(tmp_path / "s") == "00297e51829c664c023802ead45c2b7fba648b5525bf000c7b17eb183ed6ee29"
        again = Student.load(tmp_path / "s")
        assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in model.state_dict().items())

    def test_latents(self, tmp_path):
        maps = [torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 8, 8)]
        record = {"known": "", "inversion": {"steps": 3}}
        save_projection(tmp_path / "l", Projection(torch.arange(8.0).view(1, 2, 4), maps, {"error": 0.25}), record)
        assert file_digest(tmp_path / "l") == "4c11c79e5d3b8103b575c5fc3d241a02af320ac3a7e44e0422194ae07593e429"
        projection, before = load_with_record(tmp_path / "l")
        assert before == record and projection.facts == {"error": 0.25} and len(projection.maps) == 2
        assert torch.equal(projection.ws, torch.arange(8.0).view(1, 2, 4)) and torch.equal(projection.maps[0], maps[0])


def test_a_digest_is_of_the_whole_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "a").write_bytes(b"")
    assert file_digest(str(tmp_path / "a")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
