"""The report of a stream: its numbers, its memory, its JSON, tables and images."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from gansegctl.errors import UsageError
from gansegctl.evaluate.confusion import confusion, mean_iou, per_image_confusion, wiou_manerikar, wiou_tritrong
from gansegctl.evaluate.report import CLASS_COLUMNS, SCORE_COLUMNS, score
from gansegctl.evaluate.trimap import per_image_trimap_confusion
from gansegctl.labels import LabelMap

LABELS = LabelMap(("background", "face", "hair", "hat"))  # no pixel is ever a hat


def stack(n: int = 10, wrong: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks of three stripes; image i has about i · wrong / n of its pixels predicted wrong."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(np.arange(3, dtype=np.uint8), 8)[None, :, None], 24, axis=2).repeat(n, axis=0)
    off = random.random(truth.shape) < wrong * np.arange(n)[:, None, None] / n
    image = random.integers(0, 256, (n, 24, 24, 3), dtype=np.uint8)
    return np.where(off, (truth + 1) % 3, truth).astype(np.uint8), truth, image


def batches(*arrays: np.ndarray, size: int = 3):
    for start in range(0, len(arrays[0]), size):
        yield tuple(array[start : start + size] for array in arrays)


def test_scores_are_those_of_the_matrices():
    predicted, truth, _ = stack()
    report = score(batches(predicted, truth), LABELS, trimap_width=2, bootstrap=50)
    pooled, each = confusion(predicted, truth, 4), per_image_confusion(predicted, truth, 4)
    assert report.images == 10 and report.ignored == 0
    np.testing.assert_array_equal(report.confusion, pooled)
    assert report.miou == report.scores["miou"] == pytest.approx(float(mean_iou(pooled)))
    assert report.scores["wiou_tritrong"] == pytest.approx(float(wiou_tritrong(pooled)))
    assert report.scores["wiou_tritrong_foreground"] == pytest.approx(float(wiou_tritrong(pooled, background=False)))
    assert report.scores["wiou_manerikar"] == pytest.approx(wiou_manerikar(each))
    assert report.scores["wiou_manerikar_maximum"] == pytest.approx(2 / 3)
    assert report.scores["pixel_accuracy"] == pytest.approx((predicted == truth).mean())
    near = per_image_trimap_confusion(predicted, truth, 4, 2).sum(0)
    assert report.scores["trimap_miou"] == pytest.approx(float(mean_iou(near)))
    assert math.isnan(report.iou[3]) and math.isnan(report.dice[3]) and report.share[3] == 0
    for name, (low, high) in report.intervals.items():
        assert low <= report.scores[name] <= high, name
    assert (report.iou_intervals[:3, 0] < report.iou_intervals[:3, 1]).all()


def test_batching_and_tensors_change_nothing():
    predicted, truth, image = stack()
    one = score([(predicted, truth, image)], LABELS, bootstrap=20).to_json()
    tensors = batches(torch.from_numpy(predicted), torch.from_numpy(truth), torch.from_numpy(image), size=4)
    assert score(tensors, LABELS, bootstrap=20).to_json() == one


def test_images_of_another_size_may_follow():
    predicted, truth, _ = stack(4)
    report = score([(predicted, truth), (predicted[:, :16, :16], truth[:, :16, :16])], LABELS, bootstrap=5)
    assert report.images == 8 and report.confusion.sum() == 4 * (24 * 24 + 16 * 16)


def test_ignored_pixels_are_told():
    predicted, truth, _ = stack(4, wrong=0)
    truth, predicted = truth.copy(), predicted.copy()
    truth[:, :6], predicted[:, 18:] = 255, 255
    report = score([(predicted, truth)], LABELS, bootstrap=5)
    assert report.ignored == pytest.approx(0.5) and report.miou == 1


def test_the_worst_images_are_kept_in_order_and_no_more():
    predicted, truth, image = stack(20, wrong=0.9)
    each = mean_iou(per_image_confusion(predicted, truth, 4))
    report = score(batches(predicted, truth, image), LABELS, bootstrap=5, worst=4)
    wanted = np.argsort(each, kind="stable")[:4]
    assert [case.index for case in report.worst] == wanted.tolist()
    for case in report.worst:
        assert case.miou == pytest.approx(each[case.index])
        np.testing.assert_array_equal(case.image, image[case.index])
        np.testing.assert_array_equal(case.predicted, predicted[case.index])
        assert case.predicted.base is None  # a copy: keeping it does not keep its batch


def test_an_image_with_nothing_counted_is_no_worst_case():
    predicted, truth, _ = stack(3)
    truth = truth.copy()
    truth[1] = 255
    assert [case.index for case in score([(predicted, truth)], LABELS, bootstrap=5).worst] == [2, 0]


def test_json_has_null_for_nan_and_names_for_classes():
    predicted, truth, _ = stack()
    report = score([(predicted, truth)], LABELS, subject="student", truth="exact", bootstrap=10, seed=5)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (data["subject"], data["truth"], data["images"]) == ("student", "exact", 10)
    assert data["classes"]["hat"]["iou"] is None and data["classes"]["hat"]["interval"] == [None, None]
    assert data["classes"]["face"]["iou"] == pytest.approx(report.iou[1])
    assert data["scores"]["miou"] == {"score": report.miou, "interval": list(report.intervals["miou"])}
    assert data["bootstrap"] == {"samples": 10, "level": 0.95, "seed": 5}
    assert np.array(data["confusion"]).sum() == truth.size
    assert data["truth_error"] is None


def test_rows_carry_the_references_own_error():
    predicted, truth, _ = stack()
    reference = score([(predicted, truth)], LABELS, bootstrap=10)
    error = json.loads(json.dumps(reference.as_truth_error(), allow_nan=False))
    report = score([(truth, truth)], LABELS, bootstrap=10, truth_error=error)
    rows, classes = dict(report.rows()), dict(report.class_rows())
    assert all(len(values) == len(SCORE_COLUMNS) for values in rows.values())
    assert all(len(values) == len(CLASS_COLUMNS) for values in classes.values())
    assert rows["miou"] == pytest.approx((1, 1, 1, reference.miou))
    assert classes["face"][-1] == pytest.approx(reference.iou[1])
    assert math.isnan(classes["hat"][0]) and math.isnan(classes["hat"][-1])
    assert math.isnan(dict(reference.rows())["miou"][-1])  # exact masks have no error to show
    assert report.to_json()["truth_error"]["miou"] == pytest.approx(reference.miou)


def test_without_bootstrap_there_is_no_interval():
    predicted, truth, _ = stack(3)
    report = score([(predicted, truth)], LABELS, bootstrap=0)
    assert all(math.isnan(end) for ends in report.intervals.values() for end in ends)
    assert np.isnan(report.iou_intervals).all() and report.iou_intervals.shape == (4, 2)


def test_an_empty_stream_is_refused():
    with pytest.raises(UsageError, match="no masks"):
        score(iter(()), LABELS)
    nothing = np.zeros((0, 4, 4), np.uint8)
    with pytest.raises(UsageError, match="no masks"):
        score([(nothing, nothing)], LABELS)


@pytest.mark.parametrize("channels", [1, 3, None])
def test_images_and_table_on_disk(tmp_path, channels):
    predicted, truth, image = stack(6, wrong=0.8)
    parts = (predicted, truth) if channels is None else (predicted, truth, image[..., :channels])
    report = score(batches(*parts), LABELS, bootstrap=10, worst=2)
    paths = report.write_images(tmp_path / "out")
    assert sorted(p.name for p in paths) == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert {p.name for p in paths} == {"confusion.png", "per_class.csv", "worst.png"}
    with Image.open(tmp_path / "out" / "worst.png") as sheet:
        pixels, width = np.asarray(sheet.convert("RGB")), sheet.width
    wrong = sum((case.predicted != case.truth).sum() for case in report.worst) * 64  # shown eight times as large
    swatch = 12 * 12
    assert (pixels == (214, 39, 40)).all(-1).sum() == wrong + swatch
    assert (width > 4 * 192) == (channels is not None)
    with open(tmp_path / "out" / "per_class.csv", newline="") as file:
        table = {row["class"]: row for row in csv.DictReader(file)}
    assert float(table["hair"]["iou"]) == pytest.approx(report.iou[2], abs=1e-6)
    assert table["hat"]["iou"] == "" and float(table["hat"]["share"]) == 0


def test_the_confusion_image_is_darkest_where_the_pixels_went(tmp_path):
    truth = np.repeat(np.arange(3, dtype=np.uint8), 8)[None, :, None].repeat(24, axis=2)
    predicted = np.where(truth == 2, 0, truth).astype(np.uint8)  # all hair goes to background
    score([(predicted, truth)], LABELS, bootstrap=0).write_images(tmp_path)
    with Image.open(tmp_path / "confusion.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    corner = (pixels.shape[0] - 14 - 4 * 46, pixels.shape[1] - 14 - 4 * 46)
    cell = {(i, j): tuple(pixels[corner[0] + i * 46 + 5, corner[1] + j * 46 + 5]) for i in range(4) for j in range(4)}
    full, none, absent = (8, 60, 130), (255, 255, 255), (242, 242, 242)
    assert cell[0, 0] == cell[1, 1] == cell[2, 0] == full
    assert cell[2, 2] == cell[0, 1] == none
    assert all(cell[3, j] == absent for j in range(4))
