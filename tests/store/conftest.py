"""The dataset that most tests of the store start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.datasets import fill, plan


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A finished dataset of three shards and ten pairs."""
    folder = tmp_path / "data"
    fill(folder, plan())
    return folder
