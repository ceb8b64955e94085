"""Procedural portraits with exact masks: the built-in domain. Drawings by rule, never photographs.

Each image is painted back to front from signed distances in a head frame (turned, shifted, scaled) and a body frame.
An edge is one pixel soft in the image and hard in the mask: a pixel belongs to the topmost shape that covers its
centre. All ten classes are in (almost) every image; long hair may cover the ears. Tones of skin, hair, clothes and
backgrounds are drawn from overlapping ranges, so that colour alone does not tell the parts apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap

LABELS = LabelMap(
    ("background", "face", "hair", "eyes", "eyebrows", "nose", "mouth", "ears", "neck", "clothes"),
    (
        (38, 38, 46),
        (244, 190, 142),
        (122, 76, 160),
        (48, 140, 240),
        (250, 218, 72),
        (244, 120, 56),
        (220, 46, 92),
        (146, 214, 90),
        (206, 150, 200),
        (52, 168, 150),
    ),
)
BACKGROUND, FACE, HAIR, EYES, EYEBROWS, NOSE, MOUTH, EARS, NECK, CLOTHES = range(10)
RANDOMS = 96
"""Uniform numbers drawn for an image, in one go, from the stream of its seed."""


class _Draws:
    """The uniform numbers of N images, handed out one column at a time; every use has its own column."""

    def __init__(self, seeds: Sequence[int]) -> None:
        rows = [np.random.RandomState(int(s)).random_sample(RANDOMS) for s in seeds]
        self.columns = torch.from_numpy(np.stack(rows)).float().T
        self.next = 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """[N,1,1], uniform in low..high."""
        self.next += 1
        return (low + (high - low) * self.columns[self.next - 1]).view(-1, 1, 1)

    def colour(self, low: float, high: float) -> Tensor:
        """[N,3,1,1], each channel by itself."""
        return torch.stack([self(low, high) for _ in range(3)], dim=1)


class _Canvas:
    """Image [N,3,H,W] in 0..1 and mask [N,H,W], painted over layer by layer."""

    def __init__(self, background: Tensor, pixel: float) -> None:
        self.image, self.pixel = background, pixel
        self.mask = torch.zeros(background.shape[0], *background.shape[2:], dtype=torch.uint8)

    def paint(self, distance: Tensor, colour: Tensor, label: int) -> None:
        """Cover what lies inside the shape (distance [N,H,W] < 0, in image units) with colour [N,3,H|1,W|1]."""
        alpha = (0.5 - distance / self.pixel).clamp(0, 1).unsqueeze(1)
        self.image = torch.lerp(self.image, colour.expand_as(self.image), alpha)
        self.mask = self.mask.masked_fill(distance < 0, label)

    def tint(self, distance: Tensor, colour: Tensor, strength: float) -> None:
        """Blend colour in softly without changing the mask: shadows, cheeks, highlights."""
        alpha = (0.5 - distance / (4 * self.pixel + 0.06)).clamp(0, 1).unsqueeze(1) * strength
        self.image = torch.lerp(self.image, colour.expand_as(self.image), alpha)


def _ellipse(x: Tensor, y: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """First-order signed distance to an axis-aligned ellipse."""
    k = ((x / rx).square() + (y / ry).square()).sqrt()
    slope = ((x / rx**2).square() + (y / ry**2).square()).sqrt()
    return k * (k - 1) / (slope + 1e-4)


def _turn(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos(), angle.sin()
    return cos * x + sin * y, cos * y - sin * x


def _skin(d: _Draws) -> Tensor:
    """[N,3,1,1] from light to dark, a little redder or yellower."""
    light, dark = torch.tensor([0.97, 0.82, 0.71]), torch.tensor([0.40, 0.25, 0.17])
    tone = torch.lerp(light.view(1, 3, 1, 1), dark.view(1, 3, 1, 1), d(0, 1).unsqueeze(1) ** 1.3)
    return tone * (1 + d.colour(-0.06, 0.06))


def _hair(d: _Draws) -> Tensor:
    """[N,3,1,1]: black to blond, red or grey, now and then dyed."""
    value, warmth, dyed = d(0.10, 0.88), d(0.0, 0.5), d()
    natural = torch.stack([value, value * (1 - 0.55 * warmth), value * (1 - 1.1 * warmth)], dim=1)
    return torch.where(dyed.unsqueeze(1) < 0.15, d.colour(0.15, 0.85), natural)


def _background(d: _Draws, x: Tensor, y: Tensor) -> Tensor:
    """Two tones mixed by a gradient, slow waves or soft stripes."""
    one, two, kind = d.colour(0.1, 0.95), d.colour(0.1, 0.95), d()
    gx, gy, fx, fy, phase = d(-0.6, 0.6), d(-0.6, 0.6), d(1.5, 5.0), d(-4.0, 4.0), d(0, 6.28)
    ramp = 0.5 + gx * x + gy * y
    wave = 0.5 + 0.5 * torch.sin(fx * x + fy * y + phase)
    blobs = 0.5 + 0.25 * (torch.sin(fx * 1.4 * x + phase) + torch.sin(fy * 1.3 * y + 1.7 * phase))
    mix = torch.where(kind < 0.35, ramp, torch.where(kind < 0.7, wave, blobs)).clamp(0, 1).unsqueeze(1)
    return torch.lerp(one, torch.lerp(one, two, 0.75), mix)


@torch.no_grad()
def render(seeds: Sequence[int], resolution: int = 64) -> tuple[Tensor, Tensor]:
    """Portraits of the seeds: image uint8 [N,H,W,3], mask uint8 [N,H,W] with the values of `LABELS`.

    A seed gives the same portrait in any batch, and the same scene at any resolution (32-256).
    Errors: UsageError for a resolution outside 32-256 or a seed outside 0..2^32-1.
    """
    if not 32 <= resolution <= 256:
        raise UsageError(f"got resolution {resolution}", wanted="32 to 256 pixels")
    wrong = [s for s in seeds if not 0 <= int(s) < 2**32]
    if wrong or not len(seeds):
        raise UsageError(f"got seeds {wrong[:1] or 'none'}", wanted="at least one, each in 0..4294967295")
    d = _Draws(seeds)
    pixel = 2.0 / resolution
    axis = (torch.arange(resolution) + 0.5) * pixel - 1
    y0, x0 = torch.meshgrid(axis, axis, indexing="ij")
    x0, y0 = x0[None].expand(len(seeds), -1, -1), y0[None].expand(len(seeds), -1, -1)
    canvas = _Canvas(_background(d, x0, y0), pixel)

    # Pose: the body leans less than the head; yaw slides the inner parts of the face sideways.
    scale, shift_x, shift_y = d(0.92, 1.06), d(-0.10, 0.10), d(-0.12, 0.0)
    roll, yaw = d(-0.2, 0.2), d(-1.0, 1.0)
    bx, by = (x0 - shift_x) / scale, (y0 - shift_y) / scale
    x, y = _turn(bx, by, roll)
    light_x, light_y = d(-1, 1), d(-0.6, 0.2)
    shade = (1 + 0.16 * (light_x * x + light_y * y)).unsqueeze(1)

    skin, hair = _skin(d), _hair(d)
    dark_skin, bright_skin = skin * torch.tensor([0.72, 0.62, 0.60]).view(1, 3, 1, 1), (skin * 1.15 + 0.05).clamp(0, 1)
    width, height = d(0.50, 0.60), d(0.66, 0.76)
    length, volume, hairline, parting, curl = d(), d(0.08, 0.20), d(-0.54, -0.40), d(-0.5, 0.5), d(0.0, 0.05)
    strands = 1 + 0.13 * torch.sin(d(9, 16) * (x + 0.3 * y * d(-1, 1)) + d(0, 6.28)).unsqueeze(1)
    hair_colour = (hair * strands * shade).clamp(0, 1)

    back_y = -0.12 + 0.42 * length
    back = _ellipse(x, y - back_y, width + volume * (0.75 + 0.5 * length), height * 0.88 + volume + 0.36 * length)
    canvas.paint(back * scale, hair_colour * 0.78, HAIR)

    # Body
    neck_half = d(0.22, 0.28)
    neck = torch.maximum((bx + 0.04 * yaw).abs() - neck_half - 0.08 * (by - 0.9).clamp(min=0), 0.2 - by)
    canvas.paint(neck * scale, dark_skin * (0.95 * shade + 0.12), NECK)
    slope, top, opening, vee = d(0.25, 0.6), d(0.74, 0.86), d(0.14, 0.30), d()
    shoulders = top + slope * bx.square() - by
    collar = torch.where(
        vee < 0.5,
        _ellipse(bx, by - top, neck_half + 0.06, opening),
        (bx.abs() * 1.5 + by - top - opening - 0.12) * 0.55,
    )
    cloth, trim, stripes = d.colour(0.08, 0.95), d.colour(0.08, 0.95), d()
    weave = torch.sin(torch.where(stripes < 0.25, by, bx) * d(10, 18) + d(0, 6.28)) > 0.1
    weave = (weave & (stripes < 0.5)).unsqueeze(1).float()
    cloth = torch.lerp(cloth, torch.lerp(cloth, trim, 0.6), weave) * (shade * 0.9 + 0.1)
    canvas.paint(torch.maximum(shoulders, -collar) * scale * 0.9, cloth.clamp(0, 1), CLOTHES)

    # Head
    ear_y, ear_size = d(-0.02, 0.08), d(0.14, 0.19)
    for side in (-1.0, 1.0):
        near = 1 - 0.35 * side * yaw  # the ear on the far side is hidden in part
        ear = _ellipse(
            x - side * (width + 0.015 - 0.03 * side * yaw), y - ear_y, ear_size * 0.62 * near.clamp(0.7), ear_size
        )
        canvas.paint(ear * scale, (skin * torch.tensor([0.95, 0.82, 0.78]).view(1, 3, 1, 1) * shade).clamp(0, 1), EARS)
    jaw = 1 - d(0.05, 0.28) * y.clamp(min=0).square() * 1.6
    face = _ellipse(x / jaw, y, width, height)
    canvas.paint(face * scale, (skin * shade).clamp(0, 1), FACE)
    slide = 0.13 * yaw
    for side in (-1.0, 1.0):
        cheek = _ellipse(x - slide - side * 0.30, y - 0.24, 0.13, 0.11)
        canvas.tint(cheek, skin * torch.tensor([1.0, 0.66, 0.66]).view(1, 3, 1, 1), 0.4)

    # Nose: a wedge that widens downwards, darker than the cheeks, with a bright ridge.
    nose_x, nose_top, nose_end, nose_half = slide * 1.35, d(-0.14, -0.06), d(0.20, 0.28), d(0.10, 0.145)
    along = ((y - nose_top) / (nose_end - nose_top)).clamp(0, 1)
    half = nose_half * (0.38 + 0.62 * along.square())
    nose = torch.maximum(
        (x - nose_x - slide * 0.3 * along).abs() - half,
        (y - (nose_top + nose_end) / 2).abs() - (nose_end - nose_top) / 2,
    )
    tip = _ellipse(x - nose_x - slide * 0.3, y - nose_end + 0.03, nose_half * 1.05, 0.085)
    nose = torch.minimum(nose, tip)
    canvas.paint(nose * scale, (torch.lerp(skin, dark_skin, 0.85) * shade).clamp(0, 1), NOSE)
    ridge = _ellipse(
        x - nose_x - slide * 0.15, y - (nose_top + nose_end) / 2, nose_half * 0.35, (nose_end - nose_top) * 0.42
    )
    canvas.tint(ridge, bright_skin, 0.7)

    # Mouth
    mouth_x, mouth_y, smile = slide * 1.15, d(0.40, 0.46), d(-0.5, 1.1)
    mouth_w, mouth_h, opened = d(0.18, 0.26), d(0.075, 0.11), d()
    curve = y - mouth_y + smile * ((x - mouth_x).square() - 0.02)
    lips = _ellipse(x - mouth_x, curve, mouth_w, mouth_h)
    lip_colour = torch.lerp(dark_skin, torch.stack([d(0.6, 0.9), d(0.1, 0.35), d(0.15, 0.4)], dim=1), 0.65)
    canvas.paint(lips * scale, (lip_colour * shade).clamp(0, 1), MOUTH)
    gap = _ellipse(x - mouth_x, curve, mouth_w * 0.75, mouth_h * (0.18 + 0.5 * (opened - 0.4).clamp(min=0)))
    teeth = torch.where(opened.unsqueeze(1) > 0.6, torch.full_like(lip_colour, 0.92), lip_colour * 0.35)
    canvas.paint(gap * scale, teeth, MOUTH)

    # Eyes and eyebrows; the eye on the far side is narrower.
    eye_x, eye_y, eye_w, eye_h = d(0.23, 0.27), d(-0.14, -0.07), d(0.135, 0.165), d(0.080, 0.11)
    gaze_x, gaze_y, iris = d(-0.045, 0.045), d(-0.02, 0.02), d.colour(0.10, 0.60)
    brow_y, brow_tilt, brow_thick, brow_tone = d(0.20, 0.25), d(-0.3, 0.3), d(0.050, 0.068), d(0.30, 0.80)
    brow_colour = torch.lerp(torch.zeros_like(hair), torch.lerp(hair, dark_skin, 0.35), brow_tone.unsqueeze(1))
    for side in (-1.0, 1.0):
        narrow = 1 - 0.14 * (side * yaw).clamp(min=0)
        cx = slide + side * eye_x * narrow
        ex, ey = x - cx, y - eye_y
        eye = _ellipse(ex, ey, eye_w * narrow, eye_h)
        lid = _ellipse(ex, ey + 0.022, eye_w * narrow * 1.08, eye_h * 1.08)
        canvas.paint(lid * scale, dark_skin * 0.35, EYES)
        canvas.paint(eye * scale, torch.full_like(skin, 0.93), EYES)
        ball = torch.maximum(_ellipse(ex - gaze_x, ey - gaze_y, 0.075, 0.075), eye)
        canvas.paint(ball * scale, iris, EYES)
        pupil = torch.maximum(_ellipse(ex - gaze_x, ey - gaze_y, 0.036, 0.036), eye)
        canvas.paint(pupil * scale, torch.full_like(skin, 0.05), EYES)
        rx, ry = _turn(x - cx, y - eye_y + brow_y, side * brow_tilt)
        arch = ry + 1.1 * rx.square()
        brow = torch.maximum(arch.abs() - brow_thick, rx.abs() - 0.165 * narrow)
        canvas.paint(brow * scale, brow_colour, EYEBROWS)

    # Hair in front: a cap above the hairline, and locks beside the face where the hair is long.
    cap = _ellipse(x, y + 0.04, width + volume * 0.55, height + volume * 0.6)
    line = hairline + parting * 0.35 * x + 0.35 * x.square() + curl * torch.sin(14 * x)
    front = torch.maximum(cap, y - line)
    inner = _ellipse(x, y - 0.05, width * 0.93, height * 1.05)
    locks = torch.maximum(torch.maximum(cap, -inner), y + 0.35 - 1.3 * (length - 0.35).clamp(min=0))
    canvas.paint(torch.minimum(front, locks) * scale, hair_colour, HAIR)
    gleam = _ellipse(x - light_x * 0.2, y + height - 0.08, 0.25, 0.07)
    canvas.tint(torch.maximum(gleam, front), (hair_colour * 1.25 + 0.08).clamp(0, 1), 0.5)

    image = canvas.image * (0.85 + 0.3 * d().unsqueeze(1)) * (1 + d.colour(-0.07, 0.07))
    image = (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return image.permute(0, 2, 3, 1).contiguous(), canvas.mask


def class_shares(masks: Tensor) -> Tensor:
    """mask uint8 [N,H,W] → share of pixels of each class, float64 [10]."""
    return torch.bincount(masks.flatten().long(), minlength=len(LABELS)).double() / masks.numel()


BATCH = 250


HELD_OUT = 20_000_000
"""Scenes of this seed and above are never trained on by anything that ships."""


def batches_of_scenes(seeds: Sequence[int], resolution: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """image uint8 [n,H,W,3], mask uint8 [n,H,W], at most BATCH at a time."""
    for i in range(0, len(seeds), BATCH):
        image, mask = render(seeds[i : i + BATCH], resolution)
        yield image.numpy(), mask.numpy()
