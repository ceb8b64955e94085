"""Claims: one at a time, given up by the dead, never in the way of the result."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from gansegctl.errors import GansegError
from gansegctl.io import atomic
from gansegctl.io.atomic import this_host
from gansegctl.store import claims
from gansegctl.store.claims import claim_path, clean_claims, read_claim, take_claim


def put(folder, index=0, host=None, pid=None, silent=0.0, task="1/4", job=""):
    path = claim_path(folder, index)
    path.write_text(json.dumps({"host": host or this_host(), "pid": pid or os.getppid(), "task": task, "job": job}))
    os.utime(path, (time.time() - silent,) * 2)
    return path


@pytest.fixture
def gone() -> int:
    """The number of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_claim_is_taken_and_released(tmp_path):
    claim = take_claim(tmp_path, 3, "0/2")
    assert claim.ours and claim.alive and claim.path.name == "shard-00003.claim"
    there = read_claim(claim.path)
    assert (there.index, there.pid, there.task) == (3, os.getpid(), "0/2")
    assert take_claim(tmp_path, 3).ours  # ours from before
    claim.release()
    assert not list(tmp_path.iterdir())


def test_the_living_keep_theirs(tmp_path):
    path = put(tmp_path)
    claim = take_claim(tmp_path, 0)
    assert not claim.ours and claim.alive and claim.task == "1/4" and claim.pid == os.getppid()
    claim.release()
    clean_claims(tmp_path)
    assert path.exists()


@pytest.mark.parametrize("kind", ["dead here", "silent here", "silent elsewhere"])
def test_the_dead_and_the_silent_lose_theirs(tmp_path, gone, kind):
    path = {
        "dead here": lambda: put(tmp_path, pid=gone),
        "silent here": lambda: put(tmp_path, silent=claims.STALE + 60),
        "silent elsewhere": lambda: put(tmp_path, host="far", pid=gone, silent=claims.STALE + 60),
    }[kind]()
    assert not read_claim(path).alive
    clean_claims(tmp_path)
    assert not path.exists()
    assert take_claim(tmp_path, 0).ours


def test_another_hosts_claim_is_judged_by_its_signs_of_life(tmp_path, gone):
    put(tmp_path, host="far", pid=gone, silent=claims.STALE - 60)
    assert not take_claim(tmp_path, 0).ours


def test_a_sign_of_life_makes_it_young_again(tmp_path):
    claim = take_claim(tmp_path, 0)
    os.utime(claim.path, (1, 1))
    assert not read_claim(claim.path).alive
    claim.touch()
    assert read_claim(claim.path).alive


def test_a_claim_taken_over_is_not_removed_by_its_first_owner(tmp_path):
    claim = take_claim(tmp_path, 0)
    path = put(tmp_path)
    claim.release()
    assert path.exists()


def test_an_empty_claim_is_being_written_or_was_never_finished(tmp_path):
    path = claim_path(tmp_path, 0)
    path.write_text("")
    assert read_claim(path).alive and not take_claim(tmp_path, 0).ours
    os.utime(path, (time.time() - 60,) * 2)
    assert not read_claim(path).alive and take_claim(tmp_path, 0).ours


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(GansegError, match="can be written"):
        take_claim(tmp_path / "nowhere", 0)


def test_a_task_that_was_put_back_and_moved_goes_on_where_it_was(tmp_path, gone, monkeypatch):
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "AWS_BATCH_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    put(tmp_path, host="far", pid=gone)
    assert not take_claim(tmp_path, 0, "2/4").ours
    assert take_claim(tmp_path, 0, "1/4").ours
    put(tmp_path, 1, host="far", pid=gone, task="0/1", job="SLURM_JOB_ID 7")
    assert not take_claim(tmp_path, 1, "0/1").ours
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert not take_claim(tmp_path, 1, "0/1").ours
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert take_claim(tmp_path, 1, "0/1").ours
    put(tmp_path, 2)  # the same task on this host lives: it is known
    assert not take_claim(tmp_path, 2, "1/4").ours


def test_process_numbers_of_containers_are_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.os, "readlink", lambda path: "pid:[4026532001]")
    inside = this_host()
    left = tmp_path / f"a.part.{inside}.{os.getpid()}"
    assert atomic.part_name(tmp_path / "a") == left
    monkeypatch.setattr(atomic.os, "readlink", lambda path: "pid:[4026531836]")
    assert this_host() == socket.gethostname() != inside
    left.write_text("being written in a container of this machine")
    assert atomic.clean_parts(tmp_path) == [] and left.exists()
