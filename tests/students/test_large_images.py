"""Large images in bands and tiles: the same as all at once, in less memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.students import large_images as large
from gansegctl.students.large_images import label_image
from gansegctl.students.student import Student, build


class ByBrightness(torch.nn.Module):
    """Class 1 where the first channel is bright: what an image's labels should be is known."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(20.0))
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape))
        return torch.cat([-x[:, :1], x[:, :1]], dim=1) * self.gain


@pytest.fixture
def student():
    torch.manual_seed(0)
    return Student(build("unet", 3, 3, (4, 6)), LabelMap(("a", "b", "c")), (16, 16), 3, widths=(4, 6))


def bright():
    return Student(ByBrightness(), LabelMap(("dark", "bright")), (16, 16), 3)


def drawn(h, w, c=3, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (h, w, c)).astype(np.uint8)


@pytest.mark.parametrize("size", [(16, 16), (40, 24), (9, 33), (1, 1), (300, 20)])
def test_whole_images_as_the_student_itself_labels_them(student, size, monkeypatch):
    monkeypatch.setattr(large, "BAND", 7)
    image = drawn(*size)
    labels, confidence = label_image(student, image)
    said = student.predict(torch.from_numpy(image)[None])
    assert labels.shape == size
    assert (labels == said.labels[0].numpy()).mean() > 0.999
    assert np.abs(confidence.astype(int) - said.confidence[0].numpy()).max() <= 1


@pytest.mark.parametrize("size", [(16, 16), (50, 37), (5, 70), (1, 1), (129, 16)])
def test_tiles_cover_every_pixel_once(size):
    image = np.zeros((*size, 3), np.uint8)
    image[size[0] // 2 :, :, 0] = 255
    labels, confidence = label_image(bright(), image, tile=16)
    assert np.array_equal(labels, (image[..., 0] > 0).astype(np.uint8))
    assert confidence.min() > 250


def test_a_tile_of_another_size_goes_through_the_students(monkeypatch):
    s = bright()
    image = drawn(64, 96)
    image[:, :48] = 0
    image[:, 48:] = 255
    labels, _ = label_image(s, image, tile=32)
    assert (labels == (image[..., 0] > 127)).mean() > 0.98
    assert {size[2:] for size in s.model.sizes} == {(16, 16)}
    assert max(size[0] for size in s.model.sizes) <= large.TILES_AT_ONCE


def test_tiles_see_detail_that_the_whole_does_not():
    image = np.zeros((128, 128, 3), np.uint8)
    image[::8, :, 0] = 255  # lines that vanish at 16 pixels
    whole, _ = label_image(bright(), image)
    tiles, _ = label_image(bright(), image, tile=16)
    assert whole.max() == 0
    assert np.array_equal(tiles, (image[..., 0] > 0).astype(np.uint8))


def test_what_is_no_image_is_refused(student):
    for wrong in (drawn(8, 8, 1), drawn(8, 8)[0], drawn(8, 8).astype(np.float32)):
        with pytest.raises(UsageError, match="uint8"):
            label_image(student, wrong)
    with pytest.raises(UsageError, match="--tile"):
        label_image(student, drawn(8, 8), tile=-1)
