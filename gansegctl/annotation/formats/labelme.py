"""labelme JSON: polygons, rectangles, circles, and masks (a base64 PNG of their box, and its inclusive corners).

https://github.com/wkentaro/labelme: one file an image, `shapes` in drawing order, `imageData` the image or null.
"""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path, PureWindowsPath

import numpy as np

from gansegctl.annotation import rasterize
from gansegctl.annotation.canvas import Canvas, Drawing, Item, Size, check_size
from gansegctl.annotation.json_node import Node
from gansegctl.annotation.safe_png import open_png
from gansegctl.annotation.same_image import decode_image, read_image
from gansegctl.labels import LabelMap

NAME = "labelme"
_NO_AREA = ("line", "linestrip", "point", "points")


def recognises(value: object) -> bool:
    """Whether a JSON value is one of labelme's files."""
    return isinstance(value, dict) and "shapes" in value and "annotations" not in value


def items(path: Path, node: Node) -> list[Item]:
    """The file's one image, called as `imagePath` says."""
    named = node["imagePath"].text() if node.has("imagePath") else path.name
    return [Item(PureWindowsPath(named).name, path, NAME, lambda labels, size: _draw(path, node, labels, size))]


def _draw(path: Path, node: Node, labels: LabelMap, size: Size) -> Drawing:
    if node.has("imageHeight") or node.has("imageWidth"):
        check_size((node["imageHeight"].integer(), node["imageWidth"].integer()), size, str(path))
    canvas = Canvas(path, size, labels)
    for shape in node["shapes"].items():
        label = shape["label"].text()
        canvas.paint(_region(shape, size), label, shape.place)
    return canvas.finish(_image(path, node, size))


def _region(shape: Node, size: Size) -> np.ndarray:
    kind = shape["shape_type"].text() if shape.has("shape_type") else "polygon"
    points = [p.point() for p in shape["points"].items()]
    if kind == "mask":
        return _mask(shape, points, size)
    if kind in ("polygon", "oriented_rectangle"):
        if len(points) < 3:
            raise shape["points"].wrong(f"has {len(points)} corners", "3 or more, the corners of a polygon")
        return rasterize.polygon(points, size)
    if kind in ("rectangle", "circle"):
        if len(points) != 2:
            raise shape["points"].wrong(f"has {len(points)} points", f"2, as a {kind} has")
        (xa, ya), (xb, yb) = points
        if kind == "circle":
            return rasterize.ellipse((xa, ya), (math.hypot(xb - xa, yb - ya),) * 2, size)
        return rasterize.rectangle((min(xa, xb), min(ya, yb)), (abs(xb - xa), abs(yb - ya)), size)
    if kind in _NO_AREA:
        raise shape.wrong(f"is a {kind}, which covers no area", "a shape with an inside", "draw it as a polygon")
    raise shape["shape_type"].wrong(f"is {kind!r}", "polygon, rectangle, oriented_rectangle, circle or mask")


def _mask(shape: Node, points: list[tuple[float, float]], size: Size) -> np.ndarray:
    if len(points) != 2:
        raise shape["points"].wrong(f"has {len(points)} points", "2, the corners of a mask's box")
    (left, top), (right, bottom) = ((round(x), round(y)) for x, y in points)
    if not (0 <= left <= right < size[1] and 0 <= top <= bottom < size[0]):
        raise shape["points"].wrong(
            f"has the box ({left}, {top}) to ({right}, {bottom})", f"a box inside {size[1]}x{size[0]} pixels"
        )
    text = shape["mask"].text()
    where = shape["mask"].where
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise shape["mask"].wrong("is no base64 text", "a PNG in base64") from None
    image = open_png(where, (bottom - top + 1, right - left + 1), data)
    region = np.zeros(size, bool)
    region[top : bottom + 1, left : right + 1] = np.asarray(image.convert("L")) > 0
    return region


def _image(path: Path, node: Node, size: Size) -> np.ndarray | None:
    """The image in the file, else the one that it names, where that lies beside it."""
    if not node.has("imageData"):
        if not node.has("imagePath"):
            return None
        beside = path.parent / PureWindowsPath(node["imagePath"].text()).name
        return read_image(beside, size, f"{path}: imagePath {beside.name}")
    try:
        data = base64.b64decode(node["imageData"].text(), validate=True)
    except (binascii.Error, ValueError):
        raise node["imageData"].wrong(
            "is no base64 text", "an image in base64, or null", "save again with File → Save With Image Data off"
        ) from None
    return decode_image(data, size, f"{path}: imageData")
