"""Per-pixel heads on a pyramid are the same heads on the dense hypercolumn, with and without gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gansegctl import kernels
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.kernels import cpu_ops, cpu_strips, torch_ops

SIZE = (9, 11)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pyramid(requires_grad: bool = False) -> FeaturePyramid:
    shapes = [(3, 3, 4), (2, 3, 4), (4, 6, 7), (2, *SIZE)]
    return FeaturePyramid([random(2, *s, seed=i).requires_grad_(requires_grad) for i, s in enumerate(shapes)], SIZE)


def head(*widths: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    made, before = [], 11
    for i, width in enumerate(widths):
        made.append((random(width, before, seed=seed + i), random(width, seed=seed + i + 50)))
        before = width
    return made


def on_dense(p: FeaturePyramid, layers, slope: float) -> torch.Tensor:
    x = p.dense()
    for i, (w, b) in enumerate(layers):
        x = F.conv2d(F.leaky_relu(x, slope) if i else x, w[:, :, None, None], b)
    return x


@pytest.mark.parametrize("widths", [(3,), (5, 3), (6, 5, 3)])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("chunk", [2, 256])
def test_perceptron(widths, grad, chunk, monkeypatch):
    for module in (cpu_strips, torch_ops):
        monkeypatch.setattr(module, "CHUNK", chunk)
    p, layers = pyramid(grad), head(*widths)
    made = p.perceptron(layers, 0.2)
    assert made.requires_grad == grad
    assert (made - on_dense(p, layers, 0.2)).abs().max() < 1e-11


def test_gradients_of_a_perceptron():
    p, (first, second) = pyramid(), head(5, 3)
    w = first[0].clone().requires_grad_()
    p.perceptron([(w, first[1]), second], 0.2).square().sum().backward()
    v = first[0].clone().requires_grad_()
    on_dense(p, [(v, first[1]), second], 0.2).square().sum().backward()
    assert (w.grad - v.grad).abs().max() < 1e-8 * v.grad.abs().max()


@pytest.mark.parametrize("members", [1, 4])
def test_classify(members):
    p, heads = pyramid(), [head(6, 4, seed=7 * i) for i in range(members)]
    log_p = torch.stack([on_dense(p, h, 0.0).log_softmax(dim=1) for h in heads])  # [M, N, K, H, W]
    mean = log_p.exp().mean(dim=0)
    entropy = -(mean * mean.log()).sum(dim=1)
    own = -(log_p.exp() * log_p).sum(dim=2).mean(dim=0)
    labels, confidence, uncertainty = p.classify(heads)
    assert torch.equal(labels.long(), mean.argmax(dim=1))
    assert (confidence / 255 - mean.amax(dim=1)).abs().max() < 0.51 / 255
    wanted = (entropy if members == 1 else entropy - own) / torch.tensor(4.0).log()
    assert (uncertainty - wanted).abs().max() < 1e-5
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1


@pytest.mark.parametrize("members", [1, 3])
def test_other_backends_get_the_same_head(members):
    """Off the CPU the first layers of all members are one native product, and `kernels.pixel_head` does the rest."""
    p, heads = (
        pyramid().to(torch.float32),
        [[(w.float(), b.float()) for w, b in head(6, 4, seed=i)] for i in range(members)],
    )
    wanted = p.classify(heads)
    p.backend = "torch"
    found = p.classify(heads)
    assert torch.equal(found[0], wanted[0])
    assert (found[1].int() - wanted[1].int()).abs().max() <= 1
    assert (found[2] - wanted[2]).abs().max() < 1e-5


def test_pooling_of_labels_off_the_cpu_is_the_same():
    p = pyramid()
    labels = torch.randint(5, (2, *SIZE), generator=torch.Generator().manual_seed(0))
    labels[0, 0, 0] = 255
    wanted = p.pool_labels(labels, 4)
    p.backend = "torch"
    found = p.pool_labels(labels, 4)
    assert (found[0] - wanted[0]).abs().max() < 1e-10
    assert torch.equal(found[1], wanted[1])


def test_heads_build_no_hypercolumn(monkeypatch):
    monkeypatch.setattr(kernels, "upsample_concat", None)
    p = pyramid()
    p.perceptron(head(6, 3))
    p.classify([head(6, 3)])


def test_without_gradients_the_strips_run_and_with_them_they_do_not(monkeypatch):
    ran = []
    monkeypatch.setattr(cpu_strips, "project", lambda *a: ran.append(a) or torch.zeros(1))
    w = random(2, 11).requires_grad_()
    pyramid().project(w)
    assert not ran
    with torch.no_grad():
        pyramid().project(w)
    pyramid().project(w.detach())
    assert len(ran) == 2


def test_what_is_no_head_is_refused():
    with pytest.raises(ValueError, match="heads"):
        pyramid().classify([])
    with pytest.raises(ValueError, match="channels"):
        pyramid().classify([[(random(3, 4), random(3))]])
    with pytest.raises(ValueError, match="channels"):
        pyramid().perceptron([(random(3, 4), random(3))])


def kept_for_backward(function) -> tuple[torch.Tensor, int]:
    """What a function returns, and how many numbers autograd keeps of it, those of one memory once."""
    kept = {}

    def keep(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        made = function()
    return made, sum(kept.values())


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_training_a_wide_perceptron_keeps_its_hidden_maps_once_or_makes_them_again(slope, monkeypatch):
    monkeypatch.setattr(torch_ops, "CHUNK", 16)
    p, maps, results = pyramid(), 2 * SIZE[0] * SIZE[1], []
    for bound in (1 << 30, 0):
        monkeypatch.setattr(torch_ops, "HIDDEN", bound)
        layers = [(w.requires_grad_(), b.requires_grad_()) for w, b in head(64, 5, 3)]
        made, kept = kept_for_backward(lambda layers=layers: p.perceptron(layers, slope))
        made.square().sum().backward()
        results.append((made.detach(), [t.grad for layer in layers for t in layer]))
        few = sum(x.numel() for x in p.levels) + 4 * 5 * maps + sum(t.numel() for layer in layers for t in layer)
        assert kept < few + (64 * maps if bound else 0) * 1.1
    (once, grads), (again, others) = results
    assert torch.equal(once, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, others, strict=True))
    assert (once - on_dense(p, [(w.detach(), b.detach()) for w, b in layers], slope)).abs().max() < 1e-10


def test_hidden_maps_are_made_again_a_few_units_at_a_time(monkeypatch):
    p, seen, plain = pyramid(), [], cpu_ops.project
    layers = [(w.requires_grad_(), b) for w, b in head(10, 3)]
    whole = p.perceptron(layers)
    monkeypatch.setattr(torch_ops, "HIDDEN", 0)
    monkeypatch.setattr(torch_ops, "AGAIN", 3 * 2 * SIZE[0] * SIZE[1] * layers[0][0].element_size())
    monkeypatch.setattr(cpu_ops, "project", lambda x, w, *a: seen.append(len(w)) or plain(x, w, *a))
    torch.testing.assert_close(p.perceptron(layers), whole)
    assert seen == [3, 3, 3, 1]


def test_hidden_maps_made_again_leave_the_random_state_alone(monkeypatch):
    monkeypatch.setattr(torch_ops, "HIDDEN", 0)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    layers = [(w.requires_grad_(), b) for w, b in head(6, 3)]
    pyramid().perceptron(layers).sum().backward()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_joined_levels_are_the_same_hypercolumn():
    p = pyramid()
    joined = p.joined()
    assert joined.widths == [5, 4, 2]
    torch.testing.assert_close(joined.dense(), p.dense())
    assert joined.levels[1] is p.levels[2]  # alone of its size: not copied
    apart = FeaturePyramid([p.levels[0], p.levels[2], p.levels[1]], SIZE)
    assert apart.joined().widths == [3, 4, 2]
    weight = random(4, 11, 3, 3)
    torch.testing.assert_close(joined.conv(weight), p.conv(weight))
