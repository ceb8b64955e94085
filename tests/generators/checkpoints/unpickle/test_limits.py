"""Streams made to exhaust or to trip their reader: each is refused with its reason, within bounds."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest
import torch
from helpers.checkpoints import authoring
from helpers.checkpoints.object_streams import Call, load, read_stream
from helpers.checkpoints.watching import watch

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.reading import read
from gansegctl.generators.checkpoints.unpickle.inert import Inert
from gansegctl.generators.checkpoints.unpickle.limits import shown


def _nest(levels: int) -> bytes:
    return b"\x80\x02" + b"]" * levels + b"a" * (levels - 1) + b"."


ABUSE = {
    "many operations": (b"\x80\x02" + b"N0" * 60_000 + b"N.", {"operations": 100_000}, "operations"),
    "memory": (b"\x80\x02(" + b"}" * 60_000 + b"t.", {"memory_bytes": 1 << 20}, "memory"),
    "memo": (b"\x80\x04N" + b"\x94" * 60_000 + b".", {"memory_bytes": 1 << 20}, "memory"),
    "long name": (b"c" + b"a" * 600 + b"\nb\n.", {}, "a name of 601"),
    "escapes in a name": (b"\x80\x04\x8c\x02\x1b[\x8c\x01m\x93.", {}, "the name"),
    "long text": (b"X\xff\xff\xff\x7f.", {}, "ends in the middle"),
    "long text, all there": (b"X" + struct.pack("<I", 5000) + b"a" * 5000 + b".", {"text_bytes": 4096}, "a text of"),
    "huge number": (b"\x8b\xff\xff\xff\x7f.", {}, "a number of"),
    "negative length": (b"\x8b\xff\xff\xff\xff.", {}, "a number of"),
    "long line": (b"I" + b"1" * 5000 + b"\n.", {}, "without an end"),
    "key of a list": (b"}]K\x01s.", {}, "a key of type list"),
    "keys that collide": (b"}\x8a\x0a" + b"\xff" * 8 + b"\x1f\x00K\x01s.", {}, "60 bits"),
    "deep key": (b"}" + b")" + b"\x85" * 100 + b"K\x01s.", {}, "a key of type tuple"),
    "unknown opcode": (b"\x80\x02\xff.", {}, "KeyError"),
    "empty stack": (b"\x80\x020.", {}, "IndexError"),
    "no mark": (b"\x80\x02t.", {}, "IndexError"),
    "no end": (b"\x80\x02}", {}, "ends in the middle"),
    "no value": (b"\x80\x02.", {}, "IndexError"),
    "absent memo": (b"\x80\x02h\x05.", {}, "KeyError"),
    "protocol": (b"\x80\x09N.", {}, "protocol 9"),
    "frame": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", {}, "ends in the middle"),
    "extension": (b"\x80\x02\x82\x01.", {}, "extension registry"),
    "outside buffer": (b"\x80\x05\x97.", {}, "outside the file"),
    "outside object": (b"\x80\x02K\x01Q.", {}, "outside the file"),
    "call of a number": (b"K\x01)R.", {}, "a call of int"),
    "call with a list": (b"cno.such\nf\n]R.", {}, "a call of"),
    "appending to a tuple": (b")K\x01a.", {}, "appended to a tuple"),
    "items of a list": (b"]K\x01K\x02s.", {}, "set on a list"),
    "members of a list": (b"](K\x01\x90.", {}, "added to a list"),
    "odd items": (b"}(K\x01u.", {}, "set on a dict"),
    "name of a number": (b"K\x01K\x02\x93.", {}, "no text"),
    "bad text": (b"X\x01\x00\x00\x00\xff.", {}, "Unicode"),
    "bad float": (b"Fx\n.", {}, "ValueError"),
    "storage outside torch": (b"ctorch.storage\n_load_from_bytes\nC\x01a\x85R.", {}, "where none belongs"),
    "array too large": (
        pickle.dumps(np.arange(3), 2).replace(b"K\x03\x85", b"K\x09\x85"),
        {},
        "numpy array of 9",
    ),
}


@pytest.mark.parametrize(("data", "limits", "why"), ABUSE.values(), ids=ABUSE)
def test_abuse_is_refused_with_its_reason(data, limits, why):
    with pytest.raises(UsageError, match=why) as caught:
        load(data, **limits)
    assert caught.value.remedy and caught.value.wanted and "x.pkl: damaged or abusive" in caught.value.got


def test_nesting_is_bounded(tmp_path):
    path = tmp_path / "deep.pkl"
    path.write_bytes(_nest(150))
    assert isinstance(read(path).value, list)
    path.write_bytes(_nest(5000))
    with pytest.raises(UsageError, match="levels deep"):
        read(path)


def test_repeated_storages_are_bounded(tmp_path):
    """One small block of values, asked for again and again, must not fill the memory."""
    stored = io.BytesIO()
    torch.save(torch.zeros(1000).untyped_storage(), stored, _use_new_zipfile_serialization=False)
    blob = stored.getvalue()
    head = b"\x80\x02ctorch.storage\n_load_from_bytes\nq\x000B" + struct.pack("<I", len(blob)) + blob + b"q\x010]("
    path = tmp_path / "bomb.pkl"
    path.write_bytes(head + b"h\x00h\x01\x85R" * 20 + b"e.")
    with pytest.raises(UsageError, match="more tensor bytes than its size"):
        read(path)


@pytest.mark.parametrize(
    ("offset", "size", "stride", "good"),
    [
        (0, (2, 3), (3, 1), True),
        (4, (2,), (1,), True),
        (0, (6,), (0,), True),
        (6, (0,), (1,), True),
        (0, (), (), True),
        (1, (2, 3), (3, 1), False),
        (0, (7,), (1,), False),
        (0, (2,), (6,), False),
        (0, (2, 3), (1,), False),
        (-1, (2,), (1,), False),
        (0, (-1,), (1,), False),
        (0, (2,), (-1,), False),
        (7, (0,), (1,), False),
        (0, (1 << 50,), (0,), False),
        (0, (1 << 30, 1 << 30), (0, 0), False),
        (0, (1,) * 20, (1,) * 20, False),
        (0, (True,), (1,), False),
        (0, (2.0,), (1,), False),
    ],
)
def test_tensors_lie_within_their_storage(offset, size, stride, good):
    values = Call(torch._utils._rebuild_tensor_v2, _typed_storage(), offset, size, stride, False, {})
    raw = authoring.dumps(values)
    if good:
        assert torch.equal(read_stream(raw), torch.arange(6.0).as_strided(size, stride, offset))
    else:
        with pytest.raises(UsageError):
            read_stream(raw)


@pytest.mark.parametrize("numel", ["a tensor", "an endless list"])
def test_messages_never_spell_structures(numel):
    """The repr of a list that holds itself twice, 40 levels deep, would not end; that of a tensor imports."""
    below: list = [1]
    for _ in range(40):
        below = [below, below]
    odd = torch.ones(2) if numel == "a tensor" else below
    raw = authoring.dumps(Call(torch._utils._rebuild_tensor_v2, _typed_storage(), odd, (2,), (1,), False, {}), 2)
    with watch() as seen, pytest.raises(UsageError, match=r"a (Tensor|list) where a count belongs"):
        read_stream(raw)
    assert seen == []
    assert len(repr(Inert("a.b", state=below))) < 40 and len(shown("x" * 10_000)) < 80 and shown(below) == "a list"


def _typed_storage():
    values = torch.arange(6.0).untyped_storage()
    return torch.storage.TypedStorage(wrap_storage=values, dtype=torch.float32, _internal=True)
