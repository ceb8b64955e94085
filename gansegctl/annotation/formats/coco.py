"""COCO JSON: polygons, run lengths as numbers, and run lengths as compressed text. Later annotations lie on top."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gansegctl.annotation import rasterize
from gansegctl.annotation.canvas import Canvas, Drawing, Item, Loader, Size, check_size
from gansegctl.annotation.json_node import Node
from gansegctl.io import rle
from gansegctl.labels import LabelMap

NAME = "coco"


def recognises(value: object) -> bool:
    """Whether a JSON value is in COCO's form."""
    return isinstance(value, dict) and len({"images", "annotations", "categories"} & set(value)) >= 2


def items(path: Path, node: Node) -> list[Item]:
    """Every image of the file. Errors: UsageError for ids that are repeated or lead nowhere."""
    names = {}
    for category in node["categories"].items():
        number = category["id"].integer()
        if number in names:
            raise category["id"].wrong(f"is {number}, as an earlier category's", "every category id once")
        names[number] = category["name"].text()
    shapes: dict[int, list[tuple[Node, str]]] = {}
    images: list[tuple[int, str, Node]] = []
    for image in node["images"].items():
        number = image["id"].integer()
        if number in shapes:
            raise image["id"].wrong(f"is {number}, as an earlier image's", "every image id once")
        shapes[number] = []
        images.append((number, image["file_name"].text(), image))
    for annotation in node["annotations"].items():
        number, kind = annotation["image_id"].integer(), annotation["category_id"].integer()
        if number not in shapes:
            raise annotation["image_id"].wrong(f"is {number}, which no image has", "the id of an image in the file")
        if kind not in names:
            raise annotation["category_id"].wrong(f"is {kind}, which no category has", "the id of a category")
        shapes[number].append((annotation, names[kind]))
    return [Item(name, path, NAME, _loader(path, image, shapes[i])) for i, name, image in images]


def _loader(path: Path, image: Node, shapes: list[tuple[Node, str]]) -> Loader:
    def load(labels: LabelMap, size: Size) -> Drawing:
        if image.has("height") or image.has("width"):
            check_size((image["height"].integer(), image["width"].integer()), size, image.where)
        canvas = Canvas(path, size, labels)
        for annotation, name in shapes:
            canvas.paint(_region(annotation, size), name, annotation.place)
        return canvas.finish()

    return load


def _region(annotation: Node, size: Size) -> np.ndarray:
    if not annotation.has("segmentation") or annotation.value["segmentation"] == []:
        raise annotation.wrong(
            "has no segmentation, at most a box", "polygons or run lengths", "export masks or polygons, not boxes"
        )
    shape = annotation["segmentation"]
    if isinstance(shape.value, dict):
        return _runs(shape, size)
    region = np.zeros(size, bool)
    for part in shape.items():
        numbers = [n.number() for n in part.items()]
        if len(numbers) < 6 or len(numbers) % 2:
            raise part.wrong(f"has {len(numbers)} numbers", "x and y of 3 corners or more")
        region |= rasterize.polygon(np.reshape(numbers, (-1, 2)), size)
    return region


def _runs(shape: Node, size: Size) -> np.ndarray:
    height, width = (n.integer() for n in _pair(shape["size"]))
    check_size((height, width), size, shape.where)
    counts = shape["counts"]
    try:
        runs = rle.from_text(counts.value) if isinstance(counts.value, str) else [n.integer() for n in counts.items()]
        return rle.decode(runs, *size)
    except ValueError as e:
        raise counts.wrong(f"holds no run lengths: {e}", f"runs of {height}x{width} pixels, column by column") from None


def _pair(node: Node) -> list[Node]:
    found = list(node.items())
    if len(found) != 2:
        raise node.wrong(f"has {len(found)} numbers", "[height, width]")
    return found
