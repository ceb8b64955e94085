"""Exports read back: the same images and masks in every format, whatever was interrupted."""

from __future__ import annotations

import ast
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers.exports import LABELS, SEEDS, SIZE, files_of, image_of, make, put
from helpers.shapes import fill_even_odd, iou, smooth_mask
from PIL import Image, ImageDraw

from gansegctl.errors import DatasetError, GansegError, UsageError
from gansegctl.io import atomic, rle
from gansegctl.pipeline import export as exporting
from gansegctl.pipeline.export import export
from gansegctl.store.export import FORMATS, get_format
from gansegctl.store.export.base import ExportSettings
from gansegctl.store.export.selection import Splits

SPLIT = "train=0.5,val=0.5"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("d") / "faces")


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch):
    monkeypatch.setattr(exporting, "SHOWN", 1)  # drawing them is most of the work of an export of eight pairs


def pixels(path_or_bytes) -> np.ndarray:
    source = io.BytesIO(path_or_bytes) if isinstance(path_or_bytes, bytes) else path_or_bytes
    with Image.open(source) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def stem(seed: int) -> str:
    return f"{seed:08d}"


def placed() -> dict[str, list[int]]:
    splits = Splits.parse(SPLIT)
    found = {name: [s for s in SEEDS if splits.of(s) == name] for name in ("train", "val")}
    assert all(found.values())
    return found


def same(image, mask, seed) -> None:
    assert np.array_equal(pixels(image), image_of(seed))
    assert np.array_equal(pixels(mask), smooth_mask(seed, SIZE))


def test_png(dataset, tmp_path):
    out = put(dataset, tmp_path / "o", "png", split=SPLIT)
    for split, seeds in placed().items():
        assert (out / f"splits/{split}.txt").read_text().split() == [stem(s) for s in seeds]
        for s in seeds:
            same(out / f"images/{stem(s)}.png", out / f"masks/{stem(s)}.png", s)
    with Image.open(out / f"masks/{stem(0)}.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[: 3 * len(LABELS)] == LABELS.flat_palette()[: 3 * len(LABELS)]
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert sorted(r["seed"] for r in rows) == sorted(SEEDS)
    assert all(r["class_pixels"] == np.bincount(smooth_mask(r["seed"], SIZE).ravel())[:4].tolist() for r in rows)
    assert [row["name"] for row in json.loads((out / "classes.json").read_text())] == list(LABELS.names)
    assert not (out / ".export").exists() and (out / "contact.png").is_file()


def test_grey_masks_and_grey_images(tmp_path):
    out = put(make(tmp_path / "d", channels=1), tmp_path / "o", "png", mask_png="grey")
    with Image.open(out / f"masks/{stem(9)}.png") as mask, Image.open(out / f"images/{stem(9)}.png") as image:
        assert (mask.mode, image.mode) == ("L", "L")
        assert np.array_equal(np.asarray(mask), smooth_mask(9, SIZE))
        assert np.array_equal(np.asarray(image), image_of(9, 1)[..., 0])


def test_voc(dataset, tmp_path):
    out = put(dataset, tmp_path / "o", "voc", split=SPLIT)
    for split, seeds in placed().items():
        names = (out / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        for name, s in zip(names, seeds, strict=True):
            same(out / f"JPEGImages/{name}.png", out / f"SegmentationClass/{name}.png", s)
    table = (out / "labelmap.txt").read_text().splitlines()
    assert table[1] == "background:0,0,0::" and len(table) == 5


def test_mmseg(dataset, tmp_path):
    out = put(dataset, tmp_path / "o", "mmseg", split=SPLIT)
    for split, seeds in placed().items():
        assert sorted(p.stem for p in (out / "img_dir" / split).iterdir()) == sorted(stem(s) for s in seeds)
        for s in seeds:
            same(out / f"img_dir/{split}/{stem(s)}.png", out / f"ann_dir/{split}/{stem(s)}.png", s)
    tree = ast.parse((out / "dataset_meta.py").read_text())
    meta = next(n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "METAINFO")
    values = {k.arg: ast.literal_eval(k.value) for k in meta.keywords}
    assert values == {"classes": LABELS.names, "palette": [list(c) for c in LABELS.colours]}


def test_hugging_face_folder(dataset, tmp_path):
    out = put(dataset, tmp_path / "o", "hf", split=SPLIT)
    for split, seeds in placed().items():
        rows = [json.loads(line) for line in (out / split / "metadata.jsonl").read_text().splitlines()]
        assert [r["seed"] for r in rows] == seeds
        for r in rows:
            same(out / split / r["image_file_name"], out / split / r["annotation_file_name"], r["seed"])
    card = (out / "README.md").read_text()
    front = card.split("---\n")[1]
    for line in ("license: cc-by-4.0", "- image-segmentation", "- machine-generated", "- synthetic", "- n<1K"):
        assert line in front.splitlines()
    assert '    path: "val/**"' in front
    assert json.loads((out / "id2label.json").read_text())["2"] == "left ear"


def test_a_licence_that_the_hub_does_not_know_goes_by_its_name(tmp_path):
    out = put(make(tmp_path / "d", licence='Nvidia Source Code, "NC"'), tmp_path / "o", "hf")
    front = (out / "README.md").read_text().split("---\n")[1]
    assert 'license: other\nlicense_name: "Nvidia Source Code, \\"NC\\""\n' in front


def test_webdataset(dataset, tmp_path):
    out = put(dataset, tmp_path / "o", "webdataset", split=SPLIT)
    packs = json.loads((out / "index.json").read_text())["splits"]
    for split, seeds in placed().items():
        files = [p["file"] for p in packs[split]]
        assert (
            files
            == [f"{split}-{i:06d}.tar" for i in range(len(files))]
            == sorted(p.name for p in out.glob(f"{split}-*.tar"))
        )
        members = []
        for file in files:
            with tarfile.open(out / file) as tar:
                for m in tar.getmembers():
                    assert (m.mtime, m.uid, m.gid, m.uname, m.mode) == (0, 0, 0, "", 0o644)
                    members.append((m.name, tar.extractfile(m).read()))
        keys = [name.split(".", 1)[0] for name, _ in members]
        assert keys == [stem(s) for s in seeds for _ in range(3)]
        content = dict(members)
        for s in seeds:
            same(content[f"{stem(s)}.img.png"], content[f"{stem(s)}.seg.png"], s)
            assert json.loads(content[f"{stem(s)}.json"])["seed"] == s
        assert sum(p["samples"] for p in packs[split]) == len(seeds)


def coco(out: Path, split: str) -> dict:
    return json.loads((out / f"annotations/instances_{split}.json").read_text())


@pytest.mark.parametrize("instances", [False, True])
def test_coco_run_lengths(dataset, tmp_path, instances):
    out = put(dataset, tmp_path / "o", "coco", split=SPLIT, instances=instances)
    ids = []
    for split, seeds in placed().items():
        table = coco(out, split)
        assert table["categories"] == [
            {"id": k, "name": n, "supercategory": ""} for k, n in enumerate(LABELS.names) if k
        ]
        assert [a["id"] for a in table["annotations"]] == list(range(1, len(table["annotations"]) + 1))
        assert table["licenses"][0]["name"] == "CC-BY-4.0"
        for image, s in zip(table["images"], seeds, strict=True):
            ids.append(image["id"])
            assert np.array_equal(pixels(out / "images" / image["file_name"]), image_of(s))
            read = np.zeros((SIZE, SIZE), np.uint8)
            found = [a for a in table["annotations"] if a["image_id"] == image["id"]]
            for a in found:
                region = rle.decode(rle.from_text(a["segmentation"]["counts"]), *a["segmentation"]["size"])
                assert a["area"] == region.sum() and a["bbox"] == rle.box(region) and not read[region].any()
                read[region] = a["category_id"]
            truth = smooth_mask(s, SIZE)
            assert np.array_equal(read, np.where(truth == 255, 0, truth))
            assert len(found) == 3 if not instances else len(found) > 3
    assert sorted(ids) == list(range(1, 9))


def test_coco_polygons(dataset, tmp_path):
    out = put(dataset, tmp_path / "o", "coco", polygons=True)
    table = coco(out, "train")
    for image, s in zip(table["images"], SEEDS, strict=True):
        for a in table["annotations"]:
            if a["image_id"] == image["id"]:
                region = np.any([fill_even_odd(p, SIZE, SIZE) for p in a["segmentation"]], axis=0)
                assert iou(region, smooth_mask(s, SIZE) == a["category_id"]) == 1.0


def test_yolo(dataset, tmp_path):
    out = put(dataset, tmp_path / "o", "yolo", split=SPLIT)
    text = (out / "data.yaml").read_text()
    assert text.startswith("train: images/train\nval: images/val\nnames:\n") and "  2: \"hair: 'long'\"\n" in text
    for split, seeds in placed().items():
        for s in seeds:
            assert np.array_equal(pixels(out / f"images/{split}/{stem(s)}.png"), image_of(s))
            regions = {k: Image.new("1", (SIZE, SIZE)) for k in range(1, 4)}
            for line in (out / f"labels/{split}/{stem(s)}.txt").read_text().splitlines():
                k, *numbers = line.split()
                points = (np.array(numbers, float).reshape(-1, 2) * SIZE).astype(int)
                assert len(points) >= 4 and points.min() >= 0 and points.max() < SIZE
                ImageDraw.Draw(regions[int(k) + 1]).polygon([tuple(p) for p in points.tolist()], fill=1, outline=1)
            for k, region in regions.items():
                assert iou(np.asarray(region), smooth_mask(s, SIZE) == k) >= 0.99


def test_a_split_of_yolo_without_validation_names_train_twice(dataset, tmp_path):
    out = put(dataset, tmp_path / "o", "yolo")
    assert "val: images/train  # there is no other split" in (out / "data.yaml").read_text()


@pytest.mark.parametrize("form", FORMATS)
def test_every_card_states_licence_and_provenance(dataset, tmp_path, form):
    out = put(dataset, tmp_path / "o", form, where="score < 0.9", min_class=("face:3",))
    card = (out / "README.md").read_text()
    for words in (
        "CC-BY-4.0",
        "ab" * 32,
        "repurpose",
        "left ear",
        "score < 0.9; at least face:3 pixels",
        "contact.png",
    ):
        assert words in card
    assert f"layout of {form}" in card


def test_filters_keep_what_they_say_whatever_the_format(dataset, tmp_path):
    from helpers.datasets import draw

    scores = dict(zip(SEEDS, draw(SEEDS, SIZE).score.tolist(), strict=True))
    shares = {s: (smooth_mask(s, SIZE) == 2).sum() for s in SEEDS}
    limit, least = sorted(scores.values())[5], sorted(shares.values())[2]
    wanted = [s for s in SEEDS if scores[s] < limit and shares[s] >= least]
    assert 2 <= len(wanted) < 6
    chosen = {"where": f"score < {limit!r}", "min_class": (f"left ear:{least}",)}
    out = put(dataset, tmp_path / "png", "png", **chosen)
    assert (out / "splits/train.txt").read_text().split() == [stem(s) for s in wanted]
    assert len(list((out / "images").iterdir())) == len(wanted)
    packs = json.loads((put(dataset, tmp_path / "w", "webdataset", **chosen) / "index.json").read_text())["splits"]
    assert sum(p["samples"] for p in packs["train"]) == len(wanted)
    image_ids = [p["id"] for p in coco(put(dataset, tmp_path / "c", "coco", **chosen), "train")["images"]]
    assert image_ids == [SEEDS.index(s) + 1 for s in wanted]


def test_where_nothing_is_kept_that_is_an_error(dataset, tmp_path):
    with pytest.raises(DatasetError, match="no sample"):
        put(dataset, tmp_path / "o", "png", where="score > 2")


@pytest.mark.parametrize("form", ["png", "coco", "webdataset"])
def test_stopped_anywhere_and_resumed_gives_equal_bytes(dataset, tmp_path, form, monkeypatch):
    whole = files_of(put(dataset, tmp_path / "whole", form, split=SPLIT))
    settings = ExportSettings(form, split=SPLIT)
    real, rounds = atomic.os.rename, 0
    out = tmp_path / "o"
    while True:
        left = [2 + rounds * 7]

        def dying(a, b, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return real(a, b)

        monkeypatch.setattr(atomic.os, "rename", dying)
        try:
            list(export(dataset, out, settings))
            break
        except KeyboardInterrupt:
            rounds += 1
        assert not [n for n in files_of(out) if ".part." in n]
        assert not (out / "export.json").exists() or files_of(out).items() >= whole.items()
    assert rounds >= 1
    assert files_of(out) == whole
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    list(export(dataset, out, settings))  # finished: nothing is written again
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_what_is_through_is_not_encoded_again(dataset, tmp_path, monkeypatch):
    events = export(dataset, tmp_path / "o", ExportSettings("png"))
    next(events), next(events)  # the first shard is committed
    events.close()
    seen, real = [], get_format("png").encode
    monkeypatch.setattr(
        get_format("png"), "encode", lambda sample, encoding: seen.append(sample.seed) or real(sample, encoding)
    )
    list(export(dataset, tmp_path / "o", ExportSettings("png")))
    assert seen == [4, 5, 40, 9]


def test_a_folder_of_other_settings_or_things_is_refused(dataset, tmp_path):
    put(dataset, tmp_path / "o", "png")
    with pytest.raises(DatasetError, match=r'split: "train=1" there, "train=0.5,val=0.5" asked for'):
        put(dataset, tmp_path / "o", "png", split=SPLIT)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        put(dataset, tmp_path / "mine", "png")


def test_no_export_without_a_licence(tmp_path):
    dataset = make(tmp_path / "d", licence="")
    with pytest.raises(UsageError, match=r"states no licence[\s\S]*--license TEXT"):
        put(dataset, tmp_path / "o", "png")
    assert not (tmp_path / "o").exists()
    assert "| MIT |" in (put(dataset, tmp_path / "o", "png", licence="MIT") / "README.md").read_text()
    with pytest.raises(UsageError, match=r"CC-BY-4\.0, which"):
        put(make(tmp_path / "e"), tmp_path / "p", "png", licence="MIT")


def test_datasets_that_cannot_be_exported(dataset, tmp_path):
    from helpers.datasets import fill, plan

    fill(tmp_path / "images", plan(masks=False))
    with pytest.raises(DatasetError, match="without masks"):
        put(tmp_path / "images", tmp_path / "o", "png")
    unfinished = make(tmp_path / "u")
    (unfinished / "shard-00001.json").unlink()
    with pytest.raises(DatasetError, match="1 of 3 shards missing"):
        put(unfinished, tmp_path / "o", "png")
    damaged = make(tmp_path / "x")
    data = bytearray((damaged / "shard-00001.h5").read_bytes())
    data[len(data) // 2] ^= 255
    (damaged / "shard-00001.h5").write_bytes(data)
    with pytest.raises(DatasetError, match=r"shard-00001[\s\S]*gansegctl verify"):
        put(damaged, tmp_path / "p", "png")
    with pytest.raises(UsageError, match="did you mean 'coco'"):
        put(dataset, tmp_path / "q", "cocos")
    with pytest.raises(UsageError, match="--format coco"):
        put(dataset, tmp_path / "q", "png", polygons=True)


@pytest.mark.parametrize("form", ["png", "webdataset"])
def test_a_full_disk_is_told_and_resumed(dataset, tmp_path, form, monkeypatch):
    def refuse(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(atomic.os, "fsync", refuse)
        with pytest.raises(GansegError, match=r"bytes; .* are free on the disk"):
            put(dataset, tmp_path / "o", form)
    assert not [n for n in files_of(tmp_path / "o") if ".part." in n]
    assert files_of(put(dataset, tmp_path / "o", form)) == files_of(put(dataset, tmp_path / "whole", form))
