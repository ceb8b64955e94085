"""Generators of discs whose colours the fine styles decide and whose places the coarse ones: what stylemix finds."""

from __future__ import annotations

from dataclasses import replace

import torch

from gansegctl.contracts import GeneratorSpec, Synthesis

SEEDS = (11, 12, 13)


def made(generator, seeds=SEEDS, noise="const"):
    ws = generator.latents(seeds)
    synthesis = generator.synthesize(ws, noise, (), list(seeds))
    return replace(synthesis, ws=ws, noise=noise, seeds=tuple(seeds))


class Recoloured:
    """A disc whose colours come from the fine style and whose place from the coarse one; no activations."""

    sha256 = "d" * 64

    def __init__(self, classes=0):
        self.spec = GeneratorSpec("discs", 24, 3, 8, 8, classes, 6, ())
        self.passes, self.asked = 0, []

    def map(self, z, c=None, truncation=1.0, cutoff=None):
        return (z if c is None else z + c[:, :1]).unsqueeze(1).repeat(1, 6, 1) * truncation

    def synthesize(self, ws, noise="const", taps=None, seeds=None):
        self.passes += len(ws)
        self.asked.append((noise, tuple(seeds or ())))
        inside = self.truth(ws)
        colours = torch.tanh(ws[:, -1, :6]).view(-1, 2, 3)
        image = colours[:, 0, :, None, None].where(inside[:, None] == 0, colours[:, 1, :, None, None])
        grain = torch.rand(24, 24, generator=torch.Generator().manual_seed(5))
        return Synthesis(image + 0.05 * grain, None)

    def truth(self, ws):
        y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
        middle = 12 + 2 * torch.tanh(ws[:, 0, :2])
        return ((y - middle[:, :1, None]) ** 2 + (x - middle[:, 1:2, None]) ** 2 < 36).long()

    def latents(self, seeds):
        stream = (torch.Generator().manual_seed(s) for s in seeds)
        return self.map(torch.cat([torch.randn(1, 8, generator=g) for g in stream]))
