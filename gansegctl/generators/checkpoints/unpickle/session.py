"""The state of one load of an object stream: what it may still take, and the names it met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gansegctl.generators.checkpoints.unpickle.inert import Inert, Named
from gansegctl.generators.checkpoints.unpickle.limits import Budget, Limits, damaged


class Session:
    """One load: its budget, the names met so far, and the reader of streams within the stream (None: refuse them).

    `find(module, name)` says what a global stands for; `known_globals.find` is the one in use.
    """

    def __init__(
        self,
        limits: Limits,
        find: Callable[[str, str], Any],
        label: str = "checkpoint",
        nested: Callable[[Session, Any], Any] | None = None,
    ) -> None:
        self.limits, self.label, self._find, self._nested = limits, label, find, nested
        self.budget = Budget(limits, label)
        self.level = 0
        self.names: dict[tuple[str, str], Any] = {}
        self.digests: dict[str, str] = {}

    def find(self, module: Any, name: Any) -> Any:
        """The stand-in for a global of the file: a `Named`, or a plain value such as a torch.dtype. Imports nothing."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise damaged(self.label, "a name that is no text")
        if len(module) + len(name) > self.limits.name_bytes:
            raise damaged(self.label, f"a name of {len(module) + len(name)} characters")
        if not (module + name).isprintable():  # names are shown to the user
            raise damaged(self.label, f"the name {module + name!r:.80}")
        if (module, name) not in self.names:
            self.budget.take_memory(600)
            self.names[module, name] = self._find(module, name)
        return self.names[module, name]

    def unknown(self) -> list[str]:
        """All names met that this package does not know."""
        return sorted({n.name for n in self.names.values() if isinstance(n, Named) and not n.understood})

    def call(self, named: Any, args: Any, kind: str = "call", kwargs: dict | None = None) -> Any:
        """The data that our own function makes of a call, else a record that the file wanted this call."""
        if not isinstance(named, Named) or not isinstance(args, tuple):
            raise damaged(self.label, f"a call of {type(named).__name__}, which is no name")
        if named.handler is not None:
            return named.handler(self, *args, **(kwargs or {}))
        self.budget.take_memory(600)
        return Inert(named.name, kind, args, kwargs or {}, understood=named.understood)

    def nested(self, data: Any) -> Any:
        """Read a stream that lies within this one."""
        if self._nested is None or self.level >= self.limits.nested:
            raise damaged(self.label, "a stream within a stream where none belongs")
        self.level += 1
        try:
            return self._nested(self, data)
        finally:
            self.level -= 1
