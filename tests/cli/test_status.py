"""`gansegctl status`, `generate --task` and `verify --repair` as a shell sees them."""

from __future__ import annotations

import json
import os
import socket

import pytest

from gansegctl.cli import options


@pytest.fixture
def generate(generator_file, tmp_path, call):
    """Generate 6 samples in 3 shards."""

    def run(*more):
        words = ("-n", 6, "--shard-size", 2, "--batch-size", 2, "-o", tmp_path / "d", *more)
        return call("generate", "--generator", generator_file, *words)

    return run


def test_tasks_and_status(generate, tmp_path, call, monkeypatch):
    status, out, err = generate("--task", "1/2", "--json")
    assert (status, json.loads(out)["samples"]) == (0, 2) and "task 1/2 (by --task): shards 1, 3, ..." in err
    (tmp_path / "d/shard-00000.claim").write_text(
        json.dumps({"host": socket.gethostname(), "pid": os.getppid(), "task": "0/2"})
    )
    told = json.loads(call("status", tmp_path / "d", "--json")[1])
    assert (told["done"], told["missing"], told["samples"]) == (1, 1, 2)
    status, out, _ = call("status", tmp_path / "d")
    assert status == 0 and "2 of 6 samples" in out and "1 done, 1 running, 1 missing" in out
    assert f"shard 0: {socket.gethostname()}, process {os.getppid()}, task 0/2" in out and "missing: 2" in out
    (tmp_path / "d/shard-00000.claim").unlink()
    assert "nothing is running" in call("status", tmp_path / "d")[1]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, out, err = generate("--json")
    assert json.loads(out)["samples"] == 6 and "task 0/2 (by torchrun)" in err
    _, out, _ = call("status", tmp_path / "d")
    assert "3 done, 0 running, 0 missing" in out and "time left" not in out


def test_tasks_that_contradict_are_refused(generate, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, err = generate("--task", "1/2")
    assert status == 2 and "0/2 from torchrun" in err and not (tmp_path / "d").exists()
    assert generate("--task", "2/2")[0] == 2
    status, out, _ = generate("--task", "0/2", "--dry-run", "--json")
    assert (status, json.loads(out)["task"]) == (0, "0/2")


def test_repair(generate, tmp_path, call):
    assert generate()[0] == 0
    shard = tmp_path / "d/shard-00001.h5"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    status, out, err = call("verify", tmp_path / "d")
    assert status == 4 and "shard-00001: damaged" in out and "--repair" in err
    status, out, _ = call("verify", tmp_path / "d", "--repair", "--json")
    told = json.loads(out)
    assert (status, told["problems"], told["repaired"]) == (0, [], ["shard-00001.h5"]) and shard.read_bytes() == whole
    (tmp_path / "d/shard-00009.h5").write_bytes(b"")
    status, _, err = call("verify", tmp_path / "d", "--repair")
    assert (
        status == 4 and "shard-00009.h5: not in the plan" in err and "delete files that are not part of the plan" in err
    )


def test_a_rank_takes_the_device_of_its_number(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert options.pick_device("auto") == "cuda:1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert options.pick_device("auto") == "cuda"
