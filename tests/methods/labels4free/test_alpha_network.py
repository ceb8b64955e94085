"""The alpha network: its size as published, its sum of levels written down, and which activations it reads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.methods.tiny_generator import TinyGenerator

from gansegctl.contracts import FeatureTap, GeneratorSpec
from gansegctl.errors import UsageError
from gansegctl.methods.labels4free.alpha_network import AlphaNetwork, alpha_taps, bicubic

CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


def stylegan2(size):
    taps = [FeatureTap("b4.conv1", 4, 512)]
    for r in (r for r in CHANNELS if 4 < r <= size):
        taps += [FeatureTap(f"b{r}.conv{i}", r, CHANNELS[r]) for i in (0, 1)]
    return GeneratorSpec("stylegan2", size, 3, 512, 512, 0, len(taps) + 1, tuple(taps))


def network_of(taps, seed=0):
    return AlphaNetwork([t.resolution for t in taps], [t.channels for t in taps], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "lowest", "weights"), [(256, 8, 14_947), (512, 16, 12_259), (1024, 32, 9_379), (64, 8, None)]
)
def test_it_has_the_published_number_of_weights_and_levels(size, lowest, weights):
    taps = alpha_taps(stylegan2(size))
    assert taps[0].resolution == lowest and taps[-1].resolution == size
    if weights:
        assert len(taps) == 12 and sum(p.numel() for p in network_of(taps).parameters()) == weights


def test_a_generator_of_too_few_sizes_is_refused():
    assert [t.resolution for t in alpha_taps(TinyGenerator().spec)] == [8, 16]
    with pytest.raises(UsageError, match="three resolutions"):
        alpha_taps(stylegan2(8))


def test_levels_are_joined_from_coarse_to_fine_as_written_down():
    network = AlphaNetwork([4, 4, 8, 8, 16, 16], [5, 4, 3, 3, 2, 2], torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(1)
    shapes = [(5, 4), (4, 4), (3, 8), (3, 8), (2, 16), (2, 16)]
    maps = [torch.randn(2, c, s, s, generator=stream) for c, s in shapes]

    def own(i):
        return torch.cat([network.reduce[i](maps[i]), network.reduce[i + 1](maps[i + 1])], dim=1)

    def double(x):
        return F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=True)

    middle = F.leaky_relu(network.merge[0](torch.cat([double(own(0)), own(2)], dim=1)), 0.2)
    wanted = network.last(double(middle) + own(4))
    torch.testing.assert_close(network(maps, (16, 16)), wanted, atol=1e-5, rtol=1e-5)
    assert network(maps, (32, 32)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(("count", "widths"), [(1, [6]), (2, [3, 3]), (3, [2, 2, 2]), (4, [2, 2, 1, 1])])
def test_a_resolution_gives_six_channels_over_all_its_maps(count, widths):
    network = AlphaNetwork([4] * count + [8], [3] * (count + 1))
    assert [c.out_channels for c in network.reduce] == [*widths, 6]


def test_statistics_are_folded_exactly():
    network = AlphaNetwork([4, 8, 8], [5, 4, 3], torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(1)
    maps = [torch.randn(1, c, s, s, generator=stream) for c, s in ((5, 4), (4, 8), (3, 8))]
    mean, scale = torch.randn(12, generator=stream), torch.rand(12, generator=stream) + 0.5
    means, scales = mean.split([5, 4, 3]), scale.split([5, 4, 3])
    ready = [(x - m.view(1, -1, 1, 1)) * s.view(1, -1, 1, 1) for x, m, s in zip(maps, means, scales, strict=True)]
    wanted = network(ready, (8, 8)).detach()
    network.fold(mean, scale)
    torch.testing.assert_close(network(maps, (8, 8)), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("native", "full"), [((4, 4), (8, 8)), ((5, 7), (11, 16)), ((6, 6), (6, 6))])
def test_bicubic_is_that_of_torch(native, full):
    x = torch.randn(2, 3, *native, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(x, size=full, mode="bicubic", align_corners=True)
    torch.testing.assert_close(bicubic(x, full), wanted, atol=1e-5, rtol=1e-5)


def test_weights_come_from_their_own_stream():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, same, other = (network_of(alpha_taps(TinyGenerator().spec), s) for s in (1, 1, 2))
    AlphaNetwork([4, 8], [2, 2])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.last.weight, same.last.weight) and not torch.equal(one.last.weight, other.last.weight)
    assert float(one.reduce[0].weight.detach().abs().max()) <= 6**-0.5
