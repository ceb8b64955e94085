"""k-means on points: several runs side by side find what each finds alone."""

from __future__ import annotations

import torch

from gansegctl.features.kmeans_points import parallel_kmeans


def blobs(stream, places, each=40):
    centres = torch.tensor(places, dtype=torch.float32)
    return torch.cat([c + 0.1 * torch.randn(each, len(c), generator=stream) for c in centres])


def test_runs_side_by_side_find_what_each_finds_in_its_own_columns():
    stream = torch.Generator().manual_seed(0)
    first = blobs(stream, [[0, 0], [9, 0], [0, 9]])  # three blobs in columns 0 and 1
    order = torch.arange(120) % 3
    second = torch.stack([order * 7.0, order * -3.0], dim=1) + 0.1 * torch.randn(120, 2, generator=stream)
    keep = torch.tensor([[True, True, False, False], [False, False, True, True]])
    found = parallel_kmeans(torch.cat([first, second], dim=1), keep, 3, 20, torch.Generator().manual_seed(3))
    for labels, truth in zip(found, (torch.arange(120) // 40, order), strict=True):
        pairs = {(int(a), int(b)) for a, b in zip(labels, truth, strict=True)}
        assert len(pairs) == 3


def test_a_start_keeps_the_numbers_of_the_clusters_and_a_sample_serves_for_all():
    stream = torch.Generator().manual_seed(0)
    x, truth = blobs(stream, [[0, 0], [9, 0], [0, 9]]), torch.arange(120) // 40
    start = truth.clone()
    start[::7] = 2
    keep = torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(parallel_kmeans(x, keep, 3, 10, stream, start=start), truth.expand(2, -1))
    sampled = parallel_kmeans(x, keep[:1], 3, 10, torch.Generator().manual_seed(1), sample=30)[0]
    assert len({(int(a), int(b)) for a, b in zip(sampled, truth, strict=True)}) == 3


def test_equal_rows_are_no_error():
    found = parallel_kmeans(torch.ones(9, 2), torch.ones(1, 2, dtype=torch.bool), 3, 5, torch.Generator())
    assert found.shape == (1, 9) and len(found.unique()) == 1
