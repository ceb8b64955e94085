"""The student: it learns, resumes to the bit, survives storage, and labels images of any size."""

from __future__ import annotations

import pytest
import torch
from helpers.student_training import LABELS, STILL, settings, shapes
from safetensors.torch import save_file

from gansegctl.errors import GansegError, UsageError
from gansegctl.io.training_state import load_state
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.students import training as training_module
from gansegctl.students.augment import PRESETS, AugmentSettings, augment
from gansegctl.students.pairs import Pairs
from gansegctl.students.student import Student, build
from gansegctl.students.training import KIND, StudentTraining, class_shares, loss_and_weight
from gansegctl.students.unet import UNet

ARCHITECTURES = pytest.mark.parametrize(
    "arch", [{}, {"arch": "deeplabv3", "widths": (4, 4, 8, 8)}], ids=["unet", "deeplabv3"]
)
"""What holds of any network: deeplabv3 has a dropout, which draws too."""


@pytest.mark.parametrize("channels", [1, 3])
def test_learns(channels):
    training = StudentTraining(shapes(64, channels=channels), LABELS, settings(steps=90, augment=STILL))
    events = list(training.run())
    fresh = shapes(16, channels=channels, seed=9)
    predicted = training.student.predict(fresh.image)
    assert (predicted.labels == fresh.target).float().mean() > 0.97
    assert events[-1].done == events[-1].total == 90
    assert events[-1].facts["validation_miou"] > 0.8


@ARCHITECTURES
def test_an_untrained_student_answers_the_shares_of_the_classes(arch):
    pairs = shapes(40)
    pairs.target[:, :4] = IGNORE
    training = StudentTraining(pairs, LABELS, settings(**arch))
    kept = pairs.target[training.training].long()
    shares = torch.stack([(kept == k).sum() for k in range(3)]) / (kept != IGNORE).sum()
    torch.testing.assert_close(class_shares(pairs.target[training.training], 3), shares.double())
    head = training.student.model.head
    (head if arch == {} else head[-1]).weight.data.zero_()
    with torch.no_grad():
        found = training.student.model(torch.rand(2, 3, 16, 16)).softmax(dim=1)
    torch.testing.assert_close(found, shares.float().view(1, 3, 1, 1).expand_as(found))


def test_shares_of_probabilities_leave_out_what_is_unknown():
    target = torch.zeros(2, 3, 4, 4, dtype=torch.float16)
    target[0, 0], target[0, 1] = 0.75, 0.25
    assert class_shares(target, 3).tolist() == [0.75, 0.25, 0.0]
    assert class_shares(torch.full((2, 4, 4), IGNORE, dtype=torch.uint8), 3).tolist() == [0.0] * 3


def test_a_class_that_was_not_learned_is_named():
    still = StudentTraining(shapes(40), LABELS, settings(steps=8, lr=1e-12, validation=0.2))
    *before, last = still.run()
    assert still.student.facts["unlearned"] == ["disc", "bar"]
    assert last.facts["note"].startswith("disc, bar: not one pixel is found") and "--seed" in last.facts["note"]
    assert all("note" not in event.facts for event in before)
    learned = StudentTraining(shapes(64), LABELS, settings(steps=90, augment=STILL, validation=0.2))
    assert "note" not in list(learned.run())[-1].facts and "unlearned" not in learned.student.facts


@ARCHITECTURES
def test_an_interrupted_run_equals_an_unbroken_one(arch, tmp_path):
    pairs = shapes(32)
    unbroken = StudentTraining(pairs, LABELS, settings(**arch))
    list(unbroken.run())
    first = StudentTraining(pairs, LABELS, settings(**arch))
    events = first.run(tmp_path / "x.ckpt")
    next(events)
    next(events)
    assert first.step == 6
    events.close()
    assert load_state(tmp_path / "x.ckpt", KIND).facts["step"] == 3  # saved after the first epoch, and not since
    second = StudentTraining(pairs, LABELS, settings(**arch))
    list(second.run(tmp_path / "x.ckpt"))
    for a, b in zip(second.student.model.parameters(), unbroken.student.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    third = StudentTraining(pairs, LABELS, settings(**arch))
    assert list(third.run(tmp_path / "x.ckpt")) == []  # stopped between the last step and the student's file
    assert third.student.facts == second.student.facts and third.student.facts["steps"] == 12
    with pytest.raises(UsageError, match=r"other settings or inputs: lr: 0.\d+ there, 0.001 asked for"):
        list(StudentTraining(pairs, LABELS, settings(**arch, lr=1e-3)).run(tmp_path / "x.ckpt"))


@ARCHITECTURES
def test_a_run_broken_within_an_epoch_equals_an_unbroken_one(arch, tmp_path, monkeypatch):
    monkeypatch.setattr(training_module, "SAVE_SECONDS", 0.0)  # after every step
    pairs, told = shapes(32), []
    unbroken = StudentTraining(pairs, LABELS, settings(**arch))
    told += [e.facts for e in unbroken.run()]
    first = StudentTraining(pairs, LABELS, settings(**arch))
    events, step = first.run(tmp_path / "x.ckpt"), first.train_step
    next(events)
    monkeypatch.setattr(first, "train_step", lambda: step() if first.step < 5 else pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        next(events)
    assert load_state(tmp_path / "x.ckpt", KIND).facts["step"] == 5  # two steps into the second epoch
    second = StudentTraining(pairs, LABELS, settings(**arch))
    assert [e.facts for e in second.run(tmp_path / "x.ckpt")] == [pytest.approx(f) for f in told[1:]]
    for a, b in zip(second.student.model.parameters(), unbroken.student.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_an_epoch_of_one_step_does_not_wait_for_the_disk_every_time(tmp_path, monkeypatch):
    monkeypatch.setattr(training_module, "SAVE_STEPS", 5)
    saved, save = [], StudentTraining.save
    monkeypatch.setattr(StudentTraining, "save", lambda self, path: saved.append(self.step) or save(self, path))
    events = StudentTraining(shapes(8), LABELS, settings(validation=0.0)).run(tmp_path / "x.ckpt")
    assert len(list(events)) == 12
    assert saved == [1, 6, 11, 12]
    resumed = StudentTraining(shapes(8), LABELS, settings(validation=0.0))
    assert list(resumed.run(tmp_path / "x.ckpt")) == [] and len(saved) == 4


def test_a_checkpoint_of_other_pairs_or_classes_is_refused(tmp_path):
    first = StudentTraining(shapes(32), LABELS, settings(), source={"digest": "ab"})
    first.train_step()
    first.save(tmp_path / "x.ckpt")
    again = StudentTraining(shapes(32), LABELS, settings(), source={"digest": "ab"})
    again.resume(tmp_path / "x.ckpt")
    assert again.step == 1
    with pytest.raises(UsageError, match=r'digest: "?ab"? there, "?cd"? asked for'):
        StudentTraining(shapes(32), LABELS, settings(), source={"digest": "cd"}).resume(tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match="classes"):
        other = LabelMap(("background", "disc", "pole"))
        StudentTraining(shapes(32), other, settings(), source={"digest": "ab"}).resume(tmp_path / "x.ckpt")


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_kept(tmp_path, monkeypatch):
    training = StudentTraining(shapes(8), LABELS, settings())
    monkeypatch.setattr(training, "train_step", lambda: float("nan"))
    with pytest.raises(GansegError, match="got loss nan"):
        list(training.run(tmp_path / "x.ckpt"))
    assert not (tmp_path / "x.ckpt").exists()


@ARCHITECTURES
def test_the_global_stream_is_neither_moved_nor_used(arch):
    losses = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        training = StudentTraining(shapes(8), LABELS, settings(**arch, steps=2))
        losses.append([training.train_step() for _ in range(2)])
        assert torch.equal(before, torch.get_rng_state())
    assert losses[0] == losses[1]


def test_soft_targets_learn_and_ignore_empty_pixels():
    pairs = shapes(64)
    soft = torch.nn.functional.one_hot(pairs.target.long(), 3).permute(0, 3, 1, 2).half()
    training = StudentTraining(Pairs(pairs.image, soft), LABELS, settings(steps=60, augment=STILL))
    list(training.run())
    assert (training.student.predict(pairs.image).labels == pairs.target).float().mean() > 0.95
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.zeros(1, 3, 2, 2)
    target[0, 1, 0, 0] = 1
    loss_and_weight(logits, target)[0].backward()
    assert logits.grad[0, :, 1, 1].abs().sum() == 0
    assert logits.grad[0, :, 0, 0].abs().sum() > 0


def test_ignored_pixels_teach_nothing():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.tensor([[[0, IGNORE], [IGNORE, IGNORE]]], dtype=torch.uint8)
    loss_and_weight(logits, target)[0].backward()
    assert logits.grad[0, :, 0, 0].abs().sum() > 0
    assert logits.grad[0, :, 0, 1].abs().sum() == 0


def test_a_step_without_a_counted_pixel_has_loss_0_and_leaves_numbers_finite():
    pairs = shapes(32)
    ignored = StudentTraining(Pairs(pairs.image, torch.full_like(pairs.target, IGNORE)), LABELS, settings(steps=1))
    assert ignored.train_step() == 0.0
    assert all(torch.isfinite(p).all() for p in ignored.student.model.parameters())
    assert StudentTraining(pairs, LABELS, settings(steps=1)).train_step() > 0.5


def test_the_repr_of_a_student_says_sizes():
    student = StudentTraining(shapes(8), LABELS, settings()).student
    weights = sum(p.numel() for p in student.model.parameters())
    assert repr(student) == f"Student(unet [8, 12], {weights:,} weights, images 16x16x3, 3 classes)"


def test_augmentation_moves_image_and_mask_alike():
    pairs = shapes(16, size=32)
    x = torch.tensor([-1.0, 1.0, 0.0])[pairs.target.long()].unsqueeze(1)  # the image is the mask, in grey levels
    geometry = AugmentSettings(light=0, blur=0, grain=0)
    moved, target = augment(x, pairs.target, geometry, torch.Generator().manual_seed(1))
    inside = target != IGNORE
    nearest = (moved[:, 0].unsqueeze(-1) - torch.tensor([-1.0, 1.0, 0.0])).abs().argmin(dim=-1)
    assert not torch.equal(target, pairs.target)
    assert (nearest == target)[inside].float().mean() > 0.93  # the rest are soft edges
    soft = torch.nn.functional.one_hot(pairs.target.long(), 3).permute(0, 3, 1, 2)
    _, warped = augment(x, soft, geometry, torch.Generator().manual_seed(1))
    assert (warped.argmax(dim=1) == target)[inside].float().mean() > 0.95


def test_augmentation_repeats_and_leaves_the_mask_alone_in_light():
    pairs = shapes(4)
    x = torch.zeros(4, 3, 16, 16)
    light = AugmentSettings(rotation=0, shift=0, scale=1.0, mirror=0)
    a, target = augment(x, pairs.target, light, torch.Generator().manual_seed(1))
    b, _ = augment(x, pairs.target, light, torch.Generator().manual_seed(1))
    assert torch.equal(a, b)
    assert torch.equal(target, pairs.target)
    assert a.std() > 0


def test_the_named_augmentations_move_what_they_say():
    pairs = shapes(8)
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    results = {k: augment(x, pairs.target, s, torch.Generator().manual_seed(3)) for k, s in PRESETS.items()}
    image, target = results["none"]
    assert torch.allclose(image, x, atol=1e-5)
    assert torch.equal(target, pairs.target)
    image, target = results["light"]
    assert not torch.allclose(image, x, atol=0.05)
    same = [torch.equal(a, b) for a, b in zip(target, pairs.target, strict=True)]
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(target, pairs.target, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(same) < 8
    assert (results["full"][1] == IGNORE).any()  # what came in from outside


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (5, 40)])
def test_any_size(size):
    assert UNet(3, 4, (8, 12, 16))(torch.zeros(2, 3, *size)).shape == (2, 4, *size)


def test_images_of_another_size_come_back_in_it():
    student = Student(build("unet", 3, 3, (8, 12)), LABELS, (16, 16), 3, widths=(8, 12))
    annotation = student.predict(torch.zeros(2, 33, 20, 3, dtype=torch.uint8), probabilities=True)
    assert annotation.labels.shape == annotation.confidence.shape == (2, 33, 20)
    assert annotation.probabilities.shape == (2, 3, 33, 20)
    assert annotation.score.shape == (2,)
    assert ((annotation.score >= 0) & (annotation.score <= 1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_storage_keeps_the_predictions(tmp_path, dtype):
    training = StudentTraining(shapes(32), LABELS, settings(steps=30))
    list(training.run())
    training.student.save(tmp_path / "s.safetensors", dtype)
    loaded = Student.load(tmp_path / "s.safetensors")
    images = shapes(8, seed=5).image
    assert (loaded.predict(images).labels == training.student.predict(images).labels).float().mean() > 0.99
    assert loaded.labels == LABELS
    assert (loaded.size, loaded.channels, loaded.widths) == ((16, 16), 3, (8, 12))
    assert next(loaded.model.parameters()).dtype == torch.float32


def test_what_is_no_student_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        Student.load(tmp_path / "x.safetensors")
    (tmp_path / "x.png").write_bytes(b"\x89PNG" + bytes(40))
    with pytest.raises(UsageError, match="not a safetensors"):
        Student.load(tmp_path / "x.png")
    save_file({"a": torch.zeros(1)}, tmp_path / "y.safetensors")
    with pytest.raises(UsageError, match="no gansegctl header"):
        Student.load(tmp_path / "y.safetensors")


def test_bad_pairs_and_settings_are_refused():
    pairs = shapes(8)
    with pytest.raises(UsageError, match="no pairs"):
        Pairs(pairs.image[:0], pairs.target[:0])
    with pytest.raises(UsageError, match="wanted: pairs"):
        Pairs(pairs.image, pairs.target[:, :8])
    with pytest.raises(UsageError, match="mask value 2"):
        StudentTraining(pairs, LabelMap(("a", "b")), settings())
    with pytest.raises(UsageError, match="architecture"):
        StudentTraining(pairs, LABELS, settings(arch="vnet"))
    for changes in ({"batch_size": 0}, {"precision": "fp8"}, {"validation": 1.0}):
        with pytest.raises(UsageError):
            settings(**changes)
    student = Student(build("unet", 3, 3, (8, 12)), LABELS, (16, 16), 3, widths=(8, 12))
    with pytest.raises(UsageError, match="uint8"):
        student.predict(torch.zeros(1, 16, 16, 1, dtype=torch.uint8))
