"""Discriminators in checkpoints: they judge as the paper's formulas say, whoever named them; refusals by name."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.checkpoints import authoring, foreign
from helpers.textbook import fir, leaky
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.discriminators import open_discriminator
from gansegctl.generators.discriminator import Discriminator
from gansegctl.generators.stylegan2 import StyleGAN2Config
from gansegctl.generators.training.trainer import Trainer, TrainSettings

WIDTHS = {16: 4, 8: 6, 4: 8}
KERNEL = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64


def layer(out: int, inside: int, kernel: int, bias: bool = True, clamp: float | None = None) -> authoring.Persistent:
    """NVlabs' Conv2dLayer."""
    made = authoring.Persistent("Conv2dLayer", conv_clamp=clamp)
    made.weight = torch.nn.Parameter(torch.randn(out, inside, kernel, kernel))
    made.bias = torch.nn.Parameter(torch.randn(out)) if bias else None
    made.register_buffer("resample_filter", KERNEL.clone())
    return made


def theirs(clamp: float | None = 256.0, c_dim: int = 0, architecture: str = "resnet") -> authoring.Persistent:
    """NVlabs' Discriminator of 16 px."""
    torch.manual_seed(5)
    top = authoring.Persistent("Discriminator", c_dim=c_dim, img_resolution=16, _init_args=(), _init_kwargs={})
    for r in (16, 8):
        block = authoring.Persistent("DiscriminatorBlock", architecture=architecture)
        block.register_buffer("resample_filter", KERNEL.clone())
        if r == 16:
            block.fromrgb = layer(WIDTHS[r], 3, 1, clamp=clamp)
        block.conv0 = layer(WIDTHS[r], WIDTHS[r], 3, clamp=clamp)
        block.conv1 = layer(WIDTHS[r // 2], WIDTHS[r], 3, clamp=clamp)
        block.skip = layer(WIDTHS[r // 2], WIDTHS[r], 1, bias=False)
        setattr(top, f"b{r}", block)
    top.b4 = authoring.Persistent("DiscriminatorEpilogue", architecture=architecture)
    top.b4.mbstd = authoring.Persistent("MinibatchStdLayer", group_size=2, num_channels=1)
    top.b4.conv = layer(8, 9, 3, clamp=clamp)
    top.b4.fc = authoring.fully_connected(8 * 16, 8, activation="lrelu")
    top.b4.out = authoring.fully_connected(8, 1 if not c_dim else 5)
    if c_dim:
        top.mapping = authoring.mapping(0, c_dim, 5, 0)
    return top.eval()


def judged(d: authoring.Persistent, x: Tensor, clamp: float | None, group: int = 2) -> Tensor:
    """The formulas of the paper, in float64, from the modules above."""

    def conv(m, x: Tensor, gain: float = 1.0, down: bool = False, active: bool = True) -> Tensor:
        w = m.weight.double() / math.sqrt(m.weight[0].numel())
        k = w.shape[-1]
        if down:
            x = fir(x, m.resample_filter.double(), 1, 1, (2, 2) if k == 3 else (1, 1))
        x = F.conv2d(x, w, stride=2 if down else 1, padding=0 if down else k // 2)
        x = x if m.bias is None else x + m.bias.double().view(1, -1, 1, 1)
        return leaky(x, clamp, gain) if active else x * gain

    def full(m, x: Tensor) -> Tensor:
        return x @ (m.weight.double() / math.sqrt(m.weight.shape[1])).T + m.bias.double()

    x = conv(d.b16.fromrgb, x.double())
    for block in (d.b16, d.b8):
        short = conv(block.skip, x, math.sqrt(0.5), down=True, active=False)
        x = short + conv(block.conv1, conv(block.conv0, x), math.sqrt(0.5), down=True)
    rows = []
    for i in range(len(x)):  # of each image, those of its group: every (n / group)-th from it on
        step = len(x) // group
        mates = x[i % step :: step]
        rows.append((mates.var(dim=0, unbiased=False) + 1e-8).sqrt().mean())
    x = torch.cat([x, torch.stack(rows).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)], dim=1)
    x = conv(d.b4.conv, x).flatten(1)
    return full(d.b4.out, leaky(full(d.b4.fc, x), None))


def like_rosinality(d: authoring.Persistent) -> dict[str, Tensor]:
    """The same weights as that project names them."""
    state = {"convs.0.0.weight": d.b16.fromrgb.weight, "convs.0.1.bias": d.b16.fromrgb.bias.view(1, -1, 1, 1)}
    for i, block in enumerate((d.b16, d.b8), 1):
        state[f"convs.{i}.conv1.0.weight"], state[f"convs.{i}.conv1.1.bias"] = block.conv0.weight, block.conv0.bias
        state[f"convs.{i}.conv2.0.kernel"] = KERNEL
        state[f"convs.{i}.conv2.1.weight"], state[f"convs.{i}.conv2.2.bias"] = block.conv1.weight, block.conv1.bias
        state[f"convs.{i}.skip.0.kernel"], state[f"convs.{i}.skip.1.weight"] = KERNEL, block.skip.weight
    state["final_conv.0.weight"], state["final_conv.1.bias"] = d.b4.conv.weight, d.b4.conv.bias
    for i, m in enumerate((d.b4.fc, d.b4.out)):
        state[f"final_linear.{i}.weight"], state[f"final_linear.{i}.bias"] = m.weight, m.bias
    return {k: v.detach() for k, v in state.items()}


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("clamp", [None, 0.8])
def test_a_snapshots_judges_as_the_formulas_say(tmp_path, clamp):
    d, path = theirs(clamp), tmp_path / "x.pkl"
    path.write_bytes(authoring.dumps(authoring.snapshot(D=d)))
    found, x = open_discriminator(path), images()
    torch.testing.assert_close(found(x).double(), judged(d, x, clamp), rtol=1e-4, atol=1e-4)
    assert (found.channels, found.resolution, found.group) == (3, 16, 2)
    assert not any(p.requires_grad for p in found.parameters()) and not found.training


@pytest.mark.parametrize("form", ["training", "module.", "bare"])
def test_rosinalitys_too(tmp_path, form):
    d = theirs(None)
    state = like_rosinality(d)
    if form == "module.":
        state = {f"module.{k}": v for k, v in state.items()}
    path = foreign.write_torch(state if form == "bare" else {"g_ema": {}, "d": state}, tmp_path / "x.pt")
    x = images()
    torch.testing.assert_close(open_discriminator(path)(x).double(), judged(d, x, None, 4), rtol=1e-4, atol=1e-4)


def test_that_of_train(tmp_path):
    network = StyleGAN2Config(resolution=16, channel_base=128, channel_max=8, z_dim=8, w_dim=8, mapping_layers=1)
    trainer = Trainer(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), TrainSettings(network=network, batch_size=2))
    trainer.save(tmp_path / "out.ckpt")
    x = images()
    torch.testing.assert_close(open_discriminator(tmp_path / "out.ckpt")(x), trainer.discriminator(x))


def refused(path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as e:
        open_discriminator(path)
    assert str(path) in str(e.value)
    return str(e.value)


def test_what_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "x.pkl"
    assert "no such file" in refused(path)
    assert "without a discriminator" in refused(path, authoring.dumps(authoring.snapshot(whole=False)))
    assert "with classes" in refused(path, authoring.dumps(authoring.snapshot(D=theirs(c_dim=3))))
    assert "architecture 'skip'" in refused(path, authoring.dumps(authoring.snapshot(D=theirs(architecture="skip"))))
    other = authoring.Persistent("ProjectedDiscriminator", _init_args=(), _init_kwargs={})
    other.feature_network = authoring.fully_connected(2, 2)
    assert "feature_network" in refused(path, authoring.dumps(authoring.snapshot(D=other)))
    state = like_rosinality(theirs(None))
    assert "no discriminator" in refused(foreign.write_torch({"g_ema": {}}, tmp_path / "g.pt"))
    assert "convs.9.x" in refused(foreign.write_torch({"d": state | {"convs.9.x": torch.ones(1)}}, tmp_path / "m.pt"))
    short = {k: v for k, v in state.items() if k != "final_conv.1.bias"}
    assert "conv.bias" in refused(foreign.write_torch({"d": short}, tmp_path / "s.pt"))
    narrow = state | {"convs.1.conv2.1.weight": torch.ones(5, 4, 3, 3)}
    assert "not whole" in refused(foreign.write_torch({"d": narrow}, tmp_path / "n.pt"))
    assert isinstance(open_discriminator(foreign.write_torch({"d": state}, tmp_path / "ok.pt")), Discriminator)
