"""Records without behaviour that stand in for the objects of a checkpoint, made anew for each load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gansegctl.generators.checkpoints.unpickle.limits import Limits, damaged


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """A class or function that the file names: the name only. Nothing is imported, nothing can be set on it.

    understood: known to this package and harmless. handler: our own function that makes the data of a call, or None.
    dtype: of a storage class.
    """

    name: str
    understood: bool = False
    handler: Callable[..., Any] | None = None
    dtype: torch.dtype | None = None


@dataclass(slots=True, eq=False, repr=False)
class Inert:
    """One object of the file as a record; it does nothing.

    name: dotted name of its class or function; of persistent objects the class name alone. kind: "object", "call" (the
    result of a call that was not made) or "persistent" (NVlabs persistence). args, kwargs: of the constructor or call.
    state: what the attributes would be set from, mostly a dict. items, entries: of subclasses of list and dict.
    source_sha256: digest of the source text stored with it, "" for none; the text itself is not kept.
    understood: False for names that this package does not know.
    """

    name: str
    kind: str = "object"
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    state: Any = None
    items: list = field(default_factory=list)
    entries: dict = field(default_factory=dict)
    source_sha256: str = ""
    understood: bool = False
    built: bool = False

    def __repr__(self) -> str:
        """The name alone: what a record holds may be endless."""
        return f"<Inert {self.kind} {self.name}>"

    @property
    def class_name(self) -> str:
        """The last part of `name`."""
        return self.name.rpartition(".")[2]


class PlainDict(dict):
    """An OrderedDict, defaultdict or EasyDict of the file: a dict, and no attributes can be set on it."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Cell:
    """A numpy array or dtype between its creation and the state that fills it; `keys` are its places in the memo."""

    kind: str
    spec: Any = None
    keys: list = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Storage:
    """The values of one tensor storage, `raw` uint8 [bytes]; older streams fill it after its tensors are made."""

    raw: Tensor
    dtype: torch.dtype
    numel: int
    filled: bool = False


_LEAVES = (str, int, float, bool, type(None), bytes, complex, Tensor, torch.dtype)
_SKIPPED = ("_modules", "_parameters", "_buffers", "")


def walk(value: Any, limits: Limits | None = None, label: str = "checkpoint") -> Iterator[tuple[str, Any]]:
    """(path, object) for each Named, Inert, Cell and Storage within a value, each object once; cycles are fine.

    Paths are dotted keys; the bookkeeping levels of torch modules are left out. UsageError where it nests deeper than
    `limits` allow.
    """
    seen: set[int] = set()
    pending: list[tuple[Any, Any, int]] = [(value, None, 0)]  # object, (key, link of the parent), depth
    while pending:
        found, link, depth = pending.pop()
        if isinstance(found, _LEAVES) or id(found) in seen:
            continue
        seen.add(id(found))
        if limits is not None and depth > limits.depth:
            raise damaged(label, f"nested more than {limits.depth} levels deep")
        if isinstance(found, Named | Inert | Cell | Storage):
            yield _spell(link), found
        # Reversed: the stack then gives the parts back in the order of the file.
        pending += [(part, (key, link), depth + 1) for key, part in reversed(_parts(found))]


def _parts(value: Any) -> list[tuple[Any, Any]]:
    """(key, part) of a container or record; what a path should not show has the key ""."""
    if isinstance(value, dict):
        return [(key, part) for key, part in value.items() if not isinstance(part, _LEAVES)] + [
            (key, key) for key in value if not isinstance(key, _LEAVES)
        ]
    if isinstance(value, list | tuple | set | frozenset):
        return [(i, part) for i, part in enumerate(value) if not isinstance(part, _LEAVES)]
    if isinstance(value, Inert):
        parts = [("", value.state), ("", value.args), ("", value.kwargs), ("", value.items), ("", value.entries)]
        return [(key, part) for key, part in parts if not isinstance(part, _LEAVES)]
    return []


def _spell(link: Any) -> str:
    keys: list[str] = []
    while link is not None:
        key, link = link
        if key not in _SKIPPED:
            readable = isinstance(key, int) or (isinstance(key, str) and key.isprintable() and len(key) <= 100)
            keys.append(str(key) if readable else "?")
    return ".".join(reversed(keys))


def check_key(label: str, value: Any, depth: int = 0) -> Any:
    """The value, if it may be a key of a dict or a member of a set: plain, and not chosen to make those slow."""
    if isinstance(value, tuple) and depth < 8:
        for part in value:
            check_key(label, part, depth + 1)
    elif isinstance(value, int):
        if abs(value) >> 60:
            raise damaged(label, "a key of more than 60 bits")
    elif not isinstance(value, str | float | bytes | memoryview | Named | Inert | torch.dtype) and value is not None:
        raise damaged(label, f"a key of type {type(value).__name__}")
    return value


def unknown_under(value: Any) -> list[str]:
    """Names that this package does not know and that are reachable from `value`, sorted."""
    return sorted({f.name for _, f in walk(value) if isinstance(f, Named | Inert) and not f.understood})
