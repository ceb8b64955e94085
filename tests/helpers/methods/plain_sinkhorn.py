"""Sinkhorn-Knopp as the paper writes it, in float64: what the one in the log domain is held to."""

from __future__ import annotations

import torch


def plain(logits, rounds, row=None, column=None):
    """exp, then rows (prototypes) and columns (pixels) scaled in turn, written down as in the paper: [P,K]."""
    q = logits.double().exp().T
    q = q / q.sum()
    k, p = q.shape
    row = torch.full((k,), 1 / k, dtype=torch.float64) if row is None else row.double()
    column = torch.full((p,), 1 / p, dtype=torch.float64) if column is None else column.double()
    for _ in range(rounds):
        q = q * (row / q.sum(dim=1))[:, None]
        q = q * (column / q.sum(dim=0))[None]
    return (q / q.sum(dim=0)).T
