"""The defaults of a method."""

from __future__ import annotations


class BaseMethod:
    """Base of all methods (protocol `contracts.Method`): needs nothing beyond a generator, takes nothing more."""

    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
