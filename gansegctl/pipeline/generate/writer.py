"""Shards are packed and written while the next one is made: one at a time, so that memory holds two at most."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from gansegctl.store.claims import Claim
from gansegctl.store.schema import ShardRecord


class Committer:
    """A thread that commits what it is given and releases its claim; errors come out at the next call.

    On the way out of its `with` block the shard in hand is finished, whatever ended the block.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._in_hand: tuple[Future[ShardRecord], Claim] | None = None

    def put(self, claim: Claim, write: Callable[[], ShardRecord]) -> None:
        """Begin with `write` when the shard before is on disk."""
        try:
            self.wait()
        except BaseException:
            claim.release()
            raise
        self._in_hand = self._pool.submit(write), claim

    def wait(self) -> ShardRecord | None:
        """The record of the shard in hand, once it is on disk; None where there is none."""
        if self._in_hand is None:
            return None
        (written, claim), self._in_hand = self._in_hand, None
        try:
            return written.result()
        finally:
            claim.release()

    def touch(self) -> None:
        """A sign of life of the shard in hand."""
        if self._in_hand is not None:
            self._in_hand[1].touch()

    def __enter__(self) -> Committer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(Exception) if error is not None else contextlib.nullcontext():
                self.wait()
        finally:
            self._pool.shutdown()
