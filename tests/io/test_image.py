"""Images of every form as uint8, exact pixels, and files that are whole or not there."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch
from PIL import Image

from gansegctl.errors import GansegError, UsageError
from gansegctl.io import atomic
from gansegctl.io.image import NORMALISATION, as_rgb, from_uint8, normalised, read_image, save_png, to_uint8
from gansegctl.labels import LabelMap

LABELS = LabelMap(("background", "face", "hair"), ((0, 0, 0), (200, 100, 50), (10, 20, 250)))
MASK = np.array([[0, 1], [2, 255]], np.uint8)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray])
def test_to_uint8_rounds_as_the_official_scripts(kind):
    values = np.array([-2, -1, -0.9999, 0, 0.5, 0.9999, 1, 3, np.inf, -np.inf], np.float32).reshape(1, 1, 2, 5)
    result = to_uint8(kind(values))
    assert result.dtype == np.uint8 and result.shape == (1, 2, 5, 1)
    assert result.ravel().tolist() == [0, 0, 0, 128, 191, 255, 255, 255, 255, 0]


def test_to_uint8_of_numpy_and_torch_agree_on_every_channel():
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    official = (image.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()
    np.testing.assert_array_equal(to_uint8(image), official)
    np.testing.assert_array_equal(to_uint8(image.numpy()), official)
    assert to_uint8(image.half()).shape == (2, 16, 16, 3)


def test_every_grey_level_survives_the_way_to_a_network_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    scaled = normalised(levels)
    assert scaled.dtype == torch.float32 and [scaled[0].item(), scaled[-1].item()] == [-1, 1]
    assert torch.equal(scaled, eval(NORMALISATION, {"x": levels.float()}))  # as files of students say it
    image = levels.view(2, 8, 16, 1).expand(2, 8, 16, 3)
    assert np.array_equal(to_uint8(from_uint8(image)), image.numpy())


def test_from_uint8_puts_channels_first_and_leaves_them_last_in_memory():
    image = torch.from_numpy(noise(2, 4, 5, 3))
    scaled = from_uint8(image)
    assert scaled.shape == (2, 3, 4, 5) and scaled.is_contiguous(memory_format=torch.channels_last)
    assert scaled[1, 2, 3, 4].item() == np.float32(image[1, 3, 4, 2]) / np.float32(127.5) - 1
    assert torch.equal(normalised(image[..., 0]), scaled[:, 0])


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray])
def test_nan_is_an_error_and_not_black(kind):
    image = np.zeros((1, 3, 2, 2), np.float32)
    image[0, 1, 1, 1] = np.nan
    with pytest.raises(GansegError, match="NaN"):
        to_uint8(kind(image))


@pytest.mark.parametrize("bad", [noise(4, 4, 2), noise(4), np.zeros((4, 4, 3))])
def test_as_rgb_refuses_what_is_no_image(bad):
    with pytest.raises(UsageError, match="got an image"):
        as_rgb(bad)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_png_round_trip(tmp_path, shape):
    image = noise(*shape)
    save_png(tmp_path / "a.png", image)
    channels = shape[2] if len(shape) == 3 else 1
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels), image.reshape(5, 7, channels))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    save_png(tmp_path / "a.png", noise(4, 4))
    before = (tmp_path / "a.png").read_bytes()

    def full_disk(part, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "rename", full_disk)
    with pytest.raises(GansegError, match=r"no room.*No space") as e:
        save_png(tmp_path / "a.png", noise(8, 8))
    assert "are free on the disk" in str(e.value)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_read_image_converts_to_the_channels_asked_for(tmp_path):
    grey = noise(4, 5)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), grey[..., None].repeat(3, -1))
    indexed = Image.fromarray(MASK)
    indexed.putpalette(LABELS.flat_palette())
    indexed.save(tmp_path / "indexed.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "indexed.png"), [[(0, 0, 0), (200, 100, 50)], [(10, 20, 250), (255, 255, 255)]]
    )
    with pytest.raises(UsageError, match="got 4 channels"):
        read_image(tmp_path / "grey.png", 4)


def test_16_bit_grey_keeps_its_range(tmp_path):
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", 1)[..., 0].tolist() == [[0, 0, 1], [128, 254, 255]]


def test_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = noise(4, 6, 3)
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(image, -1))


def test_files_that_are_no_images_are_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tiff")
    for name, why in [
        ("text.png", "text.png"),
        ("half.png", "half.png"),
        ("none.png", "not exist"),
        ("float.tiff", "32-bit"),
    ]:
        with pytest.raises(UsageError, match=why):
            read_image(tmp_path / name)
