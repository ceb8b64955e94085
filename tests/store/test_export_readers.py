"""Exports opened by the libraries they are meant for, where those are installed (pip install '.[readers]')."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.exports import SEEDS, SIZE, image_of, make, put
from helpers.shapes import iou, smooth_mask

from gansegctl.io import rle


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("d") / "faces")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs, with numpy 2
@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_the_masks(dataset, tmp_path, polygons):
    api = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    out = put(dataset, tmp_path / "o", "coco", polygons=polygons)
    coco = api.COCO(str(out / "annotations/instances_train.json"))
    assert len(coco.getImgIds()) == len(SEEDS)
    for number, seed in zip(sorted(coco.getImgIds()), SEEDS, strict=True):
        truth = smooth_mask(seed, SIZE)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        assert len(annotations) == 3
        for a in annotations:
            read, wanted = coco.annToMask(a) == 1, truth == a["category_id"]
            assert iou(read, wanted) >= 0.97 if polygons else np.array_equal(read, wanted)


def test_pycocotools_writes_the_same_text():
    masks = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    for seed in range(20):
        region = smooth_mask(seed, SIZE) == seed % 4
        theirs = masks.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
        assert rle.to_text(rle.encode(region)) == theirs


def test_webdataset_reads_the_tars(dataset, tmp_path):
    wds = pytest.importorskip("webdataset", reason="needs webdataset")
    out = put(dataset, tmp_path / "o", "webdataset")
    count = len(list(out.glob("train-*.tar")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pattern = str(out / f"train-{{000000..{count - 1:06d}}}.tar")
        reader = wds.WebDataset(pattern, shardshuffle=False).decode("pil").to_tuple("img.png", "seg.png", "json")
        rows = [(np.asarray(i), np.asarray(m), facts["seed"]) for i, m, facts in reader]
    assert [seed for *_, seed in rows] == list(SEEDS)
    for image, mask, seed in rows:
        assert np.array_equal(image, image_of(seed))
        assert all(np.array_equal(mask[..., c], smooth_mask(seed, SIZE)) for c in range(3))  # "pil" means RGB


def test_datasets_reads_the_folder(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets", reason="needs datasets")
        out = put(dataset, tmp_path / "o", "hf", split="train=0.5,val=0.5")
        loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
        assert set(loaded) == {"train", "val"}
        seeds = []
        for part in loaded.values():
            assert {"image", "annotation", "seed", "score"} <= set(part.column_names)
            for row in part:
                seeds.append(row["seed"])
                assert np.array_equal(np.asarray(row["image"]), image_of(row["seed"]))
                assert np.array_equal(np.asarray(row["annotation"]), smooth_mask(row["seed"], SIZE))
    assert sorted(seeds) == sorted(SEEDS)
    names = json.loads((out / "id2label.json").read_text())
    assert names["0"] == "background"
