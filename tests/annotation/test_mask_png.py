"""Reading painted masks: every form an editor writes, and every way in which it can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gansegctl.annotation.importer import read_masks
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

LABELS = LabelMap(("background", "face", "hair"), ((0, 0, 0), (200, 100, 50), (10, 20, 250)))
PAINTED = np.array([[0, 1, 1, 2], [0, 1, 2, 2], [255, 0, 0, 0]], np.uint8)
SIZE = PAINTED.shape
NAME = "exemplar-00000009.mask.png"
COLOURS = np.array(LABELS.flat_palette(), np.uint8).reshape(256, 3)


def read(folder, labels=LABELS, size=SIZE):
    return read_masks(folder, labels, size, [9])[9].mask


def save(folder, image) -> None:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(folder / NAME)


def indexed(mask, palette=None) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(LABELS.flat_palette() if palette is None else palette)
    return image


def forms() -> dict[str, Image.Image]:
    rgb = COLOURS[PAINTED]
    opaque = np.full((*SIZE, 1), 255, np.uint8)
    return {
        "indexed": indexed(PAINTED),
        "indexed, foreign colours": indexed(PAINTED, [(v * 37) % 256 for v in range(768)]),
        "grey": Image.fromarray(PAINTED),
        "grey, 16 bits": Image.fromarray(PAINTED.astype(np.uint16)),
        "grey with alpha": Image.fromarray(np.concatenate([PAINTED[..., None], opaque], axis=2)),
        "RGB": Image.fromarray(rgb),
        "RGB with alpha": Image.fromarray(np.concatenate([rgb, opaque], axis=2)),
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_is_read(tmp_path, form):
    save(tmp_path, forms()[form])
    mask = read(tmp_path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, PAINTED)


def test_one_bit_masks_are_read_as_two_classes(tmp_path):
    save(tmp_path, Image.fromarray(PAINTED == 1))
    np.testing.assert_array_equal(read(tmp_path), PAINTED == 1)


def test_the_size_may_be_the_side_of_a_square(tmp_path):
    square = np.eye(3, dtype=np.uint8)
    save(tmp_path, square)
    np.testing.assert_array_equal(read(tmp_path, size=3), square)


def test_an_indexed_mask_whose_palette_an_editor_sorted_anew_is_read_by_colour(tmp_path):
    order = [2, 255, 0, 1]  # where the editor put which class
    index = np.array([order.index(v) for v in PAINTED.flat], np.uint8).reshape(SIZE)
    save(tmp_path, indexed(index, COLOURS[order].ravel().tolist()))
    with pytest.raises(UsageError, match="undeclared"):  # white at index 1 is no class, so the indices count
        read(tmp_path)
    kept = np.where(PAINTED == 255, 0, PAINTED)
    index = np.array([order.index(v) for v in kept.flat], np.uint8).reshape(SIZE)
    save(tmp_path, indexed(index, COLOURS[order].ravel().tolist()))
    np.testing.assert_array_equal(read(tmp_path), kept)


@pytest.mark.parametrize("form", ["indexed", "grey", "RGB"])
def test_ids_and_colours_of_the_folder_are_matched_by_name(tmp_path, form):
    rows = [
        {"id": 4, "name": "hair", "colour": [1, 2, 3]},
        {"id": 0, "name": "face", "colour": [4, 5, 6]},
        {"id": 1, "name": "background", "colour": [7, 8, 9]},
    ]
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    written = np.array([1, 0, 4], np.uint8)[np.where(PAINTED == 255, 0, PAINTED)]
    palette = np.full((256, 3), 128, np.uint8)
    palette[[4, 0, 1]] = [r["colour"] for r in rows]
    shown = {"indexed": indexed(written, palette.ravel().tolist()), "grey": written, "RGB": palette[written]}
    save(tmp_path, shown[form])
    np.testing.assert_array_equal(read(tmp_path), np.where(PAINTED == 255, 0, PAINTED))


def test_a_white_class_is_a_class_and_not_ignored(tmp_path):
    labels = LabelMap(("background", "face", "paper"), ((0, 0, 0), (200, 100, 50), (255, 255, 255)))
    pixels = COLOURS[np.where(PAINTED == 2, 255, PAINTED)]
    save(tmp_path, pixels)
    np.testing.assert_array_equal(read(tmp_path, labels), np.where(PAINTED == 255, 2, PAINTED))


@pytest.mark.parametrize("wrap", [indexed, Image.fromarray])
def test_undeclared_values_are_counted_and_listed(tmp_path, wrap):
    mask = PAINTED.copy()
    mask[0, :2], mask[1, 0] = 9, 200
    save(tmp_path, wrap(mask))
    with pytest.raises(UsageError, match=r"2 undeclared values: 9 \(2 pixels\), 200 \(1 pixels\)") as error:
        read(tmp_path)
    assert NAME in error.value.got and "1 face" in error.value.wanted and "255" in error.value.remedy


def test_sixteen_bit_values_are_not_cut_to_eight(tmp_path):
    save(tmp_path, np.where(PAINTED == 2, 258, PAINTED.astype(np.uint16)))
    with pytest.raises(UsageError, match=r"258 \(3 pixels\)"):
        read(tmp_path)


def test_blended_edges_are_named_as_such(tmp_path):
    pixels = COLOURS[PAINTED]
    pixels[0, 1], pixels[1, 1:3] = (100, 50, 25), (105, 60, 150)
    save(tmp_path, pixels)
    with pytest.raises(UsageError, match=r"3 pixels in 2 undeclared colours: #693c96 \(2 pixels\), #643219") as error:
        read(tmp_path)
    assert "#c86432 face" in error.value.wanted and "anti-aliasing" in error.value.remedy


def test_transparent_pixels_are_refused(tmp_path):
    alpha = np.full((*SIZE, 1), 255, np.uint8)
    alpha[0, :2, 0] = (0, 128)
    save(tmp_path, np.concatenate([COLOURS[PAINTED], alpha], axis=2))
    with pytest.raises(UsageError, match="2 transparent pixels"):
        read(tmp_path)


def test_another_size_is_refused(tmp_path):
    save(tmp_path, PAINTED.T)
    with pytest.raises(UsageError, match=r"3x4 pixels \(width x height\)") as error:
        read(tmp_path)
    assert error.value.wanted.startswith("4x3")


def test_files_that_are_no_png_are_refused(tmp_path):
    (tmp_path / NAME).write_bytes(b"no image")
    with pytest.raises(UsageError, match=NAME):
        read(tmp_path)
    Image.fromarray(PAINTED).save(tmp_path / NAME, format="JPEG")
    with pytest.raises(UsageError, match=NAME):
        read(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)).save(tmp_path / NAME)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:20_000])
    with pytest.raises(UsageError, match=NAME):
        read(tmp_path, size=300)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 0, "name": "fase", "colour": [0, 0, 0]}], "did you mean 'face'"),
        ([{"id": 0, "name": "face"}], "colour"),
        ([{"id": 255, "name": "face", "colour": [0, 0, 0]}], "0 to 254"),
        ([{"id": i, "name": "face", "colour": [i, 0, 0]} for i in (0, 1)], "one name twice"),
        ([{"id": 0, "name": n, "colour": [0, 0, 0]} for n in LABELS.names], "one id twice"),
        ({"labels": []}, "labels.json"),
    ],
)
def test_a_wrong_labels_file_is_refused(tmp_path, rows, message):
    save(tmp_path, PAINTED)
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    with pytest.raises(UsageError, match=message):
        read(tmp_path)


def test_rgb_masks_need_one_colour_a_class(tmp_path):
    labels = LabelMap(LABELS.names, ((0, 0, 0), (9, 9, 9), (9, 9, 9)))
    save(tmp_path, COLOURS[PAINTED])
    with pytest.raises(UsageError, match="share a colour"):
        read(tmp_path, labels)
