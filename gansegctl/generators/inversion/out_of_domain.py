"""Whether an image lies out of the domain of a generator, judged by how its inversion went.

Four numbers of each inversion are compared with those of images of the domain: how far the nearest of many samples
was, the error in W, the final error, and the Mahalanobis distance of the latents from the mean of W. Images of the
domain are those that the user names, else the generator's own samples. Plain samples would not do: inversion finds
them almost exactly, and every real image would count as out of domain. So each sample is drawn with fresh noise, half
of them with two styles, and moved, turned, scaled and lit a little, as another image of the same kind is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gansegctl.contracts import Generator
from gansegctl.errors import UsageError
from gansegctl.generators.geometry import moved
from gansegctl.generators.inversion.latent_space import FIRST_SEED
from gansegctl.generators.inversion.search import Inverted
from gansegctl.generators.latents import z_of_seeds

STATISTICS = ("nearest", "start_error", "error", "distance")
MEANING = {
    "nearest": "the most similar sample",
    "start_error": "the image drawn in W",
    "error": "the final reconstruction",
    "distance": "the distance of its latents from the mean of W",
}
LEAST = 8
"""Images, below which a spread means nothing."""
Z = 2.7
"""Standard deviations of the score above its mean from which an image is out of domain. Real images of the domain lie
one standard deviation above the generator's own samples, varied (measured: docs/project.md)."""


@dataclass(frozen=True)
class Verdict:
    """flagged: out of domain. score: in standard deviations over the domain, flagged above `Z`. reason: in words."""

    flagged: bool
    score: float
    reason: str


@dataclass(frozen=True)
class Calibration:
    """Means and deviations of the logarithms of STATISTICS over images of the domain, and of their sum of z-values."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    score_mean: float
    score_deviation: float
    count: int
    source: str

    @classmethod
    def of(cls, inverted: Inverted, source: str) -> Calibration:
        """From the inversions of N ≥ 8 images of the domain. UsageError for fewer."""
        logs = _logs(inverted)
        if len(logs) < LEAST:
            raise UsageError(f"got {len(logs)} images to calibrate on", wanted=f"at least {LEAST}")
        means, deviations = logs.mean(dim=0), logs.std(dim=0).clamp(min=0.05)
        scores = ((logs - means) / deviations).mean(dim=1)
        spread = max(float(scores.std()), 0.05)
        return cls(tuple(means.tolist()), tuple(deviations.tolist()), float(scores.mean()), spread, len(logs), source)

    def judge(self, inverted: Inverted) -> list[Verdict]:
        """One verdict an image. Only numbers worse than usual count: an image drawn too well is of the domain."""
        z = (_logs(inverted) - torch.tensor(self.means)) / torch.tensor(self.deviations)  # [N, 4]
        scores = (z.mean(dim=1) - self.score_mean) / self.score_deviation
        verdicts = []
        for row, score in zip(z.tolist(), scores.tolist(), strict=True):
            worst = max(range(len(STATISTICS)), key=lambda i: row[i])
            factor = math.exp(row[worst] * self.deviations[worst])
            flagged = score > Z
            reason = (
                f"{MEANING[STATISTICS[worst]]} is {factor:.1f} times as far off as is usual for {self.source}"
                if flagged
                else f"drawn as well as {self.source}"
            )
            verdicts.append(Verdict(flagged, score, reason))
        return verdicts

    def to_json(self) -> dict[str, Any]:
        """JSON values, which `from_json` reads."""
        return {
            "statistics": list(STATISTICS),
            "log_means": list(self.means),
            "log_deviations": list(self.deviations),
            "score_mean": self.score_mean,
            "score_deviation": self.score_deviation,
            "count": self.count,
            "source": self.source,
            "flagged_above": Z,
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Calibration:
        """The inverse of `to_json`. UsageError for statistics of another version."""
        if table.get("statistics") != list(STATISTICS):
            raise UsageError("got a calibration of other statistics", wanted=", ".join(STATISTICS))
        return cls(
            tuple(table["log_means"]),
            tuple(table["log_deviations"]),
            table["score_mean"],
            table["score_deviation"],
            table["count"],
            table["source"],
        )


def _logs(inverted: Inverted) -> Tensor:
    """[N, 4] logarithms, on the CPU."""
    return torch.stack([getattr(inverted, name).detach().cpu() for name in STATISTICS], dim=1).clamp(min=1e-6).log()


def joined(parts: Sequence[Inverted]) -> Inverted:
    """Batches as one, without noise maps."""
    names = ("ws", "error", "start_error", "nearest", "distance", "steps")
    return Inverted(maps=None, **{n: torch.cat([getattr(p, n).detach().cpu() for p in parts]) for n in names})


@torch.no_grad()
def varied_samples(
    generator: Generator, count: int, class_vector: Tensor | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """[N,c,H,W] in [-1,1]: own samples, changed as the head of this file says; the same ones every time."""
    spec, stream = generator.spec, torch.Generator().manual_seed(FIRST_SEED)
    rows = []
    for i in range(count):
        seeds = [FIRST_SEED + 100_000 + 2 * i, FIRST_SEED + 100_001 + 2 * i]
        c = None if class_vector is None else class_vector.expand(2, -1)
        ws = generator.map(z_of_seeds(seeds, spec.z_dim).to(device), c)  # [2, num_ws, w]
        mixed = ws[:1].clone()
        if i % 2:
            cut = int(torch.randint(1, spec.num_ws, (), generator=stream))
            mixed[:, cut:] = ws[1:, cut:]
        rows.append(generator.synthesize(mixed, "seed", (), seeds[:1]).image.float())
    image = torch.cat(rows).clamp(-1, 1)
    draw = (2 * torch.rand(count, 6, generator=stream) - 1).to(image)  # uniform in [-1, 1]
    angle, scale, shift = 0.1 * draw[:, 0], (0.1 * draw[:, 1]).exp(), 0.12 * draw[:, 2:4]
    image = moved(image, angle, scale, shift[:, 0], shift[:, 1])
    light, contrast = 0.1 * draw[:, 4].view(-1, 1, 1, 1), (0.15 * draw[:, 5]).exp().view(-1, 1, 1, 1)
    return (image * contrast + light).clamp(-1, 1)
