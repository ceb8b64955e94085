"""Annotations of one image, written by each format's own writer where it is installed.

`python tests/helpers/annotation_references.py FOLDER [FORMAT…]` writes what lies in tests/annotation/data; that was
made with labelme 6.3.1, label-studio-converter 0.0.59, pycocotools 2.0.11 and datumaro 1.6.1 (which CVAT exports with).
"""

from __future__ import annotations

import base64
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH, SEED = 24, 32, 42
STEM = f"exemplar-{SEED:08d}"
NAMES = ("background", "face", "hair", "left eye")
COLOURS = ((0, 0, 0), (200, 100, 50), (10, 20, 250), (90, 200, 90))
ELSEWHERE = ("hair", "left eye", "background", "face")  # the order in which a tool lists them


def truth() -> np.ndarray:
    """uint8 [24,32]: a face of two parts, with holes, parts that touch at corners only and at the image's border."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask[(x - 14) ** 2 + (y - 12) ** 2 < 90] = 1
    mask[(y < 8) & (mask == 1)] = 2
    mask[13:16, 10:12] = mask[13:16, 17:19] = mask[16, 12] = 3
    mask[20:, 26:] = 2
    mask[0, 31] = mask[1, 30] = 1
    return mask


def image() -> np.ndarray:
    """uint8 [24,32,3], the image that it annotates."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def labelme(path: Path) -> None:
    """Masks as labelme stores them: the box's two inclusive corners, and the box as PNG."""
    from labelme._label_file import LabelFile

    shapes = []
    for k in range(1, len(NAMES)):
        region = truth() == k
        ys, xs = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
        box = region[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        shapes.append(
            {
                "label": NAMES[k],
                "points": [[float(xs[0]), float(ys[0])], [float(xs[-1]), float(ys[-1])]],
                "group_id": None,
                "description": "",
                "shape_type": "mask",
                "flags": {},
                "mask": base64.b64encode(png(box.astype(np.uint8) * 255)).decode(),
            }
        )
    LabelFile().save(str(path), shapes, f"{STEM}.png", HEIGHT, WIDTH, png(image()))


def label_studio(path: Path) -> None:
    from label_studio_converter import brush

    results = []
    for k in range(1, len(NAMES)):
        rle = brush.mask2rle((truth() == k).astype(np.uint8) * 255)
        results.append(
            {
                "original_width": WIDTH,
                "original_height": HEIGHT,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": rle, "brushlabels": [NAMES[k]]},
                "id": f"r{k}",
                "from_name": "brush",
                "to_name": "image",
                "type": "brushlabels",
                "origin": "manual",
            }
        )
    task = {
        "id": 1,
        "annotations": [{"id": 1, "completed_by": 1, "result": results, "was_cancelled": False}],
        "file_upload": f"1a2b3c4d-{STEM}.png",
        "data": {"image": f"/data/upload/1/1a2b3c4d-{STEM}.png"},
        "predictions": [],
    }
    path.write_text(json.dumps([task]))


def coco(path: Path) -> None:
    from pycocotools import mask as reference

    annotations = []
    for i, k in enumerate(range(1, len(NAMES)), 1):
        rle = reference.encode(np.asfortranarray(truth() == k).astype(np.uint8))
        annotations.append(
            {
                "id": i,
                "image_id": 7,
                "category_id": ELSEWHERE.index(NAMES[k]) + 1,
                "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
                "area": int(reference.area(rle)),
                "bbox": [float(v) for v in reference.toBbox(rle)],
                "iscrowd": 1,
            }
        )
    images = [{"id": 7, "file_name": f"{STEM}.png", "height": HEIGHT, "width": WIDTH}]
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in enumerate(ELSEWHERE, 1)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def cvat(path: Path) -> None:
    import tempfile

    from datumaro.components.annotation import AnnotationType, LabelCategories, Mask
    from datumaro.components.dataset import Dataset
    from datumaro.components.dataset_base import DatasetItem
    from datumaro.components.media import Image as Media

    order = ("background", *(n for n in ELSEWHERE if n != "background"))
    masks = [Mask(image=truth() == k, label=order.index(NAMES[k]), z_order=k) for k in range(1, len(NAMES))]
    media = Media.from_numpy(data=image()[..., ::-1].astype(np.uint8))  # BGR
    item = DatasetItem(id=STEM, subset="default", media=media, annotations=masks)
    categories = {AnnotationType.label: LabelCategories.from_iterable(order)}
    colours = {n: [COLOURS[NAMES.index(n)], [], []] for n in order}
    with tempfile.TemporaryDirectory() as folder:
        Dataset.from_iterable([item], categories=categories).export(
            folder, "voc_segmentation", save_media=True, image_ext=".png", apply_colormap=True, label_map=colours
        )
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for file in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
                out.write(file, file.relative_to(folder).as_posix())


WRITERS = {
    "labelme": (labelme, f"{STEM}.json"),
    "label-studio": (label_studio, "label-studio.json"),
    "coco": (coco, "coco.json"),
    "cvat": (cvat, "cvat.zip"),
}

if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or WRITERS:
        write, file = WRITERS[name]
        write(out / file)
