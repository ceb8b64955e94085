"""Memory of a call: its result is handed on, and its bytes are at least those it holds."""

from __future__ import annotations

import numpy as np
import pytest

from gansegctl.pipeline.runtime import memory
from gansegctl.pipeline.runtime.memory import peak_extra, with_peak

SIZE = 40 << 20


def test_the_result_and_the_bytes_it_holds():
    if memory._resident() is None:
        pytest.skip("this system does not say how much memory a process holds")
    result, peak = with_peak(lambda: np.ones(SIZE, np.uint8))
    assert result.sum() == SIZE
    assert 0.99 * SIZE <= peak < 3 * SIZE  # memory is counted in pages, some of which were there before


def test_the_call_is_made_also_where_memory_cannot_be_measured(monkeypatch):
    monkeypatch.setattr(memory, "_resident", lambda: None)
    assert with_peak(lambda: "done") == ("done", None)
    assert peak_extra(lambda: "done") is None
