"""The opcodes of Python's object streams, protocols 0 to 5, as steps of `machine.Reader`.

By their documented meaning; the comments give the names that Python's disassembler uses.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

from gansegctl.errors import GansegError
from gansegctl.generators.checkpoints.unpickle.machine import Reader
from gansegctl.generators.checkpoints.unpickle.python_values import make_set

_BROKEN = (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error, RuntimeError, MemoryError)
_LONGEST_LINE = 1 << 23  # of a text in protocol 0
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v", b"\n": b""}

OPCODES: dict[int, Callable[[Reader], None]] = {}


def _on(code: int) -> Callable[[Callable[[Reader], None]], Callable[[Reader], None]]:
    def register(function: Callable[[Reader], None]) -> Callable[[Reader], None]:
        OPCODES[code] = function
        return function

    return register


def _constant(value: Any) -> Callable[[Reader], None]:
    return lambda r: r.push(value)


def _number(layout: str) -> Callable[[Reader], None]:
    return lambda r: r.push(r.number(layout))


def _new(make: type) -> Callable[[Reader], None]:
    def push(r: Reader) -> None:
        r.session.budget.take_memory(250)
        r.push(make())

    return push


def _text(layout: str) -> Callable[[Reader], None]:
    return lambda r: r.push(r.text(r.number(layout)))


def _blob(layout: str, old: bool = False) -> Callable[[Reader], None]:
    def push(r: Reader) -> None:
        value = r.blob(r.number(layout))
        r.push(_old_string(r, value) if old else value)

    return push


def _old_string(r: Reader, value: bytes | memoryview) -> Any:
    """Python 2 has one type for text and bytes: text where it is ASCII."""
    if isinstance(value, memoryview):
        return value
    r.session.budget.take_memory(len(value) + 60)
    return value.decode("ascii") if value.isascii() else value


def _put(layout: str) -> Callable[[Reader], None]:
    return lambda r: r.put(r.number(layout))


def _get(layout: str) -> Callable[[Reader], None]:
    return lambda r: r.push(r.finished(r.memo[r.number(layout)]))


def _tuple(count: int) -> Callable[[Reader], None]:
    def push(r: Reader) -> None:
        if len(r.stack) < count:
            raise r.damaged("too few values on the stack")
        r.stack[len(r.stack) - count :] = [tuple(r.finished(v) for v in r.stack[len(r.stack) - count :])]

    return push


def _refuse(what: str) -> Callable[[Reader], None]:
    def refuse(r: Reader) -> None:
        raise r.damaged(f"{what}, which no checkpoint uses")

    return refuse


OPCODES.update(
    {
        0x4E: _constant(None),  # NONE
        0x88: _constant(True),  # NEWTRUE
        0x89: _constant(False),  # NEWFALSE
        0x4A: _number("<i"),  # BININT
        0x4B: _number("<B"),  # BININT1
        0x4D: _number("<H"),  # BININT2
        0x47: _number(">d"),  # BINFLOAT
        0x7D: _new(dict),  # EMPTY_DICT
        0x5D: _new(list),  # EMPTY_LIST
        0x8F: _new(set),  # EMPTY_SET
        0x29: _constant(()),  # EMPTY_TUPLE
        0x8C: _text("<B"),  # SHORT_BINUNICODE
        0x58: _text("<I"),  # BINUNICODE
        0x8D: _text("<Q"),  # BINUNICODE8
        0x43: _blob("<B"),  # SHORT_BINBYTES
        0x42: _blob("<I"),  # BINBYTES
        0x8E: _blob("<Q"),  # BINBYTES8
        0x96: _blob("<Q"),  # BYTEARRAY8
        0x55: _blob("<B", old=True),  # SHORT_BINSTRING
        0x54: _blob("<I", old=True),  # BINSTRING
        0x71: _put("<B"),  # BINPUT
        0x72: _put("<I"),  # LONG_BINPUT
        0x68: _get("<B"),  # BINGET
        0x6A: _get("<I"),  # LONG_BINGET
        0x85: _tuple(1),
        0x86: _tuple(2),
        0x87: _tuple(3),
        0x82: _refuse("a name of the extension registry"),
        0x83: _refuse("a name of the extension registry"),
        0x84: _refuse("a name of the extension registry"),
        0x97: _refuse("a buffer outside the file"),
        0x98: _refuse("a buffer outside the file"),
    }
)


@_on(0x80)
def _proto(r: Reader) -> None:
    version = r.number("<B")
    if version > 5:
        raise r.damaged(f"protocol {version}, newer than 5")


@_on(0x95)
def _frame(r: Reader) -> None:
    size = r.number("<Q")
    if size > len(r.data) - r.position:
        raise r.damaged("it ends in the middle, as a download that was cut off")


@_on(0x28)
def _mark(r: Reader) -> None:
    r.session.budget.take_memory(60)
    r.marks.append(r.stack)
    r.stack = []


@_on(0x30)
def _pop(r: Reader) -> None:
    if r.stack:
        r.stack.pop()
    else:
        r.pop_mark()


@_on(0x31)
def _pop_to_mark(r: Reader) -> None:
    r.pop_mark()


@_on(0x32)
def _dup(r: Reader) -> None:
    r.push(r.finished(r.stack[-1]))


@_on(0x49)
def _int(r: Reader) -> None:
    line = r.line()
    r.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))


@_on(0x4C)
def _long(r: Reader) -> None:
    r.push(int(r.line().removesuffix(b"L")))


@_on(0x8A)
def _long1(r: Reader) -> None:
    r.push(int.from_bytes(r.take(r.number("<B")), "little", signed=True))


@_on(0x8B)
def _long4(r: Reader) -> None:
    size = r.number("<i")
    if not 0 <= size <= 1024:
        raise r.damaged(f"a number of {size} bytes")
    r.push(int.from_bytes(r.take(size), "little", signed=True))


@_on(0x46)
def _float(r: Reader) -> None:
    r.push(float(r.line()))


@_on(0x53)
def _string(r: Reader) -> None:
    line = r.line(_LONGEST_LINE)
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise r.damaged("a string without its quotes")

    def character(match: re.Match) -> bytes:
        code, octal, other = match.groups()
        if code or octal:
            return bytes([int(code, 16) if code else int(octal, 8) & 0xFF])
        return _ESCAPED.get(other, other if other in b"\\'\"" else b"\\" + other)

    r.push(_old_string(r, _ESCAPE.sub(character, line[1:-1])))


@_on(0x56)
def _unicode(r: Reader) -> None:
    line = r.line(_LONGEST_LINE)
    r.session.budget.take_memory(4 * len(line))
    r.push(str(line, "raw-unicode-escape"))


@_on(0x70)
def _put_line(r: Reader) -> None:
    key = int(r.line())
    if not 0 <= key < 1 << 32:
        raise r.damaged(f"memo place {key}")
    r.put(key)


@_on(0x94)
def _memoize(r: Reader) -> None:
    r.put(len(r.memo))


@_on(0x67)
def _get_line(r: Reader) -> None:
    r.push(r.finished(r.memo[int(r.line())]))


@_on(0x74)
def _tuple_to_mark(r: Reader) -> None:
    r.push(tuple(r.finished(v) for v in r.pop_mark()))


@_on(0x6C)
def _list_to_mark(r: Reader) -> None:
    r.push([r.finished(v) for v in r.pop_mark()])


@_on(0x64)
def _dict_to_mark(r: Reader) -> None:
    flat = r.pop_mark()
    r.session.budget.take_memory(250)
    r.push({})
    r.set_items(r.stack[-1], flat)


@_on(0x91)
def _frozenset_to_mark(r: Reader) -> None:
    r.push(make_set(r.session, r.pop_mark(), frozenset))


@_on(0x61)
def _append(r: Reader) -> None:
    value = r.stack.pop()
    r.extend(r.stack[-1], [value])


@_on(0x65)
def _appends(r: Reader) -> None:
    values = r.pop_mark()
    r.extend(r.stack[-1], values)


@_on(0x73)
def _setitem(r: Reader) -> None:
    value = r.stack.pop()
    key = r.stack.pop()
    r.set_items(r.stack[-1], [key, value])


@_on(0x75)
def _setitems(r: Reader) -> None:
    flat = r.pop_mark()
    r.set_items(r.stack[-1], flat)


@_on(0x90)
def _additems(r: Reader) -> None:
    values = r.pop_mark()
    target = r.stack[-1]
    if not isinstance(target, set):
        raise r.damaged(f"members added to a {type(target).__name__}")
    target.update(make_set(r.session, values, set))


@_on(0x63)
def _global(r: Reader) -> None:
    module, name = r.line(), r.line()
    r.push(r.session.find(str(module, "utf-8"), str(name, "utf-8")))


@_on(0x93)
def _stack_global(r: Reader) -> None:
    name, module = r.stack.pop(), r.stack.pop()
    r.push(r.session.find(module, name))


@_on(0x52)
def _reduce(r: Reader) -> None:
    args = r.stack.pop()
    r.stack[-1] = r.session.call(r.stack[-1], args)


@_on(0x81)
def _newobj(r: Reader) -> None:
    args = r.stack.pop()
    r.stack[-1] = r.session.call(r.stack[-1], args, "object")


@_on(0x92)
def _newobj_ex(r: Reader) -> None:
    kwargs, args = r.stack.pop(), r.stack.pop()
    if not isinstance(kwargs, dict) or not all(isinstance(k, str) for k in kwargs):
        raise r.damaged("keyword arguments that are no dictionary of texts")
    r.stack[-1] = r.session.call(r.stack[-1], args, "object", kwargs)


@_on(0x6F)
def _obj(r: Reader) -> None:
    named, *args = r.pop_mark()
    r.push(r.session.call(named, tuple(r.finished(a) for a in args), "object"))


@_on(0x69)
def _inst(r: Reader) -> None:
    named = r.session.find(str(r.line(), "utf-8"), str(r.line(), "utf-8"))
    r.push(r.session.call(named, tuple(r.finished(a) for a in r.pop_mark()), "object"))


@_on(0x62)
def _build(r: Reader) -> None:
    state = r.stack.pop()
    r.build(state)


@_on(0x50)
def _persid(r: Reader) -> None:
    r.push(_persistent(r, str(r.line(), "ascii")))


@_on(0x51)
def _binpersid(r: Reader) -> None:
    r.push(_persistent(r, r.stack.pop()))


def _persistent(r: Reader, key: Any) -> Any:
    if r.persistent is None:
        raise r.damaged("a reference to something outside the file")
    return r.persistent(key)


def read(reader: Reader) -> Any:
    """The object of one stream; `position` is then behind it. UsageError for anything that is not well formed."""
    step, known, data, size = reader.session.budget.step, OPCODES, reader.data, len(reader.data)
    try:
        while True:
            if reader.position >= size:
                reader.take(1)
            code = data[reader.position]
            reader.position += 1
            if code == 0x2E:  # STOP
                return reader.finished(reader.stack.pop())
            step()
            known[code](reader)
    except GansegError:
        raise
    except _BROKEN as error:  # whatever an altered stream trips over is damage, not a fault of the caller
        why = str(error).splitlines()[0] if str(error) else "out of order"
        raise reader.damaged(f"{type(error).__name__}: {why[:200]}") from error
