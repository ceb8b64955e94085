"""Who works on which shard: a small file beside it, so that two processes do not make the same one.

A claim saves work and nothing else: whoever ignores one, or takes one over too soon, writes the same bytes once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gansegctl.io.atomic import create_text, explained, process_lives, this_host
from gansegctl.store.shard import shard_path

STALE = 900.0
"""Seconds without a sign of life after which a claim holds no more; one is given after every batch."""

WRITING = 5.0
"""Seconds in which a claim may lack its content: it is made and filled in two steps."""


@dataclass(frozen=True)
class Claim:
    """shard-NNNNN.claim: host and process at work, its task and scheduler's job, seconds since a sign of life."""

    path: Path
    index: int
    host: str
    pid: int
    task: str
    age: float
    job: str = ""

    @property
    def alive(self) -> bool:
        """Whether its process may still be at work; certain for processes of this host."""
        if self.host == this_host() and not process_lives(self.pid):
            return False
        return self.age < STALE

    @property
    def ours(self) -> bool:
        """Whether it is this process's."""
        return self.host == this_host() and self.pid == os.getpid()

    def before(self, task: str, job: str) -> bool:
        """Whether this is an earlier run of the same task on another host, which a scheduler has put back and moved.

        Tasks of one dataset are told apart by their number; where there is but one, the job must be the same.
        """
        several = task.partition("/")[2] not in ("", "1")
        same = self.task == task and ((bool(job) and self.job == job) or several)
        return same and self.host != this_host()

    def touch(self) -> None:
        """Give a sign of life."""
        with contextlib.suppress(OSError):  # somebody thought us dead; we go on
            os.utime(self.path)

    def release(self) -> None:
        """Remove it, unless somebody else has taken it over."""
        there = read_claim(self.path)
        if there is not None and there.ours:
            self.path.unlink(missing_ok=True)


def job_of(environ: Mapping[str, str]) -> str:
    """The scheduler's number of this job, which stays when it is put back into the queue; "" without a scheduler."""
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "AWS_BATCH_JOB_ID"):
        if environ.get(name):
            return f"{name} {environ[name]}"
    return ""


def claim_path(folder: Path, index: int) -> Path:
    """folder/shard-NNNNN.claim"""
    return shard_path(folder, index).with_suffix(".claim")


def take_claim(folder: Path, index: int, task: str = "") -> Claim:
    """Claim a shard; what is returned is `ours`, or the living claim of another process.

    Errors: GansegError when it cannot be written.
    """
    path = claim_path(folder, index)
    job = job_of(os.environ)
    text = json.dumps({"host": this_host(), "pid": os.getpid(), "task": task, "job": job}) + "\n"
    for _ in range(2):
        try:
            create_text(path, text)
            break
        except FileExistsError:
            there = read_claim(path)
            if there is not None and there.alive and not there.ours and not there.before(task, job):
                return there
            path.unlink(missing_ok=True)
        except OSError as e:
            with contextlib.suppress(OSError):
                path.unlink()
            raise explained(e, path, len(text)) from e
    return Claim(path, index, this_host(), os.getpid(), task, 0.0, job)


def read_claim(path: Path) -> Claim | None:
    """A claim, or None where there is none. One that cannot be read is of nobody: being written, or cut short."""
    try:
        age = max(0.0, time.time() - path.stat().st_mtime)
        index = int(path.stem.removeprefix("shard-"))
    except (OSError, ValueError):
        return None
    try:
        row = json.loads(path.read_text())
        return Claim(path, index, str(row["host"]), int(row["pid"]), str(row["task"]), age, str(row.get("job", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return Claim(path, index, "unknown", 0, "", age if age < WRITING else STALE)


def claims(folder: Path) -> Iterator[Claim]:
    """Every claim in a dataset, dead ones too."""
    for path in sorted(folder.glob("shard-*.claim")):
        found = read_claim(path)
        if found is not None:
            yield found


def clean_claims(folder: Path) -> None:
    """Remove the claims of the dead."""
    for claim in claims(folder):
        if not claim.alive:
            claim.path.unlink(missing_ok=True)
