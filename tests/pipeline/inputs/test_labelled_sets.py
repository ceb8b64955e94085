"""Images with masks: one reader of folders and HDF5 files, whatever command asks."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.inputs.labelled_sets import annotated_images, load_labelled

ROWS = [{"id": 2, "name": "ground", "colour": [0, 0, 0]}, {"id": 5, "name": "figure", "colour": [200, 40, 40]}]
LABELS = LabelMap(("ground", "figure"), ((0, 0, 0), (200, 40, 40)))


def pair(folder, name, mask):
    Image.new("RGB", (8, 8), (90, 0, 30)).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}.mask.png")


def halves(left, right, kind=np.uint8):
    mask = np.full((8, 8), left, kind)
    mask[:, 4:] = right
    return mask


class TestFolders:
    def test_values_are_the_ids_that_labels_json_gives_them(self, tmp_path):
        (tmp_path / "labels.json").write_text(json.dumps(ROWS))
        pair(tmp_path, "a", halves(2, 5))
        pair(tmp_path, "b", halves(5, 255))
        whole = load_labelled(tmp_path)
        assert whole.labels == LABELS
        assert np.array_equal(whole.mask, [halves(0, 1), halves(1, 255)])
        squares = annotated_images(tmp_path, LABELS, 8, 3)
        assert all(np.array_equal(a, b.mask) for a, b in zip(whole.mask, squares, strict=True))
        assert all(np.array_equal(a, b.image) for a, b in zip(whole.image, squares, strict=True))

    def test_a_mask_in_the_classes_colours(self, tmp_path):
        (tmp_path / "labels.json").write_text(json.dumps(ROWS))
        pair(tmp_path, "a", np.array(LABELS.colours, np.uint8)[halves(0, 1)])
        assert np.array_equal(load_labelled(tmp_path).mask[0], halves(0, 1))

    @pytest.mark.parametrize("mask", [halves(2, 3), halves(2, 256 + 5, np.uint16)])
    def test_a_value_of_no_class_is_refused_and_never_wraps(self, tmp_path, mask):
        (tmp_path / "labels.json").write_text(json.dumps(ROWS))
        pair(tmp_path, "a", mask)
        for read in (lambda: load_labelled(tmp_path), lambda: annotated_images(tmp_path, LABELS, 8, 3)):
            with pytest.raises(UsageError, match=r"a\.mask\.png with 1 undeclared values"):
                read()


class TestHdf5:
    def test_images_of_another_type_are_refused(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as f:
            f["image"], f["mask"] = np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), np.uint8)
            f.attrs["classes"] = json.dumps(LABELS.names)
        with pytest.raises(UsageError, match="float32"):
            load_labelled(tmp_path / "x.h5")

    @pytest.mark.parametrize("read", [load_labelled, lambda p: annotated_images(p, LABELS, 8, 1)])
    def test_a_source_is_missing_in_the_same_words(self, tmp_path, read):
        with pytest.raises(UsageError, match=r"none: no such file or folder"):
            read(tmp_path / "none")
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "labels.json").write_text(json.dumps(ROWS))
        with pytest.raises(UsageError, match=r"empty without pairs\s+wanted: NAME\.png with NAME\.mask\.png beside it"):
            read(tmp_path / "empty")
