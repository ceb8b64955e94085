"""The latent space of a generator as inversion searches it: the mean and spread of W, and many small samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Generator
from gansegctl.generators.inversion.perceptual import Gradients, pixel_distance, scales
from gansegctl.generators.latents import z_of_seeds

FIRST_SEED = 4_100_000_000
"""The first seed of the samples that inversion starts from and is calibrated on: far from those that users generate."""
MAPPED = 10_000  # w's that mean and covariance are taken from (Karras et al. 2020, appendix D)
THUMBNAIL = 64  # pixels: what a start is chosen by


@dataclass
class LatentSpace:
    """Samples of a generator and the coordinates in which W is searched.

    w = mean + v @ basis, v [.., w]: over random samples v has mean 0 and covariance 1, so that ‖v‖ is the Mahalanobis
    distance from the mean of W and one step length suits every direction. coordinates [M,w] and thumbnails [M,c,h,h]
    are those of M samples. class_vector [1,c_dim], or None.
    """

    mean: Tensor
    basis: Tensor
    coordinates: Tensor
    thumbnails: Tensor
    num_ws: int
    noise: str
    class_vector: Tensor | None = None

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        generator: Generator,
        samples: int = 512,
        noise: str = "const",
        class_index: int | None = None,
        device: torch.device | str = "cpu",
        mapped: int = MAPPED,
    ) -> LatentSpace:
        """Map `mapped` random z's, draw the images of `samples` of them."""
        spec = generator.spec
        c = None
        if class_index is not None:
            c = torch.eye(spec.c_dim, device=device)[class_index : class_index + 1]
        stream = torch.Generator().manual_seed(FIRST_SEED)
        z = torch.randn(mapped, spec.z_dim, generator=stream)
        w = torch.cat([_w(generator, part.to(device), c) for part in z.split(1024)])  # [mapped, w]
        mean = w.mean(dim=0)
        values, vectors = torch.linalg.eigh((w - mean).T.double().cpu() @ (w - mean).double().cpu() / len(w))
        # Directions in which W is flat to rounding keep a little width, so that coordinates stay finite.
        widths = values.clamp(min=float(values[-1]) * 1e-8).sqrt()
        basis = (widths[:, None] * vectors.T).float().to(device)  # [w, w]
        seeds = range(FIRST_SEED, FIRST_SEED + samples)
        ws, small = [], []
        for row in z_of_seeds(seeds, spec.z_dim).split(32):
            ws.append(_w(generator, row.to(device), c))
            image = generator.synthesize(ws[-1].unsqueeze(1).repeat(1, spec.num_ws, 1), noise, ()).image
            small.append(thumbnail(image.float()))
        space = cls(mean, basis, torch.empty(0), torch.cat(small), spec.num_ws, noise, c)
        space.coordinates = space.to_coordinates(torch.cat(ws))
        return space

    def to_coordinates(self, w: Tensor) -> Tensor:
        """w [.., w] → v of the same shape."""
        return torch.linalg.solve(self.basis.T.double(), (w - self.mean).double().unsqueeze(-1)).squeeze(-1).float()

    def to_ws(self, v: Tensor) -> Tensor:
        """v [N,1,w] (one for all slots) or [N,num_ws,w] → ws [N,num_ws,w]."""
        return (self.mean + v @ self.basis).expand(-1, self.num_ws, -1)

    @torch.no_grad()
    def nearest(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """target [N,c,H,W] → index [N] of the sample most like each image, and how far it is [N]."""
        measure, small = Gradients(), thumbnail(target)
        of_samples = scales(self.thumbnails), measure.features(self.thumbnails)
        rows = []
        for i in range(len(small)):
            one = small[i : i + 1]
            pixel = pixel_distance(
                of_samples[0], [x.expand_as(y) for x, y in zip(scales(one), of_samples[0], strict=True)]
            )
            rows.append(pixel + 0.1 * measure.distance(of_samples[1], measure.features(one)))
        distance, index = torch.stack(rows).min(dim=1)
        return index, distance


def thumbnail(image: Tensor) -> Tensor:
    """[N,c,H,W] → at most 64 px a side, by means of whole pixels."""
    return F.adaptive_avg_pool2d(image, THUMBNAIL) if image.shape[-1] > THUMBNAIL else image


def _w(generator: Generator, z: Tensor, c: Tensor | None) -> Tensor:
    return generator.map(z, None if c is None else c.expand(len(z), -1))[:, 0].float()
