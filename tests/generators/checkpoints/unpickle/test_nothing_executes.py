"""Files that act when Python reads them: the machine imports nothing they name and makes none of their calls."""

from __future__ import annotations

import contextlib
import importlib.abc
import io
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.checkpoints import authoring
from helpers.checkpoints.object_streams import Call, global_of, read_stream
from helpers.checkpoints.watching import watch

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.reading import read
from gansegctl.generators.checkpoints.families import nvlabs
from gansegctl.generators.checkpoints.unpickle.inert import Inert, Named, walk


def _touch(canary) -> bytes:
    return b"X" + struct.pack("<I", len(f"touch {canary}")) + f"touch {canary}".encode()


def _reduce(function):
    return lambda canary: b"\x80\x02" + global_of(*function) + _touch(canary) + b"\x85R."


ATTACKS = {
    "os.system": _reduce(("os", "system")),
    "posix.system": _reduce(("posix", "system")),
    "subprocess.getoutput": _reduce(("subprocess", "getoutput")),
    "python 2, protocol 0": lambda c: b"cos\nsystem\n(S'touch " + str(c).encode() + b"'\ntR.",
    "python 2, INST": lambda c: b"(S'touch " + str(c).encode() + b"'\nios\nsystem\n.",
    "python 2, OBJ": lambda c: b"(cos\nsystem\nS'touch " + str(c).encode() + b"'\no.",
    "builtins.eval": lambda c: pickle.dumps(Call(eval, f"open({str(c)!r}, 'w')")),
    "builtins.exec": lambda c: pickle.dumps(Call(exec, f"open({str(c)!r}, 'w')")),
    "builtins.open": lambda c: pickle.dumps(Call(open, str(c), "w")),
    "builtins.getattr": lambda c: pickle.dumps(Call(getattr(os, "system"), f"touch {c}"), 3),  # noqa: B009
    "copyreg.__newobj__": lambda c: (
        b"\x80\x02" + global_of("copyreg", "__newobj__") + global_of("subprocess", "Popen") + _touch(c) + b"\x86R."
    ),
    "NEWOBJ": lambda c: b"\x80\x02" + global_of("subprocess", "Popen") + _touch(c) + b"\x85\x81.",
    "NEWOBJ_EX": lambda c: (
        b"\x80\x04" + global_of("subprocess", "Popen") + _touch(c) + b"\x85}X\x05\x00\x00\x00shell\x88s\x92."
    ),
    "dropped call": lambda c: b"\x80\x02" + global_of("os", "system") + _touch(c) + b"\x85R0}.",
    "in the memo": lambda c: (
        b"\x80\x02" + global_of("os", "system") + b"q\x000" + _touch(c) + b"q\x010h\x00h\x01\x85q\x020h\x00h\x02R."
    ),
    "as the items of a dict": lambda c: (
        b"\x80\x02"
        + global_of("collections", "OrderedDict")
        + b")R"
        + b"K\x01"
        + _reduce(("os", "system"))(c)[2:-1]
        + b"s."
    ),
    "through torch.load": lambda c: (
        b"\x80\x02"
        + global_of("torch", "load")
        + global_of("io", "BytesIO")
        + b"B"
        + struct.pack("<I", len(_reduce(("os", "system"))(c)))
        + _reduce(("os", "system"))(c)
        + b"\x85R\x85R."
    ),
}


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
            read_stream(raw)
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
        object.__setattr__(generator, "_named", ("Generator", code))
        return authoring.dumps(authoring.snapshot(generator, whole=False))
    if kind == "top level":
        plain = authoring.dumps(authoring.snapshot(generator, whole=False), 2)
        return plain[:2] + ATTACKS["dropped call"](canary)[2:-2] + plain[2:]
    if kind == "storage bytes":
        call = pickle.dumps(Call(exec, code), 2)
        stored = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        generator.w_hidden = Call(torch.storage._load_from_bytes, stored + call + pickle.dumps([], 2))
        return authoring.dumps(authoring.snapshot(generator, whole=False))
    if kind == "attribute":
        generator.extra = Call(exec, code)
        return authoring.dumps(authoring.snapshot(generator, whole=False))
    network = authoring.discriminator()
    network.extra = Call(exec, code)
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
    call = pickle.dumps(Call(exec, f"open({str(tmp_path / 'canary')!r}, 'w').close()"), 2)
    stored = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    torch.storage._load_from_bytes(stored + call + pickle.dumps([], 2))
    assert (tmp_path / "canary").exists()


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
            parts = [global_of(n, "Thing") + b"(tRa" for n in names]
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
