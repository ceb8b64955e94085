"""Label Studio JSON (its export "JSON"): brush, polygons, rectangles and ellipses, in per cent of the image.

https://labelstud.io/guide/task_format: tasks, their annotations, and of each the results in the order of drawing.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np

from gansegctl.annotation import rasterize
from gansegctl.annotation.canvas import Canvas, Drawing, Item, Loader, Size, check_size
from gansegctl.annotation.formats.label_studio_rle import decode
from gansegctl.annotation.json_node import Node
from gansegctl.errors import did_you_mean
from gansegctl.labels import LabelMap

NAME = "label-studio"
_KEYS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels")
_SHAPES = ("brush", "polygon", "rectangle", "ellipse")
_NO_AREA = ("choices", "textarea", "rating", "keypoint", "keypointlabels", "number", "datetime", "taxonomy", "relation")
_SHORT = ("annotation_id", "annotator", "lead_time")


def recognises(value: object) -> bool:
    """Whether a JSON value is a task, or a list of them."""
    task = value[0] if isinstance(value, list) and value else value
    if not isinstance(task, dict) or "shapes" in task or "images" in task:
        return False
    return "annotations" in task or "data" in task or any(k in task for k in _SHORT)


def items(path: Path, node: Node) -> list[Item]:
    """Every task of the file. UsageError for the short form of the export, which leaves out the order of shapes."""
    tasks = list(node.items()) if isinstance(node.value, list) else [node]
    for task in tasks:
        if "annotations" not in task.table() and any(k in task.value for k in _SHORT):
            raise task.wrong("is of the export JSON-MIN", "the export JSON", "export again and choose JSON")
    return [Item(_name(task), path, NAME, _loader(path, task)) for task in tasks]


def _name(task: Node) -> str:
    """The image's file name: of the task's data, where uploads have a random prefix."""
    data = task["data"].table()
    texts = [v for v in data.values() if isinstance(v, str)]
    if task.has("file_upload"):
        texts.append(task["file_upload"].text())
    texts = [PurePosixPath(unquote(t).replace("\\", "/")).name for t in texts]
    return next((t for t in texts if "exemplar-" in t), texts[0] if texts else "")


def _loader(path: Path, task: Node) -> Loader:
    def load(labels: LabelMap, size: Size) -> Drawing:
        kept = [a for a in task["annotations"].items() if not a.table().get("was_cancelled")]
        if len(kept) != 1:
            raise task["annotations"].wrong(
                f"holds {len(kept)} annotations of one image",
                "one",
                "submit the annotation in Label Studio" if not kept else "delete all but the best in Label Studio",
            )
        results = list(kept[0]["result"].items())
        named = {
            str(r.value.get("id")): r for r in results if isinstance(r.value, dict) and r.value.get("type") == "labels"
        }
        canvas = Canvas(path, size, labels)
        for result in results:
            kind = result["type"].text()
            if kind in _NO_AREA:
                canvas.note(f"{result.place} left out: a {kind} covers no area")
            elif kind != "labels" or any(k in result["value"].table() for k in ("rle", "points", "x")):
                _paint(canvas, result, named.get(str(result.value.get("id")), result))
        return canvas.finish()

    return load


def _paint(canvas: Canvas, result: Node, named: Node) -> None:
    if result.has("image_rotation") and result["image_rotation"].number():
        raise result["image_rotation"].wrong(
            f"is {result['image_rotation'].number()}", "0", "turn the image back in Label Studio"
        )
    check_size((result["original_height"].integer(), result["original_width"].integer()), canvas.size, result.where)
    labels = _labels(result) or _labels(named)
    if len(labels) != 1:
        raise result.wrong(f"has {len(labels)} labels", "one label a shape", "choose a label before drawing")
    canvas.paint(_region(result, canvas.size), labels[0], result.place)


def _labels(result: Node) -> list[str]:
    key = next((k for k in _KEYS if result["value"].has(k)), None)
    return [] if key is None else [n.text() for n in result["value"][key].items()]


def _region(result: Node, size: Size) -> np.ndarray:
    value, height, width = result["value"], size[0] / 100, size[1] / 100
    if value.has("rle"):
        return _brush(value, size)
    if value.has("points"):
        points = [p.point() for p in value["points"].items()]
        if len(points) < 3:
            raise value["points"].wrong(f"has {len(points)} corners", "3 or more, in per cent")
        if value.has("closed") and value["closed"].value is False:
            raise value["closed"].wrong("is false", "a closed polygon", "close it in Label Studio")
        return rasterize.polygon([(x * width, y * height) for x, y in points], size)
    turned = value["rotation"].number() if value.has("rotation") else 0.0
    if value.has("radiusX"):
        centre = value["x"].number() * width, value["y"].number() * height
        return rasterize.ellipse(
            centre, (value["radiusX"].number() * width, value["radiusY"].number() * height), size, turned
        )
    if value.has("width"):
        corner = value["x"].number() * width, value["y"].number() * height
        return rasterize.rectangle(
            corner, (value["width"].number() * width, value["height"].number() * height), size, turned
        )
    kind = result["type"].text()
    raise result.wrong(
        f"of type {kind!r} has no outline that can be read",
        ", ".join(_SHAPES),
        did_you_mean(kind, [s + "labels" for s in _SHAPES]),
    )


def _brush(value: Node, size: Size) -> np.ndarray:
    """Alpha of at least half its highest value: brushes have soft edges, and converters write masks of 0 and 1."""
    if value.has("format") and value["format"].value != "rle":
        raise value["format"].wrong(f"is {value['format'].value!r}", "'rle'")
    numbers = [n.integer() for n in value["rle"].items()]
    try:
        alpha = decode(numbers, *size)
    except ValueError as e:
        raise value["rle"].wrong(f"holds no brush: {e}", "the run lengths that Label Studio exports") from None
    return alpha > int(alpha.max()) // 2
