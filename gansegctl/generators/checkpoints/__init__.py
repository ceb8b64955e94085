"""Other projects' trained generators, read as data: nothing in a file is executed, nothing it names is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gansegctl.contracts import Generator
    from gansegctl.generators.checkpoints.records import CheckpointReport

__all__ = ["open_checkpoint"]


def open_checkpoint(path: Path) -> tuple[Generator, CheckpointReport]:
    """A generator in eval mode from any file that is read, and the report on the file; see `checkpoints.opening`."""
    # Imported when called: the networks that `opening` builds import the records of this package.
    from gansegctl.generators.checkpoints.opening import open_checkpoint

    return open_checkpoint(path)
