"""Which images of a dataset to annotate, and of each why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gansegctl import methods
from gansegctl.choices import SELECTIONS
from gansegctl.contracts import Segmenter, Synthesis
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.features.select import choose, descriptors, farthest_first, k_medoids, standardised
from gansegctl.methods.base.segmenter_file import read_header
from gansegctl.pipeline.generate.plan import batches

if TYPE_CHECKING:
    from gansegctl.pipeline.annotate.source import Source

CANDIDATES = 512
"""Exemplars are chosen among the first so many samples: enough to cover a generator's domain, seconds to describe."""
WIDER = 4
"""Of so many times the shots, the least certain samples, the least alike are taken: near twins teach the same."""


@dataclass(frozen=True)
class Choice:
    """The samples to annotate, in the order in which they help most; why they were taken, in all and one by one."""

    seeds: tuple[int, ...]
    reason: str
    reasons: tuple[str, ...] = ()

    def why(self, place: int) -> str:
        """The reason of the sample at a place."""
        return self.reasons[place] if self.reasons else self.reason


def choose_exemplars(
    source: Source,
    seeds: Sequence[int],
    shots: int,
    how: str = "k-medoids",
    segmenter: Path | None = None,
    seed: int = 0,
) -> Choice:
    """`shots` of the first CANDIDATES seeds.

    how: k-medoids, of mean features, the samples that stand for most others · spread, the most typical and then the
    farthest from all before · uncertainty, what `segmenter` (else that of the dataset) is least sure of · random, drawn
    with `seed`. Errors: UsageError for too many shots, another word, and uncertainty without a segmenter.
    """
    candidates = list(seeds[:CANDIDATES])
    if how not in SELECTIONS:
        raise UsageError(f"got --choose {how}", wanted=", ".join(SELECTIONS), remedy=did_you_mean(how, SELECTIONS))
    if segmenter is not None and how != "uncertainty":
        raise UsageError(f"got --segmenter with --choose {how}", wanted="--choose uncertainty with it")
    if how == "uncertainty":
        return _uncertain(source, candidates, shots, segmenter)
    _enough(candidates, shots)
    if how == "random":
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(candidates), generator=generator)[:shots].tolist()
        return Choice(tuple(candidates[i] for i in order), f"drawn at random among {len(candidates)}, --seed {seed}")
    vectors = torch.cat([descriptors(s.pyramid) for s, _ in _synthesized(source, candidates, None)])
    if how == "spread":
        order = choose(vectors, shots)
        reasons = ["the most typical sample", *["the least like those before it"] * (shots - 1)]
        reason = "the most typical sample first, then the least like those chosen"
    else:
        order, stands = k_medoids(standardised(vectors), shots)
        of = len(candidates)
        reasons = [f"stands for {n} of {of} samples ({100 * n / of:.0f} %), those most like it" for n in stands]
        reason = "the samples that stand for most others (k-medoids of mean features), the largest group first"
    return Choice(tuple(candidates[i] for i in order), reason, tuple(reasons))


def _uncertain(source: Source, candidates: list[int], shots: int, path: Path | None) -> Choice:
    fitted = _segmenter(source, path)
    learned = source.manifest.settings.get("annotate", {}).get("exemplars", {}) if path is None else {}
    candidates = [s for s in candidates if str(s) not in learned]
    _enough(candidates, shots)
    scores: list[Tensor] = []
    confidences: list[Tensor] = []
    rows: list[Tensor] = []
    for synthesis, _ in _synthesized(source, candidates, fitted.taps):
        rows.append(descriptors(synthesis.pyramid))
        annotation = fitted.predict(source.generator, synthesis)
        scores.append(annotation.score.float().cpu())
        confidences.append(annotation.confidence.float().mean(dim=(1, 2)).cpu() / 255)
    score, sure = torch.cat(scores), torch.cat(confidences)
    order = torch.argsort(score, descending=True, stable=True).tolist()
    nearest = order[: WIDER * shots]
    picked = [nearest[i] for i in farthest_first(standardised(torch.cat(rows)[nearest]), shots)]
    rank = {place: i + 1 for i, place in enumerate(order)}
    reasons = tuple(
        f"number {rank[i]} of {len(order)} by uncertainty (score {score[i]:.3f}, mean confidence {100 * sure[i]:.0f} %)"
        for i in picked
    )
    name = path or "the dataset's segmenter"
    reason = f"what {name} is least sure of; of the {len(nearest)} least sure the least alike"
    return Choice(tuple(candidates[i] for i in picked), reason, reasons)


def _segmenter(source: Source, path: Path | None) -> Segmenter:
    """A fitted segmenter of the source's generator. UsageError when there is none, or of another generator."""
    kept = source.folder / "segmenter.safetensors"
    if path is None and not kept.is_file():
        raise UsageError(
            f"got --choose uncertainty, and no segmenter in {source.folder}",
            wanted="--segmenter FILE, or a dataset annotated before",
            remedy="choose the first exemplars with --choose k-medoids",
        )
    path = path or kept
    fitted = methods.load(path)
    made_for = read_header(path).get("generator")
    if made_for not in (source.generator.sha256, None, ""):
        raise UsageError(
            f"got {path}, fitted on another generator ({made_for[:12]}…)",
            wanted=f"one fitted on that of {source.folder} ({source.generator.sha256[:12]}…)",
        )
    return fitted


def _synthesized(
    source: Source, seeds: Sequence[int], taps: Sequence[str] | None
) -> Iterator[tuple[Synthesis, list[int]]]:
    with torch.no_grad():
        for batch in batches(seeds, 32):
            ws: Tensor = source.latents(batch)
            synthesis = source.generator.synthesize(ws, source.settings.noise, taps, batch)
            synthesis.ws, synthesis.noise, synthesis.seeds = ws, source.settings.noise, tuple(int(s) for s in batch)
            yield synthesis, list(batch)


def _enough(candidates: Sequence[int], shots: int) -> None:
    if shots > len(candidates):
        raise UsageError(f"got --shots {shots}", wanted=f"at most {len(candidates)}, the samples to choose from")
