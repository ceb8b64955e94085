"""Writers of every format, by hand from its documentation; each returns the path to pass as --masks."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path

import numpy as np
from helpers.annotation_references import COLOURS, ELSEWHERE, HEIGHT, NAMES, STEM, WIDTH, png
from PIL import Image

from gansegctl.io import rle
from gansegctl.labels import LabelMap
from gansegctl.store.export.contours import polygons

LABELS = LabelMap(NAMES, COLOURS)
SIZE = (HEIGHT, WIDTH)


def palette(folder: Path, mask: np.ndarray) -> Path:
    shown = Image.fromarray(mask)
    shown.putpalette(LABELS.flat_palette())
    shown.save(folder / f"{STEM}.mask.png")
    return folder


def grey(folder: Path, mask: np.ndarray) -> Path:
    Image.fromarray(mask).save(folder / f"{STEM}.mask.png")
    return folder / f"{STEM}.mask.png"


def rgb(folder: Path, mask: np.ndarray) -> Path:
    """The colours are those of a label file with its own ids, order and colours."""
    rows = [{"id": 3 * i, "name": n, "colour": [50 * i, 9, 250 - 60 * i]} for i, n in enumerate(ELSEWHERE)]
    (folder / "labels.json").write_text(json.dumps(rows))
    colours = np.array([rows[ELSEWHERE.index(n)]["colour"] for n in NAMES], np.uint8)
    Image.fromarray(colours[mask]).save(folder / f"{STEM}.mask.png")
    return folder


def binary_set(folder: Path, mask: np.ndarray) -> Path:
    for k in np.unique(mask)[1:].tolist():
        Image.fromarray((mask == k).astype(np.uint8) * 255).save(folder / f"{STEM}.{NAMES[k]}.png")
    return folder


def labelme(folder: Path, mask: np.ndarray, file: str = f"{STEM}.json", **other) -> Path:
    shapes = [
        {"label": NAMES[k], "points": [list(p) for p in ring], "shape_type": "polygon", "group_id": None, "flags": {}}
        for k in np.unique(mask)[1:].tolist()
        for ring in polygons(mask == k)
    ]
    frame = {"version": "6.3.1", "flags": {}, "shapes": shapes, "imagePath": f"{STEM}.png", "imageData": None}
    (folder / file).write_text(json.dumps(frame | {"imageHeight": HEIGHT, "imageWidth": WIDTH} | other))
    return folder / file


def mask_shape(region: np.ndarray, label: str) -> dict:
    """A mask as labelme has it."""
    ys, xs = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    box = region[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1].astype(np.uint8) * 255
    corners = [[float(xs[0]), float(ys[0])], [float(xs[-1]), float(ys[-1])]]
    return {"label": label, "points": corners, "shape_type": "mask", "mask": base64.b64encode(png(box)).decode()}


def cvat_files(mask: np.ndarray, form: str = "rgb") -> dict[str, bytes]:
    order = ("background", *(n for n in ELSEWHERE if n != "background"))
    colours = [COLOURS[NAMES.index(n)] for n in order]
    lines = ["# label:color_rgb:parts:actions"]
    lines += [f"{n}:{r},{g},{b}::" for n, (r, g, b) in zip(order, colours, strict=True)]
    index = np.array([order.index(n) for n in NAMES], np.uint8)[mask]
    pixels = np.array(colours, np.uint8)[index] if form == "rgb" else index
    return {
        "labelmap.txt": "\n".join(lines).encode(),
        "ImageSets/Segmentation/default.txt": f"{STEM}\n".encode(),
        f"SegmentationClass/{STEM}.png": png(pixels),
        f"SegmentationObject/{STEM}.png": png(pixels),
    }


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def cvat(folder: Path, mask: np.ndarray) -> Path:
    return zipped(folder / "task.zip", cvat_files(mask))


def pack(values: np.ndarray, literal: bool = False) -> list[int]:
    """Label Studio's run lengths of uint8 values, with lengths of 3, 4, 8 and 16 bits."""
    sizes, bits = (3, 4, 8, 16), f"{len(values):032b}{7:05b}" + "".join(f"{s - 1:04b}" for s in (3, 4, 8, 16))
    at = 0
    while at < len(values):
        run = 1
        while at + run < len(values) and run < 65536 and values[at + run] == values[at]:
            run += 1
        if literal:
            run = min(7, len(values) - at)
        which = next(i for i, s in enumerate(sizes) if run <= 1 << s)
        bits += f"{int(not literal)}{which:02b}{run - 1:0{sizes[which]}b}"
        bits += "".join(f"{v:08b}" for v in (values[at : at + run] if literal else values[at : at + 1]))
        at += run
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def result(kind: str, value: dict, **other) -> dict:
    """A region as Label Studio has it."""
    frame = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "type": kind, "id": "r"}
    return frame | {"value": value, "from_name": "tag", "to_name": "image"} | other


def brush(region: np.ndarray, label: str) -> dict:
    alpha = np.repeat(region.astype(np.uint8).ravel() * 255, 4)
    return result("brushlabels", {"format": "rle", "rle": pack(alpha), "brushlabels": [label]})


def task(results: list[dict], **other) -> list[dict]:
    frame = {"id": 1, "data": {"image": f"/data/upload/2/0f1e2d3c-{STEM}.png"}}
    return [frame | {"annotations": [{"id": 5, "was_cancelled": False, "result": results}]} | other]


def label_studio(folder: Path, mask: np.ndarray) -> Path:
    """One class by brush, the others by polygons in per cent."""
    results = [brush(mask == 1, NAMES[1])]
    for k in np.unique(mask)[2:].tolist():
        for ring in polygons(mask == k):
            points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ring]
            results.append(result("polygonlabels", {"points": points, "polygonlabels": [NAMES[k]], "closed": True}))
    (folder / "project.json").write_text(json.dumps(task(results)))
    return folder / "project.json"


def coco_frame(annotations: list[dict], **other) -> dict:
    images = [{"id": 3, "file_name": f"images/{STEM}.png", "height": HEIGHT, "width": WIDTH}]
    categories = [{"id": 10 + i, "name": n} for i, n in enumerate(ELSEWHERE)]
    rows = [{"id": i, "image_id": 3, "iscrowd": 0} | a for i, a in enumerate(annotations, 1)]
    return {"images": images, "annotations": rows, "categories": categories} | other


def coco(folder: Path, mask: np.ndarray) -> Path:
    """One class as run lengths in text, one as numbers, the others as polygons."""
    rows = []
    for k in np.unique(mask)[1:].tolist():
        runs = rle.encode(mask == k)
        shape: object = [[c for point in ring for c in point] for ring in polygons(mask == k)]
        if k < 3:
            shape = {"size": list(SIZE), "counts": rle.to_text(runs) if k == 1 else runs}
        rows.append({"category_id": 10 + ELSEWHERE.index(NAMES[k]), "segmentation": shape})
    (folder / "instances.json").write_text(json.dumps(coco_frame(rows)))
    return folder / "instances.json"


WRITERS = {
    "palette": palette,
    "grey": grey,
    "rgb": rgb,
    "binary-set": binary_set,
    "labelme": labelme,
    "cvat": cvat,
    "label-studio": label_studio,
    "coco": coco,
}
