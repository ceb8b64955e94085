"""Sheets for people: exact pixels where they have a meaning, legends, captions, magnification."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.visualize import sheets

LABELS = LabelMap(("background", "face", "hair"), ((0, 0, 0), (200, 100, 50), (10, 20, 250)))
MASK = np.array([[0, 1], [2, 255]], np.uint8)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pixels_of(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((pixels_of(image) == colour).all(-1).sum())


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
