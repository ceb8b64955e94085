"""Training: it learns, it resumes to the bit, it keeps its own random stream, and what it writes can be read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.discriminators import open_discriminator
from gansegctl.generators.discriminator import Discriminator, minibatch_deviation
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.layers import fir_filter, upsample2d
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from gansegctl.generators.training import trainer as train
from gansegctl.generators.training.augment import augment
from gansegctl.generators.training.trainer import KIND, Trainer, TrainSettings
from gansegctl.generators.weights import load_generator, save_generator
from gansegctl.io.training_state import load_state, save_state

NETWORK = StyleGAN2Config(resolution=8, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2)


def images(n: int = 32) -> torch.Tensor:
    """Images of one colour each, red to yellow, on black borders."""
    x = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
    x[:, 0, 1:7, 1:7] = 230
    x[:, 1, 1:7, 1:7] = torch.linspace(0, 230, n).to(torch.uint8).view(n, 1, 1)
    return x


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"network": NETWORK, "images": 64, "batch_size": 8} | changes)


def test_learns_the_colours_and_the_border(monkeypatch):
    monkeypatch.setattr(train, "HALF_LIFE", 200)
    trainer = Trainer(images(), settings(images=8 * 160, r1=0.1))
    list(trainer.run())
    g = trainer.average
    image = g.synthesize(g.map(z_of_seeds(range(16), 8))).image.mean(dim=0)  # [3, 8, 8]
    middle = image[:, 2:6, 2:6].mean(dim=(1, 2))
    assert middle[0] > 0.2 > middle[2]
    assert image[0, 2:6, 2:6].mean() - image[0, 0].mean() > 0.6


def test_an_interrupted_run_equals_an_unbroken_one(tmp_path):
    unbroken = Trainer(images(), settings(augment="ada"))
    list(unbroken.run())
    first = Trainer(images(), settings(images=32, augment="ada"))
    list(first.run())
    first.save(tmp_path / "x.ckpt")
    second = Trainer(images(), settings(augment="ada"))
    second.resume(tmp_path / "x.ckpt")
    assert second.images_seen == 32
    list(second.run())
    assert second.images_seen == unbroken.images_seen == 64
    for a, b in zip(second.average.parameters(), unbroken.average.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_resumed_run_of_another_batch_size_counts_its_images(tmp_path):
    first = Trainer(images(), settings(images=32))
    list(first.run())
    first.save(tmp_path / "x.ckpt")
    second = Trainer(images(), settings(batch_size=4))
    second.resume(tmp_path / "x.ckpt")
    assert (second.images_seen, second.step) == (32, 4)
    assert [p.done for p in second.run(0.0)] == [36, 40, 44, 48, 52, 56, 60, 64]
    second.save(tmp_path / "x.ckpt")
    third = Trainer(images(), settings(batch_size=16))
    third.resume(tmp_path / "x.ckpt")
    assert (third.images_seen, list(third.run())) == (64, [])


def without_images(trainer, path):
    """The trainer's checkpoint, less the count of images shown."""
    trainer.save(path)
    state = load_state(path, KIND)
    del state.facts["counters"]["images"]
    save_state(path, KIND, state.facts, trainer._parts(), trainer._optimizers(), trainer.stream)
    return path


def test_a_checkpoint_without_a_count_of_images_is_refused(tmp_path):
    trainer = Trainer(images(), settings(images=32))
    path = without_images(trainer, tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match=r"x\.ckpt without images") as error:
        trainer.resume(path)
    assert error.value.remedy == "train anew"


def test_resume_refuses_another_network(tmp_path):
    trainer = Trainer(images(), settings(images=8))
    trainer.save(tmp_path / "x.ckpt")
    other = StyleGAN2Config(resolution=8, z_dim=4, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2)
    with pytest.raises(UsageError, match="another network"):
        Trainer(images(), settings(network=other)).resume(tmp_path / "x.ckpt")


DOUBLE = replace(NETWORK, resolution=16)


@pytest.fixture
def small(tmp_path):
    """A run at half the size that has seen 24 images, and its checkpoint."""
    trainer = Trainer(images(), settings(images=24))
    list(trainer.run())
    trainer.save(tmp_path / "small.ckpt")
    return trainer, tmp_path / "small.ckpt"


def enlarged() -> torch.Tensor:
    return images().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def test_a_grown_run_begins_with_what_the_smaller_one_draws_and_thinks(small):
    trainer, path = small
    grown = Trainer(enlarged(), settings(network=DOUBLE))
    grown.grow_from(path)
    z = z_of_seeds(range(3), 8)
    for of, before in ((grown.average, trainer.average), (grown.generator, trainer.generator)):
        image = before.synthesize(before.map(z), "none").image
        torch.testing.assert_close(of.synthesize(of.map(z), "none").image, upsample2d(image, fir_filter()))
    image = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = trainer.discriminator(torch.nn.functional.avg_pool2d(image, 2))
    torch.testing.assert_close(grown.discriminator(image), expected)
    grown.discriminator.fade_in(None, 1.0)
    assert not torch.allclose(grown.discriminator(image), expected)
    assert (grown.images_seen, grown.grown_at) == (24, 24)


def test_a_grown_run_takes_over_how_much_was_augmented(tmp_path):
    small = Trainer(images(), settings(images=24, augment="ada"))
    list(small.run())
    small.augment_p = 0.3
    small.save(tmp_path / "small.ckpt")
    for changes, p in (({"augment": "ada"}, 0.3), ({"augment": "ada", "augment_p": 0.2}, 0.2), ({}, 0.0)):
        grown = Trainer(enlarged(), settings(network=DOUBLE, **changes))
        grown.grow_from(tmp_path / "small.ckpt")
        assert grown.augment_p == p


def test_growing_from_a_checkpoint_without_a_count_of_images_is_refused(small, tmp_path):
    path = without_images(small[0], tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match=r"x\.ckpt without images"):
        Trainer(enlarged(), settings(network=DOUBLE)).grow_from(path)


def test_a_grown_discriminator_lets_its_new_block_in_and_resumes_to_the_bit(small, tmp_path, monkeypatch):
    _, path = small
    monkeypatch.setattr(train, "FADE_IN", 24)
    s = settings(network=DOUBLE)
    unbroken, first, second = (Trainer(enlarged(), s) for _ in range(3))
    unbroken.grow_from(path)
    first.grow_from(path)
    newest = first.generator.synthesis.b16.torgb.weight
    shares = []
    for _ in range(2):
        first.train_step()
        shares.append(float(first.discriminator.share))
    assert shares == [0.0, pytest.approx(1 / 3)] and newest.abs().max() > 0
    first.save(tmp_path / "x.ckpt")
    open_discriminator(tmp_path / "x.ckpt")  # as a critic, its new block counts alone
    second.resume(tmp_path / "x.ckpt")
    for trainer in (unbroken, second):
        list(trainer.run())
        assert trainer.discriminator.before is None and trainer.images_seen == 64
    for a, b in zip(second.average.parameters(), unbroken.average.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    second.save(tmp_path / "x.ckpt")
    third = Trainer(enlarged(), s)
    third.resume(tmp_path / "x.ckpt")
    assert (third.grown_at, third.discriminator.before) == (24, None)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"network": NETWORK}, "at 4 px"),
        ({"network": replace(NETWORK, resolution=32)}, "at 16 px"),
        ({"network": replace(DOUBLE, channel_max=4)}, "a network of 8 px"),
        ({"images": 24}, "has seen 24 images"),
    ],
)
def test_growing_from_another_network_is_refused(small, changes, match):
    s = settings(**{"network": DOUBLE} | changes)
    side = s.network.resolution
    with pytest.raises(UsageError, match=match):
        Trainer(torch.zeros(2, 3, side, side, dtype=torch.uint8), s).grow_from(small[1])


def test_training_leaves_the_global_stream_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(Trainer(images(), settings(images=16, augment="diff", mirror=True)).run())
    assert torch.equal(before, torch.get_rng_state())


def test_bf16_trains_and_stays_finite():
    facts = [p.facts for p in Trainer(images(), settings(images=24, precision="bf16")).run(0.0)]
    assert all(abs(f["loss_g"]) < 100 for f in facts)
    assert len(facts) >= 3


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # dynamo reads it of all inputs
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")  # slower, not wrong
def test_compiled_training_takes_the_same_steps(monkeypatch):
    """R1 goes past the compiled discriminator; what is compiled is both networks, here without other arithmetic."""
    compiled, compile_ = [], torch.compile

    def traced(module, **options):
        compiled.append(type(module).__name__)
        return compile_(module, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", traced)
    monkeypatch.setattr(train, "check_compiler", lambda device: None)
    monkeypatch.setattr(train, "R1_INTERVAL", 2)
    s = settings(images=32)
    plain, fast = Trainer(images(), s), Trainer(images(), s, compiled=True)
    assert compiled == ["SynthesisNetwork", "Discriminator"]
    for a, b in zip(plain.run(0.0), fast.run(0.0), strict=True):
        assert b.facts["loss_d"] == pytest.approx(a.facts["loss_d"], abs=1e-6)
    for a, b in zip(plain.average.parameters(), fast.average.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    judged, judge = [], fast._judge
    fast._judge = lambda x: judged.append(1) or judge(x)
    assert fast.step % train.R1_INTERVAL == 0
    fast.train_step()
    assert len(judged) == 3  # fakes, images, and fakes for the generator: a fourth would be R1's


def test_compiled_training_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match="no-such-compiler") as error:
        Trainer(images(), settings(), compiled=True)
    assert "without --compile" in error.value.remedy
    Trainer(images(), settings())


def test_wrong_images_are_refused():
    with pytest.raises(UsageError, match="uint8"):
        Trainer(images().float(), settings())
    with pytest.raises(UsageError, match="16"):
        Trainer(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), settings())
    with pytest.raises(UsageError, match="augmentation"):
        settings(augment="some")
    with pytest.raises(UsageError, match="classes"):
        settings(network=StyleGAN2Config(resolution=8, c_dim=2))


def test_augmentation_is_differentiable_and_off_at_zero():
    image = torch.randn(4, 3, 8, 8, requires_grad=True)
    assert augment(image, 0.0, torch.Generator()) is image
    changed = augment(image, 1.0, torch.Generator().manual_seed(0))
    assert changed.shape == image.shape
    assert not torch.allclose(changed, image)
    changed.sum().backward()
    assert image.grad.abs().sum() > 0
    again = augment(image, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(changed, again)


def test_discriminator_shapes_and_deviations():
    assert Discriminator(NETWORK)(torch.randn(4, 3, 8, 8)).shape == (4, 1)
    same = minibatch_deviation(torch.ones(4, 2, 3, 3), 4)
    assert same.shape == (4, 3, 3, 3)
    assert same[:, 2].max() < 1e-3
    assert minibatch_deviation(torch.randn(4, 2, 3, 3), 4)[:, 2].min() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_round_trip(tmp_path, dtype):
    torch.manual_seed(0)
    g = StyleGAN2(NETWORK).eval()
    save_generator(g, tmp_path / "g.safetensors", {"images_seen": 3}, dtype)
    h = load_generator(tmp_path / "g.safetensors")
    ws = g.map(z_of_seeds([0], 8))
    assert torch.allclose(g.synthesize(ws).image, h.synthesize(h.map(z_of_seeds([0], 8))).image, atol=2e-2)
    assert len(h.sha256) == 64
    assert next(h.parameters()).dtype == torch.float32
    assert list(tmp_path.iterdir()) == [tmp_path / "g.safetensors"]


def test_what_is_no_generator_is_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(UsageError, match="no such file"):
        load_generator(tmp_path / "none.safetensors")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(UsageError, match="not a safetensors"):
        load_generator(tmp_path / "x.png")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="header"):
        load_generator(tmp_path / "other.safetensors")
    g = StyleGAN2(NETWORK)
    g.synthesis.b4.const = torch.nn.Parameter(torch.zeros(5, 4, 4))
    save_generator(g, tmp_path / "bent.safetensors")
    with pytest.raises(UsageError, match=r"const is \[5"):
        load_generator(tmp_path / "bent.safetensors")


def test_images_are_shown_as_they_could_be():
    """Each option by itself: the set of images shown is the set of those views, and no other."""
    corner = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    corner[:, :, 0, 1] = 255
    views = {
        "mirror": [(0, 1), (0, 6)],
        "upside_down": [(0, 1), (7, 1)],
        "quarter_turns": [(0, 1), (6, 0), (7, 6), (1, 7)],
    }
    for option, wanted in views.items():
        trainer = Trainer(corner, settings(**{option: True}))
        shown = trainer._real(64)
        places = {tuple(divmod(int(x[0].flatten().argmax()), 8)) for x in shown}
        assert places == set(wanted), option


def test_grey_images_train_with_adaptive_augmentation(monkeypatch):
    monkeypatch.setattr(train, "ADA_TARGET", -1.0)
    grey = StyleGAN2Config(
        resolution=8, image_channels=1, z_dim=8, w_dim=8, channel_base=64, channel_max=8, mapping_layers=2
    )
    s = settings(network=grey, images=64, augment="ada", quarter_turns=True, augment_p=0.9)
    trainer = Trainer(images()[:, :1].contiguous(), s)
    facts = list(trainer.run())[-1].facts
    assert 0 < facts["augment_p"] <= 0.9
    assert trainer.average.synthesize(trainer.average.map(z_of_seeds([0], 8))).image.shape == (1, 1, 8, 8)
