"""k-means on pyramids is Lloyd on the dense tensor, and seeds, empties and stopping do what they say."""

from __future__ import annotations

import sys

import pytest
import torch

from gansegctl import kernels
from gansegctl.features import FeaturePyramid, kmeans


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pyramids() -> list[FeaturePyramid]:
    """Three images of two sizes, five channels."""
    return [
        FeaturePyramid([random(2, 3, 3, 5), random(2, 2, 7, 4, seed=1)], (9, 11)),
        FeaturePyramid([random(1, 3, 4, 4, seed=2), random(1, 2, 8, 8, seed=3)], (8, 8)),
    ]


def planted(seed: int = 0) -> tuple[FeaturePyramid, torch.Tensor]:
    """Pixels that lie on five far points of four dimensions, and the points."""
    centres = 100 * random(5, 4, seed=9)
    labels = torch.randint(5, (2, 8, 8), generator=torch.Generator().manual_seed(seed))
    return FeaturePyramid([centres[labels].permute(0, 3, 1, 2)], (8, 8)), centres


def dense(parts: list[FeaturePyramid]) -> torch.Tensor:
    return torch.cat([p.dense().permute(0, 2, 3, 1).reshape(-1, p.channels) for p in parts])


def lloyd(x: torch.Tensor, centroids: torch.Tensor, rounds: int) -> torch.Tensor:
    for _round in range(rounds):
        labels = torch.cdist(x, centroids).argmin(dim=1)
        centroids = torch.stack([x[labels == k].mean(dim=0) for k in range(len(centroids))])
    return centroids


@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_equals_lloyd_on_the_dense_tensor(rounds):
    parts = pyramids()
    x = dense(parts)
    start = x[torch.tensor([3, 50, 120, 200])]
    result = kmeans(parts, 4, iterations=rounds, tol=0.0, start=start)
    wanted = lloyd(x, start, rounds)
    distance, labels = torch.cdist(x, wanted).min(dim=1)
    assert result.iterations == rounds
    assert (result.centroids - wanted).abs().max() < 1e-10
    assert abs(result.inertia - float(distance.square().sum())) < 1e-9
    assert result.counts.tolist() == labels.bincount(minlength=4).tolist()


def test_no_hypercolumn_is_built(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the hypercolumn was built")

    monkeypatch.setattr(kernels, "upsample_concat", refuse)
    assert kmeans(pyramids(), 3, iterations=2).centroids.shape == (3, 5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_finds_planted_clusters(seed):
    p, centres = planted()
    result = kmeans([p], 5, seed=seed)
    nearest = torch.cdist(centres, result.centroids).min(dim=1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2, 3, 4]
    assert nearest.values.max() < 1e-9
    assert result.inertia < 1e-6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_seeding_alone_takes_one_pixel_of_every_far_cluster(seed):
    p, _centres = planted()
    assert kmeans([p], 5, iterations=0, seed=seed).counts.min() > 0


def test_an_empty_cluster_moves_to_a_far_pixel():
    p, centres = planted()
    start = torch.cat([centres[:3], torch.full((2, 4), 1e6, dtype=torch.float64)])
    result = kmeans([p], 5, start=start)
    assert result.counts.min() > 0
    assert result.inertia < 1e-6


def test_more_clusters_than_different_pixels_leave_some_empty():
    p, _centres = planted()
    result = kmeans([p], 7)
    assert (result.counts > 0).sum() == 5
    assert result.counts.sum() == p.batch * 64
    assert result.centroids.isfinite().all()


def test_stops_when_it_stands_still_and_never_gets_worse():
    parts = pyramids()
    start = dense(parts)[:4]
    inertias = [kmeans(parts, 4, iterations=i, tol=0.0, start=start).inertia for i in range(6)]
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[-1] < inertias[0]
    loose, tight = (kmeans(parts, 4, tol=tol, start=start) for tol in (0.05, 0.0))
    assert loose.iterations < tight.iterations < 100
    again = kmeans(parts, 4, iterations=1, tol=0.0, start=tight.centroids)
    assert (again.centroids - tight.centroids).abs().max() < 1e-12


def test_the_seed_decides():
    a, b, other = (kmeans(pyramids(), 4, iterations=1, seed=s).centroids for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


def test_half_precision_is_clustered_in_float32():
    p, centres = planted()
    result = kmeans([p.to(torch.float16)], 5)
    assert result.centroids.dtype == torch.float32
    assert torch.cdist(centres.float(), result.centroids).amin(dim=1).max() < 0.2


def test_many_pixels_are_sampled_without_a_permutation(monkeypatch):
    monkeypatch.setattr(sys.modules[kmeans.__module__], "_SHUFFLED", 100)
    p, _centres = planted()
    assert kmeans([p], 5).inertia < 1e-6


def test_what_cannot_be_clustered_is_refused():
    parts = pyramids()
    with pytest.raises(ValueError, match="clusters"):
        kmeans(parts, 0)
    with pytest.raises(ValueError, match="clusters"):
        kmeans(parts, 263)
    with pytest.raises(ValueError, match="clusters"):
        kmeans([], 1)
    with pytest.raises(ValueError, match="channels"):
        kmeans([parts[0], FeaturePyramid(parts[1].levels[:1], parts[1].size)], 2)
    with pytest.raises(ValueError, match="start"):
        kmeans(parts, 2, start=torch.zeros(2, 4))
    with pytest.raises(ValueError, match="iterations"):
        kmeans(parts, 2, iterations=-1)
