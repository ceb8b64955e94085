"""Errors that a user can act on, and the exit statuses they end in.

Every message says what was found, what was wanted and what to do: `GansegError("got …", wanted="…", remedy="…")`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitStatus(IntEnum):
    """The status that the process returns to the shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_DEVICE = 3
    DATASET = 4
    INTERRUPTED = 130
    TERMINATED = 143


class GansegError(Exception):
    """A failure whose cause the user can remove.

    got: what was found. wanted: what was expected. remedy: the next thing to do.
    """

    status = ExitStatus.FAILED

    def __init__(self, got: str, *, wanted: str = "", remedy: str = "") -> None:
        self.got, self.wanted, self.remedy = got, wanted, remedy
        lines = [got]
        if wanted:
            lines.append(f"  wanted: {wanted}")
        if remedy:
            lines.append(f"  remedy: {remedy}")
        super().__init__("\n".join(lines))


class UsageError(GansegError):
    """Flags, files or settings that cannot mean anything."""

    status = ExitStatus.USAGE


class DeviceError(GansegError):
    """The device or kernel backend that was asked for is not there."""

    status = ExitStatus.NO_DEVICE


class DatasetError(GansegError):
    """A dataset that is damaged, unfinished, or made with other settings."""

    status = ExitStatus.DATASET


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest known word, else the list of known ones."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
