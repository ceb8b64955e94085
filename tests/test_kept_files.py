"""Files of an earlier state of the code still open, and give what they gave: a dataset, a segmenter, a student.

They were written at commit ca4d475, before the rooms were moved, by `generate --generator demo -n 6 --shard-size 3`,
`annotate --shots 1 --masks demo --method linear`, `distill --steps 20`, `export` and `predict`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gansegctl
from gansegctl.store.dataset import iter_shards
from gansegctl.store.manifest import problems_of_dataset

DIGEST_OF_IMAGES = "bbc1e63676daa96a7e3cbccad96c6b56ba25343146ff1e0021966f77f3675e46"
KEPT = Path(__file__).parent / "helpers" / "kept"
SAME = 0.999  # of the pixels: another processor may round a tie otherwise; on one kind of device it is all of them


@pytest.fixture
def dataset(tmp_path):
    return shutil.copytree(KEPT / "dataset", tmp_path / "dataset")


def test_the_dataset_opens_and_is_whole(dataset):
    assert problems_of_dataset(dataset) == []
    items = gansegctl.open_dataset(dataset)
    assert len(items) == 6 and items.seeds == list(range(6)) and items.labels.names[5] == "nose"
    stored = json.loads((dataset / "manifest.json").read_text())
    assert stored["segmenter"]["sha256"] == hashlib.sha256((dataset / "segmenter.safetensors").read_bytes()).hexdigest()


def test_the_segmenter_labels_as_it_did(dataset):
    segmenter = gansegctl.open_segmenter(dataset / "segmenter.safetensors")
    images, annotation = gansegctl.sample(gansegctl.open_generator("demo"), range(6), segmenter)
    shards = [arrays for _, arrays in iter_shards(dataset)]
    kept = {name: np.concatenate([getattr(s, name) for s in shards]) for name in ("image", "mask", "confidence")}
    assert np.abs(images.numpy().astype(int) - kept["image"]).max() <= 1
    assert (annotation.labels.numpy() == kept["mask"]).mean() >= SAME
    assert np.abs(annotation.confidence.numpy().astype(int) - kept["confidence"]).max() <= 2


def test_the_segmenter_is_written_as_it_was(dataset, tmp_path):
    gansegctl.open_segmenter(dataset / "segmenter.safetensors").save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (dataset / "segmenter.safetensors").read_bytes()


def test_the_student_predicts_as_it_did():
    student = gansegctl.open_student(KEPT / "student.safetensors")
    images = torch.stack([item["image"] for item in gansegctl.open_dataset(KEPT / "dataset")])
    masks = np.stack([np.array(Image.open(p)) for p in sorted((KEPT / "masks").glob("*.png"))])
    assert (student.predict(images).labels.numpy() == masks).mean() >= SAME


def test_the_student_is_written_as_it_was(tmp_path):
    gansegctl.open_student(KEPT / "student.safetensors").save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (KEPT / "student.safetensors").read_bytes()


def test_a_dataset_made_today_is_the_kept_one(dataset, tmp_path, call):
    made = tmp_path / "made"
    assert call("generate", "--generator", "demo", "-n", 6, "--shard-size", 3, "-o", made)[0] == 0
    assert json.loads((made / "manifest.json").read_text())["digest"] == DIGEST_OF_IMAGES
    assert call("annotate", made, "--shots", 1, "--masks", "demo", "--method", "linear")[0] == 0
    now, kept = (json.loads((d / "manifest.json").read_text()) for d in (made, dataset))
    for of_this_machine in ("digest", "checksum", "segmenter"):  # the weights' last bits are the machine's
        now.pop(of_this_machine), kept.pop(of_this_machine)
    assert now == kept
    masks = [np.concatenate([s.mask for _, s in iter_shards(d)]) for d in (made, dataset)]
    assert (masks[0] == masks[1]).mean() >= SAME
