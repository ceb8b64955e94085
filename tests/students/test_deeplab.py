"""DeepLabV3: its published size, dilations instead of strides, one image at a time, training, storage."""

from __future__ import annotations

import pytest
import torch
from helpers.student_training import LABELS, STILL, settings, shapes

from gansegctl.errors import UsageError
from gansegctl.students.deeplab import DeepLabV3, StreamDropout
from gansegctl.students.student import Student, build
from gansegctl.students.training import StudentTraining

SMALL = (4, 4, 8, 8)


def test_it_has_the_parameters_of_the_published_network():
    """ResNet-50 without its classifier has 23,508,032; the rest are pooling and head (torchvision, 21 classes)."""
    model = DeepLabV3(3, 21)
    trunk = [*model.stem.parameters(), *model.stages.parameters()]
    assert sum(p.numel() for p in trunk) == 23_508_032
    assert abs(sum(p.numel() for p in model.parameters()) - 39_639_617) < 10_000  # the mean's branch has no batch norm


@pytest.mark.parametrize("size", [(16, 16), (33, 50)])
def test_logits_have_the_size_of_the_image(size):
    model = DeepLabV3(3, 4, SMALL).eval()
    assert model(torch.randn(2, 3, *size)).shape == (2, 4, *size)


def test_features_are_at_an_eighth_and_the_last_stages_are_dilated():
    model = DeepLabV3(1, 2, SMALL).eval()
    x = torch.nn.functional.max_pool2d(model.stem(torch.randn(1, 1, 64, 64)), 3, 2, 1)
    for stage in model.stages:
        x = stage(x)
    assert x.shape == (1, 32, 8, 8)
    dilations = [[block.conv2.dilation[0] for block in stage] for stage in model.stages]
    assert dilations == [[1] * 3, [1] * 4, [1] + [2] * 5, [2] + [4] * 2]
    assert [branch[0].dilation[0] for branch in model.pooling.branches] == [1, 12, 24, 36]


def test_a_batch_of_one_trains():
    model = DeepLabV3(3, 2, SMALL).train()
    model(torch.randn(1, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_dropout_leaves_half_and_the_mean_and_nothing_in_evaluation():
    dropout, x = StreamDropout(0.5), torch.ones(2, 64, 8, 8)
    dropout.draw_from(torch.Generator().manual_seed(1), 0, 2)
    y = dropout(x)
    assert y.unique().tolist() == [0.0, 2.0] and float(y.mean()) == pytest.approx(1.0, abs=0.05)
    assert dropout.eval()(x) is x and not dropout.state_dict()


def test_ranks_drop_out_what_one_process_would():
    dropout, x = StreamDropout(0.5), torch.ones(6, 5, 3, 3)

    def half(first, rows):
        stream = torch.Generator().manual_seed(7)
        dropout.draw_from(stream, first, 6)
        return dropout(x[:rows]), stream.get_state()

    (whole, after), (upper, one), (lower, two) = half(0, 6), half(0, 3), half(3, 3)
    assert torch.equal(torch.cat([upper, lower]), whole) and not torch.equal(upper, lower)
    assert torch.equal(one, after) and torch.equal(two, after)


def test_a_mask_serves_one_pass():
    """A second pass with the first one's would be no dropout; that of a caller who hands in none is of the process."""
    dropout, x = StreamDropout(0.5), torch.ones(1, 1000)
    dropout.draw_from(torch.Generator().manual_seed(7), 0, 1)
    assert not torch.equal(dropout(x), dropout(x))


def test_it_learns_and_survives_storage(tmp_path):
    training = StudentTraining(
        shapes(64), LABELS, settings(arch="deeplabv3", widths=SMALL, steps=60, lr=8e-3, augment=STILL)
    )
    losses = [e.facts["loss"] for e in training.run()]
    assert losses[-1] < 0.6 * losses[0]
    training.student.save(tmp_path / "s.safetensors")
    loaded = Student.load(tmp_path / "s.safetensors")
    assert loaded.arch == "deeplabv3" and loaded.widths == SMALL
    fresh = shapes(4, seed=5).image
    assert torch.equal(loaded.predict(fresh).labels, training.student.predict(fresh).labels)


def test_each_architecture_has_its_own_widths():
    assert settings(arch="deeplabv3", widths=()).widths == (64, 128, 256, 512)
    assert settings(widths=()).widths == (16, 32, 64, 96)
    with pytest.raises(UsageError, match="deeplabv3"):
        build("deeplabv", 3, 2, ())
