"""The exchange bundle: what is written for people, and that nothing painted is lost or misread."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gansegctl.annotation.bundle import BundleItem, write_bundle
from gansegctl.annotation.importer import read_masks
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

LABELS = LabelMap(("background", "face", "hair"), ((0, 0, 0), (200, 100, 50), (10, 20, 250)))
PAINTED = np.array([[0, 1, 1, 2], [0, 1, 2, 2], [255, 0, 0, 0]], np.uint8)
SIZE = PAINTED.shape


def item(seed: int = 42, index: int = 7, channels: int = 3, **options) -> BundleItem:
    image = np.random.default_rng(seed).integers(0, 256, (*SIZE, channels), dtype=np.uint8)
    return BundleItem(index, seed, image, **options)


def paint(folder, seed: int = 42, mask: np.ndarray = PAINTED) -> None:
    image = Image.fromarray(mask)
    image.putpalette(LABELS.flat_palette())
    image.save(folder / f"exemplar-{seed:08d}.mask.png")


def test_everything_a_person_needs_is_there(tmp_path):
    folder = tmp_path / "deep" / "bundle"
    items = [item(42), item(4_000_000_000, 8, channels=1)]
    paths = write_bundle(folder, items, LABELS, {"dataset": "data/faces", "generator": "ab12"})
    assert [p.name for p in paths] == ["exemplar-00000042.mask.png", "exemplar-4000000000.mask.png"]
    names = {p.name for p in folder.iterdir()}
    assert names == {*(p.name for p in paths), "exemplar-00000042.png", "exemplar-4000000000.png"} | {
        "labels.json",
        "labels.txt",
        "README.txt",
        "exemplars.json",
        "labels.gpl",
        "labelme-labels.txt",
        "cvat-labels.json",
        "label-studio.xml",
    }
    for one in items:
        shown = np.asarray(Image.open(folder / f"exemplar-{one.seed:08d}.png"))
        np.testing.assert_array_equal(shown, one.image.squeeze())
    with Image.open(paths[0]) as mask:
        assert mask.mode == "P" and mask.size == (4, 3) and not np.asarray(mask).any()
        assert mask.getpalette("RGB") == LABELS.flat_palette()
    assert LabelMap.from_json(json.loads((folder / "labels.json").read_text())) == LABELS
    text = (folder / "labels.txt").read_text()
    assert "1  #c86432  face" in text and "255" in text
    assert f"gansegctl annotate data/faces --shots 2 --masks {folder}" in (folder / "README.txt").read_text()
    record = json.loads((folder / "exemplars.json").read_text())
    assert record["provenance"] == {"dataset": "data/faces", "generator": "ab12"}
    assert [(r["seed"], r["index"]) for r in record["exemplars"]] == [(42, 7), (4_000_000_000, 8)]
    assert record["exemplars"][0]["sha256"] != record["exemplars"][1]["sha256"]


def test_a_blank_bundle_is_not_taken_for_painted(tmp_path):
    write_bundle(tmp_path, [item()], LABELS, {})
    with pytest.raises(UsageError, match=r"exemplar-00000042\.mask\.png.*all over") as error:
        read_masks(tmp_path, LABELS, SIZE, [42])
    assert error.value.status == 2 and "labels.txt" in error.value.remedy
    assert not read_masks(tmp_path, LABELS, SIZE, [42], allow_blank=True)[42].mask.any()


def test_a_given_mask_is_written_and_read_back(tmp_path):
    write_bundle(tmp_path, [item(mask=PAINTED)], LABELS, {})
    mask = read_masks(tmp_path, LABELS, SIZE, [42])[42].mask
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, PAINTED)
    with pytest.raises(UsageError, match="seed 43"):
        write_bundle(tmp_path, [item(43, mask=PAINTED[:2])], LABELS, {})


def test_painted_masks_survive_a_second_writing_and_more_images_join(tmp_path):
    write_bundle(tmp_path, [item()], LABELS, {})
    paint(tmp_path)
    before = (tmp_path / "exemplar-00000042.mask.png").read_bytes()
    write_bundle(tmp_path, [item(), item(5, 1)], LABELS, {})
    write_bundle(tmp_path, [item(6, 2)], LABELS, {})
    assert (tmp_path / "exemplar-00000042.mask.png").read_bytes() == before
    assert [r["seed"] for r in json.loads((tmp_path / "exemplars.json").read_text())["exemplars"]] == [42, 5, 6]


def test_masks_of_other_images_are_not_adopted(tmp_path):
    write_bundle(tmp_path, [item()], LABELS, {})
    paint(tmp_path)
    other = BundleItem(7, 42, 255 - item().image)
    with pytest.raises(UsageError, match="another image"):
        write_bundle(tmp_path, [other], LABELS, {})
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "exemplar-00000042.png")), item().image)
    (tmp_path / "exemplar-00000042.mask.png").unlink()
    write_bundle(tmp_path, [other], LABELS, {})
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "exemplar-00000042.png")), other.image)


def test_ids_that_masks_were_painted_with_stay_when_the_order_of_classes_changes(tmp_path):
    write_bundle(tmp_path, [item()], LABELS, {})
    paint(tmp_path)
    turned = LabelMap(("hair", "background", "face"))
    write_bundle(tmp_path, [item(), item(5, 1, mask=None)], turned, {})
    assert json.loads((tmp_path / "labels.json").read_text()) == LABELS.to_json()
    wanted = np.array([1, 2, 0], np.uint8)[np.where(PAINTED == 255, 0, PAINTED)]
    wanted[PAINTED == 255] = 255
    np.testing.assert_array_equal(read_masks(tmp_path, turned, SIZE, [42])[42].mask, wanted)


def test_classes_that_painted_masks_do_not_know_are_refused(tmp_path):
    write_bundle(tmp_path, [item()], LABELS, {})
    with pytest.raises(UsageError, match="without class 'hat'"):
        write_bundle(tmp_path, [item()], LabelMap((*LABELS.names, "hat")), {})
    with pytest.raises(UsageError, match="'hair'"):
        write_bundle(tmp_path, [item()], LabelMap(("background", "face", "hairs")), {})


def test_missing_masks_are_all_named(tmp_path):
    write_bundle(tmp_path, [item()], LABELS, {})
    with pytest.raises(UsageError, match=r"01\.mask\.png, exemplar-00000002\.mask\.png, .*3\.mask\.png and 1 more"):
        read_masks(tmp_path, LABELS, SIZE, [1, 42, 2, 3, 4])
    with pytest.raises(UsageError, match=r"nowhere, which does not exist"):
        read_masks(tmp_path / "nowhere", LABELS, SIZE, [1])


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "exemplars.json").write_text('{"exemplars": [{}]}')
    with pytest.raises(UsageError, match=r"exemplars\.json"):
        write_bundle(tmp_path, [item()], LABELS, {})
