"""Object streams for tests: read by our machine, or written so that Python's own reader would act on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gansegctl.generators.checkpoints.containers.torch_files import nested_storage
from gansegctl.generators.checkpoints.unpickle import known_globals, opcodes
from gansegctl.generators.checkpoints.unpickle.limits import MEBIBYTE, Limits
from gansegctl.generators.checkpoints.unpickle.machine import Reader
from gansegctl.generators.checkpoints.unpickle.session import Session


def load(data: bytes, **limits: int) -> Any:
    """The object of a stream without tensors, as of a file of 1 MiB, under these limits."""
    size = 1 << 20
    bounds = Limits(**{"storage_bytes": size, "memory_bytes": 2 * size + 48 * MEBIBYTE, **limits})
    return opcodes.read(Reader(data, Session(bounds, known_globals.find, "x.pkl")))


def read_stream(raw: bytes) -> Any:
    """The object of a stream with tensors inside, under the limits of a file of its size."""
    return opcodes.read(Reader(raw, Session(Limits.for_file(len(raw)), known_globals.find, nested=nested_storage)))


def global_of(module: str, name: str) -> bytes:
    """The opcode that names a global of Python, in protocols 0 to 2."""
    return f"c{module}\n{name}\n".encode()


class Call:
    """Pickled, it is the call of this function with these arguments, which Python makes when it reads it."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple]:
        return self.function, self.args
