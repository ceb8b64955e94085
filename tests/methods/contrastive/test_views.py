"""Pairs of views: which styles are replaced, how often codes are truncated, and where a turned pixel comes from."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.methods.tiny_generator import TinyGenerator

from gansegctl.contracts import FeatureTap, GeneratorSpec
from gansegctl.errors import UsageError
from gansegctl.methods.contrastive.views import draw_views, draw_warp, style_pairs


def spec(resolutions, num_ws):
    taps = tuple(FeatureTap(f"t{i}", r, 8) for i, r in enumerate(resolutions))
    return GeneratorSpec("any", max(resolutions), 3, 8, 8, 0, num_ws, taps)


STYLEGAN2_256 = spec([4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256], 14)
STYLEGAN3_256 = spec([16, 16, 16, 32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 256], 16)


def test_pairs_of_styles_are_those_of_the_release_and_those_without_geometry():
    assert style_pairs(STYLEGAN2_256, 0, last=False) == [(2 * k, 2 * k + 1) for k in range(6)]
    assert style_pairs(STYLEGAN2_256, 16) == [(4, 5), (6, 7), (8, 9), (10, 11), (12, 13)]
    assert style_pairs(STYLEGAN2_256, 256) == [(12, 13)]


def test_slots_are_told_by_the_tap_they_feed_in_any_family():
    assert style_pairs(STYLEGAN3_256, 64)[0] == (6, 7)  # slot 6 feeds the sixth tap: slot 0 is the input's
    assert style_pairs(TinyGenerator().spec) == [(0, 1), (2,)]
    assert style_pairs(TinyGenerator().spec, 16) == [(2,)]
    with pytest.raises(UsageError, match="at most 16"):
        style_pairs(TinyGenerator().spec, 32)


class Counting(TinyGenerator):
    """Says by what every code was truncated: w is psi everywhere."""

    def map(self, z, c=None, truncation=1.0, cutoff=None):
        return torch.full((len(z), 3, 6), truncation)


@pytest.mark.parametrize(("twice", "kept"), [(False, 0.5), (True, 0.25)])
def test_kept_codes_are_truncated_once_or_twice_and_new_ones_once(twice, kept):
    stream = torch.Generator().manual_seed(0)
    ws = draw_views(Counting(), [(0, 1)], 0.5, 1.0, twice, stream, torch.device("cpu"))
    assert ws.shape == (2, 3, 6)
    assert bool((ws[:, :2] == 0.5).all()) and bool((ws[:, 2] == kept).all())


def test_views_differ_in_one_pair_of_slots_each_and_by_sigma():
    generator, device = TinyGenerator(), torch.device("cpu")
    base, none, half, full = (
        draw_views(generator, [(2,)], 0.7, sigma, False, torch.Generator().manual_seed(3), device)
        for sigma in (0.0, 0.0, 0.5, 1.0)
    )
    assert torch.equal(base, none) and torch.equal(base[0], base[1])
    assert torch.equal(full[:, :2], base[:, :2]) and not torch.allclose(full[0, 2], full[1, 2])
    torch.testing.assert_close(half, (base + full) / 2)


def test_every_pair_is_used_and_slots_of_a_pair_get_their_own_code():
    seen = set()
    for s in range(20):
        streams = (torch.Generator().manual_seed(s), torch.Generator().manual_seed(s))
        old = draw_views(TinyGenerator(), [(0, 1), (2,)], 0.7, 0.0, False, streams[0], torch.device("cpu"))
        new = draw_views(TinyGenerator(), [(0, 1), (2,)], 0.7, 1.0, False, streams[1], torch.device("cpu"))
        for a, b in zip(old, new, strict=True):
            seen.add(tuple((a != b).any(dim=1).nonzero().flatten().tolist()))
            if (b[0] != a[0]).any():
                assert not torch.allclose(b[0], b[1])
    assert seen == {(0, 1), (2,)}


def test_a_warp_turns_by_at_most_ten_degrees_and_mirrors_half_of_the_time():
    mirrored = 0
    for s in range(40):
        warp = draw_warp((33, 33), torch.Generator().manual_seed(s))
        y, x = (warp.source // 33).view(33, 33) - 16, (warp.source % 33).view(33, 33) - 16
        assert (int(y[16, 16]), int(x[16, 16])) == (0, 0)
        flipped = int(x[16, 26]) < 0
        mirrored += flipped
        angle = math.degrees(math.atan2(int(y[16, 26]), abs(int(x[16, 26]))))
        assert abs(angle) <= 10 + 3  # three degrees of rounding at ten pixels from the middle
        radius = (y.float() ** 2 + x.float() ** 2).sqrt()[8:25, 8:25]
        true = torch.arange(-8.0, 9).square()
        assert float((radius - (true[:, None] + true).sqrt()).abs().max()) < 0.75
    assert 10 < mirrored < 30


def test_pixels_turned_in_from_outside_are_marked():
    shares = [float((~draw_warp((32, 32), torch.Generator().manual_seed(s)).inside).float().mean()) for s in range(10)]
    assert 0 < max(shares) < 0.12 and all(x >= 0 for x in shares)
    for s in range(10):
        warp = draw_warp((32, 32), torch.Generator().manual_seed(s))
        assert int(warp.source.min()) >= 0 and int(warp.source.max()) < 1024 and bool(warp.inside[16 * 32 + 16])
