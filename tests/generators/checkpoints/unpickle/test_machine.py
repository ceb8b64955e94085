"""The unpickle machine gives the values of Python's own for plain data, and records for all else."""

from __future__ import annotations

import collections
import copyreg
import pickle
import pickletools
import re

import numpy as np
import pytest
from helpers.checkpoints import authoring
from helpers.checkpoints.object_streams import global_of, load, read_stream

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.unpickle import opcodes
from gansegctl.generators.checkpoints.unpickle.inert import Inert, Named, PlainDict, unknown_under

PROTOCOLS = range(6)

PLAIN = [
    None,
    True,
    False,
    0,
    255,
    65_535,
    -1,
    2**31,
    -(2**63),
    0x1950A86A20F9469CFC6C,
    0.1,
    float("inf"),
    1e-300,
    "",
    "text",
    "Grüße \n\\ ' \" 世界 🙂",
    "long " * 100,
    b"",
    b"\x00\xff\n'",
    b"bytes" * 2000,
    bytearray(b"abc"),
    [],
    [1, [2, [3]]],
    list(range(3000)),
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, (4,)),
    {},
    {"a": 1, 2: "b", (1, "c"): None},
    {str(i): i for i in range(2000)},
    {1, 2, 3},
    set(),
    frozenset({"a", "b"}),
    1 + 2j,
    collections.OrderedDict(a=1, b=2),
    [np.float32(1.5), np.bool_(True), np.int64(-3)],
]


def test_every_opcode_has_a_place():
    stop = ord(pickletools.opcodes[[o.name for o in pickletools.opcodes].index("STOP")].code)
    assert set(opcodes.OPCODES) | {stop} == {ord(o.code) for o in pickletools.opcodes}


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: f"{type(v).__name__}-{str(v)[:12]}".replace("\n", ""))
def test_plain_values_are_those_of_python(value):
    for protocol in PROTOCOLS:
        assert load(pickle.dumps(value, protocol)) == value, protocol


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_and_cyclic_objects_stay_shared(protocol):
    shared = ["x"]
    cyclic: list = [shared, shared, {"again": shared}]
    cyclic.append(cyclic)
    found = load(pickle.dumps(cyclic, protocol))
    assert found[0] is found[1] is found[2]["again"] and found[3] is found
    assert unknown_under(found) == []  # and walking it ends


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.array([True, False]),
        np.array(["a", "bcd"]),
        np.arange(3, dtype=">i4"),
        np.zeros((0, 4)),
        np.array(2.0),
        np.arange(5000, dtype=np.uint8),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_numpy_arrays(array, protocol):
    found = load(pickle.dumps(array, protocol))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=") and not found.flags.writeable


@pytest.mark.parametrize("old", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_names_of_numpy_are_known(old):
    data, named = re.subn(rb"cnumpy\._?core\.multiarray", b"c" + old, pickle.dumps(np.arange(3.0), 2))
    assert named == 1
    np.testing.assert_array_equal(load(data), np.arange(3.0))


def test_object_and_record_arrays_become_records():
    for array in (np.array([print, None]), np.zeros(2, dtype=[("a", "f4")])):
        (found,) = load(pickle.dumps([array]))
        assert isinstance(found, Inert) and not found.understood
        assert unknown_under(found)[-1].startswith("numpy.ndarray of numpy.dtype")


# Streams of Python 2 and of protocol 0, written by hand: (bytes, value).
OLD = [
    (b"I01\n.", True),
    (b"I00\n.", False),
    (b"I-7\n.", -7),
    (b"L123456789012345678901L\n.", 123456789012345678901),
    (b"F0.5\n.", 0.5),
    (b"S'it\\'s \\x41\\101\\n'\n.", "it's AA\n"),
    (b'S"\\xff\\x00"\n.', b"\xff\x00"),
    (b"V\\u00e9t\\u00e9\n.", "été"),
    (b"U\x03abc.", "abc"),
    (b"U\x02\xff\xfe.", b"\xff\xfe"),
    (b"T\x03\x00\x00\x00abc.", "abc"),
    (b"(lp0\nI1\naI2\na.", [1, 2]),
    (b"(dp0\nS'a'\np1\nI1\ns.", {"a": 1}),
    (b"(I1\nI2\ntp0\n0g0\n.", (1, 2)),
    (b"(I1\nI2\nl.", [1, 2]),
    (b"(S'a'\nI1\nd.", {"a": 1}),
    (b"(I1\nI2\n1I3\n.", 3),
    (b"I4\n2\x86.", (4, 4)),
    (b"c__builtin__\nset\n((lI1\natR.", {1}),
    (b"c__builtin__\ncomplex\n(F1.0\nF2.0\ntR.", 1 + 2j),
    (b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'a'\naI1\naatR.", {"a": 1}),
    (b"\x8b\x02\x00\x00\x00\xff\x7f.", 32767),
    (b"\x95\x02\x00\x00\x00\x00\x00\x00\x00K\x05.", 5),
]


@pytest.mark.parametrize(("data", "value"), OLD, ids=[repr(d) for d, _ in OLD])
def test_old_streams(data, value):
    assert load(data) == value and type(load(data)) in (type(value), PlainDict)


class Thing:
    """Stands for any class that this package does not know."""

    def __init__(self):
        self.number, self.inner = 3, {"a": 1}


class ThingList(list):
    pass


class ThingDict(dict):
    pass


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unknown_objects_are_records(protocol):
    a_list, a_dict = ThingList([1, 2]), ThingDict(k="v")
    thing, things, mapping = load(pickle.dumps([Thing(), a_list, a_dict], protocol))
    assert thing.class_name == "Thing" and thing.state == {"number": 3, "inner": {"a": 1}} and not thing.understood
    assert things.items == [1, 2] and mapping.entries == {"k": "v"}
    assert unknown_under([thing]) == [f"{Thing.__module__}.Thing"]


def test_classes_of_python_2_are_records():
    for data in (b"(ino.such\nThing\n(dS'a'\nI1\nsb.", b"(cno.such\nThing\nI5\no(dS'a'\nI1\nsb."):
        found = load(data)
        assert isinstance(found, Inert) and found.name == "no.such.Thing" and found.state == {"a": 1}


def test_easydict_and_persistence_are_found_under_any_prefix():
    data = authoring.dumps(authoring.discriminator(), 2)
    moved = data.replace(b"ctorch_utils.persistence", b"cmy.copy.of.torch_utils.persistence")
    assert moved != data
    found = read_stream(moved)
    assert found.kind == "persistent" and found.name == "Discriminator" and unknown_under(found) == []
    assert found.source_sha256 == "" or len(found.source_sha256) == 64
    renamed = authoring.dumps(authoring.EasyDict(a=1), 2).replace(b"cdnnlib.util", b"ca.b.dnnlib.util")
    assert load(renamed) == {"a": 1}


def test_the_source_text_is_not_kept():
    raw = authoring.dumps(authoring.snapshot())
    found = read_stream(raw)
    texts, pending, seen = [], [found], set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            pending += [*part, *part.values()]
        elif isinstance(part, list | tuple):
            pending += part
        elif isinstance(part, Inert):
            pending += [part.state, part.args, part.kwargs]
            assert part.source_sha256 != "" or part.kind != "persistent"
    assert "Generator" not in texts and authoring.SOURCE not in texts and "G_ema" in texts


@pytest.mark.parametrize(
    "target",
    [
        global_of("no.such", "Thing"),  # a stand-in for a class
        global_of("collections", "OrderedDict"),
        global_of("torch._utils", "_rebuild_tensor_v2"),
        global_of("torch", "float32"),
        b"]",
        b"}",
        b"K\x01",
        b")",
    ],
)
def test_build_takes_fresh_records_only(target):
    state = b"}X\x04\x00\x00\x00nameX\x01\x00\x00\x00xs"
    with pytest.raises(UsageError, match="attributes set on"):
        load(b"\x80\x02" + target + state + b"b.")
    twice = b"\x80\x02" + global_of("no.such", "Thing") + b")\x81" + state + b"b" + state + b"b."
    with pytest.raises(UsageError, match="attributes set on"):
        load(twice)


def test_build_leaves_nothing_behind():
    """A state that one load sets is not there in the next, and a record of names cannot be written to."""
    state = b"}X\x04\x00\x00\x00nameX\x01\x00\x00\x00xs"
    first = load(b"\x80\x02" + global_of("no.such", "Thing") + b")\x81" + state + b"b.")
    second = load(b"\x80\x02" + global_of("no.such", "Thing") + b")\x81.")
    assert first.state == {"name": "x"} and second.state is None
    named = load(b"\x80\x02" + global_of("no.such", "Thing") + b".")
    assert isinstance(named, Named)
    with pytest.raises(AttributeError):
        named.name = "other"
    with pytest.raises((AttributeError, TypeError)):
        named.other = 1


def test_reader_and_python_agree_on_copyreg():
    assert copyreg.__newobj__.__module__ == "copyreg"
    data = b"\x80\x02" + global_of("copyreg", "__newobj__") + global_of("collections", "OrderedDict") + b"\x85R."
    assert load(data) == pickle.loads(data) == {}
