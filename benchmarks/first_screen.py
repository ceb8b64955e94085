"""The image at the top of README.md, from what `make demo` wrote: python -m benchmarks.first_screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import gansegctl
from gansegctl.visualize.sheets import colourise, font

ROOT = Path(__file__).resolve().parents[1]
SAMPLES, HELD_OUT = (0, 3), (1, 4)
SCALE, GAP, WIDE, CAPTION = 4, 12, 44, 34
CAPTIONS = ("samples, and masks learned from one annotated sample", "held-out images, and the student's masks")


def pair(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Two uint8 [H,W,3] side by side, enlarged without smoothing."""
    gap = np.full((image.shape[0] * SCALE, GAP, 3), 255, np.uint8)
    large = [np.kron(a, np.ones((SCALE, SCALE, 1), np.uint8)) for a in (image, mask)]
    return np.concatenate([large[0], gap, large[1], gap], axis=1)


def main(demo: Path = ROOT / "demo-out", out: Path = ROOT / "docs" / "images" / "first-screen.png") -> None:
    """Write it. `demo` is the folder of `make demo`."""
    student = gansegctl.open_student(demo / "student.safetensors")
    dataset, held = (gansegctl.open_dataset(demo / name) for name in ("dataset", "held-out"))
    halves = []
    for chosen, truth in ((SAMPLES, True), (HELD_OUT, False)):
        items = [(dataset if truth else held)[i] for i in chosen]
        masks = [i["mask"] if truth else student.predict(i["image"][None]).labels[0] for i in items]
        shown = [(i["image"].numpy(), colourise(m.numpy(), student.labels)) for i, m in zip(items, masks, strict=True)]
        halves.append(np.concatenate([pair(*s) for s in shown], axis=1)[:, :-GAP])
    wide = np.full((halves[0].shape[0], WIDE, 3), 255, np.uint8)
    row = np.concatenate([halves[0], wide, halves[1]], axis=1)
    sheet = Image.new("RGB", (row.shape[1], row.shape[0] + CAPTION), "white")
    sheet.paste(Image.fromarray(row), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for text, left in zip(CAPTIONS, (0, halves[0].shape[1] + WIDE), strict=True):
        draw.text((left, row.shape[0] + 6), text, fill=(60, 60, 60), font=font(22))
    sheet.save(out)


if __name__ == "__main__":
    main()
