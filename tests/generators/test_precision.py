"""Half precision of the large blocks: near the float32 image, taps of that type, no overflow, weights kept."""

from __future__ import annotations

import copy

import pytest
import torch

from gansegctl.generators.stylegan2 import HALVES, StyleGAN2, StyleGAN2Config


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return StyleGAN2(StyleGAN2Config(32, channel_base=256, channel_max=16, z_dim=8, w_dim=8, mapping_layers=2)).eval()


@torch.no_grad()
def made(network, precision):
    """Image and taps at a precision."""
    network.use_precision(precision)
    try:
        return network.synthesize(network.map(torch.randn(2, 8, generator=torch.Generator().manual_seed(1))))
    finally:
        network.use_precision("fp32")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_images_and_taps_are_near_those_of_float32(network, precision):
    exact, half = made(network, "fp32"), made(network, precision)
    assert half.image.dtype == torch.float32  # the sum of images never is half
    near = 0.05 if precision == "bf16" else 0.01
    assert float((half.image - exact.image).abs().max()) < near * float(exact.image.abs().max())
    assert not torch.equal(half.image, exact.image)
    for a, b in zip(half.pyramid.levels, exact.pyramid.levels, strict=True):
        assert a.dtype == HALVES[precision]
        assert float((a.float() - b).abs().max()) < near * float(b.abs().max())


def test_float16_survives_weights_and_styles_that_would_overflow(network):
    loud = copy.deepcopy(network)
    with torch.no_grad():
        for _, conv in loud.synthesis.convs():
            conv.weight *= 300.0
            conv.affine.weight *= 300.0
            conv.affine.bias *= 300.0
    exact, half = made(loud, "fp32"), made(loud, "fp16")
    assert bool(half.image.isfinite().all())
    assert float((half.image - exact.image).abs().max()) < 0.02 * float(exact.image.abs().max())


def test_only_the_four_largest_blocks_are_half(network):
    seen = {}
    hooks = [
        conv.register_forward_hook(lambda m, args, y, name=name: seen.update({name: y.dtype}))
        for name, conv in network.synthesis.convs()
    ]
    made(network, "bf16")
    for hook in hooks:
        hook.remove()
    assert seen.pop("b4.conv1") == torch.float32  # never the smallest
    assert set(seen.values()) == {torch.bfloat16} and len(seen) == 6
    large = StyleGAN2(StyleGAN2Config(128, channel_base=256, channel_max=4, z_dim=4, w_dim=4, mapping_layers=1))
    assert large.synthesis.half_from == 16


def test_what_is_kept_for_inference_follows_the_weights(network):
    changed = copy.deepcopy(network)
    before = made(changed, "fp32").image
    with torch.no_grad():
        changed.synthesis.b32.conv1.weight.mul_(torch.linspace(0.5, 2, 3))
    after = made(changed, "fp32").image
    assert not torch.equal(before, after)
    with torch.enable_grad():  # makes everything anew
        anew = changed.synthesize(changed.map(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)))).image
    torch.testing.assert_close(after, anew.detach(), atol=1e-5, rtol=1e-5)


def test_a_family_that_is_not_run_in_half_precision_says_so(network):
    from gansegctl.errors import UsageError
    from gansegctl.generators.base import StyleGAN

    other = StyleGAN()
    other.spec = network.spec
    other.use_precision("fp32")
    with pytest.raises(UsageError, match="leave --precision out"):
        other.use_precision("fp16")
