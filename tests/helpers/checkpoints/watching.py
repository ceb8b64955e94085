"""Sees whether reading a file does anything but read: imports, code, processes, other files. For tests."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

_WRITING = ("w", "a", "x", "+")
_FORBIDDEN = (
    "import",
    "exec",
    "compile",
    "code.__new__",
    "function.__new__",
    "marshal.",
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.fork",
    "os.spawn",
    "os.posix_spawn",
    "os.putenv",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.chmod",
    "shutil.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "urllib.",
    "object.__setattr__",
)
_seen: list[str] | None = None


def _hook(event: str, args: tuple) -> None:
    if _seen is None:
        return
    writes = event == "open" and isinstance(args[1], str) and any(letter in args[1] for letter in _WRITING)
    if writes or event.startswith(_FORBIDDEN):
        _seen.append(f"{event} {args!r:.200}")


sys.addaudithook(_hook)  # hooks cannot be taken away again: this one sleeps unless `watch` is open


@contextlib.contextmanager
def watch() -> Iterator[list[str]]:
    """The list fills with what was done that reading alone would not do."""
    global _seen
    _seen = seen = []
    try:
        yield seen
    finally:
        _seen = None
