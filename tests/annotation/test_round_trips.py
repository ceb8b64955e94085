"""Every format, from files as its tool writes them: the masks that come back are those that went out."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import annotation_files, annotation_references
from helpers.annotation_files import LABELS, SIZE
from helpers.annotation_references import NAMES, SEED, STEM, truth
from helpers.shapes import fill_even_odd

from gansegctl.annotation import rasterize
from gansegctl.annotation.detect_format import FORMATS
from gansegctl.annotation.formats.label_studio_rle import decode
from gansegctl.annotation.importer import find_masks, read_masks
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

DATA = Path(__file__).parent / "data"
ORDERS = (NAMES, ("background", "left eye", "hair", "face"))


def read(path, labels=LABELS, **options):
    return read_masks(path, labels, SIZE, [SEED], **options)[SEED]


def as_named(mask: np.ndarray, labels: LabelMap) -> np.ndarray:
    return np.array([labels.names.index(n) for n in NAMES], np.uint8)[mask]


def test_there_is_a_writer_for_every_format():
    assert tuple(annotation_files.WRITERS) == FORMATS


@pytest.mark.parametrize("names", ORDERS, ids=["same order", "another order"])
@pytest.mark.parametrize("form", FORMATS)
def test_what_goes_out_comes_back(tmp_path, form, names):
    if names != NAMES and form in ("palette", "grey"):
        (tmp_path / "labels.json").write_text(json.dumps(LABELS.to_json()))  # values need a label file to have a name
    labels = LabelMap(names)
    path = annotation_files.WRITERS[form](tmp_path, truth())
    got = read(path, labels)
    np.testing.assert_array_equal(got.mask, as_named(truth(), labels))
    assert got.mask.dtype == np.uint8
    assert (got.format, got.notes) == (form, ())
    assert list(find_masks(path).items) == [SEED]


@pytest.mark.parametrize(("name", "writer"), annotation_references.WRITERS.items(), ids=annotation_references.WRITERS)
def test_files_of_the_formats_own_writers(name, writer):
    got = read(DATA / writer[1], LabelMap(ORDERS[1]), images=lambda seed: annotation_references.image())
    np.testing.assert_array_equal(got.mask, as_named(truth(), LabelMap(ORDERS[1])))
    assert (got.format, got.notes) == (name, ())


@pytest.mark.parametrize(
    ("name", "package"),
    [("label-studio", "label_studio_converter"), ("coco", "pycocotools"), ("cvat", "datumaro"), ("labelme", "labelme")],
)
def test_the_formats_own_writers_where_they_are_installed(tmp_path, name, package):
    pytest.importorskip(package, reason=f"needs {package}; what it wrote once is read from tests/annotation/data")
    write, file = annotation_references.WRITERS[name]
    write(tmp_path / file)
    np.testing.assert_array_equal(read(tmp_path / file).mask, truth())


def test_masks_of_labelme_beside_polygons_of_labelme(tmp_path):
    shapes = [annotation_files.mask_shape(truth() == k, NAMES[k]) for k in (1, 2, 3)]
    path = annotation_files.labelme(tmp_path, truth(), shapes=shapes)
    np.testing.assert_array_equal(read(path).mask, truth())


def test_an_unpacked_cvat_folder_and_masks_of_one_channel(tmp_path):
    for form in ("rgb", "index"):
        for name, data in annotation_files.cvat_files(truth(), form).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        got = read(tmp_path)
        np.testing.assert_array_equal(got.mask, truth())
        assert got.format == "cvat"


def test_background_of_cvat_is_the_first_class_where_none_is_called_so(tmp_path):
    got = read(annotation_files.cvat(tmp_path, truth()), LabelMap(("ground", *NAMES[1:])))
    np.testing.assert_array_equal(got.mask, truth())
    assert "became 'ground'" in got.notes[0]


def test_one_file_may_hold_many_images(tmp_path):
    other = np.flip(truth(), axis=0)
    frame = json.loads(annotation_files.coco(tmp_path, truth()).read_text())
    annotation_files.coco(tmp_path, other)
    more = json.loads((tmp_path / "instances.json").read_text())
    frame["images"].append({"id": 4, "file_name": "exemplar-00000007.png", "height": SIZE[0], "width": SIZE[1]})
    frame["images"].append({"id": 5, "file_name": "holiday.png", "height": 9, "width": 9})
    frame["annotations"] += [a | {"image_id": 4} for a in more["annotations"]]
    (tmp_path / "instances.json").write_text(json.dumps(frame))
    read_all = read_masks(tmp_path / "instances.json", LABELS, SIZE)
    assert list(read_all) == [7, SEED]
    np.testing.assert_array_equal(read_all[7].mask, other)
    np.testing.assert_array_equal(read_all[SEED].mask, truth())
    assert "'holiday.png' is no exemplar" in read_all[7].notes[0]


@pytest.mark.parametrize("literal", [False, True])
def test_brushes_of_runs_and_of_single_values(literal):
    random = np.random.default_rng(3)
    for _ in range(8):
        h, w = random.integers(1, 30, 2).tolist()
        alpha = np.repeat(random.integers(0, 256, h * w // 5 + 1), 5)[: h * w].astype(np.uint8)
        values = np.stack([alpha // 2, alpha // 3, alpha // 4, alpha], axis=1).ravel()
        np.testing.assert_array_equal(decode(annotation_files.pack(values, literal), h, w), alpha.reshape(h, w))


def test_soft_edges_of_a_brush_count_from_half_on(tmp_path):
    alpha = np.where(truth() == 1, 255, 0).astype(np.uint8)
    alpha[0, :3] = (127, 128, 255)
    packed = annotation_files.pack(np.repeat(alpha.ravel(), 4))
    value = {"format": "rle", "rle": packed, "brushlabels": ["face"]}
    (tmp_path / "a.json").write_text(json.dumps(annotation_files.task([annotation_files.result("brushlabels", value)])))
    np.testing.assert_array_equal(read(tmp_path / "a.json").mask, alpha >= 128)


def test_a_polygon_holds_the_pixels_whose_centres_it_holds():
    random = np.random.default_rng(1)
    for _ in range(40):
        points = random.uniform(-5, 35, (int(random.integers(3, 12)), 2))
        got = rasterize.polygon(points, SIZE)
        np.testing.assert_array_equal(got, fill_even_odd(points, *SIZE))
    assert not rasterize.polygon([(1e14, 1e14), (1e14, -1e14), (2e14, 0.0)], SIZE).any()
    assert rasterize.polygon([(-1e14, -1e14), (1e14, -1e14), (1e14, 1e14), (-1e14, 1e14)], SIZE).all()


def test_rectangles_circles_and_ellipses():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    np.testing.assert_array_equal(rasterize.rectangle((2, 3), (4, 5), SIZE), (x > 2) & (x < 6) & (y > 3) & (y < 8))
    np.testing.assert_array_equal(
        rasterize.rectangle((10, 3), (4, 6), SIZE, 90), (x > 4) & (x < 10) & (y > 3) & (y < 7)
    )
    np.testing.assert_array_equal(rasterize.ellipse((9, 8), (5, 5), SIZE), (x - 9) ** 2 + (y - 8) ** 2 <= 25)
    turned = rasterize.ellipse((14.0, 12.0), (9, 4), SIZE, 90)
    np.testing.assert_array_equal(turned, ((x - 14) / 4) ** 2 + ((y - 12) / 9) ** 2 <= 1)
    tilted = rasterize.ellipse((12.0, 12.0), (9, 2), SIZE, 30)
    assert tilted[int(12 + 7 * 0.5), int(12 + 7 * 0.87)] and not tilted[int(12 - 7 * 0.5), int(12 + 7 * 0.87)]


def test_shapes_of_labelme_and_label_studio_agree(tmp_path):
    circle = {"label": "face", "points": [[10, 9], [14, 9]], "shape_type": "circle"}
    box = {"label": "hair", "points": [[24, 20], [18, 12]], "shape_type": "rectangle"}
    drawn = read(annotation_files.labelme(tmp_path, truth(), shapes=[circle, box])).mask
    w, h = 100 / SIZE[1], 100 / SIZE[0]
    ellipse = {"x": 10 * w, "y": 9 * h, "radiusX": 4 * w, "radiusY": 4 * h, "ellipselabels": ["face"]}
    rectangle = {"x": 18 * w, "y": 12 * h, "width": 6 * w, "height": 8 * h, "rotation": 0, "rectanglelabels": ["hair"]}
    results = [annotation_files.result("ellipselabels", ellipse), annotation_files.result("rectanglelabels", rectangle)]
    (tmp_path / "p.json").write_text(json.dumps(annotation_files.task(results)))
    np.testing.assert_array_equal(read(tmp_path / "p.json").mask, drawn)
    assert {0, 1, 2} == set(np.unique(drawn))


def test_labels_that_label_studio_keeps_beside_the_brush(tmp_path):
    shape = annotation_files.brush(truth() == 2, "hair")
    shape["type"], shape["id"] = "brush", "a1"
    del shape["value"]["brushlabels"]
    label = annotation_files.result("labels", {"labels": ["hair"]}, id="a1")
    choice = {"type": "choices", "value": {"choices": ["good"]}, "id": "c", "from_name": "q", "to_name": "image"}
    (tmp_path / "p.json").write_text(json.dumps(annotation_files.task([shape, label, choice])))
    got = read(tmp_path / "p.json")
    np.testing.assert_array_equal(got.mask, np.where(truth() == 2, 2, 0))
    assert "a choices covers no area" in got.notes[0]


def test_the_image_that_an_annotation_brings_must_be_the_latents(tmp_path):
    made = annotation_references.image()
    near = (made.astype(np.int16) + np.random.default_rng(0).integers(-6, 7, made.shape)).clip(0, 255).astype(np.uint8)
    other = np.roll(made, 5, axis=1)
    embedded = {"imageData": base64.b64encode(annotation_references.png(made)).decode()}
    path = annotation_files.labelme(tmp_path, truth(), **embedded)
    for same in (made, near):
        np.testing.assert_array_equal(read(path, images=lambda seed, p=same: p).mask, truth())
    with pytest.raises(UsageError, match=r"imageData|painted on another image than seed 42 makes"):
        read(path, images=lambda seed: other)
    (tmp_path / f"{STEM}.png").write_bytes(annotation_references.png(other))  # named by imagePath, and lying beside
    with pytest.raises(UsageError, match="another image"):
        read(annotation_files.labelme(tmp_path, truth()), images=lambda seed: made)
    files = annotation_files.cvat_files(truth()) | {f"JPEGImages/{STEM}.png": annotation_references.png(other)}
    with pytest.raises(UsageError, match="another image"):
        read(annotation_files.zipped(tmp_path / "t.zip", files), images=lambda seed: made)
