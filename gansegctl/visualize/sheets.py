"""Pictures for people: masks in colour, contact sheets, heat maps; reading and writing image files.

Arrays are uint8: images [H, W, c] with c = 3 or 1 (or [H, W], grey), masks [H, W]. Sheets are dark on light, carry a
legend, and magnify small pictures by whole factors without smoothing, so that single pixels can be judged.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from gansegctl.errors import GansegError, UsageError
from gansegctl.io.atomic import write_bytes
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


def to_uint8(image: Any) -> np.ndarray:
    """Float [N, c, H, W] in [-1, 1] (a tensor on any device, or numpy) → uint8 [N, H, W, c].

    Rounds as the official StyleGAN scripts do: clamp(x · 127.5 + 128, 0, 255), cut to an integer.
    Error: GansegError for a picture with NaN in it.
    """
    if hasattr(image, "detach"):  # a tensor: round where it lies and move a quarter of the bytes
        scaled = image.detach().float().permute(0, 2, 3, 1) * 127.5 + 128
        broken, pixels = bool(scaled.isnan().any()), scaled.clamp(0, 255).byte().cpu().numpy()
    else:
        scaled = np.asarray(image, np.float32).transpose(0, 2, 3, 1) * np.float32(127.5) + np.float32(128)
        broken, pixels = bool(np.isnan(scaled).any()), np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)
    if broken:
        raise GansegError(
            "got a generated picture with NaN in it",
            wanted="finite values",
            remedy="try float32 (--device cpu), or check the checkpoint with `gansegctl inspect`",
        )
    return np.ascontiguousarray(pixels)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W], [H, W, 1] or [H, W, 3] → [H, W, 3]. Error: UsageError for anything else."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or image.dtype != np.uint8:
        raise UsageError(
            f"got a picture {image.dtype} {list(image.shape)}", wanted="uint8 [H, W], [H, W, 1] or [H, W, 3]"
        )
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def colourise(mask: np.ndarray, labels: LabelMap) -> np.ndarray:
    """Mask uint8 [H, W] → its classes' colours uint8 [H, W, 3]; ignored pixels white, values without a class grey."""
    return np.asarray(labels.flat_palette(), np.uint8).reshape(256, 3)[np.asarray(mask, np.uint8)]


def overlay(image: np.ndarray, mask: np.ndarray, labels: LabelMap, alpha: float = 0.5) -> np.ndarray:
    """The picture with `alpha` of its mask's colours over it: uint8 [H, W(, c)], uint8 [H, W] → uint8 [H, W, 3].

    Error: UsageError when picture and mask differ in size.
    """
    below, above = as_rgb(image), colourise(mask, labels)
    if below.shape != above.shape:
        raise UsageError(
            f"got a picture of {below.shape[:2]} and a mask of {above.shape[:2]} pixels (height, width)",
            wanted="one size",
        )
    return np.rint(below * (1 - alpha) + above * alpha).astype(np.uint8)


def errors_map(predicted: np.ndarray, truth: np.ndarray, ignore: int = 255) -> np.ndarray:
    """Two masks [H, W] → [H, W, 3]: wrong pixels red, right ones near white, ignored ones blue-grey."""
    picture = np.where((predicted == truth)[..., None], np.uint8(RIGHT), np.uint8(WRONG))
    return np.where(((predicted == ignore) | (truth == ignore))[..., None], np.uint8(IGNORED), picture)


def _fit(panel: np.ndarray, scale: int | None) -> Image.Image:
    """A panel in the size it is shown: `scale` times as large, or by itself (None) into the legible range."""
    picture = Image.fromarray(as_rgb(panel))
    longest = max(picture.size)
    if scale is None and longest > _LARGEST_SIDE:
        return picture.reduce(-(-longest // _LARGEST_SIDE))
    factor = max(1, round(_SHOWN_SIDE / longest)) if scale is None else scale
    if factor < 1:
        raise UsageError(f"got a scale of {scale}", wanted="a whole factor of 1 or more")
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def image_grid(images: np.ndarray, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Pictures uint8 [N, H, W, c] side by side without captions; about square when `columns` is None."""
    panels = [_fit(image, scale) for image in images]
    if not panels:
        raise UsageError("got no pictures for a grid", wanted="one or more")
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
    None magnifies small pictures and reduces large ones. Error: UsageError for masks without `labels`.
    """
    if masks is not None and labels is None:
        raise UsageError("got masks without a label map", wanted="labels, for the colours and the legend")
    headings, columns_of, legend = ["image"], [list(images)], []
    if masks is not None:
        headings.append("mask")
        columns_of.append([overlay(i, m, labels) for i, m in zip(images, masks, strict=True)])
        legend = legend_of(labels)
    if confidences is not None:
        headings.append("confidence")
        columns_of.append(list(confidences))
        legend = [*legend, ("confidence 0 %", (0, 0, 0)), ("50 %", (128, 128, 128)), ("100 %", (255, 255, 255))]
    return panel_sheet(list(zip(*columns_of, strict=True)), headings, captions, legend, columns, scale)


def heat_map(values: np.ndarray, names: Sequence[str], rows: str, columns: str, title: str = "") -> Image.Image:
    """A square matrix [K, K] of shares 0 … 1 (nan = empty row) as blue cells with percentages and names.

    rows, columns: what the two axes are. Cells shrink, and lose their numbers, beyond 24 classes.
    """
    values = np.asarray(values, float)
    k = len(names)
    side, size = (46, 13) if k <= 24 else (14, 11)
    room = min(180, max(text_width(name, size) for name in names)) + 10
    shown = [_clip(name, room - 10, size) for name in names]
    left, top = _MARGIN + 24 + room, _MARGIN + (26 if title else 0) + 22 + room
    width = max(left + k * side + _MARGIN, 2 * _MARGIN + text_width(title, 14))
    picture = Image.new("RGB", (width, top + k * side + _MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN + 8), title, font=font(14), fill=INK, anchor="lm")
    draw.text((left + k * side // 2, top - room - 14), columns, font=font(13), fill=INK, anchor="mm")
    draw_upright(picture, rows, (_MARGIN + 8, top + k * side // 2), "mm", 13)
    for i in range(k):
        draw.text((left - 7, top + i * side + side // 2), shown[i], font=font(size), fill=INK, anchor="rm")
        draw_upright(picture, shown[i], (left + i * side + side // 2, top - 7), "mb", size)
        for j in range(k):
            x, y, value = left + j * side, top + i * side, values[i, j]
            empty = np.isnan(value)
            depth = 0.0 if empty else float(np.clip(value, 0, 1))
            fill = tuple(round(255 + (deep - 255) * depth) for deep in (8, 60, 130))
            draw.rectangle((x, y, x + side, y + side), fill=(242, 242, 242) if empty else fill, outline=FAINT)
            if side > 20:
                text = "-" if empty else "<1" if 0 < value < 0.01 else f"{100 * value:.0f}"
                ink = PAPER if depth > 0.5 else FAINT if empty or value == 0 else INK
                draw.text((x + side // 2, y + side // 2), text, font=font(13), fill=ink, anchor="mm")
    return picture


def draw_upright(picture: Image.Image, text: str, at: tuple[int, int], anchor: str, size: int) -> None:
    """Text that reads upwards, centred on `at` ("mm") or ending on it from above ("mb")."""
    strip = Image.new("RGB", (text_width(text, size) + 2, size + 6), PAPER)
    ImageDraw.Draw(strip).text((1, strip.height // 2), text, font=font(size), fill=INK, anchor="lm")
    strip = strip.rotate(90, expand=True)
    top = at[1] - strip.height // 2 if anchor == "mm" else at[1] - strip.height
    picture.paste(strip, (at[0] - strip.width // 2, top))


def save_png(path: Path | str, image: np.ndarray | Image.Image) -> None:
    """Write a PNG whole or not at all (a temporary file beside it, then a rename): uint8 [H, W(, c)] or a PIL image."""
    path = Path(path)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    write_bytes(path, stream.getvalue(), sync=False)


def read_image(path: Path | str, channels: int = 3) -> np.ndarray:
    """A picture file → uint8 [H, W, channels] (3 or 1), turned as its EXIF orientation says; 16-bit grey is cut to 8.

    What is transparent lies on white. Errors: UsageError for files that are missing, no picture, cut short, animated or
    of several pages, or of 32-bit values without a known range.
    """
    wanted = "a picture file such as PNG, JPEG, BMP or TIFF"
    if channels not in (1, 3):
        raise UsageError(f"got {channels} channels", wanted="1 (grey) or 3 (RGB)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice its limit is an error, below
            with Image.open(path) as picture:
                # MPO is what telephones write as .jpg: further frames are previews of the first.
                frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
                if frames == 1:
                    picture = ImageOps.exif_transpose(picture)
                    picture.load()
    except FileNotFoundError:
        raise UsageError(f"got {path}, which does not exist", wanted=wanted) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"got {path}: {error}", wanted=wanted) from None
    if frames > 1:
        raise UsageError(f"got {path} with {frames} frames or pages", wanted="one picture a file", remedy="split it")
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise UsageError(
            f"got {path} with 32-bit pixels, whose range is unknown",
            wanted="8 or 16 bits a channel",
            remedy="scale the values to 0-255 and save as 8-bit PNG",
        )
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, (255, 255, 255, 255)), clear)
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels))
