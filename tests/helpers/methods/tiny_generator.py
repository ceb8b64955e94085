"""A generator to fit on in milliseconds: random layers of 4, 8 and 16 px, the image made from the last."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from gansegctl.contracts import Exemplar, FeatureTap, GeneratorSpec, Synthesis
from gansegctl.features import pyramid as pyramids

SIDE = 16


class TinyGenerator:
    """Protocol `contracts.Generator`. Weights and stored noise are functions of `seed` alone."""

    def __init__(self, seed: int = 0, channels: tuple[int, int, int] = (8, 6, 5), sha256: str = "") -> None:
        stream = torch.Generator().manual_seed(seed)
        taps = tuple(FeatureTap(f"b{r}.conv1", r, c) for r, c in zip((4, 8, 16), channels, strict=True))
        self.spec = GeneratorSpec("tiny", SIDE, 3, 6, 6, 0, 3, taps)
        self.sha256 = sha256 or f"{seed:064x}"
        self.const = torch.randn(channels[0], 4, 4, generator=stream)
        widths = (channels[0], *channels)
        self.weights = [torch.randn(o, i, 3, 3, generator=stream) / (3 * i**0.5) for i, o in pairwise(widths)]
        self.styles = [torch.randn(i, 6, generator=stream) / 4 for i in widths[:-1]]
        self.noise = [torch.randn(1, 1, r, r, generator=stream) for r in (4, 8, 16)]
        self.rgb = torch.randn(3, channels[-1], 1, 1, generator=stream) / 2

    def map(self, z, c=None, truncation=1.0, cutoff=None):
        ws = z.unsqueeze(1).repeat(1, 3, 1)
        ws[:, :cutoff] *= truncation
        return ws

    def synthesize(self, ws, noise="const", taps=None, seeds=None):
        wanted = {t.name for t in self.spec.taps} if taps is None else set(taps)
        x, kept = self.const.expand(len(ws), -1, -1, -1), []
        for i, tap in enumerate(self.spec.taps):
            if i:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.conv2d(x * (1 + ws[:, i] @ self.styles[i].T)[:, :, None, None], self.weights[i], padding=1)
            x = F.leaky_relu(x + 0.1 * self._noise(noise, i, seeds, x), 0.2) * 2**0.5 + 0.5 * i
            if tap.name in wanted:
                kept.append(x)
        image = torch.tanh(F.conv2d(x, self.rgb))
        return Synthesis(image, pyramids.FeaturePyramid(kept, (SIDE, SIDE)) if kept else None)

    def _noise(self, mode, i, seeds, x):
        if mode == "none":
            return torch.zeros_like(x[:, :1])
        if mode == "const":
            return self.noise[i]
        side = x.shape[-1]
        rows = [np.random.RandomState([s, i]).randn(1, 1, side, side) for s in seeds]
        return torch.from_numpy(np.concatenate(rows)).float()

    def latents(self, seeds):
        """ws [N,3,6] of these seeds."""
        return self.map(torch.stack([torch.from_numpy(np.random.RandomState(s).randn(6)).float() for s in seeds]))


def linear_truth(pyramid, classes: int = 3, undecided: float = 0.0) -> np.ndarray:
    """A labelling that a linear function of the hypercolumn decides: argmax of a random projection, uint8 [N,H,W].

    undecided: share of pixels, those nearest to a boundary, that are 255.
    """
    weight = torch.randn(classes, pyramid.channels, generator=torch.Generator().manual_seed(99))
    scores = pyramid.project(weight)
    scores = scores - scores.mean(dim=(0, 2, 3), keepdim=True)
    labels, top = scores.argmax(dim=1).to(torch.uint8), scores.topk(2, dim=1).values
    margin = top[:, 0] - top[:, 1]
    if undecided:
        labels[margin < margin.flatten().quantile(undecided)] = 255
    return labels.numpy()


def exemplars_of(generator: TinyGenerator, seeds, truth=linear_truth, noise: str = "const") -> list[Exemplar]:
    """Annotated samples whose masks follow `truth`, applied to all of them at once."""
    ws = generator.latents(seeds)
    masks = truth(generator.synthesize(ws, noise=noise, seeds=list(seeds)).pyramid)
    return [Exemplar(ws[i : i + 1], s, masks[i], noise) for i, s in enumerate(seeds)]
