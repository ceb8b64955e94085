"""Images: exact pixels where they have a meaning, and files that are whole or not there."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch
from PIL import Image

from gansegctl.errors import GansegError, UsageError
from gansegctl.io import atomic
from gansegctl.io.image import read_image, save_png, to_uint8
from gansegctl.labels import LabelMap
from gansegctl.visualize import sheets
from gansegctl.visualize.charts import heat_map

LABELS = LabelMap(("background", "face", "hair"), ((0, 0, 0), (200, 100, 50), (10, 20, 250)))
MASK = np.array([[0, 1], [2, 255]], np.uint8)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pixels_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((pixels_of(image) == colour).all(-1).sum())


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


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray])
def test_nan_is_an_error_and_not_black(kind):
    image = np.zeros((1, 3, 2, 2), np.float32)
    image[0, 1, 1, 1] = np.nan
    with pytest.raises(GansegError, match="NaN"):
        to_uint8(kind(image))


def test_colourise_uses_the_palette_and_shows_ignored_pixels_white():
    result = sheets.colourise(MASK, LABELS)
    assert result.reshape(4, 3).tolist() == [[0, 0, 0], [200, 100, 50], [10, 20, 250], [255, 255, 255]]
    assert sheets.colourise(np.array([[7]], np.uint8), LABELS).tolist() == [[[128, 128, 128]]]


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 1), (2, 2, 3)])
def test_overlay_mixes_image_and_mask(shape):
    image = np.full(shape, 100, np.uint8)
    colours = sheets.colourise(MASK, LABELS)
    np.testing.assert_array_equal(sheets.overlay(image, MASK, LABELS, alpha=0.0), np.full((2, 2, 3), 100))
    np.testing.assert_array_equal(sheets.overlay(image, MASK, LABELS, alpha=1.0), colours)
    np.testing.assert_array_equal(sheets.overlay(image, MASK, LABELS, 0.25)[0, 1], [125, 100, 88])


def test_overlay_refuses_sizes_that_differ():
    with pytest.raises(UsageError, match="one size"):
        sheets.overlay(noise(4, 4, 3), MASK, LABELS)


@pytest.mark.parametrize("bad", [noise(4, 4, 2), noise(4), np.zeros((4, 4, 3))])
def test_as_rgb_refuses_what_is_no_image(bad):
    with pytest.raises(UsageError, match="got an image"):
        sheets.as_rgb(bad)


def test_errors_map_tells_wrong_right_and_ignored():
    predicted = np.array([[0, 1, 2], [255, 0, 0]], np.uint8)
    truth = np.array([[0, 2, 255], [1, 0, 1]], np.uint8)
    result = sheets.errors_map(predicted, truth)
    right, wrong, ignored = list(sheets.RIGHT), list(sheets.WRONG), list(sheets.IGNORED)
    assert result.tolist() == [[right, wrong, ignored], [ignored, right, wrong]]


def test_image_grid_magnifies_without_smoothing():
    images = noise(5, 4, 6, 3)
    sheet = pixels_of(sheets.image_grid(images, columns=2, scale=3))
    assert sheet.shape == (3 * 12 + 2 * 2, 2 * 18 + 2, 3)
    np.testing.assert_array_equal(sheet[14:26, 20:38], images[3].repeat(3, 0).repeat(3, 1))
    assert (sheet[28:, 20:] == 255).all()  # the empty sixth place


def test_image_grid_takes_grey_and_chooses_columns():
    images = noise(4, 64, 64, 1)
    assert sheets.image_grid(images).size == (2 * 192 + 2, 2 * 192 + 2)


def test_small_images_are_magnified_and_large_ones_reduced():
    assert sheets.image_grid(noise(1, 64, 64, 3)).size == (192, 192)
    assert sheets.image_grid(noise(1, 256, 256, 3)).size == (256, 256)
    assert sheets.image_grid(noise(1, 1024, 1024, 3)).size == (512, 512)
    assert sheets.image_grid(noise(1, 1024, 1024, 3), scale=1).size == (1024, 1024)
    with pytest.raises(UsageError, match="scale"):
        sheets.image_grid(noise(1, 4, 4, 3), scale=0)
    with pytest.raises(UsageError, match="no images"):
        sheets.image_grid(noise(0, 4, 4, 3))


def test_contact_sheet_shows_image_mask_and_confidence():
    images, masks = noise(3, 16, 16, 3), noise(3, 16, 16) % 3
    confidence = np.full((3, 16, 16), 77, np.uint8)
    sheet = sheets.contact_sheet(images, masks, confidence, LABELS, ["a", "b", "c"], columns=2, scale=4)
    pixels = pixels_of(sheet)
    wanted = sheets.overlay(images[0], masks[0], LABELS).repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(pixels[56:120, 14:78], images[0].repeat(4, 0).repeat(4, 1))
    np.testing.assert_array_equal(pixels[56:120, 84:148], wanted)
    assert count(sheet, (77, 77, 77)) >= 3 * 64 * 64
    for colour in LABELS.colours[1:]:
        assert count(sheet, colour) >= 12 * 12  # the legend's swatch
    assert sheet.width == 2 * (3 * 64 + 2 * 6) + 3 * 6 + 2 * 14


def test_contact_sheet_of_grey_images_alone_has_no_colour():
    pixels = pixels_of(sheets.contact_sheet(noise(2, 16, 16, 1), columns=5))
    assert np.ptp(pixels.astype(int), axis=-1).max() <= 10  # ink and frames are nearly grey


def test_contact_sheet_names_its_samples_and_classes():
    images, masks = noise(1, 32, 32, 3), np.zeros((1, 32, 32), np.uint8)
    plain = sheets.contact_sheet(images, masks, labels=LABELS, captions=[""])
    named = sheets.contact_sheet(images, masks, labels=LABELS, captions=["seed 17"])
    other = sheets.contact_sheet(images, masks, labels=LabelMap(("a", "b", "c"), LABELS.colours), captions=[""])
    caption = (pixels_of(plain) != pixels_of(named)).any(-1)
    assert caption.any() and not caption[:36].any() and not caption[56:].any()
    legend = (pixels_of(plain) != pixels_of(other)).any(-1)
    assert legend.any() and not legend[:248].any()


def test_a_long_caption_is_cut_to_its_cell():
    images = noise(2, 32, 32, 3)
    sheet = pixels_of(sheets.contact_sheet(images, captions=["wide " * 60, ""], columns=2, scale=4))
    caption = sheet[36:54]
    assert (caption[:, 14:142] < 200).any()
    assert (caption[:, 143:] == 255).all()


def test_many_classes_wrap_their_legend():
    labels = LabelMap(tuple(f"class number {i}" for i in range(40)))
    one = sheets.contact_sheet(noise(1, 64, 64, 3), np.zeros((1, 64, 64), np.uint8), labels=LABELS)
    many = sheets.contact_sheet(noise(1, 64, 64, 3), np.zeros((1, 64, 64), np.uint8), labels=labels)
    assert many.width == one.width and many.height > one.height + 10 * 20


def test_contact_sheet_refuses_what_does_not_fit_together():
    images = noise(2, 8, 8, 3)
    with pytest.raises(UsageError, match="label map"):
        sheets.contact_sheet(images, masks=noise(2, 8, 8))
    with pytest.raises(UsageError, match="captions"):
        sheets.contact_sheet(images, captions=["one"])
    with pytest.raises(UsageError, match="0 samples"):
        sheets.contact_sheet(images[:0])


def test_heat_map_of_many_classes_stays_small_and_of_few_has_numbers():
    few = heat_map(np.full((2, 2), 0.5), ["a", "b"], rows="truth", columns="predicted")
    zero = heat_map(np.full((2, 2), 0.25), ["a", "b"], rows="truth", columns="predicted")
    many = heat_map(np.full((100, 100), 0.5), [f"class {i}" for i in range(100)], "truth", "predicted")
    middle = tuple(round(255 + (c - 255) * 0.5) for c in (8, 60, 130))
    assert 0.5 * 4 * 45 * 45 < count(few, middle) < 4 * 45 * 45  # the rest is digits
    assert count(many, middle) == 100 * 100 * 13 * 13  # no digits
    assert count(zero, middle) == 0
    assert max(many.size) < 1700


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
    np.testing.assert_array_equal(read_image(tmp_path / "indexed.png"), sheets.colourise(MASK, LABELS))
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
