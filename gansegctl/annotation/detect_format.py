"""Which format a file has, found by its content; every format is a module of `annotation.formats`.

| name | files |
|---|---|
| palette · grey · rgb | exemplar-SEED.mask.png, by index, value or exact colour |
| binary-set | exemplar-SEED.LABEL.png, one a class |
| labelme · label-studio · coco | JSON |
| cvat | "Segmentation mask 1.1", zip or folder |
"""

from __future__ import annotations

from pathlib import Path

from gansegctl.annotation.archive import Archive
from gansegctl.annotation.canvas import Drawing, Item, Size
from gansegctl.annotation.class_names import folder_labels
from gansegctl.annotation.formats import binary_set, coco, cvat, label_studio, labelme
from gansegctl.annotation.json_node import read_json
from gansegctl.annotation.mask_png import read_mask
from gansegctl.annotation.safe_png import SIGNATURE, form_of
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

FORMATS = ("palette", "grey", "rgb", "binary-set", "labelme", "cvat", "label-studio", "coco")
_JSON = (labelme, coco, label_studio)
_OURS = ("labels.json", "exemplars.json", "cvat-labels.json")
WANTED = "a mask PNG, exemplar-SEED.LABEL.png files, labelme, COCO or Label Studio JSON, or a CVAT zip"


def items_of(path: Path) -> tuple[list[Item], list[str]]:
    """The annotations that a file or a folder holds, unread, and notes on what was left out.

    Errors: UsageError for a path that is not there, a file of no known format, and one whose frame is damaged.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise UsageError(f"got {path}, which does not exist", wanted=WANTED)
    with open(path, "rb") as f:
        head = f.read(8)
    if head.startswith(SIGNATURE) or path.suffix.lower() == ".png":
        named = binary_set.label_of(path)
        if named:
            return binary_set.items([p for p in sorted(path.parent.iterdir()) if _stem(p) == named[0]]), []
        return [_mask_item(path)], []
    if head.startswith(b"PK"):
        archive = Archive(path)
        if not cvat.recognises(archive):
            inside = ", ".join(archive.names[:4]) or "nothing"
            raise UsageError(
                f"got {path}, a zip with {inside}",
                wanted='CVAT\'s "Segmentation mask 1.1", with SegmentationClass/ and labelmap.txt',
                remedy="export in that format, or unpack the zip and pass the JSON or the folder of PNGs in it",
            )
        return cvat.items(path, archive), []
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") or path.suffix.lower() == ".json":
        return _json(path), []
    raise UsageError(f"got {path}, a file of no known format", wanted=WANTED)


def _json(path: Path, must: bool = True) -> list[Item]:
    """The annotations in a JSON file; of one that is no annotation a UsageError, or none where it need not be one."""
    node = read_json(path)
    for form in _JSON:
        if form.recognises(node.value):
            return form.items(path, node)
    if not must:
        return []
    what = "no object and no list of tasks"
    if isinstance(node.value, dict):
        what = f"an object with {', '.join(map(str, list(node.value)[:6])) or 'nothing in it'}"
    elif node.value == []:
        what = "an empty list"
    raise UsageError(
        f"got {path}: JSON of no known kind, {what}",
        wanted="labelme (shapes), COCO (images, annotations, categories) or Label Studio (tasks with annotations)",
        remedy="export in one of these; Label Studio: choose JSON",
    )


def _folder(path: Path) -> tuple[list[Item], list[str]]:
    """Masks, sets, JSON files and zips in a folder; a folder that CVAT's zip was unpacked to is taken as such."""
    if (path / "SegmentationClass").is_dir() or (path / "labelmap.txt").is_file():
        return cvat.items(path, Archive(path)), []
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    found = [_mask_item(p) for p in files if p.name.lower().endswith(".mask.png")]
    found += binary_set.items(files)
    notes = []
    for file in files:
        if file.suffix.lower() == ".zip":
            found += items_of(file)[0]
        elif file.suffix.lower() == ".json" and file.name not in _OURS:
            inside = _json(file, must="exemplar-" in file.name or len(files) == 1)
            found += inside
            notes += [] if inside else [f"{file} left out: no annotation"]
    return found, notes


def _mask_item(path: Path) -> Item:
    def load(labels: LabelMap, size: Size) -> Drawing:
        return Drawing(read_mask(path, size, folder_labels(path.parent / "labels.json", labels)))

    return Item(path.name, path, form_of(path), load)


def _stem(path: Path) -> str | None:
    named = binary_set.label_of(path)
    return named[0] if named else None
