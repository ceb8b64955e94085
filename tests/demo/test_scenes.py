"""The built-in domain: seeded, exact, complete, at any size, and not separable by colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gansegctl.demo.scenes import LABELS, batches_of_scenes, class_shares, render
from gansegctl.errors import UsageError


@pytest.fixture(scope="module")
def scenes():
    return render(range(120), 64)


def test_a_seed_gives_one_image_whatever_the_batch(scenes):
    image, mask = render([7], 64)
    assert torch.equal(image[0], scenes[0][7])
    assert torch.equal(mask[0], scenes[1][7])
    again = np.concatenate([i for i, _ in batches_of_scenes(range(120), 64)])
    assert np.array_equal(again, scenes[0].numpy())


def test_shapes_values_and_classes(scenes):
    image, mask = scenes
    assert image.shape == (120, 64, 64, 3)
    assert image.dtype == mask.dtype == torch.uint8
    present = torch.stack([(mask == k).flatten(1).any(dim=1) for k in range(len(LABELS))])
    assert present.float().mean(dim=1).min() > 0.95
    assert int(mask.max()) == 9
    shares = class_shares(mask)
    assert shares.sum() == pytest.approx(1)
    for name in ("eyes", "nose", "mouth", "eyebrows", "ears"):
        assert 0.008 < shares[LABELS.index(name)] < 0.06


@pytest.mark.parametrize("resolution", [32, 96, 256])
def test_a_scene_is_the_same_at_any_resolution(scenes, resolution):
    image, mask = render(range(8), resolution)
    assert image.shape == (8, resolution, resolution, 3)
    assert (class_shares(mask) - class_shares(scenes[1][:8])).abs().max() < 0.02
    small = torch.nn.functional.interpolate(image.permute(0, 3, 1, 2).float(), 32, mode="area")
    base = torch.nn.functional.interpolate(scenes[0][:8].permute(0, 3, 1, 2).float(), 32, mode="area")
    assert (small - base).abs().mean() < 8


def test_scenes_differ(scenes):
    flat = scenes[0].float().flatten(1)
    assert torch.cdist(flat, flat).add(torch.eye(120) * 1e9).min() > 1000


def test_colour_alone_does_not_separate_the_parts(scenes):
    """A nearest-neighbour classifier on the colours of 60 images labels 20 others badly."""
    image, mask = scenes
    stream = torch.Generator().manual_seed(0)
    known = image[:60].reshape(-1, 3).float()
    truth = mask[:60].flatten()
    sample = torch.randperm(len(known), generator=stream)[:20_000]
    query = image[60:80, ::4, ::4].reshape(-1, 3).float()
    wanted = mask[60:80, ::4, ::4].flatten()
    votes = torch.cdist(query, known[sample]).topk(15, largest=False).indices
    predicted = truth[sample][votes].mode(dim=1).values
    ious = []
    for k in range(10):
        inter = ((predicted == k) & (wanted == k)).sum()
        ious.append((inter / ((predicted == k) | (wanted == k)).sum().clamp(min=1)).item())
    assert sum(ious) / 10 < 0.35


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match="31"):
        render([0], 31)
    with pytest.raises(UsageError, match="-1"):
        render([-1], 64)
    with pytest.raises(UsageError, match="at least one"):
        render([], 64)
