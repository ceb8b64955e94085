"""Malformed annotations: files of every format made wrong in one place, and what the message must say of each."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import annotation_files
from helpers.annotation_files import (
    LABELS,
    SIZE,
    STEM,
    brush,
    coco_frame,
    cvat_files,
    mask_shape,
    palette,
    result,
    task,
    zipped,
)
from helpers.annotation_references import COLOURS, SEED, png, truth

from gansegctl.annotation.importer import read_masks
from gansegctl.errors import UsageError

POLYGON = {"label": "face", "points": [[2, 2], [20, 2], [20, 20]], "shape_type": "polygon"}
RUNS = {"size": list(SIZE), "counts": [10, SIZE[0] * SIZE[1] - 10]}
SHAPE = {"category_id": 10, "segmentation": RUNS}
SQUARE = {"points": [[10, 10], [60, 10], [60, 60]], "polygonlabels": ["hair"]}


def message(path: Path) -> str:
    """What reading the masks in `path` is refused with."""
    with pytest.raises(UsageError) as error:
        read_masks(path, LABELS, SIZE, [SEED])
    assert error.value.wanted, "every message says what was wanted"
    return str(error.value)


def mask_png(folder: Path, pixels: np.ndarray) -> Path:
    (folder / f"{STEM}.mask.png").write_bytes(png(pixels))
    return folder


def raw(folder: Path, data: bytes, name: str = f"{STEM}.mask.png") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def colours(mask: np.ndarray) -> np.ndarray:
    return np.array(COLOURS, np.uint8)[mask]


def smoothed() -> np.ndarray:
    """A mask's colours, scaled up by an editor that blends."""
    shown = colours(truth()).astype(float)
    shown[:, 1:] = (shown[:, 1:] + shown[:, :-1]) / 2
    return shown.astype(np.uint8)


def huge_png(folder: Path) -> Path:
    """100,000 x 100,000 pixels by its header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return raw(folder, data)


def labelme(folder: Path, *shapes: dict, **other) -> Path:
    return annotation_files.labelme(folder, truth(), shapes=list(shapes), **other)


def without(table: dict, *keys: str) -> dict:
    return {k: v for k, v in table.items() if k not in keys}


def studio(folder: Path, value: object) -> Path:
    return raw(folder, json.dumps(value).encode(), "project.json")


def coco(folder: Path, *annotations: dict, **other) -> Path:
    return raw(folder, json.dumps(coco_frame(list(annotations), **other)).encode(), "instances.json")


def cvat(folder: Path, leave: str = "", **changes: bytes) -> Path:
    """The zip with members replaced: `labelmap` its label map, `mask` its mask."""
    files = cvat_files(truth())
    named = {"labelmap": "labelmap.txt", "mask": f"SegmentationClass/{STEM}.png"}
    files |= {named[k]: v for k, v in changes.items()}
    return zipped(folder / "task.zip", {k: v for k, v in files.items() if not leave or not k.startswith(leave)})


def packed(edit) -> dict:
    """A brush with its bytes changed."""
    shape = brush(truth() == 1, "face")
    shape["value"]["rle"] = edit(shape["value"]["rle"])
    return shape


def box_shape(**changes) -> dict:
    return mask_shape(truth() == 2, "hair") | changes


def encrypted(folder: Path) -> Path:
    path = cvat(folder)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(bytes(data))
    return path


def flipped_zip(folder: Path) -> Path:
    path = cvat(folder)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x89PNG") if b"\x89PNG" in data else data.index(b"SegmentationClass") + 60
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    return path


def bomb(folder: Path) -> Path:
    return zipped(folder / "task.zip", cvat_files(truth()) | {"JPEGImages/x.png": bytes(2 * 2**20)})


def liar(folder: Path) -> Path:
    """A member that unpacks to more than both of its headers say."""
    path = cvat(folder, mask=bytes(2 * 2**20))
    data = bytearray(path.read_bytes())
    for start, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        entry = data.rindex(start, 0, data.index(b"SegmentationClass/", data.index(start)))
        data[entry + at : entry + at + 4] = struct.pack("<I", 100)
    path.write_bytes(bytes(data))
    return path


def two_answers(folder: Path) -> Path:
    palette(folder, truth())
    annotation_files.labelme(folder, truth())
    return folder


def stranger(folder: Path) -> Path:
    return annotation_files.labelme(folder, truth(), "IMG_0001.json", imagePath="IMG_0001.png")


CASES = {
    # files and PNG
    "nothing there": (lambda f: f / "none.zip", "does not exist"),
    "an empty folder": (lambda f: f, r"without exemplar-00000042\.mask\.png"),
    "a text": (lambda f: raw(f, b"hello", "notes.txt"), "no known format"),
    "an empty file": (lambda f: raw(f, b""), "an empty file"),
    "a JPEG": (lambda f: raw(f, b"\xff\xd8\xff\xe0" + bytes(40)), "a JPEG.*mixes the colours"),
    "a Krita document": (lambda f: raw(f, b"PK\x03\x04" + bytes(40)).parent, "Krita"),
    "a cut PNG": (lambda f: raw(f, png(truth())[:-40]), "a damaged PNG"),
    "a huge PNG": (huge_png, "100000x100000 pixels"),
    "a scaled PNG": (lambda f: mask_png(f, truth()[::2, ::2]), r"16x12 pixels \(width x height\)"),
    "undeclared values": (lambda f: mask_png(f, truth() * 60), r"3 undeclared values: 60"),
    "an undeclared colour": (
        lambda f: mask_png(f, np.where(colours(truth()) == 10, 60, colours(truth()))),
        r"undeclared colours: #3c14fa (.|\n)*did you mean #0a14fa \(hair\)",
    ),
    "smoothed edges": (lambda f: mask_png(f, smoothed()), "smoothed edges(.|\n)*anti-aliasing"),
    "transparent pixels": (
        lambda f: mask_png(f, np.dstack([colours(truth()), np.where(truth() == 1, 9, 255).astype(np.uint8)])),
        "transparent pixels",
    ),
    "blank": (lambda f: mask_png(f, truth() * 0), r"one value \(0\) all over"),
    "a soft binary mask": (
        lambda f: raw(f, png((truth() * 50).astype(np.uint8)), f"{STEM}.hair.png"),
        r"hair\.png with 4 values",
    ),
    "a binary mask of no class": (
        lambda f: raw(f, png((truth() == 2) * np.uint8(255)), f"{STEM}.hairs.png"),
        r"label 'hairs' in .*hairs\.png(.|\n)*did you mean 'hair'",
    ),
    "two answers": (two_answers, "2 masks of seed 42"),
    "a renamed image": (stranger, "'IMG_0001.png', which name no exemplar"),
    # JSON
    "empty JSON": (lambda f: raw(f, b"  ", "a.json"), r"a\.json: an empty file"),
    "JSON in UTF-16": (lambda f: raw(f, '{"shapes": "é"}'.encode("utf-16"), "a.json"), "no UTF-8"),
    "JSON that is cut": (lambda f: raw(f, b'{"shapes": [{"label":', "a.json"), r"no JSON, line 1.*ends too early"),
    "JSON with a comment": (lambda f: raw(f, b'{\n// shapes\n"shapes": []}', "a.json"), "no JSON, line 2 column 1"),
    "JSON with NaN": (lambda f: raw(f, b'{"shapes": [NaN]}', "a.json"), "NaN"),
    "JSON nested deep": (lambda f: raw(f, b"[" * 200_000, "a.json"), "nested too deep"),
    "JSON of another kind": (lambda f: raw(f, b'{"regions": {}}', "a.json"), "no known kind, an object with regions"),
    "JSON with a number": (lambda f: raw(f, b"7", "a.json"), "no object and no list"),
    "no tasks": (lambda f: raw(f, b"[]", "a.json"), "an empty list"),
    # labelme
    "no shapes": (labelme, "without a shape"),
    "shapes in an object": (lambda f: annotation_files.labelme(f, truth(), shapes={}), "shapes is an object"),
    "no label": (lambda f: labelme(f, without(POLYGON, "label")), r"shapes\[0\] without 'label'"),
    "a label that is a number": (lambda f: labelme(f, POLYGON | {"label": 3}), r"shapes\[0\]\.label is a number"),
    "an unknown label": (lambda f: labelme(f, POLYGON | {"label": "Face"}), r"'Face' in (.|\n)*did you mean 'face'"),
    "two corners": (lambda f: labelme(f, POLYGON | {"points": [[1, 2], [3, 4]]}), "2 corners"),
    "a point of three": (lambda f: labelme(f, POLYGON | {"points": [[1, 2, 3]] * 3}), r"points\[0\] has 3 numbers"),
    "a point of words": (lambda f: labelme(f, POLYGON | {"points": [["1", 2]] * 3}), r"points\[0\]\[0\] is a text"),
    "a point at 1e400": (
        lambda f: raw(f, labelme(f, POLYGON).read_bytes().replace(b"[2, 2]", b"[1e400, 2]"), f"{STEM}.json"),
        r"\[0\]\[0\] is inf",
    ),
    "a line": (lambda f: labelme(f, POLYGON | {"shape_type": "line"}), "is a line, which covers no area"),
    "an unknown shape": (lambda f: labelme(f, POLYGON | {"shape_type": "spline"}), "shape_type is 'spline'"),
    "a circle of one point": (lambda f: labelme(f, POLYGON | {"shape_type": "circle", "points": [[1, 2]]}), "1 points"),
    "a mask beyond the image": (
        lambda f: labelme(f, box_shape(points=[[20.0, 1.0], [40.0, 3.0]])),
        r"box \(20, 1\) to \(40, 3\)",
    ),
    "a mask of another size": (
        lambda f: labelme(f, box_shape(points=[[1.0, 1.0], [3.0, 4.0]])),
        r"shapes\[0\]\.mask: \d+x\d+ pixels(.|\n)*3x4",
    ),
    "a mask that is no base64": (lambda f: labelme(f, box_shape(mask="@@@")), r"mask is no base64 text"),
    "a mask that is no PNG": (
        lambda f: labelme(f, box_shape(mask=base64.b64encode(b"GIF89a" + bytes(30)).decode())),
        r"shapes\[0\]\.mask: a GIF",
    ),
    "another size in labelme": (lambda f: labelme(f, POLYGON, imageHeight=48, imageWidth=64), "64x48 pixels"),
    "an image that is no base64": (lambda f: labelme(f, POLYGON, imageData="§"), "imageData is no base64"),
    "an image that is none": (
        lambda f: labelme(f, POLYGON, imageData=base64.b64encode(b"oops").decode()),
        "imageData with an image that cannot be read",
    ),
    # Label Studio
    "the short export": (
        lambda f: studio(f, [{"image": "x", "annotation_id": 1, "tag": []}]),
        "the export JSON-MIN",
    ),
    "no annotation": (lambda f: studio(f, task([], annotations=[])), "holds 0 annotations"),
    "two annotators": (
        lambda f: studio(f, task([], annotations=[{"result": []}, {"result": []}])),
        "holds 2 annotations",
    ),
    "no results": (lambda f: studio(f, task([], annotations=[{"id": 1}])), r"annotations\[0\] without 'result'"),
    "a turned image": (
        lambda f: studio(f, task([result("polygonlabels", SQUARE, image_rotation=90)])),
        "image_rotation is 90",
    ),
    "another size in Label Studio": (
        lambda f: studio(f, task([result("polygonlabels", SQUARE, original_width=640)])),
        "640x24 pixels",
    ),
    "no label chosen": (
        lambda f: studio(f, task([result("polygonlabels", without(SQUARE, "polygonlabels"))])),
        "has 0 labels",
    ),
    "an open polygon": (
        lambda f: studio(f, task([result("polygonlabels", SQUARE | {"closed": False})])),
        "closed is f",
    ),
    "a bitmask": (
        lambda f: studio(f, task([result("bitmask", {"imageDataURL": "data:", "labels": ["face"]})])),
        "type 'bitmask' has no outline",
    ),
    "a brush without bytes": (lambda f: studio(f, task([packed(lambda b: [])])), "0 bytes, less than a header"),
    "a brush that is cut": (lambda f: studio(f, task([packed(lambda b: b[:-9])])), r"the end after \d+ of 3072"),
    "a brush of another size": (
        lambda f: studio(f, task([packed(lambda b: [0, 0, 0, 8, *b[4:]])])),
        "8 values; wanted 3072",
    ),
    "a brush of 9 bits": (
        lambda f: studio(f, task([packed(lambda b: [*b[:4], b[4] & 7 | 8 << 3, *b[5:]])])),
        "values of 9 bits",
    ),
    "a brush of no bytes": (lambda f: studio(f, task([packed(lambda b: [300, *b[1:]])])), "must be in range"),
    "a brush as text": (lambda f: studio(f, task([packed(lambda b: "AAAA")])), r"value\.rle is a text"),
    # COCO
    "no categories": (lambda f: raw(f, b'{"images": [], "annotations": []}', "i.json"), "without 'categories'"),
    "a category twice": (
        lambda f: coco(f, SHAPE, categories=[{"id": 10, "name": "face"}, {"id": 10, "name": "hair"}]),
        r"categories\[1\]\.id is 10, as an earlier",
    ),
    "an image twice": (
        lambda f: coco(f, SHAPE, images=[{"id": 3, "file_name": "a"}] * 2),
        r"images\[1\]\.id is 3, as an earlier",
    ),
    "an unknown category": (lambda f: coco(f, SHAPE | {"category_id": 99}), "category_id is 99, which no"),
    "an unknown image": (lambda f: coco(f, SHAPE | {"image_id": 4}), "image_id is 4, which no image has"),
    "a category of no class": (
        lambda f: coco(f, SHAPE, categories=[{"id": 10, "name": "left-eye"}]),
        "did you mean 'left eye'",
    ),
    "a box": (lambda f: coco(f, {"category_id": 10, "bbox": [1, 2, 3, 4]}), "no segmentation, at most a box"),
    "an odd polygon": (lambda f: coco(f, SHAPE | {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}), "has 7 numbers"),
    "runs too short": (
        lambda f: coco(f, SHAPE | {"segmentation": RUNS | {"counts": [5, 6]}}),
        "runs of 11 pixels; wanted 768",
    ),
    "runs below 0": (
        lambda f: coco(f, SHAPE | {"segmentation": RUNS | {"counts": [800, -32]}}),
        "a run of -32 pixels",
    ),
    "runs of strange letters": (
        lambda f: coco(f, SHAPE | {"segmentation": RUNS | {"counts": "~~"}}),
        "the character '~'",
    ),
    "runs that are cut": (lambda f: coco(f, SHAPE | {"segmentation": RUNS | {"counts": "o"}}), "ends within run"),
    "runs without end": (
        lambda f: coco(f, SHAPE | {"segmentation": RUNS | {"counts": "o" * 99_999}}),
        "over 64 bits",
    ),
    "runs of another size": (
        lambda f: coco(f, SHAPE | {"segmentation": RUNS | {"size": [10**9, 10**9]}}),
        "1000000000x1000000000 pixels",
    ),
    "half a size": (lambda f: coco(f, SHAPE | {"segmentation": RUNS | {"size": [24]}}), r"size has 1 numbers"),
    "another size in COCO": (
        lambda f: coco(f, SHAPE, images=[{"id": 3, "file_name": f"{STEM}.png", "height": 24, "width": 23}]),
        r"images\[0\] for an image of 23x24",
    ),
    # CVAT
    "a damaged zip": (lambda f: raw(f, b"PK\x03\x04" + bytes(30), "task.zip"), "a damaged zip"),
    "a zip of other things": (
        lambda f: zipped(f / "t.zip", {"annotations.xml": b"<a/>"}),
        "annotations.xml",
    ),
    "no label map": (lambda f: cvat(f, "labelmap"), "0 files called labelmap"),
    "no masks": (lambda f: cvat(f, "SegmentationClass"), "without a mask in SegmentationClass"),
    "a label map of words": (lambda f: cvat(f, labelmap=b"face red\n"), "line 1 of .*'face red'"),
    "a colour beyond 255": (lambda f: cvat(f, labelmap=b"# x\nface:300,0,0::\n"), "line 2 of .*300"),
    "a colour twice": (lambda f: cvat(f, labelmap=b"face:1,1,1::\nhair:1,1,1::"), "that an earlier line has"),
    "an empty label map": (lambda f: cvat(f, labelmap=b"# nothing\n"), "without a label"),
    "a label of CVAT's": (lambda f: cvat(f, labelmap=b"noses:1,1,1::"), "'noses' in line 1 of"),
    "a colour CVAT does not declare": (
        lambda f: cvat(f, labelmap=b"background:0,0,0::\nface:200,100,50::\nhair:10,20,250::"),
        "undeclared colours: #5ac85a",
    ),
    "a name that leads out": (
        lambda f: zipped(f / "t.zip", cvat_files(truth()) | {"../../etc/x.png": b""}),
        r"'\.\./\.\./etc/x\.png', which leads out",
    ),
    "an absolute name": (
        lambda f: zipped(f / "t.zip", cvat_files(truth()) | {"C:\\x.png": b""}),
        r"C:.*x\.png', which leads out",
    ),
    "a password": (encrypted, "with a password"),
    "a zip bomb": (bomb, r"JPEGImages/x\.png would unpack to 2 MiB"),
    "a flipped byte": (flipped_zip, "is damaged"),
}
"""Name → how to make the file in a folder, and the pattern that the message must match."""
