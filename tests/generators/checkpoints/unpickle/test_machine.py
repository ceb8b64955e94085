"""The restricted reader: the same values as Python's own for plain data, and nothing but data for all else."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import importlib.abc
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import authoring
from helpers.watching import watch

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.reading import read
from gansegctl.generators.checkpoints.containers.torch_files import nested_storage
from gansegctl.generators.checkpoints.families import nvlabs
from gansegctl.generators.checkpoints.unpickle import known_globals, opcodes
from gansegctl.generators.checkpoints.unpickle.inert import Inert, Named, PlainDict, unknown_under, walk
from gansegctl.generators.checkpoints.unpickle.limits import MEBIBYTE, Limits, shown
from gansegctl.generators.checkpoints.unpickle.machine import Reader, Session

PROTOCOLS = range(6)


def session(size: int = 1 << 20, **limits) -> Session:
    return Session(
        Limits(**{"storage_bytes": size, "memory_bytes": 2 * size + 48 * MEBIBYTE, **limits}),
        known_globals.find,
        "x.pkl",
    )


def load(data: bytes, **limits):
    return opcodes.read(Reader(data, session(**limits)))


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
    data = pickle.dumps(np.arange(3.0), 2)
    assert b"cnumpy._core.multiarray\n" in data
    np.testing.assert_array_equal(load(data.replace(b"cnumpy._core.multiarray", b"c" + old)), np.arange(3.0))


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
    found = opcodes.read(Reader(moved, Session(Limits.for_file(len(moved)), known_globals.find, nested=nested_storage)))
    assert found.kind == "persistent" and found.name == "Discriminator" and unknown_under(found) == []
    assert found.source_sha256 == "" or len(found.source_sha256) == 64
    renamed = authoring.dumps(authoring.EasyDict(a=1), 2).replace(b"cdnnlib.util", b"ca.b.dnnlib.util")
    assert load(renamed) == {"a": 1}


def test_the_source_text_is_not_kept():
    raw = authoring.dumps(authoring.snapshot())
    found = opcodes.read(Reader(raw, Session(Limits.for_file(len(raw)), known_globals.find, nested=nested_storage)))
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


# --- nothing executes -----------------------------------------------------------------------------------------------


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _touch(canary) -> bytes:
    return b"X" + struct.pack("<I", len(f"touch {canary}")) + f"touch {canary}".encode()


def _reduce(function):
    return lambda canary: b"\x80\x02" + _global(*function) + _touch(canary) + b"\x85R."


ATTACKS = {
    "os.system": _reduce(("os", "system")),
    "posix.system": _reduce(("posix", "system")),
    "subprocess.getoutput": _reduce(("subprocess", "getoutput")),
    "python 2, protocol 0": lambda c: b"cos\nsystem\n(S'touch " + str(c).encode() + b"'\ntR.",
    "python 2, INST": lambda c: b"(S'touch " + str(c).encode() + b"'\nios\nsystem\n.",
    "python 2, OBJ": lambda c: b"(cos\nsystem\nS'touch " + str(c).encode() + b"'\no.",
    "builtins.eval": lambda c: pickle.dumps(_Call(eval, f"open({str(c)!r}, 'w')")),
    "builtins.exec": lambda c: pickle.dumps(_Call(exec, f"open({str(c)!r}, 'w')")),
    "builtins.open": lambda c: pickle.dumps(_Call(open, str(c), "w")),
    "builtins.getattr": lambda c: pickle.dumps(_Call(getattr(os, "system"), f"touch {c}"), 3),  # noqa: B009
    "copyreg.__newobj__": lambda c: (
        b"\x80\x02" + _global("copyreg", "__newobj__") + _global("subprocess", "Popen") + _touch(c) + b"\x86R."
    ),
    "NEWOBJ": lambda c: b"\x80\x02" + _global("subprocess", "Popen") + _touch(c) + b"\x85\x81.",
    "NEWOBJ_EX": lambda c: (
        b"\x80\x04" + _global("subprocess", "Popen") + _touch(c) + b"\x85}X\x05\x00\x00\x00shell\x88s\x92."
    ),
    "dropped call": lambda c: b"\x80\x02" + _global("os", "system") + _touch(c) + b"\x85R0}.",
    "in the memo": lambda c: (
        b"\x80\x02" + _global("os", "system") + b"q\x000" + _touch(c) + b"q\x010h\x00h\x01\x85q\x020h\x00h\x02R."
    ),
    "as the items of a dict": lambda c: (
        b"\x80\x02"
        + _global("collections", "OrderedDict")
        + b")R"
        + b"K\x01"
        + _reduce(("os", "system"))(c)[2:-1]
        + b"s."
    ),
    "through torch.load": lambda c: (
        b"\x80\x02"
        + _global("torch", "load")
        + _global("io", "BytesIO")
        + b"B"
        + struct.pack("<I", len(_reduce(("os", "system"))(c)))
        + _reduce(("os", "system"))(c)
        + b"\x85R\x85R."
    ),
}


class _Call:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_calls_in_the_file_are_not_made(attack, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "network.pkl"
    path.write_bytes(attack(canary))
    read_and_use(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    ["os.system", "dropped call", "python 2, OBJ", "builtins.eval", "builtins.open", "in the memo", "python 2, INST"],
)
def test_the_attacks_are_real(name, tmp_path, monkeypatch):
    """The same bytes do act when Python reads them; without this the test above could not fail."""
    canary, made = tmp_path / "canary", []
    popen = subprocess.Popen

    class Waited(popen):  # so that no process outlives the test
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(subprocess, "Popen", Waited)
    result = pickle.loads(ATTACKS[name](canary))
    for process in made:
        process.wait()
    if isinstance(result, io.IOBase):
        result.close()
    assert canary.exists()


def read_and_use(path) -> str:
    """Read, ask for the generator, look at every record; "refused" or "read". Anything else than reading fails."""
    read_warmly()
    outcome = "refused"
    with watch() as seen, contextlib.suppress(UsageError):
        loaded = read(path)
        outcome = "read"
        assert all(isinstance(found.name, str) for _, found in walk(loaded.value) if isinstance(found, Inert | Named))
        nvlabs.generator_record(loaded)
    assert seen == []
    return outcome


def read_warmly(_done=[]):  # noqa: B006
    """The first use of torch and numpy imports parts of their own: not what is looked for."""
    if not _done:
        for value in (authoring.snapshot(), {"a": np.arange(3)}):
            raw = authoring.dumps(value)
            opcodes.read(Reader(raw, Session(Limits.for_file(len(raw)), known_globals.find, nested=nested_storage)))
        _done.append(True)


def test_the_watch_sees_what_it_should():
    with watch() as seen:
        exec("x = 1")
        os.system("true")
        with open(os.devnull, "w"):
            pass
    assert {e.split()[0] for e in seen} >= {"exec", "compile", "os.system", "open"}


def tampered(kind: str, canary) -> bytes:
    """A snapshot that acts when its own tools read it."""
    code = f"open({str(canary)!r}, 'w').close()\n"
    generator = authoring.stylegan2()
    if kind == "source text":
        object.__setattr__(generator, "_told", ("Generator", code))
        return authoring.dumps(authoring.snapshot(generator, whole=False))
    if kind == "top level":
        plain = authoring.dumps(authoring.snapshot(generator, whole=False), 2)
        return plain[:2] + ATTACKS["dropped call"](canary)[2:-2] + plain[2:]
    if kind == "storage bytes":
        call = pickle.dumps(_Call(exec, code), 2)
        stored = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        generator.w_hidden = _Call(torch.storage._load_from_bytes, stored + call + pickle.dumps([], 2))
        return authoring.dumps(authoring.snapshot(generator, whole=False))
    if kind == "attribute":
        generator.extra = _Call(exec, code)
        return authoring.dumps(authoring.snapshot(generator, whole=False))
    network = authoring.discriminator()
    network.extra = _Call(exec, code)
    return authoring.dumps(authoring.snapshot(generator, D=network))


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("source text", "read"),
        ("top level", "read"),
        ("storage bytes", "refused"),
        ("attribute", "read"),
        ("discriminator", "read"),
    ],
)
def test_tampered_snapshots_do_nothing(kind, outcome, tmp_path):
    path, canary = tmp_path / "network.pkl", tmp_path / "canary"
    path.write_bytes(tampered(kind, canary))
    assert read_and_use(path) == outcome
    assert not canary.exists()


def test_the_tampered_storage_is_real(tmp_path):
    call = pickle.dumps(_Call(exec, f"open({str(tmp_path / 'canary')!r}, 'w').close()"), 2)
    stored = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    torch.storage._load_from_bytes(stored + call + pickle.dumps([], 2))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "target",
    [
        _global("no.such", "Thing"),  # a stand-in for a class
        _global("collections", "OrderedDict"),
        _global("torch._utils", "_rebuild_tensor_v2"),
        _global("torch", "float32"),
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
    twice = b"\x80\x02" + _global("no.such", "Thing") + b")\x81" + state + b"b" + state + b"b."
    with pytest.raises(UsageError, match="attributes set on"):
        load(twice)


def test_build_leaves_nothing_behind():
    """What one load sets is not there in the next, and a record of names cannot be written to."""
    state = b"}X\x04\x00\x00\x00nameX\x01\x00\x00\x00xs"
    first = load(b"\x80\x02" + _global("no.such", "Thing") + b")\x81" + state + b"b.")
    second = load(b"\x80\x02" + _global("no.such", "Thing") + b")\x81.")
    assert first.state == {"name": "x"} and second.state is None
    named = load(b"\x80\x02" + _global("no.such", "Thing") + b".")
    assert isinstance(named, Named)
    with pytest.raises(AttributeError):
        named.name = "other"
    with pytest.raises((AttributeError, TypeError)):
        named.other = 1


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self):
        self.asked: list[str] = []

    def find_spec(self, name, path=None, target=None):
        self.asked.append(name)


def test_no_module_of_the_file_is_imported(tmp_path, monkeypatch):
    read_warmly()
    finder = _Finder()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    names = [
        "no_such_module_of_anyone.deep",
        "turtledemo.clock",
        "antigravity",
        "torch_utils.persistence",
        "dnnlib.util",
    ]
    names = [n for n in names if n.partition(".")[0] not in sys.modules]
    assert len(names) >= 4
    for protocol in (0, 2, 4):
        path = tmp_path / f"{protocol}.pkl"
        if protocol == 4:
            parts = [b"\x8c%c%s\x8c\x05Thing\x93)R" % (len(n), n.encode()) for n in names]
            path.write_bytes(b"\x80\x04](" + b"".join(parts) + b"e.")
        else:
            parts = [_global(n, "Thing") + b"(tRa" for n in names]
            path.write_bytes(b"]" + b"".join(parts) + b".")
        loaded = read(path)
        assert [r.name for r in loaded.value] == [f"{n}.Thing" for n in names]
    whole = tmp_path / "snapshot.pkl"
    whole.write_bytes(authoring.dumps(authoring.snapshot()))
    nvlabs.generator_record(read(whole))
    assert finder.asked == []
    assert not {n.partition(".")[0] for n in names} & set(sys.modules)
    with pytest.raises(ModuleNotFoundError):
        __import__("no_such_module_of_anyone")
    assert finder.asked == ["no_such_module_of_anyone"]  # the finder would have seen it


# --- limits ---------------------------------------------------------------------------------------------------------


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
    values = _Call(torch._utils._rebuild_tensor_v2, _typed_storage(), offset, size, stride, False, {})
    raw = authoring.dumps(values)
    reader = Reader(raw, Session(Limits.for_file(len(raw)), known_globals.find, nested=nested_storage))
    if good:
        assert torch.equal(opcodes.read(reader), torch.arange(6.0).as_strided(size, stride, offset))
    else:
        with pytest.raises(UsageError):
            opcodes.read(reader)


def test_reader_and_python_agree_on_copyreg():
    assert copyreg.__newobj__.__module__ == "copyreg"
    data = b"\x80\x02" + _global("copyreg", "__newobj__") + _global("collections", "OrderedDict") + b"\x85R."
    assert load(data) == pickle.loads(data) == {}


@pytest.mark.parametrize("numel", ["a tensor", "an endless list"])
def test_messages_never_spell_structures(numel):
    """The repr of a list that holds itself twice, 40 levels deep, would not end; that of a tensor imports."""
    below: list = [1]
    for _ in range(40):
        below = [below, below]
    odd = torch.ones(2) if numel == "a tensor" else below
    raw = authoring.dumps(_Call(torch._utils._rebuild_tensor_v2, _typed_storage(), odd, (2,), (1,), False, {}), 2)
    with watch() as seen, pytest.raises(UsageError, match=r"a (Tensor|list) where a count belongs"):
        opcodes.read(Reader(raw, Session(Limits.for_file(len(raw)), known_globals.find, nested=nested_storage)))
    assert seen == []
    assert len(repr(Inert("a.b", state=below))) < 40 and len(shown("x" * 10_000)) < 80 and shown(below) == "a list"


def _typed_storage():
    values = torch.arange(6.0).untyped_storage()
    return torch.storage.TypedStorage(wrap_storage=values, dtype=torch.float32, _internal=True)
