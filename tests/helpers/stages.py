"""Stages run to their end: what they yielded, and what they returned."""

from __future__ import annotations


def events_and_result(stage):
    """The events of a stage as a list, and its result."""
    events = []
    while True:
        try:
            events.append(next(stage))
        except StopIteration as end:
            return events, end.value
