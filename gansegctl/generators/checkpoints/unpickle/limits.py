"""How much a checkpoint may ask for while it is read: bounded by the size of its file, counted before it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gansegctl.errors import UsageError

REMEDY = "download the file again from its publisher and compare its sha256; if it stays like this, do not trust it"
MEBIBYTE = 1 << 20
_LARGEST_SIDE = 1 << 40


def damaged(label: str, why: str) -> UsageError:
    """The error for content that no trainer writes: cut off, altered, or made to exhaust or to attack its reader."""
    return UsageError(
        f"got {label}: damaged or abusive: {why}", wanted="a checkpoint as its trainer wrote it", remedy=REMEDY
    )


def shown(value: Any) -> str:
    """A value of the file for a message: short, printable, and never the repr of a structure, which may be endless."""
    if isinstance(value, str | bytes):
        return repr(value[:60])
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() <= 80):
        return repr(value)
    return f"a {type(value).__name__}"


def count_of(value: Any) -> int:
    """The value, if it may be a number of elements. ValueError for anything else, negative and absurd ones too."""
    if type(value) is not int or not 0 <= value < _LARGEST_SIDE:
        raise ValueError(f"{shown(value)} where a count belongs")
    return value


@dataclass(frozen=True)
class Limits:
    """Upper bounds of one load.

    storage_bytes: tensor values, all together. memory_bytes: everything made while reading, estimated from above.
    operations: opcodes over all nested streams. depth: nesting of the result. text_bytes: one string. name_bytes: one
    name of a module or class. nested: streams within streams. A state of the art StyleGAN-XL snapshot with both of its
    discriminators stays below 600,000 operations and a depth of 60.
    """

    storage_bytes: int
    memory_bytes: int
    operations: int = 2_000_000
    depth: int = 200
    text_bytes: int = 64 * MEBIBYTE
    name_bytes: int = 512
    nested: int = 2

    @classmethod
    def for_file(cls, size: int) -> Limits:
        """For a file of `size` bytes: at most twice the file and 48 MiB, which leaves 16 MiB to the interpreter."""
        return cls(storage_bytes=size, memory_bytes=2 * size + 48 * MEBIBYTE)


class Budget:
    """The rest of the `Limits` of one load. Each method takes some; UsageError when there is too little."""

    def __init__(self, limits: Limits, label: str) -> None:
        self.limits, self.label = limits, label
        self.operations = limits.operations
        self.memory = limits.memory_bytes
        self.storage = limits.storage_bytes
        self.views = 2 * limits.storage_bytes + MEBIBYTE

    def step(self) -> None:
        """One opcode, and what it may leave on the stack."""
        self.operations -= 1
        if self.operations < 0:
            raise damaged(self.label, f"more than {self.limits.operations} operations")
        self.memory -= 40
        if self.memory < 0:
            self.take_memory(0)

    def take_memory(self, size: int) -> None:
        """`size` bytes that the reader is about to allocate."""
        self.memory -= size
        if self.memory < 0:
            raise damaged(self.label, f"reading it would need more than {self.limits.memory_bytes} bytes of memory")

    def take_storage(self, size: int) -> None:
        """`size` bytes of tensor values: more of them than the file has bytes cannot be."""
        self.storage -= size
        if self.storage < 0:
            raise damaged(self.label, f"more tensor bytes than its size of {self.limits.storage_bytes}")
        self.take_memory(size)

    def take_view(self, size: int) -> None:
        """`size` bytes that a tensor would fill if it were copied: repeated views must not grow past the file."""
        self.views -= size
        if self.views < 0:
            raise damaged(self.label, "its tensors repeat the same bytes beyond the size of the file")
        self.take_memory(1500)
