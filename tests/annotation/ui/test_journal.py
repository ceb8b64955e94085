"""The journal: what was answered is on disk, what a crash tore off is gone, and nothing else changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gansegctl.annotation.ui import journal as module
from gansegctl.annotation.ui.journal import Journal
from gansegctl.errors import GansegError, UsageError


def written(path, *records):
    journal = Journal(path)
    for record in records:
        journal.append(record)
    journal.close()
    return path


def read(path):
    journal = Journal(path)
    journal.close()
    return journal.records


def test_records_come_back_in_order(tmp_path):
    path = written(tmp_path / "deep" / "j", {"a": 1}, {"b": "größer\nzwei Zeilen"})
    assert read(path) == [{"a": 1}, {"b": "größer\nzwei Zeilen"}]
    written(path, {"c": [1, 2]})
    assert read(path)[-1] == {"c": [1, 2]}


def test_a_tail_torn_off_at_any_byte_is_dropped_and_the_rest_stays(tmp_path):
    path = written(tmp_path / "j", {"a": 1}, {"b": 2}, {"c": 3})
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        assert read(path) == [{"a": 1}, {"b": 2}, {"c": 3}][:kept]
        assert path.read_bytes() == whole[: ([0, *ends])[kept]]  # and the next record begins a line of its own


def test_a_damaged_line_in_the_middle_is_said_and_left_alone(tmp_path):
    path = written(tmp_path / "j", {"a": 1}, {"b": 2}, {"c": 3})
    data = bytearray(path.read_bytes())
    data[12] ^= 1
    path.write_bytes(data)
    with pytest.raises(GansegError, match="damaged at byte 0"):
        Journal(path)
    assert path.read_bytes() == bytes(data)


def test_every_record_is_synced_before_append_returns(tmp_path, monkeypatch):
    journal, synced = Journal(tmp_path / "j"), []
    monkeypatch.setattr(module.os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    journal.append({"a": 1})
    assert synced == [(tmp_path / "j").stat().st_size]
    journal.close()


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j")
    journal.append({"a": 1})

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", full)
        with pytest.raises(GansegError, match="No space left"):
            journal.append({"b": 2})
    journal.append({"c": 3})
    journal.close()
    assert read(tmp_path / "j") == [{"a": 1}, {"c": 3}]


def test_two_sessions_do_not_share_a_journal(tmp_path):
    first = Journal(tmp_path / "j")
    with pytest.raises(UsageError, match="another process"):
        Journal(tmp_path / "j")
    first.close()
    Journal(tmp_path / "j").close()


def test_a_killed_writer_loses_nothing_that_it_confirmed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from gansegctl.annotation.ui.journal import Journal\n"
        "j = Journal(Path(sys.argv[1]))\n"
        "for i in range(10**9):\n    j.append({'i': i, 'x': 'y' * 500}); print(i, flush=True)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "j")], stdout=subprocess.PIPE, text=True)
    confirmed = -1
    for line in run.stdout:
        confirmed = int(line)
        if confirmed >= 20:
            break
    run.send_signal(signal.SIGKILL)
    confirmed = max([confirmed, *(int(line) for line in run.stdout.read().splitlines() if line.isdigit())])
    run.wait()
    run.stdout.close()
    found = [record["i"] for record in read(tmp_path / "j")]
    assert found[: confirmed + 1] == list(range(confirmed + 1))
    assert len(found) <= confirmed + 2
