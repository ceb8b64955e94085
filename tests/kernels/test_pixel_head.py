"""pixel_head: its definition against plain torch, and the Triton kernel against its definition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gansegctl import kernels
from gansegctl.kernels.interpolation import upsample

SIZE = (9, 14)


def head(draw, heads, hidden, widths, dtype=torch.float32):
    """Maps, layers and bias of an ensemble with strong opinions."""
    maps = [draw(2, heads * hidden, *native).to(dtype) for native in ((3, 2), SIZE, (3, 2))]
    layers = [
        ((2 * draw(heads, b, a) / a**0.5).to(dtype), draw(heads, b).to(dtype))
        for a, b in zip((hidden, *widths), widths, strict=False)
    ]
    return maps, layers, draw(heads * hidden).to(dtype)


def by_hand(maps, layers, heads, bias, mode, slope):
    """Probabilities [heads,N,K,H,W] in float64, one step of the definition at a time."""
    x = sum(upsample(m.double(), SIZE, mode) for m in maps) + bias.double().view(1, -1, 1, 1)
    rows = []
    for e, part in enumerate(x.chunk(heads, dim=1)):
        for weight, offset in layers:
            part = torch.einsum("kc,nchw->nkhw", weight[e].double(), F.leaky_relu(part, slope))
            part = part + offset[e].double().view(1, -1, 1, 1)
        rows.append(part.softmax(dim=1))
    return torch.stack(rows)


def close(got, p, atol):
    """Labels where the two best are apart, confidence within one step, the score within `atol`."""
    labels, confidence, score = got
    mean = p.mean(dim=0)
    best = mean.topk(2, dim=1).values
    apart = best[:, 0] - best[:, 1] > atol
    assert labels.dtype == confidence.dtype == torch.uint8
    assert apart.float().mean() > 0.8
    assert torch.equal(labels[apart], mean.argmax(dim=1)[apart].to(torch.uint8))
    assert (confidence.double() - 255 * best[:, 0]).abs().max() <= 0.5 + 255 * atol
    spread = torch.special.entr(mean).sum(dim=1)
    if len(p) > 1:
        spread = spread - torch.special.entr(p).sum(dim=2).mean(dim=0)
    assert score.dtype == torch.float32
    assert torch.allclose(score.double(), (spread / math.log(p.shape[2])).mean(dim=(1, 2)), atol=atol)


@pytest.mark.parametrize("backend", ["reference", "torch", "triton"])
@pytest.mark.parametrize(("heads", "hidden", "widths"), [(1, 5, ()), (1, 20, (3,)), (3, 35, (17, 4)), (2, 3, ())])
def test_labels_confidence_and_score(backend, heads, hidden, widths, draw):
    maps, layers, bias = head(draw, heads, hidden, widths)
    got = kernels.pixel_head(maps, SIZE, layers, heads, "bilinear", bias, 0.2, backend=backend)
    close(got, by_hand(maps, layers, heads, bias, "bilinear", 0.2), 1e-5)


@pytest.mark.parametrize("mode", ["nearest", "bilinear-corners"])
def test_other_modes_and_channels_last(mode, draw):
    maps, layers, bias = head(draw, 2, 16, (4,))
    last = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    got = kernels.pixel_head(last, SIZE, layers, 2, mode, bias, backend="triton")
    close(got, by_hand(maps, layers, 2, bias, mode, 0.0), 1e-5)


def test_half_precision_keeps_the_labels_that_are_clear(draw):
    maps, layers, bias = head(draw, 2, 16, (8, 4), torch.float16)
    got = kernels.pixel_head(maps, SIZE, layers, 2, "bilinear", bias, backend="triton")
    close(got, by_hand(maps, layers, 2, bias, "bilinear", 0.0), 1e-2)


def test_the_map_of_uncertainty_has_the_score_as_its_mean_and_scores_repeat(draw):
    maps, layers, bias = head(draw, 2, 16, (4,))
    for backend in ("reference", "torch", "triton"):
        _, _, score = kernels.pixel_head(maps, SIZE, layers, 2, bias=bias, backend=backend)
        labels, _, spread = kernels.pixel_head(maps, SIZE, layers, 2, bias=bias, per_pixel=True, backend=backend)
        assert spread.shape == labels.shape
        assert torch.allclose(spread.mean(dim=(1, 2)), score, atol=1e-6)
        again = kernels.pixel_head(maps, SIZE, layers, 2, bias=bias, backend=backend)[2]
        assert torch.equal(score, again)


def test_agreement_is_certain_and_disagreement_is_not(draw):
    """Jensen-Shannon: 0 when all heads say the same, however unsure; log 2 / log K when two are sure of two things."""
    flat = torch.zeros(1, 2 * 2, 3, 3, device=draw(1).device)
    same = kernels.pixel_head([flat], (6, 6), (), 2, backend="triton")
    assert same[2].item() == pytest.approx(0, abs=1e-6)
    assert same[1].unique().tolist() == [128]
    flat[:, 0] = flat[:, 3] = 50.0
    assert kernels.pixel_head([flat], (6, 6), (), 2, backend="triton")[2].item() == pytest.approx(1, abs=1e-5)
    assert kernels.pixel_head([flat[:, :2]], (6, 6), backend="triton")[2].item() == pytest.approx(0, abs=1e-6)


def test_heads_that_do_not_fit_are_refused(draw):
    maps, layers, bias = head(draw, 2, 4, (3,))
    deep = [*layers, (draw(2, 3, 3).float(), draw(2, 3).float()), (draw(2, 3, 3).float(), draw(2, 3).float())]
    for arguments, words in (
        ((maps, SIZE, layers, 3), "heads = 3"),
        ((maps, SIZE, [(layers[0][0][:, :, :2], layers[0][1])], 2), r"wanted \[2, K, 4\]"),
        ((maps, SIZE, [(layers[0][0], layers[0][1][:, :1])], 2), r"wanted \[2, 3\]"),
        (([], SIZE), "no maps"),
        (([torch.ones(1, 300, 2, 2)], SIZE), "300 classes"),
    ):
        with pytest.raises(ValueError, match=words):
            kernels.pixel_head(*arguments)
    with pytest.raises(ValueError, match="too deep"):
        kernels.pixel_head(maps, SIZE, deep, 2, backend="triton")
    with pytest.raises(ValueError, match="float64"):
        kernels.pixel_head([m.double() for m in maps], SIZE, layers, 2, backend="triton")
    close(kernels.pixel_head(maps, SIZE, deep, 2, bias=bias), by_hand(maps, deep, 2, bias, "bilinear", 0.0), 1e-5)
