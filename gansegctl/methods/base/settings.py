"""Settings of methods: checked when made, filled in from their profile, read from a segmenter's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from gansegctl.config import from_dict
from gansegctl.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

V = TypeVar("V", bound="DataclassInstance")


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both of them in it unless `above`: then low is not. high None: no upper end."""

    low: float
    high: float | None = None
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        upper = "" if self.high is None else f" and at most {self.high}"
        return f"{'more than' if self.above else 'at least'} {self.low}{upper}"


def at_least(low: float, high: float | None = None) -> Range:
    """low ≤ value, and value ≤ high where it is given."""
    return Range(low, high)


def more_than(low: float, high: float | None = None) -> Range:
    """low < value, and value ≤ high where it is given."""
    return Range(low, high, above=True)


def check(settings: DataclassInstance, **rules: Sequence[str] | Range) -> None:
    """UsageError unless every named field is one of the names, or within the range, that its rule gives.

    None passes where it is the field's default. The remedy for a wrong name is the nearest right one.
    """
    optional = {f.name for f in fields(settings) if f.default is None}
    for name, rule in rules.items():
        value = getattr(settings, name)
        if (value is None and name in optional) or value in rule:
            continue
        if isinstance(rule, Range):
            raise UsageError(f"got {name} {value}", wanted=str(rule))
        raise UsageError(f"got {name} {value!r}", wanted=" | ".join(rule), remedy=did_you_mean(str(value), rule))


def widths_of(name: str, given: Sequence[int] | str | int) -> tuple[int, ...]:
    """Widths of layers from a list, a number or a text as "128,64". UsageError for none, or one below 1."""
    parts = str(given).split(",") if isinstance(given, str | int) else given
    try:
        widths = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        widths = ()
    if not widths or min(widths) < 1:
        raise UsageError(f"got {name} {given!r}", wanted='positive widths, as in [128, 64] or "128,64"')
    return widths


def filled(settings: DataclassInstance, kind: type[V], values: Mapping[str, Any]) -> V:
    """The settings as `kind`, which has the same fields or more, with `values` in place of None."""
    given = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return kind(**given | {name: value for name, value in values.items() if given.get(name) is None})


def read_settings(kind: type[V], stored: dict[str, Any], where: str) -> V:
    """The settings of a segmenter's file. where: what messages call them.

    UsageError, which names the key, for one that `kind` does not have, one of another type, and one without a value.
    """
    settings = from_dict(kind, stored, where)
    for field in fields(kind):
        if getattr(settings, field.name) is None and "None" not in str(field.type):
            raise UsageError(
                f"got {where} without {field.name}", wanted="a value of every setting", remedy="fit the segmenter again"
            )
    return settings
