"""Which pictures to annotate."""

from __future__ import annotations

import pytest
import torch

from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.features.select import choose, descriptors


def test_the_typical_one_first_then_the_far_ones():
    vectors = torch.tensor([[0.1, 0.0], [10.0, 0.0], [-10.0, 0.1], [0.0, 9.0], [0.2, -9.0], [9.5, 0.5]])
    order = choose(vectors, 5)
    assert order[0] == 0
    assert set(order[1:]) == {1, 2, 3, 4}


def test_scale_of_a_channel_does_not_decide():
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    assert choose(vectors, 6) == choose(vectors * torch.tensor([1000.0, 1.0, 0.001]), 6)


def test_no_picture_twice_even_when_all_are_equal():
    assert sorted(choose(torch.ones(4, 2), 4)) == [0, 1, 2, 3]


def test_too_many_are_refused():
    with pytest.raises(ValueError, match="5 of 4"):
        choose(torch.ones(4, 2), 5)


def test_descriptors_are_means_of_native_maps():
    p = FeaturePyramid([torch.ones(2, 3, 2, 2), torch.arange(8.0).view(2, 1, 2, 2)], (4, 4))
    assert descriptors(p).tolist() == [[1, 1, 1, 1.5], [1, 1, 1, 5.5]]
