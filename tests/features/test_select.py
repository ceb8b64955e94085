"""Which images to annotate."""

from __future__ import annotations

import itertools

import pytest
import torch

from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.features.select import choose, descriptors, farthest_first, k_medoids, most_typical


def test_the_typical_one_first_then_the_far_ones():
    vectors = torch.tensor([[0.1, 0.0], [10.0, 0.0], [-10.0, 0.1], [0.0, 9.0], [0.2, -9.0], [9.5, 0.5]])
    order = choose(vectors, 5)
    assert order[0] == 0
    assert set(order[1:]) == {1, 2, 3, 4}


def test_scale_of_a_channel_does_not_decide():
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    assert choose(vectors, 6) == choose(vectors * torch.tensor([1000.0, 1.0, 0.001]), 6)


def test_no_image_twice_even_when_all_are_equal():
    assert sorted(choose(torch.ones(4, 2), 4)) == [0, 1, 2, 3]


def test_too_many_are_refused():
    with pytest.raises(ValueError, match="5 of 4"):
        choose(torch.ones(4, 2), 5)


def test_descriptors_are_means_of_native_maps():
    p = FeaturePyramid([torch.ones(2, 3, 2, 2), torch.arange(8.0).view(2, 1, 2, 2)], (4, 4))
    assert descriptors(p).tolist() == [[1, 1, 1, 1.5], [1, 1, 1, 5.5]]


def test_the_most_typical_is_nearest_to_the_mean():
    assert most_typical(torch.tensor([[0.0, 8.0], [4.0, 4.0], [3.0, 2.0], [9.0, 0.0]])) == 1


def test_farthest_first_is_within_twice_of_the_best_cover():
    vectors = torch.randn(9, 2, generator=torch.Generator().manual_seed(1))
    gaps = torch.cdist(vectors, vectors)
    best = min(float(gaps[list(c)].amin(dim=0).max()) for c in itertools.combinations(range(9), 3))
    for first in range(9):
        chosen = farthest_first(vectors, 3, first)
        assert chosen[0] == first
        assert len(set(chosen)) == 3
        for i in (1, 2):
            reach = gaps[chosen[:i]].amin(dim=0)
            assert reach[chosen[i]] == reach.max()
        assert gaps[chosen].amin(dim=0).max() <= 2 * best


def test_descriptors_with_nan_are_refused():
    with pytest.raises(ValueError, match="nan"):
        choose(torch.tensor([[0.0], [float("nan")]]), 1)


def test_medoids_stand_for_their_groups_and_the_largest_comes_first():
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 30.0]])
    sizes = [5, 12, 8]
    vectors = torch.cat([c + torch.randn(n, 2, generator=random) for c, n in zip(centres, sizes, strict=True)])
    group = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    order, stands = k_medoids(vectors, 3)
    assert group[order].tolist() == [1, 2, 0] and stands == [12, 8, 5]


def test_no_exchange_of_a_medoid_helps_and_few_choices_are_better():
    for seed in range(10):
        vectors = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
        distance = torch.cdist(vectors, vectors)
        for count in (1, 2, 3):
            sets = itertools.combinations(range(12), count)
            cost = {frozenset(c): float(distance[list(c)].min(dim=0).values.sum()) for c in sets}
            found = frozenset(k_medoids(vectors, count)[0])
            exchanged = [c for c in cost if len(c & found) == count - 1]
            assert cost[found] <= min(cost[c] for c in exchanged) + 1e-4
            assert cost[found] <= 1.1 * min(cost.values())


def test_medoids_of_equal_vectors_and_too_many():
    assert sorted(k_medoids(torch.ones(4, 2), 4)[0]) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="got 5 of 4"):
        k_medoids(torch.ones(4, 2), 5)


def test_distinct_vectors_end_where_all_others_are_equal_to_one_chosen():
    x = torch.tensor([[0.0], [4.0], [4.0], [0.0]])
    assert farthest_first(x, 3, distinct=True) == [0, 1]
    assert len(farthest_first(x, 3)) == 3
