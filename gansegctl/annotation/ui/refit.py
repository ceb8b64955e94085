"""The segmenter refitted behind the page: after every change, once the hand rests, the newest strokes only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from gansegctl.annotation.ui.backend import Proposals
from gansegctl.errors import GansegError

Propose = Callable[[Mapping[int, np.ndarray], Callable[[], bool]], Proposals | None]


class Refitter:
    """One background thread. `ask` replaces whatever waits; `latest` is the newest finished refit, never an older one.

    delay: seconds without a newer request before a refit begins. A refit that fails leaves `latest` and sets `error`.
    """

    def __init__(self, propose: Propose, delay: float = 0.4) -> None:
        self._propose, self._delay = propose, delay
        self._waiting: tuple[int, Mapping[int, np.ndarray]] | None = None
        self._condition = threading.Condition()
        self._closed = False
        self.latest: Proposals | None = None
        self.previous: Proposals | None = None
        self.error = ""
        self.busy = False
        self._thread = threading.Thread(target=self._run, name="refit", daemon=True)
        self._thread.start()

    def ask(self, revision: int, masks: Mapping[int, np.ndarray]) -> None:
        """Refit on these masks (copies that nobody changes any more), which are the strokes up to `revision`."""
        with self._condition:
            self._waiting = (revision, masks)
            self._condition.notify_all()

    @property
    def pending(self) -> bool:
        """Whether a newer result is to be expected."""
        return self.busy or self._waiting is not None

    def close(self) -> None:
        """Stop when the refit at work is done."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join(timeout=30)

    def _next(self) -> tuple[int, Mapping[int, np.ndarray]] | None:
        with self._condition:
            while not self._closed:
                seen = self._waiting
                if seen is None:
                    self._condition.wait()
                    continue
                until = time.monotonic() + self._delay
                while self._waiting is seen and not self._closed and (left := until - time.monotonic()) > 0:
                    self._condition.wait(left)
                if self._waiting is seen and not self._closed:
                    self._waiting, self.busy = None, True
                    return seen
        return None

    def _run(self) -> None:
        while (task := self._next()) is not None:
            revision, masks = task
            found, error = None, ""
            try:
                found = self._propose(masks, lambda: self._waiting is not None or self._closed)
            except (GansegError, ValueError, RuntimeError, MemoryError) as e:  # shown on the page; painting goes on
                error = str(e) or type(e).__name__
            with self._condition:
                if found is not None:
                    self.previous, self.latest = self.latest, replace(found, revision=revision)
                self.error, self.busy = error, False
