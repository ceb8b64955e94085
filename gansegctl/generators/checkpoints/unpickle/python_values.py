"""Python's own types as a checkpoint asks for them: handlers of `known_globals` for dicts, lists, sets and text."""

from __future__ import annotations

from typing import Any

from gansegctl.generators.checkpoints.unpickle.inert import Inert, Named, PlainDict, check_key
from gansegctl.generators.checkpoints.unpickle.session import Session


def make_set(session: Session, values: Any, kind: type) -> Any:
    """A set or frozenset of plain values."""
    session.budget.take_memory(250 + 100 * len(values))
    return kind(check_key(session.label, v) for v in values)


def ordered_dict(session: Session, *args: Any, **kwargs: Any) -> PlainDict:
    """A dict of the pairs given; attributes cannot be set on it."""
    session.budget.take_memory(250)
    made = PlainDict()
    pairs = args[0] if args else []
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if len(args) > 1 or not isinstance(pairs, list | tuple):
        raise TypeError("a dictionary made of something else than pairs")
    session.budget.take_memory(120 * (len(pairs) + len(kwargs)))
    for pair in pairs:
        key, value = pair
        made[check_key(session.label, key)] = value
    made.update(kwargs)
    return made


def default_dict(session: Session, *_: Any) -> PlainDict:
    """An empty dict: the factory of its missing values would be a call."""
    return ordered_dict(session)


def make_list(session: Session, values: Any = (), *_: Any) -> list:
    """A list of the values given."""
    if not isinstance(values, list | tuple | set | frozenset):
        raise TypeError("a list made of something else than values")
    session.budget.take_memory(60 + 16 * len(values))
    return list(values)


def make_tuple(session: Session, values: Any = ()) -> tuple:
    """A tuple of the values given."""
    return tuple(make_list(session, values))


def set_of(session: Session, values: Any = ()) -> set:
    """A set of the values given."""
    return make_set(session, make_list(session, values), set)


def frozenset_of(session: Session, values: Any = ()) -> frozenset:
    """A frozenset of the values given."""
    return make_set(session, make_list(session, values), frozenset)


def complex_number(session: Session, real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    """A complex number of two real ones."""
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise TypeError("a complex number made of something else than numbers")
    return complex(real, imaginary)


def encoded(session: Session, text: Any = "", encoding: Any = "utf-8", *_: Any) -> bytes:
    """`_codecs.encode(text, 'latin1')`: how protocols 0 to 2 write bytes."""
    if isinstance(text, bytes | memoryview):
        return bytes(text)
    if (
        not isinstance(text, str)
        or not isinstance(encoding, str)
        or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii")
    ):
        raise TypeError("bytes made of something else than text")
    session.budget.take_memory(len(text) * (1 if encoding.startswith("latin") else 4) + 40)
    return text.encode(encoding)


def slice_parts(session: Session, *parts: Any) -> tuple:
    """The arguments of a slice, as a tuple."""
    return parts


def reconstructor(session: Session, cls: Any, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor`: objects in protocols 0 and 1."""
    if not isinstance(cls, Named):
        raise TypeError("an object of something that is no class")
    made = session.call(cls, (), "object")
    if isinstance(made, dict) and isinstance(state, dict):
        made.update(state)
    elif isinstance(made, Inert) and isinstance(state, dict):
        made.entries = state
    elif isinstance(made, Inert) and isinstance(state, list):
        made.items = state
    return made


def new_object(session: Session, cls: Any, *args: Any) -> Any:
    """`copyreg.__newobj__`: an object without its constructor, as a record."""
    if not isinstance(cls, Named) or cls.handler in (new_object, new_object_ex):
        raise TypeError("an object of something that is no class")
    return session.call(cls, args, "object")


def new_object_ex(session: Session, cls: Any, args: Any = (), kwargs: Any = None) -> Any:
    """`copyreg.__newobj_ex__`: the same with keyword arguments."""
    if not isinstance(cls, Named) or cls.handler in (new_object, new_object_ex):
        raise TypeError("an object of something that is no class")
    return session.call(cls, args, "object", kwargs)
