"""Training state on disk: what comes back is what went in, and what is no state of ours is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from gansegctl.errors import UsageError
from gansegctl.io.training_state import load_state, save_state


def parts(seed: int):
    """A small network with its optimiser after two steps, and a stream in the middle of its numbers."""
    stream = torch.Generator().manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    for p in network.parameters():
        p.data.copy_(torch.randn(p.shape, generator=stream))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(4, 3, generator=stream)).square().sum().backward()
        optimizer.step()
    return network, optimizer, stream


def step(network, optimizer, stream):
    optimizer.zero_grad()
    network(torch.randn(4, 3, generator=stream)).square().sum().backward()
    optimizer.step()
    return network.state_dict()


def test_a_restored_run_takes_the_same_next_step(tmp_path):
    network, optimizer, stream = parts(0)
    save_state(tmp_path / "s", "test", {"step": 2, "who": {"a": [1, None]}}, {"n": network}, {"o": optimizer}, stream)
    other, its_optimizer, its_stream = parts(1)
    state = load_state(tmp_path / "s", "test")
    assert state.facts == {"step": 2, "who": {"a": [1, None]}}
    state.restore({"n": other}, {"o": its_optimizer}, its_stream)
    wanted, got = step(network, optimizer, stream), step(other, its_optimizer, its_stream)
    assert all(torch.equal(wanted[k], got[k]) for k in wanted)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_names_that_begin_alike_are_kept_apart(tmp_path):
    a, b = torch.nn.Linear(1, 1), torch.nn.Linear(2, 2)
    stream = torch.Generator()
    save_state(tmp_path / "s", "test", {}, {"net": a, "net2": b}, {}, stream)
    c, d = torch.nn.Linear(1, 1), torch.nn.Linear(2, 2)
    load_state(tmp_path / "s", "test").restore({"net": c, "net2": d}, {}, stream)
    assert torch.equal(a.weight, c.weight)
    assert torch.equal(b.weight, d.weight)


def test_other_files_are_refused_with_the_remedy(tmp_path):
    path = tmp_path / "s"
    network, optimizer, stream = parts(0)
    save_state(path, "one", {}, {"n": network}, {"o": optimizer}, stream)
    with pytest.raises(UsageError, match="of kind one"):
        load_state(path, "two")
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="delete"):
        load_state(path, "one")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UsageError, match="delete"):
        load_state(path, "one")


def test_a_missing_file_and_a_header_without_json_are_refused(tmp_path):
    path = tmp_path / "s"
    with pytest.raises(UsageError, match=r"no such file[\s\S]*start anew"):
        load_state(path, "one")
    save_file({"stream": torch.zeros(1)}, path, {"kind": "one", "step": "{"})
    with pytest.raises(UsageError, match=r"in its header[\s\S]*start anew"):
        load_state(path, "one")


def test_the_same_state_gives_the_same_bytes(tmp_path):
    network, optimizer, stream = parts(0)
    facts = {name: [1] for name in "abcdefgh"}  # texts that the library would write in an order of chance
    for name in ("s", "t"):
        save_state(tmp_path / name, "one", facts, {"n": network}, {"o": optimizer}, stream)
    assert (tmp_path / "s").read_bytes() == (tmp_path / "t").read_bytes()
