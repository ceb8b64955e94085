"""A slice of `make torture`; and that it can fail."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from helpers import torture
from helpers.torture import Lost, Torture, same_weights
from safetensors.torch import save


def run(*words: str) -> subprocess.CompletedProcess:
    """A process of its own: it forks."""
    return subprocess.run([sys.executable, torture.__file__, *words], capture_output=True, text=True, check=False)


def test_killed_full_flipped_and_crowded():
    done = run("--seed", "3", "generate=1", "annotate=1", "distill=1", "export=1", "full=1", "flips=4", "crowd=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing lost") == 7


@pytest.mark.slow
def test_more_of_it():
    done = run("--seed", "4", "generate=20", "annotate=5", "distill=3", "export=5", "full=10", "flips=200", "crowd=3")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("change", "same"), [(1e-7, True), (1e-4, False)])
def test_students_are_equal_by_their_weights(change, same):
    header = {"gansegctl": json.dumps({"facts": {"loss": change, "steps": 3}})}
    one, two = (save({"w": torch.full((2,), 0.5 + c)}, header) for c in (0.0, change))
    assert one != two
    assert same_weights("student.safetensors", one, two) == same
    assert not same_weights("shard-00000.h5", one, two) and not same_weights("student.safetensors", None, one)
    other = save({"v": torch.full((2,), 0.5)}, header)
    assert not same_weights("student.safetensors", one, other)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a": b"1"}, "b is missing"),
        ({"a": b"1", "b": b"2", "c": b""}, "c is too many"),
        ({"a": b"0", "b": b"2"}, "a differs"),
    ],
)
def test_what_is_lost_is_told(tmp_path, files, words):
    for folder, content in (("got", files), ("right", {"a": b"1", "b": b"2"})):
        (tmp_path / folder).mkdir()
        for name, data in content.items():
            (tmp_path / folder / name).write_bytes(data)
    with pytest.raises(Lost, match=f"trial: {words}"):
        Torture.compare(None, tmp_path / "got", tmp_path / "right", "trial")
