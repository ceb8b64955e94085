"""Images for people: masks in colour, errors, grids and contact sheets.

Arrays are uint8: images [H, W, c] with c = 3 or 1 (or [H, W], grey), masks [H, W]. Sheets are dark on light, carry a
legend, and magnify small images by whole factors without smoothing, so that single pixels can be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gansegctl.errors import UsageError
from gansegctl.io.image import as_rgb
from gansegctl.labels import LabelMap

PAPER, INK, FAINT = (255, 255, 255), (32, 34, 38), (176, 180, 186)
WRONG, RIGHT, IGNORED = (214, 39, 40), (236, 238, 240), (150, 160, 190)
_SHOWN_SIDE, _LARGEST_SIDE = 192, 512  # a panel is magnified up to the first, reduced down to the second
_GAP, _MARGIN = 6, 14

Colour = tuple[int, int, int]


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface at a size in pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Pixels that a line of text takes at a font size."""
    return round(font(size).getlength(text))


def _clip(text: str, room: int, size: int) -> str:
    """The text, or as much of its beginning as fits into `room` pixels with an ellipsis."""
    if text_width(text, size) <= room:
        return text
    while text and text_width(text + "...", size) > room:
        text = text[:-1]
    return text + "..."


def colourise(mask: np.ndarray, labels: LabelMap) -> np.ndarray:
    """Mask uint8 [H, W] → its classes' colours uint8 [H, W, 3]; ignored pixels white, values without a class grey."""
    return np.asarray(labels.flat_palette(), np.uint8).reshape(256, 3)[np.asarray(mask, np.uint8)]


def overlay(image: np.ndarray, mask: np.ndarray, labels: LabelMap, alpha: float = 0.5) -> np.ndarray:
    """The image with `alpha` of its mask's colours over it: uint8 [H, W(, c)], uint8 [H, W] → uint8 [H, W, 3].

    Error: UsageError when image and mask differ in size.
    """
    below, above = as_rgb(image), colourise(mask, labels)
    if below.shape != above.shape:
        raise UsageError(
            f"got an image of {below.shape[:2]} and a mask of {above.shape[:2]} pixels (height, width)",
            wanted="one size",
        )
    return np.rint(below * (1 - alpha) + above * alpha).astype(np.uint8)


def errors_map(predicted: np.ndarray, truth: np.ndarray, ignore: int = 255) -> np.ndarray:
    """Two masks [H, W] → [H, W, 3]: wrong pixels red, right ones near white, ignored ones blue-grey."""
    right, wrong, ignored = (np.array(colour, np.uint8) for colour in (RIGHT, WRONG, IGNORED))
    image = np.where((predicted == truth)[..., None], right, wrong)
    return np.where(((predicted == ignore) | (truth == ignore))[..., None], ignored, image)


def _fit(panel: np.ndarray, scale: int | None) -> Image.Image:
    """A panel in the size it is shown: `scale` times as large, or by itself (None) into the legible range."""
    image = Image.fromarray(as_rgb(panel))
    longest = max(image.size)
    if scale is None and longest > _LARGEST_SIDE:
        return image.reduce(-(-longest // _LARGEST_SIDE))
    factor = max(1, round(_SHOWN_SIDE / longest)) if scale is None else scale
    if factor < 1:
        raise UsageError(f"got a scale of {scale}", wanted="a whole factor of 1 or more")
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def image_grid(images: np.ndarray, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Images uint8 [N, H, W, c] side by side without captions; about square when `columns` is None."""
    panels = [_fit(image, scale) for image in images]
    if not panels:
        raise UsageError("got no images for a grid", wanted="one or more")
    columns = min(len(panels), columns or int(np.ceil(np.sqrt(len(panels)))))
    width, height = max(p.width for p in panels), max(p.height for p in panels)
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (width + 2) - 2, rows * (height + 2) - 2), PAPER)
    for i, panel in enumerate(panels):
        sheet.paste(panel, (i % columns * (width + 2), i // columns * (height + 2)))
    return sheet


def _draw_legend(draw: ImageDraw.ImageDraw, entries: Sequence[tuple[str, Colour]], top: int, room: int) -> int:
    """Swatches and names from the left margin on, wrapped to `room`; returns the height used. Draws twice the same."""
    x, y, row = 0, 0, 20
    for name, colour in entries:
        name = _clip(name, room - 22, 12)
        step = 22 + text_width(name, 12) + 16
        if x and x + step - 16 > room:
            x, y = 0, y + row
        left, upper = _MARGIN + x, top + y + 2
        draw.rectangle((left, upper, left + 13, upper + 13), fill=colour, outline=INK)
        draw.text((left + 20, upper + 7), name, font=font(12), fill=INK, anchor="lm")
        x += step
    return y + row if entries else 0


def panel_sheet(
    samples: Sequence[Sequence[np.ndarray]],
    headings: Sequence[str],
    captions: Sequence[str] | None = None,
    legend: Sequence[tuple[str, Colour]] = (),
    columns: int = 1,
    scale: int | None = None,
) -> Image.Image:
    """Samples of several panels each (one heading a panel), `columns` samples a row, a legend (name, colour) below.

    Panels are uint8 [H, W(, c)] of any sizes. Error: UsageError for no samples, or captions of another number.
    """
    if not samples or (captions is not None and len(captions) != len(samples)):
        raise UsageError(
            f"got {len(samples)} samples and {'no' if captions is None else len(captions)} captions for a sheet",
            wanted="one sample or more, and a caption for each or none",
        )
    shown = [[_fit(panel, scale) for panel in sample] for sample in samples]
    width, height = (max(getattr(p, side) for sample in shown for p in sample) for side in ("width", "height"))
    columns = max(1, min(columns, len(shown)))
    cell = len(headings) * (width + _GAP) - _GAP
    head, caption = 22, 20 if captions is not None else 0
    room = columns * (cell + 3 * _GAP) - 3 * _GAP
    rows = -(-len(shown) // columns)
    bottom = _MARGIN + head + rows * (height + caption + _GAP + 2) + 4
    legend_height = _draw_legend(ImageDraw.Draw(Image.new("RGB", (1, 1))), legend, 0, room)
    sheet = Image.new("RGB", (room + 2 * _MARGIN, bottom + legend_height + _MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, sample in enumerate(shown):
        left = _MARGIN + i % columns * (cell + 3 * _GAP)
        top = _MARGIN + head + i // columns * (height + caption + _GAP + 2)
        if captions is not None:
            draw.text((left, top + 9), _clip(captions[i], cell, 12), font=font(12), fill=INK, anchor="lm")
        for j, panel in enumerate(sample):
            x, y = left + j * (width + _GAP), top + caption
            if i < columns:
                centre = (x + width // 2, _MARGIN + head // 2 - 3)
                draw.text(centre, _clip(headings[j], width, 13), font=font(13), fill=INK, anchor="mm")
            sheet.paste(panel, (x, y))
            draw.rectangle((x - 1, y - 1, x + panel.width, y + panel.height), outline=FAINT)
    _draw_legend(draw, legend, bottom, room)
    return sheet


def legend_of(labels: LabelMap) -> list[tuple[str, Colour]]:
    """The legend of a label map: its class names and colours, in order."""
    return list(zip(labels.names, labels.colours, strict=True))


def contact_sheet(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray] | None = None,
    confidences: Sequence[np.ndarray] | None = None,
    labels: LabelMap | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 2,
    scale: int | None = None,
) -> Image.Image:
    """Samples as image, mask over the image, confidence (white = sure); the classes below; `columns` samples a row.

    images uint8 [N, H, W(, c)]; masks, confidences uint8 [N, H, W]; captions N lines. scale: whole magnification;
    None magnifies small images and reduces large ones. Error: UsageError for masks without `labels`.
    """
    headings, columns_of, legend = ["image"], [list(images)], []
    if masks is not None:
        if labels is None:
            raise UsageError("got masks without a label map", wanted="labels, for the colours and the legend")
        headings.append("mask")
        columns_of.append([overlay(i, m, labels) for i, m in zip(images, masks, strict=True)])
        legend = legend_of(labels)
    if confidences is not None:
        headings.append("confidence")
        columns_of.append(list(confidences))
        legend = [*legend, ("confidence 0 %", (0, 0, 0)), ("50 %", (128, 128, 128)), ("100 %", (255, 255, 255))]
    return panel_sheet(list(zip(*columns_of, strict=True)), headings, captions, legend, columns, scale)
