"""Refits behind the page: debounced, newest wins, failures said and survived."""

from __future__ import annotations

import threading
import time

import pytest

from gansegctl.annotation.ui.backend import Proposals
from gansegctl.annotation.ui.refit import Refitter
from gansegctl.errors import GansegError


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


@pytest.fixture
def refitter_of():
    made = []

    def make(propose, delay=0.02):
        made.append(Refitter(propose, delay))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert not one._thread.is_alive()


def test_a_burst_of_strokes_is_one_refit_of_the_newest(refitter_of):
    seen = []
    refitter = refitter_of(lambda masks, stale: seen.append(masks) or Proposals(), delay=0.2)
    for i in range(20):
        refitter.ask(i, {"mask": i})
    until(lambda: not refitter.pending)
    assert seen == [{"mask": 19}]
    assert refitter.latest.revision == 19


def test_a_refit_that_is_overtaken_gives_up_and_the_newest_follows(refitter_of):
    entered = threading.Event()

    def propose(masks, stale):
        if masks["mask"] == 1:
            entered.set()
            until(stale)
            return None
        return Proposals()

    refitter = refitter_of(propose)
    refitter.ask(1, {"mask": 1})
    assert entered.wait(5)
    refitter.ask(2, {"mask": 2})
    until(lambda: refitter.latest is not None)
    assert (refitter.latest.revision, refitter.previous) == (2, None)


def test_a_failure_is_said_and_the_next_refit_clears_it(refitter_of):
    def propose(masks, stale):
        if masks["bad"]:
            raise GansegError("got a loss of nan")
        return Proposals()

    refitter = refitter_of(propose)
    refitter.ask(1, {"bad": False})
    until(lambda: refitter.latest is not None)
    refitter.ask(2, {"bad": True})
    until(lambda: refitter.error)
    assert ("nan" in refitter.error, refitter.latest.revision) == (True, 1)
    refitter.ask(3, {"bad": False})
    until(lambda: refitter.latest.revision == 3)
    assert (refitter.error, refitter.previous.revision) == ("", 1)
