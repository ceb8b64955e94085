"""LARC: the stated formula, and the bound on how far a tensor can move that follows from it."""

from __future__ import annotations

import pytest
import torch

from gansegctl.methods.contrastive.larc import larc_


def parameter(values, gradient):
    p = torch.tensor(values, requires_grad=True)
    p.grad = None if gradient is None else torch.tensor(gradient)
    return p


def test_gradients_are_scaled_to_a_share_of_their_tensor():
    one, other = parameter([3.0, 4.0], [0.6, 0.8]), parameter([0.0, 1e-3], [7.0, 0.0])
    larc_([one, other], trust=0.02)
    torch.testing.assert_close(one.grad, torch.tensor([0.06, 0.08]))  # 0.02·5/1
    torch.testing.assert_close(other.grad, torch.tensor([2e-5, 0.0]))


def test_tensors_without_size_or_gradient_are_left_alone():
    still, empty, none = parameter([0.0, 0.0], [1.0, 2.0]), parameter([1.0, 2.0], [0.0, 0.0]), parameter([1.0], None)
    larc_([still, empty, none])
    assert still.grad.tolist() == [1.0, 2.0] and empty.grad.tolist() == [0.0, 0.0] and none.grad is None


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_hundred_released_steps_move_a_tensor_by_at_most_nine_and_a_half_percent(size):
    p = parameter([1.0, 0.0], None)
    optimizer = torch.optim.SGD([p], lr=0.01, momentum=0.9)
    for _ in range(100):
        p.grad = torch.tensor([0.0, -size])  # always the same way
        larc_([p])
        optimizer.step()
    assert 0.08 < float(p.detach()[1]) < 0.095
