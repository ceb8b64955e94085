"""Sinkhorn in the log domain: equal to the plain one in float64, and finite where the plain one is not."""

from __future__ import annotations

import pytest
import torch
from helpers.methods.plain_sinkhorn import plain

from gansegctl.methods.contrastive import sinkhorn as module
from gansegctl.methods.contrastive.sinkhorn import codes, potentials, sinkhorn


def scores(pixels=60, prototypes=7, seed=0):
    return torch.randn(pixels, prototypes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rounds", [0, 1, 2, 10])
def test_it_is_the_plain_algorithm(rounds):
    logits = scores() * 4
    torch.testing.assert_close(codes(logits, potentials(logits, rounds)), plain(logits, rounds))


def test_shares_are_honoured_as_in_the_plain_algorithm():
    logits = scores(seed=1)
    row, column = torch.arange(1.0, 8) / 28, torch.arange(1.0, 61) / 1830
    found = codes(logits, potentials(logits, 5, row, column))
    torch.testing.assert_close(found, plain(logits, 5, row, column))
    assert not torch.allclose(found, plain(logits, 5), atol=1e-3)


def test_after_many_rounds_every_prototype_has_its_share():
    q = sinkhorn(scores(), 0.5, 200)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(60, dtype=torch.float64))
    torch.testing.assert_close(q.mean(dim=0), torch.full((7,), 1 / 7, dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_float32_stays_finite_and_right_where_exp_overflows():
    s = scores().float().tanh()
    assert not (s / 0.005).exp().isfinite().all()
    q = sinkhorn(s, 0.005, 10)
    assert q.isfinite().all()
    torch.testing.assert_close(q.double(), plain((s / 0.005).double(), 10), atol=1e-3, rtol=0)


def test_a_share_of_zero_takes_the_prototype_out():
    logits = scores()
    row = torch.tensor([0.0, 0.5, 0.5, 0, 0, 0, 0])
    q = codes(logits, potentials(logits, 4, row))
    assert q.isfinite().all() and bool((q[:, [0, 3, 4, 5, 6]] == 0).all()) and q[:, 1:3].sum() > 59


def test_blocks_of_rows_change_nothing_and_no_tensor_of_full_size_is_made(monkeypatch):
    logits, kept = scores(), scores()
    whole = potentials(logits, 6)
    monkeypatch.setattr(module, "AT_ONCE", 35)  # five rows at a time
    largest = []
    plainly = torch.Tensor.logsumexp
    monkeypatch.setattr(torch.Tensor, "logsumexp", lambda x, *a, **o: largest.append(x.numel()) or plainly(x, *a, **o))
    torch.testing.assert_close(potentials(logits, 6), whole)
    assert max(largest) <= 35 and torch.equal(logits, kept)


def test_wrong_rounds_and_shares_are_refused():
    with pytest.raises(ValueError, match="-1 rounds"):
        potentials(scores(), -1)
    with pytest.raises(ValueError, match=r"wanted \[7\]"):
        potentials(scores(), 3, torch.ones(6) / 6)
