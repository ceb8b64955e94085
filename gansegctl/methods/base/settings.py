"""Settings of methods: checked when made, filled in from their profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from gansegctl.errors import UsageError, did_you_mean

T = TypeVar("T")


def one_of(name: str, value: str | None, known: Sequence[str]) -> None:
    """UsageError, with the nearest known value, unless the value is known or None."""
    if value is not None and value not in known:
        raise UsageError(f"got {name} {value!r}", wanted=" | ".join(known), remedy=did_you_mean(str(value), known))


def within(name: str, value: float | None, low: float, high: float | None = None, above: bool = False) -> None:
    """UsageError unless low ≤ value ≤ high (low < value with `above`), or the value is None."""
    if value is None or ((value > low if above else value >= low) and (high is None or value <= high)):
        return
    upper = "" if high is None else f" and at most {high}"
    raise UsageError(f"got {name} {value}", wanted=f"{'more than' if above else 'at least'} {low}{upper}")


def filled(settings: T, values: dict[str, Any]) -> T:
    """The same settings, with these values where they hold None."""
    return replace(settings, **{k: v for k, v in values.items() if getattr(settings, k) is None})
