"""Output of the commands: data on stdout, talk on stderr, a bar on a terminal and a line every 30 s elsewhere."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tqdm import tqdm

    from gansegctl.contracts import Progress, Result, Stage

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


def follow(stage: Stage[Result], interval: float = INTERVAL) -> Result:
    """Run a stage to its end, showing how far it is, and return its result."""
    shown = _Shown(interval)
    try:
        while True:
            try:
                event = next(stage)
            except StopIteration as end:
                return end.value
            shown.show(event)
    finally:
        shown.close()


class _Shown:
    """How far a stage is: a bar on a terminal; elsewhere a line at the start, the end, each note, and each interval."""

    def __init__(self, interval: float) -> None:
        self.interval, self.terminal = interval, sys.stderr.isatty()
        self.last: Progress | None = None
        self.bar: tqdm | None = None
        self.began, self.spoke, self.noted = time.monotonic(), 0.0, None

    def show(self, event: Progress) -> None:
        """Say where the stage is, if it is time to. A stage with a new name begins anew."""
        if self.last is not None and event.stage != self.last.stage:
            self.close()
            self.began, self.last = time.monotonic(), None
        if self.terminal:
            self._draw(event)
        elif self._due(event):
            seconds = time.monotonic() - self.began
            line = f"{event.stage}: {event.done}/{event.total} {event.unit}, {seconds:.0f} s {_facts(event.facts)}"
            say(line.rstrip())
            self.spoke, self.noted = time.monotonic(), event.facts.get("note")
        self.last = event

    def _due(self, event: Progress) -> bool:
        return (
            self.last is None
            or event.done >= event.total
            or event.facts.get("note") != self.noted
            or time.monotonic() - self.spoke >= self.interval
        )

    def _draw(self, event: Progress) -> None:
        from tqdm import tqdm

        self.bar = self.bar or tqdm(total=event.total, unit=event.unit, desc=event.stage, file=sys.stderr)
        self.bar.total = event.total
        self.bar.update(event.done - self.bar.n)
        self.bar.set_postfix_str(_facts(event.facts), refresh=False)

    def close(self) -> None:
        """End the bar's line."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None


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
