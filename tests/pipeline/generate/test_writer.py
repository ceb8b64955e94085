"""One shard is written while the next is made; its claim goes when it is on disk; what goes wrong comes out."""

from __future__ import annotations

import threading

import pytest

from gansegctl.pipeline.generate.writer import Committer
from gansegctl.store.claims import claim_path, take_claim


def test_it_works_behind_the_makers_back_one_at_a_time(tmp_path):
    go, begun = threading.Event(), []

    def slow(name):
        begun.append(name)
        go.wait(10)
        return name

    with Committer() as committer:
        committer.put(take_claim(tmp_path, 0), lambda: slow("a"))
        assert claim_path(tmp_path, 0).exists()
        threading.Timer(0.1, go.set).start()
        committer.put(take_claim(tmp_path, 1), lambda: slow("b"))  # returns when "a" is through
        assert not claim_path(tmp_path, 0).exists() and begun[0] == "a"
        assert committer.wait() == "b" and committer.wait() is None
    assert not claim_path(tmp_path, 1).exists()


def test_what_fails_is_told_and_gives_both_claims_back(tmp_path):
    def fail():
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), Committer() as committer:
        committer.put(take_claim(tmp_path, 0), fail)
        committer.put(take_claim(tmp_path, 1), lambda: None)
    assert not list(tmp_path.glob("*.claim"))
    with pytest.raises(OSError, match="no room"), Committer() as committer:
        committer.put(take_claim(tmp_path, 0), fail)


def test_a_stop_finishes_the_shard_in_hand_and_stays_a_stop(tmp_path):
    done = []
    with pytest.raises(KeyboardInterrupt), Committer() as committer:
        committer.put(take_claim(tmp_path, 0), lambda: done.append("a"))
        raise KeyboardInterrupt
    assert done == ["a"] and not list(tmp_path.glob("*.claim"))
