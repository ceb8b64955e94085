"""A student on one image of any size, in memory that grows with its width and not with its area.

Whole: the image is reduced to the student's size, and the probabilities are enlarged and decided band by band.
In tiles: overlapping windows, blended where they overlap, decided as soon as no further window reaches a row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.features.probabilities import decide
from gansegctl.io.image import from_uint8, normalised
from gansegctl.students.student import Student, resized

BAND = 256  # rows decided together
OVERLAP = 0.25  # share of a tile that its neighbour repeats
TILES_AT_ONCE = 16


@torch.no_grad()
def label_image(student: Student, image: np.ndarray, tile: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """image uint8 [H,W,c], 0 to 255 → labels uint8 [H,W]; confidence uint8 [H,W], the highest probability in steps of
    1/255 (255 = sure).

    tile 0: the whole image at once, as `Student.predict` does. tile > 0: windows of tile×tile pixels, each resized to
    the student's size; an image smaller than a tile is continued by its edge. Errors: UsageError for an image of
    other channels, or a negative tile.
    """
    if image.ndim != 3 or image.shape[2] != student.channels or image.dtype != np.uint8:
        raise UsageError(f"got an image {image.dtype} {list(image.shape)}", wanted=f"uint8 [H, W, {student.channels}]")
    if tile < 0:
        raise UsageError(f"got --tile {tile}", wanted="pixels, or 0 for the whole image")
    student.model.eval()
    h, w = image.shape[:2]
    labels, confidence = np.empty((h, w), np.uint8), np.empty((h, w), np.uint8)
    row = 0
    for p in _tiled(student, image, tile) if tile else _whole(student, image):
        label, sure = decide(p, dim=0)  # [rows, W]
        labels[row : row + len(label)] = label.cpu().numpy()
        confidence[row : row + len(label)] = sure.cpu().numpy()
        row += len(label)
    return labels, confidence


def _device(student: Student) -> torch.device:
    return next(student.model.parameters()).device


def _probabilities(student: Student, x: Tensor) -> Tensor:
    """x [N,c,h,w] of the student's size → [N,K,h,w]."""
    return student.model(x.contiguous(memory_format=torch.channels_last)).softmax(dim=1)


def _whole(student: Student, image: np.ndarray) -> Iterator[Tensor]:
    """Probabilities [K, rows, W] of one band of rows after the other."""
    (h, w), device = image.shape[:2], _device(student)
    small = []
    for channel in range(student.channels):  # one at a time: a large image as float is four times as large
        plane = normalised(torch.from_numpy(np.array(image[..., channel])).to(device))
        small.append(resized(plane[None, None], student.size))
    p = _probabilities(student, torch.cat(small, dim=1))  # [1, K, h', w']
    if (h, w) == tuple(student.size):
        yield p[0]
        return
    rows = p.shape[2]
    wide = F.interpolate(p, (rows, w), mode="bilinear", align_corners=False)[0]  # [K, h', W]
    for first in range(0, h, BAND):
        y = (torch.arange(first, min(first + BAND, h), device=device) + 0.5) * (rows / h) - 0.5  # half-pixel centres
        y = y.clamp(min=0)
        above = y.floor().long().clamp(max=rows - 1)
        below = (above + 1).clamp(max=rows - 1)
        yield torch.lerp(wide[:, above], wide[:, below], (y - above)[None, :, None])


def _starts(length: int, tile: int) -> list[int]:
    """Where windows begin, so that they cover `length` pixels and neighbours overlap by a quarter or more."""
    step = max(1, round(tile * (1 - OVERLAP)))
    return [*range(0, length - tile, step), length - tile]


def _tiled(student: Student, image: np.ndarray, tile: int) -> Iterator[Tensor]:
    (h, w), device = image.shape[:2], _device(student)
    padded = np.pad(image, ((0, max(0, tile - h)), (0, max(0, tile - w)), (0, 0)), mode="edge")
    ramp = torch.arange(1, tile + 1, device=device).float()
    weight = torch.minimum(ramp, ramp.flip(0))
    weight = weight[:, None] * weight[None, :]  # [tile, tile], highest in the middle of a window
    width = padded.shape[1]
    kept = torch.zeros(len(student.labels), tile, width, device=device)
    total = torch.zeros(tile, width, device=device)
    downs, acrosses = _starts(padded.shape[0], tile), _starts(width, tile)
    for i, y in enumerate(downs):
        strip = padded[y : y + tile]
        for at in range(0, len(acrosses), TILES_AT_ONCE):
            xs = acrosses[at : at + TILES_AT_ONCE]
            windows = torch.from_numpy(np.stack([strip[:, x : x + tile] for x in xs])).to(device)
            p = _window_probabilities(student, windows)
            for x, one in zip(xs, p, strict=True):
                kept[:, :, x : x + tile] += one * weight
                total[:, x : x + tile] += weight
        ready = downs[i + 1] - y if i + 1 < len(downs) else tile
        rows = min(ready, h - y)
        yield (kept[:, :rows] / total[:rows])[..., :w]
        kept = torch.cat([kept[:, ready:], torch.zeros_like(kept[:, :ready])], dim=1)
        total = torch.cat([total[ready:], torch.zeros_like(total[:ready])])


def _window_probabilities(student: Student, windows: Tensor) -> Tensor:
    """uint8 [N,t,t,c] → probabilities [N,K,t,t], through the student's size."""
    x = from_uint8(windows)
    size = (x.shape[2], x.shape[3])
    p = _probabilities(student, resized(x, student.size))
    return p if size == tuple(student.size) else F.interpolate(p, size, mode="bilinear", align_corners=False)
