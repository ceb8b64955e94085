"""Datasets in the layouts of other tools: one module a format, each pure; the files appear in `writer`.

A format gives PALETTE (whether its masks are indexed by default), PACKED (whether samples go into tars), `encode`
(a sample → its files and what the index must know of it), `index` (the files written at the end, streamed) and `notes`
(how to open it, for the card).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from gansegctl.choices import FORMATS
from gansegctl.errors import UsageError, did_you_mean


def get_format(name: str) -> ModuleType:
    """The module of a format. UsageError for an unknown one."""
    if name not in FORMATS:
        raise UsageError(f"got --format {name}", wanted="a known one", remedy=did_you_mean(name, FORMATS))
    return import_module(f"gansegctl.store.export.{name}")
