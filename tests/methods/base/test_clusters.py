"""Shared by unsupervised methods: rules for foreground, seeds of images."""

from __future__ import annotations

import pytest
import torch

from gansegctl.errors import UsageError
from gansegctl.methods.base.clusters import (
    border,
    centrality,
    centre_prior,
    check_sides,
    foreground_clusters,
    no_exemplars,
    segments,
    stream_of,
)


def portrait(side: int = 16) -> torch.Tensor:
    """0: surround, 1: a head in the middle, 2: a body on the lower border, 3: nothing."""
    labels = torch.zeros(1, side, side, dtype=torch.long)
    labels[0, 4:10, 5:11] = 1
    labels[0, 12:, 3:13] = 2
    return labels


def test_the_rules_say_what_they_promise():
    labels = portrait()
    found = {rule: foreground_clusters(labels, 4, rule).tolist() for rule in ("least-central", "border")}
    assert found["least-central"] == [False, True, True, False]
    assert foreground_clusters(labels, 4, "centre").tolist() == [False, True, False, False]
    assert found["border"] == [False, True, False, False]  # the body is 10 of 60 border pixels, 40 of all 256
    assert foreground_clusters(labels, 4, "border", "tlr").tolist() == [False, True, True, False]
    assert foreground_clusters(labels, 4, "agreement", "tlr").tolist() == [False, True, False, False]


def test_there_is_always_a_foreground_and_a_background():
    centred = torch.zeros(1, 8, 8, dtype=torch.long)
    centred[0, 3:5, 3:5] = 1
    for rule in ("least-central", "centre", "border", "agreement"):
        assert foreground_clusters(centred, 2, rule).tolist() == [False, True]
        alone = foreground_clusters(torch.full((1, 8, 8), 2), 3, rule)
        assert alone.tolist() in ([False, False, True], [False, False, False])
    left = torch.zeros(1, 8, 8, dtype=torch.long)
    left[..., :4] = 1  # both halves are as central and touch as much: some answer with both parts
    assert foreground_clusters(left, 2, "agreement").sum() == 1


def test_several_images_are_judged_together():
    turned = torch.cat([portrait(), portrait(), portrait()])
    assert torch.equal(foreground_clusters(turned, 4, "border"), foreground_clusters(portrait(), 4, "border"))


def test_the_prior_and_the_border():
    prior = centre_prior(6, 10)
    assert float(prior.mean()) == pytest.approx(1.0) and int(prior.argmax()) in (24, 25, 34, 35)
    torch.testing.assert_close(prior, prior.flip(0).flip(1))
    assert int(border(5, 7).sum()) == 20 and int(border(5, 7, "b").sum()) == 7 and int(border(5, 7, "lr").sum()) == 10
    central = centrality(portrait(), 4)
    assert central.argsort(descending=True).tolist()[0] == 1 and float(central[3]) == 0
    check_sides("tl")
    check_sides(None)
    for wrong in ("", "x", "tlx"):
        with pytest.raises(UsageError, match="sides"):
            check_sides(wrong)


def test_streams_depend_on_their_names_alone():
    draws = [torch.rand(3, generator=stream_of(*name)) for name in ((1, 2), (1, 2), (12, ""), (1, 3))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[3])


def test_names_and_refusals():
    assert segments(3).names == ("segment-0", "segment-1", "segment-2")
    no_exemplars("stylemix", [])
    with pytest.raises(UsageError, match="--shots 0"):
        no_exemplars("stylemix", [object()])
