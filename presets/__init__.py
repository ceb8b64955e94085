"""Presets: one .toml a generator and domain, and the built-in domain's weights and exemplar masks, flat beside them."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from gansegctl.errors import UsageError, did_you_mean


def folder() -> Path:
    """Where the files of the presets lie."""
    return Path(str(files(__package__)))


def names() -> list[str]:
    """The presets there are."""
    return sorted(p.stem for p in folder().glob("*.toml"))


def load(name: str) -> dict[str, Any]:
    """The tables of a preset. UsageError for an unknown one."""
    if name not in names():
        raise UsageError(f"got preset {name!r}", wanted="a known one", remedy=did_you_mean(name, names()))
    return tomllib.loads((folder() / f"{name}.toml").read_text())


def resource(filename: str) -> Path:
    """A file that a preset brings. UsageError when it is not installed."""
    path = folder() / filename
    if not path.is_file():
        raise UsageError(
            f"got {filename}: not in this installation", wanted="a file of the presets", remedy="reinstall gansegctl"
        )
    return path
