"""CVAT "Segmentation mask 1.1", a zip or the folder it was unpacked to.

labelmap.txt has a line `name:r,g,b:parts:actions` for each label; SegmentationClass/ has a PNG an image, in these
colours or, with one channel, in the lines' numbers; JPEGImages/ has the images, when they were saved too.
https://docs.cvat.ai/docs/dataset_management/formats/format-smask
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from gansegctl.annotation.archive import Archive
from gansegctl.annotation.canvas import Drawing, Item, Loader, Size
from gansegctl.annotation.class_names import FolderLabels, class_of
from gansegctl.annotation.formats.grey import by_value
from gansegctl.annotation.formats.palette import colours_of
from gansegctl.annotation.formats.rgb import by_colour
from gansegctl.annotation.safe_png import opaque, open_png
from gansegctl.annotation.same_image import decode_image
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

NAME = "cvat"
_MASKS, _LABELS = "SegmentationClass", "labelmap.txt"
_IMAGES = (".png", ".jpg", ".jpeg")


def recognises(archive: Archive) -> bool:
    """Whether an archive has a folder of CVAT's masks or its label map."""
    return any(_MASKS in PurePosixPath(n).parts or PurePosixPath(n).name == _LABELS for n in archive.names)


def items(path: Path, archive: Archive) -> list[Item]:
    """Every mask in SegmentationClass/. UsageError when there is none."""
    masks = [n for n in archive.names if _MASKS in PurePosixPath(n).parts and n.lower().endswith(".png")]
    if not masks:
        raise UsageError(
            f"got {path} without a mask in {_MASKS}/",
            wanted="an annotated task, exported as Segmentation mask 1.1",
            remedy="save the annotation in CVAT before exporting",
        )
    return [Item(PurePosixPath(n).name, path, NAME, _loader(path, archive, n)) for n in masks]


def _loader(path: Path, archive: Archive, name: str) -> Loader:
    def load(labels: LabelMap, size: Size) -> Drawing:
        where = f"{path}: {name}"
        declared, notes = _label_map(path, archive, labels)
        image = open_png(where, size, archive.read(name))
        if image.mode in ("P", "PA"):
            mask = by_colour(where, colours_of(image)[np.asarray(image.convert("P"))], declared, None)
        elif image.mode in ("RGB", "RGBA"):
            pixels = opaque(where, image) if image.mode == "RGBA" else np.asarray(image)
            mask = by_colour(where, pixels, declared, None)
        else:
            mask = by_value(where, np.asarray(image).astype(np.int64), declared)
        return Drawing(mask, tuple(notes), _image(archive, name, size, where))

    return load


def _label_map(path: Path, archive: Archive, labels: LabelMap) -> tuple[FolderLabels, list[str]]:
    """labelmap.txt → its lines as ids and colours of classes; `background`, where no class is called so, is the first
    class, as pixels that nobody painted are.
    """
    found = [n for n in archive.names if PurePosixPath(n).name == _LABELS]
    if len(found) != 1:
        raise UsageError(
            f"got {path} with {len(found)} files called {_LABELS}",
            wanted="one, with a line `name:red,green,blue::` for each label",
            remedy="export as Segmentation mask 1.1 again",
        )
    where = f"{path}: {found[0]}"
    names: list[str] = []
    colours: list[tuple[int, int, int]] = []
    targets: list[int] = []
    notes: list[str] = []
    for number, line in enumerate(archive.read(found[0]).decode("utf-8-sig", "replace").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = line.rsplit(":", 3)
        values = parts[1].split(",") if len(parts) == 4 else []
        if len(values) != 3 or not all(v.strip().isdigit() and int(v) < 256 for v in values) or not parts[0]:
            raise UsageError(
                f"got line {number} of {where}: {line[:60]!r}",
                wanted="name:red,green,blue:parts:actions, as face:9,8,7::",
            )
        name, colour = parts[0], (int(values[0]), int(values[1]), int(values[2]))
        if name in names or colour in colours:
            raise UsageError(
                f"got line {number} of {where} with a name or colour that an earlier line has: {line[:60]!r}",
                wanted="every label and every colour once",
                remedy="give the labels distinct colours in CVAT and export again",
            )
        names.append(name)
        colours.append(colour)
        if name == "background" and name not in labels.names:
            targets.append(0)
            notes.append(f"{path}: pixels that nobody painted became {labels.names[0]!r}, the first class")
        else:
            targets.append(class_of(name, labels, f"line {number} of {where}"))
    if not names:
        raise UsageError(f"got {where} without a label", wanted="a line `name:red,green,blue::` for each label")
    if len(names) > 255:
        raise UsageError(f"got {where} with {len(names)} labels", wanted="at most 255")
    return FolderLabels(tuple(range(len(names))), tuple(colours), tuple(targets), tuple(names)), notes


def _image(archive: Archive, mask: str, size: Size, where: str) -> np.ndarray | None:
    stem = PurePosixPath(mask).stem
    for name in archive.names:
        inside = PurePosixPath(name)
        if inside.stem == stem and inside.suffix.lower() in _IMAGES and "JPEGImages" in inside.parts:
            return decode_image(archive.read(name), size, f"{where} and its {name}")
    return None
