"""What commands say: data on stdout, talk on stderr, a bar on a terminal and a line every 30 s elsewhere."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gansegctl.contracts import Progress

INTERVAL = 30.0


def say(message: str) -> None:
    """One line of talk."""
    click.echo(message, err=True)


def emit(data: dict[str, Any], as_json: bool) -> None:
    """One JSON object on stdout, or its lines as `key: value`."""
    if as_json:
        click.echo(json.dumps(data, indent=1, default=str))
        return
    for key, value in data.items():
        click.echo(f"{key}: {json.dumps(value, default=str) if isinstance(value, dict | list) else value}")


def follow(events: Iterable[Progress], interval: float = INTERVAL) -> Progress | None:
    """Run a stage to its end, showing how far it is; the last event is returned."""
    from tqdm import tqdm

    last, bar, said, began, noted = None, None, 0.0, time.monotonic(), None
    terminal = sys.stderr.isatty()
    for event in events:
        if last is not None and event.stage != last.stage and bar is not None:
            bar.close()
            bar = None
        if terminal:
            bar = bar or tqdm(total=event.total, unit=event.unit, desc=event.stage, file=sys.stderr)
            bar.total = event.total
            bar.update(event.done - bar.n)
            bar.set_postfix_str(_facts(event.facts), refresh=False)
        elif (
            time.monotonic() - said >= interval
            or event.done >= event.total
            or event.facts.get("note") != noted
            or last is None
        ):
            seconds, facts = time.monotonic() - began, _facts(event.facts)
            say(f"{event.stage}: {event.done}/{event.total} {event.unit}, {seconds:.0f} s {facts}".rstrip())
            said, noted = time.monotonic(), event.facts.get("note")
        last = event
    if bar is not None:
        bar.close()
    return last


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], err: bool = False) -> None:
    """A table; numbers with three decimals, nan as a dash."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        drawn.add_row(*(cell(v) for v in row))
    width = None if sys.stdout.isatty() else 120
    Console(stderr=err, width=width, highlight=False).print(drawn)


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return "-" if value is None else str(value)


def _facts(facts: dict[str, Any]) -> str:
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in facts.items())
