"""Moving images as a whole: turned, scaled and shifted, with reflections beyond their edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def moved(image: Tensor, angle: Tensor, scale: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """image [N,c,H,W] → the same shape, row by row: turned by `angle` (radians), shrunk by `scale`, then shifted.

    angle, scale, dx, dy: [N]; shifts in halves of a side.
    """
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack([torch.stack([cos, -sin, dx], 1), torch.stack([sin, cos, dy], 1)], 1)  # [N, 2, 3]
    grid = F.affine_grid(theta, list(image.shape), align_corners=False).to(image.dtype)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
