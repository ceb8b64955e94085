"""The files of a bundle besides images and masks: the classes in each tool's own form, and the next steps."""

from __future__ import annotations

import json
from xml.sax.saxutils import quoteattr

from gansegctl.labels import LabelMap

README = """Masks to paint
==============

Each exemplar-SEED.png is an image; exemplar-SEED.mask.png is its mask, blank so far. Classes and colours: labels.txt.
Keep the names of the images: the mask is found by exemplar-SEED. Never scale, crop or turn an image.
Pixels that you leave out become the first class ({first}); value 255, or white in RGB, means "learn nothing here".
Classes are matched by name, so their order in the tool does not matter.

IN THE BROWSER
  gansegctl annotate {dataset} --shots {shots} --ui

GIMP, KRITA, PHOTOSHOP, PROCREATE
  1. Load the palette labels.gpl (GIMP: Windows > Dockable Dialogs > Palettes; Krita: Palette docker > Import).
  2. Open exemplar-SEED.png; paint on a new layer with the PENCIL, anti-aliasing and feathering off. Cover every pixel.
  3. Hide the image, flatten, and export over exemplar-SEED.mask.png as PNG (8 bits, no scaling, never JPEG).
  Or paint one layer a class and export each as exemplar-SEED.CLASS.png (not 0 = the class).
  gansegctl annotate {dataset} --shots {shots} --masks {folder}

LABELME
  labelme {folder} --labels {folder}/labelme-labels.txt
  Draw polygons, rectangles, circles or AI masks (lines and points have no inside); what is drawn later lies on top.
  Save beside the image as exemplar-SEED.json.
  gansegctl annotate {dataset} --shots {shots} --masks {folder}

CVAT
  1. New task; in the label constructor choose "Raw" and paste cvat-labels.json; upload the exemplar-*.png images.
  2. Draw brush masks or polygons; save.
  3. Menu > Export task dataset > "Segmentation mask 1.1", with or without images.
  gansegctl annotate {dataset} --shots {shots} --masks TASK.zip

LABEL STUDIO
  1. New project; Labeling Setup > Custom template > Code: paste label-studio.xml; import the exemplar-*.png images.
  2. Draw with the brush or polygons; Submit, once for each image.
  3. Export > JSON (not JSON-MIN).
  gansegctl annotate {dataset} --shots {shots} --masks PROJECT.json

ANY TOOL THAT WRITES COCO
  Export COCO JSON with polygons or masks (RLE); boxes alone are not enough.
  gansegctl annotate {dataset} --shots {shots} --masks instances.json
"""


def listing(labels: LabelMap) -> str:
    """labels.txt: ids, colours and names, to be read by people."""
    rows = ["id   colour  class"]
    for row in labels.to_json():
        rows.append("{:3d}  {}  {}".format(row["id"], _hex(row["colour"]), row["name"]))
    return "\n".join([*rows, "255          (ignored)"])


def gimp_palette(labels: LabelMap) -> str:
    """labels.gpl, which GIMP, Krita and Inkscape read."""
    rows = [f"{r:3d} {g:3d} {b:3d}\t{name}" for (r, g, b), name in zip(labels.colours, labels.names, strict=True)]
    return "\n".join(["GIMP Palette", "Name: gansegctl classes", f"Columns: {min(len(rows), 8)}", "#", *rows])


def cvat_labels(labels: LabelMap) -> str:
    """cvat-labels.json, for the Raw form of CVAT's label constructor. The first class is CVAT's own background where it
    is called so: CVAT adds that one itself.
    """
    rows = [
        {"name": row["name"], "color": _hex(row["colour"]), "attributes": []}
        for row in labels.to_json()
        if row["name"] != "background"
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False)


def label_studio_config(labels: LabelMap) -> str:
    """label-studio.xml, a labelling template with brush and polygons."""
    rows = [
        f"    <Label value={quoteattr(r['name'])} background={quoteattr(_hex(r['colour']))}/>" for r in labels.to_json()
    ]
    parts = []
    for tag, name in (("BrushLabels", "brush"), ("PolygonLabels", "polygon")):
        parts += [f'  <{tag} name="{name}" toName="image">', *rows, f"  </{tag}>"]
    return "\n".join(["<View>", '  <Image name="image" value="$image" zoom="true"/>', *parts, "</View>"])


def labelme_labels(labels: LabelMap) -> str:
    """labelme-labels.txt: one name a line, `__ignore__` first as labelme has it."""
    return "\n".join(["__ignore__", *labels.names])


def _hex(colour: list[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
