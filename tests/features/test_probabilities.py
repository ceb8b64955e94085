"""Labels, confidence and entropy of probabilities, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gansegctl.features.probabilities import confidence, decide, entropy


def test_the_likeliest_class_and_how_sure_it_is():
    p = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    label, sure = decide(p)
    assert label.tolist() == [1, 2] and sure.tolist() == [128, 255]
    assert label.dtype == sure.dtype == torch.uint8
    assert decide(p, dim=0)[0].tolist() == [0, 0, 1]


def test_confidence_is_rounded_to_steps_of_one_255th():
    assert confidence(torch.tensor([0.0, 0.49 / 255, 0.51 / 255, 1.0])).tolist() == [0, 0, 1, 255]


def test_entropy_is_in_nats_along_its_dimension():
    p = torch.full((2, 4), 0.25)
    torch.testing.assert_close(entropy(p, p.log()), torch.full((2,), math.log(4)))
    q = torch.tensor([[0.9, 0.5], [0.1, 0.5]])
    assert entropy(q, q.log(), dim=0).tolist() == pytest.approx([0.325083, math.log(2)])
