"""Verdicts: images of the domain pass, others are flagged, and both are measured, not assumed."""

from __future__ import annotations

import pytest
import torch

from gansegctl.errors import UsageError
from gansegctl.generators.inversion.out_of_domain import Calibration, joined, varied_samples
from gansegctl.generators.inversion.search import Inverted
from gansegctl.generators.weights import load_generator


def inversions(n, scale=1.0, seed=0, **more):
    stream = torch.Generator().manual_seed(seed)
    values = {k: more.get(k, scale) * (0.2 * torch.randn(n, generator=stream)).exp() * 0.1 for k in NAMES}
    return Inverted(ws=torch.zeros(n, 3, 4), maps=None, steps=torch.ones(n, dtype=torch.long), **values)


NAMES = ("error", "start_error", "nearest", "distance")


def test_images_of_the_domain_pass_and_others_are_flagged():
    calibration = Calibration.of(inversions(32), "its own samples")
    fresh = calibration.judge(inversions(200, seed=1))
    assert sum(v.flagged for v in fresh) <= 20
    others = calibration.judge(inversions(50, scale=2.5, seed=2))
    assert all(v.flagged for v in others)
    assert min(v.score for v in others) > 2


def test_the_reason_names_what_is_worst():
    calibration = Calibration.of(inversions(32), "its own samples")
    verdict = calibration.judge(inversions(1, scale=1.5, nearest=6.0))[0]
    assert verdict.flagged
    assert "the most similar sample is" in verdict.reason
    assert "times as far off as is usual for its own samples" in verdict.reason
    assert "drawn as well as" in calibration.judge(inversions(1, scale=0.5))[0].reason


def test_drawn_too_well_is_not_out_of_domain():
    calibration = Calibration.of(inversions(32), "x")
    assert not any(v.flagged for v in calibration.judge(inversions(20, scale=0.01)))


def test_round_trip_and_refusals():
    calibration = Calibration.of(inversions(16), "x")
    assert Calibration.from_json(calibration.to_json()) == calibration
    with pytest.raises(UsageError, match="statistics"):
        Calibration.from_json(calibration.to_json() | {"statistics": ["error"]})
    with pytest.raises(UsageError, match="at least 8"):
        Calibration.of(inversions(7), "x")


def test_batches_are_joined():
    parts = [inversions(3), inversions(2, seed=1)]
    whole = joined(parts)
    assert len(whole.error) == len(whole.ws) == 5
    assert torch.equal(whole.nearest[3:], parts[1].nearest)


def test_varied_samples_repeat_and_vary(generator_file):
    g = load_generator(generator_file)
    a, b = varied_samples(g, 4), varied_samples(g, 4)
    assert a.shape == (4, 3, 16, 16)
    assert torch.equal(a, b)
    assert a.abs().max() <= 1
    assert len({float(x.sum()) for x in a}) == 4
