"""Which annotation is taken for which image, what the user is told of it, and what lies in the bundle for tools."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from helpers import annotation_files
from helpers.annotation_files import LABELS, SIZE, STEM
from helpers.annotation_references import NAMES, SEED, image, png, truth
from PIL import Image

from gansegctl.annotation.bundle import BundleItem, check_bundle, write_bundle
from gansegctl.annotation.importer import find_masks, read_masks
from gansegctl.annotation.same_image import same_image
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

LATENT = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 4, 6)


def bundle(folder, seeds=(SEED,), **changes) -> None:
    items = [BundleItem(i, s, image(), None, LATENT, f"reason {i}") for i, s in enumerate(seeds)]
    write_bundle(folder, items, changes.pop("labels", LABELS), {"dataset": "data/faces"})


def read(path, labels=LABELS, **options):
    return read_masks(path, labels, SIZE, [SEED], **options)[SEED]


@pytest.mark.parametrize("form", ["binary-set", "labelme", "cvat", "label-studio", "coco"])
def test_the_blank_mask_of_the_bundle_gives_way_to_what_is_brought_beside_it(tmp_path, form):
    bundle(tmp_path)
    annotation_files.WRITERS[form](tmp_path, truth())
    got = read(tmp_path)
    assert got.format == form
    np.testing.assert_array_equal(got.mask, truth())


def test_files_of_the_bundle_and_of_the_page_are_no_annotations(tmp_path):
    bundle(tmp_path)
    (tmp_path / f"{STEM}.overlay.png").write_bytes(png(image()))
    (tmp_path / "strokes.jsonl").write_text('{"kind": "paint"}\n')
    (tmp_path / ".ui-session.json").write_text("{}")
    (tmp_path / "settings.json").write_text('{"theme": "dark"}')
    found = find_masks(tmp_path)
    assert [i.format for i in found.items[SEED]] == ["palette"]
    assert found.notes == [f"{tmp_path / 'settings.json'} left out: no annotation"]


@pytest.mark.parametrize("blank", [True, False])
def test_a_mask_in_a_format_that_changes_values_is_asked_for_as_png(tmp_path, blank):
    if blank:
        bundle(tmp_path)
    (tmp_path / f"{STEM}.mask.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(UsageError) as error:
        read(tmp_path)
    assert error.value.remedy == f"masks are not read from {STEM}.mask.jpg: export PNG, which changes no value"


def test_masks_of_other_names_are_told_where_one_is_missing(tmp_path):
    annotation_files.WRITERS["palette"](tmp_path, truth())
    (tmp_path / "left.png").write_bytes(png(truth()))
    with pytest.raises(
        UsageError, match=r"without exemplar-00000007\.mask\.png[\s\S]*with their seeds, and not left\.png"
    ):
        read_masks(tmp_path, LABELS, SIZE, [SEED, 7])


def test_overlaps_are_reported_and_the_later_shape_wins(tmp_path):
    def box(label, left, right):
        return {"label": label, "points": [[left, 4], [right, 10]], "shape_type": "rectangle"}

    path = annotation_files.labelme(
        tmp_path, truth(), shapes=[box("face", 2, 12), box("hair", 8, 20), box("hair", 19, 22)]
    )
    got = read(path)
    assert got.notes == (f"{path}: 'hair' covers 24 pixels of 'face': the later shape wins",)
    assert (got.mask[5, 2:8] == 1).all() and (got.mask[5, 8:22] == 2).all()
    turned = annotation_files.labelme(tmp_path, truth(), shapes=[box("hair", 8, 20), box("face", 2, 12)])
    assert (read(turned).mask[5, 2:12] == 1).all()


def test_overlaps_of_binary_masks_follow_the_list_of_classes(tmp_path):
    for name, columns in (("left eye", slice(3, 6)), ("face", slice(0, 9))):
        layer = np.zeros(SIZE, np.uint8)
        layer[:, columns] = 255
        (tmp_path / f"{STEM}.{name}.png").write_bytes(png(layer))
    got = read(tmp_path)
    assert (got.mask[:, 3:6] == 3).all() and (got.mask[:, :3] == 1).all()
    assert "'left eye' covers 72 pixels of 'face'" in got.notes[0]
    turned = read(tmp_path / f"{STEM}.face.png", LabelMap(("background", "left eye", "hair", "face")))
    assert (turned.mask[:, :9] == 3).all()


def test_layers_of_a_paint_program_are_read_by_their_alpha(tmp_path):
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[truth() == 2] = (0, 0, 0, 255)  # black paint on a clear layer
    Image.fromarray(pixels).save(tmp_path / f"{STEM}.hair.png")
    np.testing.assert_array_equal(read(tmp_path).mask, np.where(truth() == 2, 2, 0))


def test_ignored_shapes_and_shapes_without_a_pixel(tmp_path):
    def box(label, *corners):
        return {"label": label, "points": corners, "shape_type": "rectangle"}

    shapes = [box("face", [2, 2], [9, 9]), box("__ignore__", [4, 4], [6, 6]), box("hair", [3.6, 3.6], [4.4, 4.4])]
    got = read(annotation_files.labelme(tmp_path, truth(), shapes=shapes))
    assert (got.mask[4:6, 4:6] == 255).all() and (got.mask == 255).sum() == 4
    assert "shapes[2] ('hair') covers no pixel" in got.notes[0] and "ignored covers 4 pixels of 'face'" in got.notes[1]


def test_pixels_that_nobody_drew_on_are_told_where_the_first_class_is_no_background(tmp_path):
    got = read(annotation_files.labelme(tmp_path, truth()), LabelMap(("floor", *NAMES[1:])))
    assert f"{(truth() == 0).sum()} pixels that no shape covers became 'floor'" in got.notes[0]


def test_the_only_image_may_have_another_name(tmp_path):
    bundle(tmp_path / "b")
    path = annotation_files.labelme(tmp_path, truth(), "IMG_7.json", imagePath="IMG_7.png")
    got = read(path, bundle=tmp_path / "b")
    assert "taken as the mask of seed 42, the only exemplar" in got.notes[0]
    bundle(tmp_path / "b", (SEED, 43))
    with pytest.raises(UsageError, match="name no exemplar"):
        read(path, bundle=tmp_path / "b")


def test_several_paths_and_the_order_of_the_bundle(tmp_path):
    bundle(tmp_path, (50, SEED, 7))
    annotation_files.labelme(tmp_path, truth())
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(annotation_files.grey(more, truth()), more / "exemplar-00000009.mask.png")
    found = find_masks([tmp_path, more / "exemplar-00000009.mask.png"])
    assert list(found.items) == [50, SEED, 7, 9]
    masks = read_masks([tmp_path, more / "exemplar-00000009.mask.png"], LABELS, SIZE, [9, SEED])
    assert [m.format for m in masks.values()] == ["grey", "labelme"]


def test_the_bundle_says_why_and_keeps_the_latent(tmp_path):
    bundle(tmp_path, (SEED, 43))
    rows = json.loads((tmp_path / "exemplars.json").read_text())["exemplars"]
    assert [r["why"] for r in rows] == ["reason 0", "reason 1"]
    np.testing.assert_array_equal(np.load(tmp_path / rows[0]["latent"], allow_pickle=False), LATENT)
    write_bundle(tmp_path, [BundleItem(0, SEED, image())], LABELS, {})
    again = json.loads((tmp_path / "exemplars.json").read_text())["exemplars"]
    assert again[0] == rows[0], "what is not said anew stays"


def test_a_bundle_of_another_dataset_is_refused(tmp_path):
    bundle(tmp_path)
    check_bundle(tmp_path, SEED, image(), LATENT)
    check_bundle(tmp_path, 5, image() * 0, LATENT * 0)  # not in the bundle: nothing to compare
    rounded = image() ^ 1
    check_bundle(tmp_path, SEED, rounded, LATENT + 1e-4)
    with pytest.raises(UsageError, match="another latent"):
        check_bundle(tmp_path, SEED, image(), LATENT * 0.7)
    with pytest.raises(UsageError, match="another image"):
        check_bundle(tmp_path, SEED, 255 - image(), LATENT)
    (tmp_path / f"{STEM}.png").write_bytes(png(rounded))  # no longer what was written
    with pytest.raises(UsageError, match="another image"):
        check_bundle(tmp_path, SEED, rounded, LATENT)
    (tmp_path / f"{STEM}.latent.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UsageError, match=r"latent\.npy"):
        check_bundle(tmp_path, SEED, image(), LATENT)


def test_a_bundle_written_again_on_another_device_keeps_its_masks(tmp_path):
    bundle(tmp_path)
    annotation_files.palette(tmp_path, truth())
    write_bundle(tmp_path, [BundleItem(0, SEED, image() ^ 1, None, LATENT)], LABELS, {})
    np.testing.assert_array_equal(read(tmp_path).mask, truth())


def test_images_are_the_same_up_to_rounding_and_grey():
    made = image()
    spotted = made.copy()
    spotted[0, :7] = 255 - spotted[0, :7]
    assert same_image(made, made ^ 3) and same_image(made, spotted)
    spotted[1] = 255 - spotted[1]
    assert not same_image(made, spotted) and not same_image(made, made[1:])
    assert same_image(made[..., :1], np.repeat(made[..., :1], 3, axis=2)) and same_image(made[..., 0], made[..., :1])


def test_each_tool_gets_the_classes_in_its_own_form(tmp_path):
    bundle(tmp_path, labels=LabelMap(("background", "fa<ce", 'ha"ir'), ((0, 0, 0), (200, 100, 50), (10, 20, 250))))
    assert (tmp_path / "labelme-labels.txt").read_text().split("\n")[:3] == ["__ignore__", "background", "fa<ce"]
    constructor = json.loads((tmp_path / "cvat-labels.json").read_text())
    assert constructor[0] == {"name": "fa<ce", "color": "#c86432", "attributes": []} and len(constructor) == 2
    view = ElementTree.fromstring((tmp_path / "label-studio.xml").read_text())
    assert [e.tag for e in view] == ["Image", "BrushLabels", "PolygonLabels"]
    assert [e.get("value") for e in view[1]] == ["background", "fa<ce", 'ha"ir']
    assert view[2][2].get("background") == "#0a14fa"
    palette = (tmp_path / "labels.gpl").read_text().split("\n")
    assert palette[0] == "GIMP Palette" and ' 10  20 250\tha"ir' in palette
    text = (tmp_path / "README.txt").read_text()
    for tool in ("GIMP", "LABELME", "CVAT", "LABEL STUDIO", "COCO", "IN THE BROWSER"):
        assert tool in text
    assert f"gansegctl annotate data/faces --shots 1 --masks {tmp_path}" in text


def test_labels_of_the_label_studio_template_come_back_by_name(tmp_path):
    """The template's own tags name the kinds of result that the importer reads."""
    bundle(tmp_path)
    view = ElementTree.fromstring((tmp_path / "label-studio.xml").read_text())
    shape = annotation_files.brush(truth() == 2, view[1][2].get("value"))
    shape["from_name"], shape["to_name"] = view[1].get("name"), view[1].get("toName")
    assert view[1].tag.lower() in shape["value"]
    (tmp_path / "project.json").write_text(json.dumps(annotation_files.task([shape])))
    np.testing.assert_array_equal(read(tmp_path).mask, np.where(truth() == 2, 2, 0))
