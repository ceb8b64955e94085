"""Files that appear whole or not at all: what is made once, and what killed processes leave."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gansegctl.io import atomic
from gansegctl.io.atomic import clean_parts, create_text, this_host


@pytest.fixture(scope="module")
def gone():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_one_name_go_and_others_stay(tmp_path, gone):
    ours = [f"s[1].{suffix}.part.{this_host()}.{gone}" for suffix in ("ckpt", "safetensors")]
    others = [f"s[1].ckpt.part.{this_host()}.{os.getppid()}", f"s[1].ckpt.part.other-{this_host()}.{gone}"]
    others += [f"s1.ckpt.part.{this_host()}.{gone}", f"s[1]2.ckpt.part.{this_host()}.{gone}", "s[1].ckpt"]
    for name in (*ours, *others):
        (tmp_path / name).write_text("half")
    assert sorted(p.name for p in clean_parts(tmp_path, "s[1]")) == ours
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(others)
    assert len(clean_parts(tmp_path)) == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_a_text_is_created_once(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(atomic.os, "fsync", synced.append)
    create_text(tmp_path / "a", "Größe", sync=True)
    create_text(tmp_path / "b", "two")
    assert len(synced) == 1
    with pytest.raises(FileExistsError):
        create_text(tmp_path / "a", "other")
    assert (tmp_path / "a").read_text("utf-8") == "Größe" and sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_text_is_created_once_without_hard_links_too(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(atomic.os, "link", no_links)
    create_text(tmp_path / "a", "one")
    with pytest.raises(FileExistsError):
        create_text(tmp_path / "a", "other")
    assert (tmp_path / "a").read_text() == "one" and os.listdir(tmp_path) == ["a"]
