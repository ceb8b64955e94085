"""A reader of Python's object streams that cannot execute: protocols 0 to 5, own interpreter, every name inert.

The format is a program for a small stack machine; the opcodes and their meaning are those documented by Python's own
disassembler. Three of them (REDUCE, NEWOBJ, BUILD and their older forms) are how such files run code. Here a name is
looked up in a fixed table of our own functions (`known_globals`) and never imported; any other becomes a record.

torch has a weights-only unpickler as well. It is not used: it refuses every class that it was not told to import, and
has no stand-in for the persistent classes of NVlabs' snapshots, whose source text would have to run first. It reads
torch's own containers only, not the bare streams of those snapshots and of TensorFlow. It has no budget, so that a
file of a few bytes may ask for any amount of memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from gansegctl.errors import GansegError
from gansegctl.generators.checkpoints.unpickle.inert import Cell, Inert, PlainDict, check_key
from gansegctl.generators.checkpoints.unpickle.limits import damaged
from gansegctl.generators.checkpoints.unpickle.numpy_values import fill
from gansegctl.generators.checkpoints.unpickle.nvlabs_objects import give_state
from gansegctl.generators.checkpoints.unpickle.session import Session

VIEW_FROM = 4096  # byte strings from this length on stay views of the file
_SIZES = {"B": 1, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "d": 8}


class Reader:
    """The stack machine over `data` from `position` on; `persistent` resolves persistent ids (None: refuse them)."""

    def __init__(
        self, data: Any, session: Session, position: int = 0, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.data, self.session, self.position, self.persistent = memoryview(data), session, position, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def damaged(self, why: str) -> GansegError:
        """The error for this place of the file."""
        return damaged(self.session.label, f"{why} (at byte {self.position} of its object stream)")

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise self.damaged("it ends in the middle, as a download that was cut off")
        return self.data[start : self.position]

    def number(self, layout: str) -> Any:
        """The next number, in struct's notation."""
        return struct.unpack(layout, self.take(_SIZES[layout[-1]]))[0]

    def line(self, limit: int = 1024) -> bytes:
        """The bytes up to the next line end, which is skipped."""
        size = 256
        while True:
            window = bytes(self.data[self.position : self.position + size])
            end = window.find(b"\n")
            if end >= 0:
                self.position += end + 1
                self.session.budget.take_memory(end)
                return window[:end]
            if len(window) < size or size > limit:
                raise self.damaged("a line without an end")
            size *= 4

    def text(self, count: int) -> str:
        """The next `count` bytes as UTF-8."""
        raw = self.take(count)
        if count > self.session.limits.text_bytes:
            raise self.damaged(f"a text of {count} bytes")
        # Python stores a text at the width of its widest character: count that before it is made.
        widest = 0 if count < 256 else int(np.frombuffer(raw, np.uint8).max())
        self.session.budget.take_memory(count * (4 if widest >= 0xF0 else 2 if widest >= 0xC4 else 1) + 60)
        return str(raw, "utf-8")

    def blob(self, count: int) -> bytes | memoryview:
        """The next `count` bytes as data; long ones are not copied."""
        raw = self.take(count)
        self.session.budget.take_memory(200 if count >= VIEW_FROM else count + 40)
        return raw if count >= VIEW_FROM else bytes(raw)

    def push(self, value: Any) -> None:
        """Onto the stack."""
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """All above the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def put(self, key: int) -> None:
        """Remember the top of the stack."""
        self.session.budget.take_memory(110)
        value = self.stack[-1]
        if isinstance(value, Cell):
            value.keys.append(key)
        self.memo[key] = value

    def finished(self, value: Any) -> Any:
        """The value, unless it is an array or dtype whose state never came."""
        if isinstance(value, Cell):
            raise self.damaged(f"a numpy {value.kind} that is used before it is filled")
        return value

    def set_items(self, target: Any, flat: list[Any]) -> None:
        """Keys and values in turn, into a dict or the record of one."""
        entries = target.entries if isinstance(target, Inert) else target
        if not isinstance(entries, dict) or len(flat) % 2:
            raise self.damaged(f"keys and values set on a {type(target).__name__}")
        self.session.budget.take_memory(60 * len(flat))
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            entries[check_key(self.session.label, key)] = self.finished(value)

    def extend(self, target: Any, values: list[Any]) -> None:
        """Append to a list or the record of one."""
        items = target.items if isinstance(target, Inert) else target
        if not isinstance(items, list):
            raise self.damaged(f"values appended to a {type(target).__name__}")
        self.session.budget.take_memory(16 * len(values))
        items.extend(self.finished(v) for v in values)

    def build(self, state: Any) -> None:
        """Give the object on top its state: only fresh records take one. Classes, functions and values never do."""
        target = self.stack[-1]
        if isinstance(target, Cell):
            value = fill(self.session, target, state)
            for key in target.keys:
                if self.memo.get(key) is target:
                    self.memo[key] = value
            self.stack[-1] = value
        elif isinstance(target, Inert) and target.kind != "persistent" and not target.built:
            give_state(self.session, target, self.finished(state))
        elif not isinstance(target, PlainDict):  # the attributes of an OrderedDict (`_metadata`) are not data
            raise self.damaged(f"attributes set on a {type(target).__name__}")
