"""Files of torch, archive and stream: every dtype and view as torch reads them; what is altered is refused."""

from __future__ import annotations

import collections
import io
import pickletools
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from helpers.checkpoints import authoring
from torch import nn

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.reading import read
from gansegctl.generators.checkpoints.containers.torch_files import nested_storage, read_legacy, read_zip
from gansegctl.generators.checkpoints.containers.ziparchive import Archive
from gansegctl.generators.checkpoints.unpickle import known_globals, opcodes
from gansegctl.generators.checkpoints.unpickle.inert import Inert, Storage
from gansegctl.generators.checkpoints.unpickle.limits import Limits, damaged
from gansegctl.generators.checkpoints.unpickle.machine import Reader
from gansegctl.generators.checkpoints.unpickle.session import Session


def session(raw: bytes) -> Session:
    return Session(Limits.for_file(len(raw)), known_globals.find, "x.pt", nested_storage)


def reading(raw: bytes):
    return (read_zip if raw[:2] == b"PK" else read_legacy)(raw, session(raw))


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_those_of_torch(legacy):
    tensors = authoring.plain_tensors()
    found = reading(authoring.torch_bytes(tensors, legacy))
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        assert torch.equal(found[name], tensor.detach()) and not found[name].requires_grad, name
    assert found["transposed"].stride() == tensors["transposed"].stride()
    assert found["channels_last"].is_contiguous(memory_format=torch.channels_last)
    found["head"][3] = 77.0  # the two are views of one storage still
    assert found["tail"][0] == 77.0


@pytest.mark.parametrize("legacy", [False, True])
def test_training_files_are_read_whole(legacy, tmp_path):
    """torch's own restricted reader refuses these: the trainer's settings are an object."""
    path, value = tmp_path / "000100.pt", authoring.training_file()
    path.write_bytes(authoring.torch_bytes(value, legacy))
    loaded = read(path)
    assert loaded.container == ("torch-legacy" if legacy else "torch-zip") and loaded.unknown == []
    assert list(loaded.value) == ["g_ema", "g_optim", "args", "ada_aug_p"]
    for name, tensor in value["g_ema"].items():
        assert torch.equal(loaded.value["g_ema"][name], tensor)
    settings = loaded.value["args"]
    assert isinstance(settings, Inert) and settings.name == "argparse.Namespace" and settings.understood
    assert settings.state["size"] == 16 and settings.state["nested"].state == {"lr": 0.002}
    moments = loaded.value["g_optim"]["state"][0]["exp_avg"]
    assert torch.equal(moments, value["g_optim"]["state"][0]["exp_avg"])


@pytest.mark.parametrize("legacy", [False, True])
def test_whole_modules_are_records(legacy):
    found = reading(authoring.torch_bytes(nn.Sequential(nn.Linear(2, 3)), legacy))
    assert found.name == "torch.nn.modules.container.Sequential" and found.understood
    assert found.state["_modules"]["0"].state["_parameters"]["weight"].shape == (3, 2)


def test_values_described_before_they_arrive_are_there():
    """In the older stream a tensor is made before its bytes; two tensors over one storage, in the order of use."""
    whole = torch.arange(8, dtype=torch.int64)
    found = reading(authoring.torch_bytes([whole[6:], torch.ones(3), whole[:2]], legacy=True))
    assert [t.tolist() for t in found] == [[6, 7], [1.0, 1.0, 1.0], [0, 1]]


def test_a_tensor_with_attributes_and_other_dtypes():
    tensor = torch.arange(4.0)
    tensor.note = "of the trainer"
    parameter = nn.Parameter(torch.ones(2))
    parameter.note = "too"
    raw = authoring.torch_bytes({"a": tensor, "b": parameter, "c": torch.tensor([0, 1, 2], dtype=torch.uint16)})
    found = reading(raw)
    assert torch.equal(found["a"], torch.arange(4.0)) and not hasattr(found["a"], "note")
    assert torch.equal(found["b"], torch.ones(2)) and found["c"].tolist() == [0, 1, 2]


def test_truth_values_of_other_bytes_become_one():
    raw = authoring.torch_bytes(torch.tensor([True, False, True]), legacy=True)
    assert raw.endswith(b"\x01\x00\x01")
    found = reading(raw[:-3] + b"\x80\x00\x02")
    assert found.tolist() == [True, False, True] and found.view(torch.uint8).tolist() == [1, 0, 1]


def repacked(raw: bytes, change: dict[str, bytes | None], compress: int = zipfile.ZIP_STORED, extra=()) -> bytes:
    """The archive with entries replaced (None: left out) and added, all checksums right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w", compress) as new:
        for name in old.namelist():
            content = change.get(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in extra:
            new.writestr(name, content)
    return out.getvalue()


def test_an_archive_repacked_without_compression_is_read():
    raw = authoring.torch_bytes({"a": torch.arange(3.0)})
    assert torch.equal(reading(repacked(raw, {}))["a"], torch.arange(3.0))


BROKEN_ZIPS = {
    "compressed": (lambda raw: repacked(raw, {}, zipfile.ZIP_DEFLATED), "compressed"),
    "values missing": (lambda raw: repacked(raw, {"data/0": None}), "are missing"),
    "values short": (lambda raw: repacked(raw, {"data/0": b"1234"}), "bytes for a tensor"),
    "values long": (lambda raw: repacked(raw, {"data/0": b"1" * 40}), "bytes for a tensor"),
    "no pickle": (lambda raw: repacked(raw, {"data.pkl": None}), "torch did not write"),
    "TorchScript": (lambda raw: repacked(raw, {}, extra=[("archive/constants.pkl", b"x")]), "TorchScript"),
    "big-endian": (lambda raw: repacked(raw, {"byteorder": b"big"}), "big-endian"),
    "way out": (lambda raw: repacked(raw, {}, extra=[("archive/../../x", b"")]), "a zip entry named"),
    "absolute": (lambda raw: repacked(raw, {}, extra=[("/etc/x", b"")]), "a zip entry named"),
    "flipped value": (lambda raw: raw.replace(struct.pack("<f", 2.0), struct.pack("<f", 3.0)), "checksum"),
    "cut off": (lambda raw: raw[:-30], "cut off"),
    "encrypted": (lambda raw: _patched(raw, 8, struct.pack("<H", 1)), "encrypted"),
    "too long": (lambda raw: _patched(raw, 20, struct.pack("<LL", len(raw) - 9, len(raw) - 9)), "not lie"),
    "elsewhere": (lambda raw: _patched(raw, 42, struct.pack("<L", 1 << 30)), "broken zip"),
    "no signature": (lambda raw: _patched(raw, 0, b"XXXX"), "without its signature"),
}


def _patched(raw: bytes, at: int, new: bytes) -> bytes:
    """The archive with bytes of its first directory entry replaced."""
    start = raw.index(b"PK\x01\x02") + at
    return raw[:start] + new + raw[start + len(new) :]


@pytest.mark.parametrize(("change", "why"), BROKEN_ZIPS.values(), ids=BROKEN_ZIPS)
def test_altered_archives_are_refused(change, why):
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(5.0)}, buffer)
    raw = repacked(buffer.getvalue(), {})
    changed = change(raw)
    assert changed != raw
    with pytest.raises(UsageError, match=why):
        reading(changed)


def test_overlapping_entries_are_refused():
    """The zip bomb without compression: many names for the same bytes."""
    content = b"v" * 5000
    crc = zlib.crc32(content)
    local = b"PK\x03\x04" + struct.pack("<5H3L2H", 20, 0, 0, 0, 0, zlib.crc32(content), 5000, 5000, 1, 0) + b"a"
    names = [b"%02d" % i for i in range(50)]
    central = b"".join(
        b"PK\x01\x02" + struct.pack("<6H3L5H2L", 20, 20, 0, 0, 0, 0, crc, 5000, 5000, 2, *[0] * 6) + name
        for name in names
    )
    start = len(local) + len(content)
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 50, 50, len(central), start, 0)
    one = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, len(central) // 50, start, 0)
    data = local + content + central
    assert bytes(Archive(memoryview(data + one), "x").read("00")) == content
    with pytest.raises(UsageError, match="overlap"):
        Archive(memoryview(data + end), "x")
    with pytest.raises(UsageError, match="a zip directory of"):
        Archive(memoryview(data + end[:8] + struct.pack("<2H", 0, 50) + struct.pack("<2LH", 1 << 20, start, 0)), "x")


def test_archives_of_more_than_four_gigabytes_have_wide_fields():
    """Positions and sizes in the zip64 field are taken from there."""
    content = b"0123456789"
    local = b"PK\x03\x04" + struct.pack("<5H3L2H", 45, 0, 0, 0, 0, zlib.crc32(content), 0, 0, 1, 0) + b"a" + content
    extra = struct.pack("<2H3Q", 1, 24, 10, 10, 0)
    big = 0xFFFFFFFF
    entry = struct.pack("<6H3L5H2L", 45, 45, 0, 0, 0, 0, zlib.crc32(content), big, big, 1, len(extra), 0, 0, 0, 0, big)
    central = b"PK\x01\x02" + entry + b"a" + extra
    wide = b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, 1, 1, len(central), len(local))
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, len(local) + len(central), 1)
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, big, big, 0)
    archive = Archive(memoryview(local + central + wide + locator + end), "x")
    assert bytes(archive.read("a")) == content


def legacy_parts(raw: bytes) -> list[bytes]:
    """The five object streams and the values of a legacy file."""
    parts, position = [], 0
    for _ in range(5):
        stream = io.BytesIO(raw[position:])
        collections.deque(pickletools.genops(stream), maxlen=0)
        parts.append(raw[position : position + stream.tell()])
        position += stream.tell()
    return [*parts, raw[position:]]


def test_altered_streams_are_refused():
    raw = authoring.torch_bytes({"a": torch.arange(5.0)}, legacy=True)
    magic, version, system, objects, keys, values = legacy_parts(raw)
    assert torch.equal(reading(raw)["a"], torch.arange(5.0))
    cases = {
        "signature": (b"\x80\x02K\x01.", version, system, objects, keys, values),
        "of version 7": (magic, b"\x80\x02K\x07.", system, objects, keys, values),
        "of version a list": (magic, b"\x80\x02].", system, objects, keys, values),
        "big-endian": (magic, version, system.replace(b"endianq\x02\x88", b"endianq\x02\x89"), objects, keys, values),
        "does not fit": (magic, version, system, objects, b"\x80\x02].", values),
        "which no tensor has": (magic, version, system, objects, b"\x80\x02]X\x01\x00\x00\x00za.", values),
        "9 values for": (magic, version, system, objects, keys, struct.pack("<q", 9) + values[8:]),
        "-1 values for": (magic, version, system, objects, keys, struct.pack("<q", -1) + values[8:]),
        "ends in the middle": (magic, version, system, objects, keys, values[:-1]),
        "more tensor bytes": (magic, version, system, objects.replace(b"K\x05N", b"J\xff\xff\xff\x0fN"), keys, values),
        "where a count belongs": (
            magic,
            version,
            system,
            objects.replace(b"K\x05N", b"J\xff\xff\xff\xffN"),
            keys,
            values,
        ),
        "a reference of the kind": (magic, version, system, objects.replace(b"storage", b"storags"), keys, values),
        "of no known type": (magic, version, system, objects.replace(b"FloatStorage", b"FloatStorags"), keys, values),
    }
    for why, parts in cases.items():
        assert b"".join(parts) != raw, why
        with pytest.raises(UsageError, match=why):
            reading(b"".join(parts))


def test_one_storage_cannot_have_two_sizes():
    raw = authoring.torch_bytes([torch.arange(5.0), torch.arange(6.0)])
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        objects = archive.read("archive/data.pkl")
    key = b"X\x01\x00\x00\x00"
    assert objects.count(key + b"1") == 1
    with pytest.raises(UsageError, match="two sizes or types"):
        reading(repacked(raw, {"data.pkl": objects.replace(key + b"1", key + b"0")}))


def test_a_nested_stream_must_be_a_storage(tmp_path):
    """`_load_from_bytes` of a stream that holds something else, and of bytes that are no stream."""
    for inner in (authoring.torch_bytes([1, 2], legacy=True), b"\x80\x02N.", b""):
        head = b"\x80\x02ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(inner)) + inner
        (tmp_path / "x.pkl").write_bytes(head + b"\x85R.")
        with pytest.raises(UsageError, match="damaged or abusive"):
            read(tmp_path / "x.pkl")


def test_streams_do_not_nest_for_ever():
    calls = []

    def nested(s: Session, raw):
        calls.append(s.level)
        return s.nested(raw)

    with pytest.raises(UsageError, match="where none belongs"):
        Session(Limits.for_file(10), known_globals.find, nested=nested).nested(b"")
    assert calls == [1, 2]


def test_memory_stays_near_the_size_of_the_file(tmp_path):
    """16 MiB of tensors: the storages, and next to nothing else that Python or numpy allocate."""
    path = tmp_path / "large.pt"
    path.write_bytes(authoring.torch_bytes({"a": torch.zeros(4 << 20)}))
    tracemalloc.start()
    try:
        loaded = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert loaded.value["a"].numel() == 4 << 20
    assert peak < 2 << 20


def test_large_byte_strings_stay_views_of_the_file(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(authoring.dumps({"array": np.arange(100_000), "short": b"ab"}))
    loaded = read(path)
    assert loaded.value["array"].sum() == np.arange(100_000).sum() and not loaded.value["array"].flags.writeable
    assert loaded.value["short"] == b"ab" and type(loaded.value["short"]) is bytes


def test_storages_do_not_reach_the_reader_of_a_family():
    values = torch.ones(2).untyped_storage()
    raw = authoring.dumps(torch.storage.TypedStorage(wrap_storage=values, dtype=torch.float32, _internal=True))
    assert isinstance(opcodes.read(Reader(raw, session(raw))), Storage)
    assert "damaged or abusive: why" in str(damaged("x", "why"))
