"""Arrays, dtypes and numbers of numpy over the bytes of the file: handlers of `known_globals` for numpy."""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np

from gansegctl.generators.checkpoints.unpickle.inert import Cell, Inert
from gansegctl.generators.checkpoints.unpickle.limits import count_of
from gansegctl.generators.checkpoints.unpickle.python_values import encoded
from gansegctl.generators.checkpoints.unpickle.session import Session

_PLAIN_DTYPE = re.compile(r"([<>=|]?)([biufcSU])(\d{1,4})")


def dtype_cell(session: Session, spec: Any, *_: Any) -> Cell:
    """`numpy.dtype(spec)`, before its state says the order of bytes."""
    if not isinstance(spec, str) or len(spec) > 64:
        raise TypeError("a numpy dtype without a name")
    return Cell("dtype", spec)


def array_cell(session: Session, *_: Any) -> Cell:
    """An array before its state says shape, type and values."""
    return Cell("array")


def fill(session: Session, cell: Cell, state: Any) -> Any:
    """The dtype or array that a state makes of its cell; a record, not understood, for object and record arrays."""
    if not isinstance(state, tuple):
        raise TypeError(f"a numpy {cell.kind} with a state that is no tuple")
    if cell.kind == "dtype":
        plain = _PLAIN_DTYPE.fullmatch(cell.spec)
        if not plain or len(state) < 4 or state[3] is not None:
            return Inert(f"numpy.dtype[{cell.spec}]")
        order = state[1] if isinstance(state[1], str) and state[1] in ("<", ">", "=", "|") else plain[1]
        return np.dtype(f"{order}{plain[2]}{plain[3]}")
    shape, dtype, fortran, raw = state[-4:]
    return _array(session, raw, dtype, shape, "F" if fortran is True else "C")


def _array(session: Session, raw: Any, dtype: Any, shape: Any, order: Literal["C", "F"] = "C") -> Any:
    """An array over the bytes of the file, not copied and not writable."""
    if isinstance(dtype, Inert):
        return Inert(f"numpy.ndarray of {dtype.name}")
    if isinstance(raw, str):
        raw = encoded(session, raw, "latin1")
    if not isinstance(dtype, np.dtype) or not isinstance(raw, bytes | memoryview) or not isinstance(shape, tuple):
        raise TypeError("a numpy array without dtype, shape or values")
    if len(shape) > 32:
        raise ValueError(f"a numpy array of {len(shape)} dimensions")
    count = 1
    for side in shape:
        count *= count_of(side)
    if count * dtype.itemsize != len(raw):
        raise ValueError(f"{len(raw)} bytes for a numpy array of {count} values")
    session.budget.take_memory(500)
    values = np.frombuffer(raw, dtype) if len(raw) else np.zeros(count, dtype)
    if not dtype.isnative:
        session.budget.take_memory(len(raw))
        values = values.astype(dtype.newbyteorder("="))
    values.flags.writeable = False
    return values.reshape(shape, order=order)


def scalar(session: Session, dtype: Any, raw: Any = b"") -> Any:
    """A numpy number as Python's own."""
    value = _array(session, raw, dtype, ())
    return value if isinstance(value, Inert) else value.item()


def array_of_buffer(session: Session, raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
    """An array as protocol 5 writes it: values, type, shape and order in one call."""
    return _array(session, raw, dtype, shape, "F" if isinstance(order, str) and order == "F" else "C")
