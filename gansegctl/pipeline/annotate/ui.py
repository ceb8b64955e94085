"""The stage behind `annotate --ui`: a bundle, a backend over the generator, a page, and the masks that come back."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gansegctl import methods
from gansegctl.annotation.bundle import write_bundle
from gansegctl.annotation.ui.backend import Advice, Backend, ExemplarImage, Proposal, Proposals
from gansegctl.config import from_dict
from gansegctl.contracts import Annotation, Exemplar, Segmenter
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.features.select import descriptors, standardised
from gansegctl.io.image import to_uint8
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.methods.base.fitting import grown
from gansegctl.pipeline.annotate.exemplars import provenance
from gansegctl.pipeline.annotate.regions import find_parts, part_features, split_part
from gansegctl.pipeline.annotate.selection import Choice
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.generate.plan import batches

PROPAGATE = "linear"
"""The method that is refitted behind the page: seconds where others take minutes."""

PROPAGATE_STEPS = 150
"""Of its fit on one image, a quarter of its own default: a person waits, and strokes follow that change it anyway."""

POOL, POOL_LARGE, LARGE = 24, 8, 128  # fresh samples asked about; fewer above so many pixels
SHOWN = 6  # of them on the page


class Workbench:
    """A dataset's generator as the page's `Backend` wants it. choice: the images shown first, and why each is there."""

    def __init__(self, source: Source, labels: LabelMap, choice: Choice) -> None:
        self.source, self.labels = source, labels
        self.first = choice.seeds
        self.reasons = {seed: choice.why(i) for i, seed in enumerate(choice.seeds)}
        side = source.generator.spec.resolution
        fresh = [s for s in source.manifest.seeds if s not in self.first]
        self.pool = tuple(fresh[: POOL if side <= LARGE else POOL_LARGE])
        self._images: dict[int, np.ndarray] = {}
        self._vectors: dict[int, torch.Tensor] = {}
        self._features: OrderedDict[int, FeaturePyramid] = OrderedDict()
        self._guard = threading.Lock()

    def backend(self) -> Backend:
        """The callables that the page's server takes."""
        side = self.source.generator.spec.resolution
        return Backend(
            labels=self.labels,
            size=(side, side),
            image=self.image,
            parts=lambda seed, level: find_parts(self.features(seed), level, side),
            split=lambda seed, inside: split_part(self.features(seed), inside),
            propose=self.propose,
            offered=self.pool,
            about={"dataset": str(self.source.folder), "propagate": PROPAGATE},
        )

    def image(self, seed: int) -> ExemplarImage:
        """The image of one seed, and why it is here."""
        if seed not in self._images:
            self._images[seed] = self.source.images([seed])[0]
        return ExemplarImage(seed, self._images[seed], self.why(seed))

    def why(self, seed: int) -> str:
        """Why this image, in a sentence."""
        return self.reasons.get(seed, "added while painting, from the fresh samples")

    def features(self, seed: int) -> FeaturePyramid:
        """The features that parts are clustered on; of the two images used last, others are made again."""
        with self._guard:
            if seed not in self._features:
                ws = self.source.latents([seed])
                self._features[seed] = part_features(self.source.generator, ws, seed, self.source.settings.noise)
            self._features.move_to_end(seed)
            while len(self._features) > 2:
                self._features.popitem(last=False)
            return self._features[seed]

    def propose(self, masks: Mapping[int, np.ndarray], stale: Callable[[], bool]) -> Proposals | None:
        """Refit on the painted of these masks, and look at all of them and at fresh samples with the result."""
        began = time.monotonic()
        painted = {seed: mask for seed, mask in masks.items() if bool((mask != IGNORE).any())}
        seen = np.unique(np.concatenate([np.unique(m) for m in painted.values()])) if painted else np.zeros(0)
        if (seen != IGNORE).sum() < 2:  # there is nothing to tell apart yet
            return Proposals(advice=tuple(self._different(painted)), seconds=time.monotonic() - began)
        noise = self.source.settings.noise
        exemplars = [Exemplar(self.source.latents([s]), s, m, noise) for s, m in painted.items()]
        method = methods.get(PROPAGATE)
        settings = from_dict(method.settings_type, {"steps": grown(PROPAGATE_STEPS, len(exemplars))})
        segmenter = method.fit(self.source.generator, exemplars, self.labels, settings, 0)
        fitted = time.monotonic()
        found: dict[int, Proposal] = {}
        scores: dict[int, float] = {}
        for batch in batches([*masks, *(s for s in self.pool if s not in masks)], 4):
            if stale():
                return None
            for seed, proposal, score in self._look(segmenter, batch):
                found[seed], scores[seed] = proposal, score
        advice = self._uncertain(scores, found, painted)
        advice += self._different(painted, [a.seed for a in advice])
        fresh = list(dict.fromkeys([*(a.seed for a in advice), *self.pool]))
        samples = [found[s] for s in fresh if s not in masks][:SHOWN]
        return Proposals(
            exemplars=tuple(found[s] for s in masks),
            samples=tuple(samples),
            advice=tuple(advice),
            fit_seconds=fitted - began,
            seconds=time.monotonic() - began,
        )

    @torch.no_grad()
    def _look(self, segmenter: Segmenter, seeds: Sequence[int]) -> list[tuple[int, Proposal, float]]:
        """Image and mask from one pass, as everywhere."""
        ws = self.source.latents(seeds)
        made = self.source.generator.synthesize(ws, self.source.settings.noise, segmenter.taps, seeds)
        annotation = segmenter.predict(self.source.generator, made)
        images = to_uint8(made.image)
        rows = []
        for i, seed in enumerate(seeds):
            self._images.setdefault(seed, images[i])
            rows.append((seed, self._proposal(seed, images[i], annotation, i), float(annotation.score[i])))
        return rows

    def _proposal(self, seed: int, image: np.ndarray, annotation: Annotation, i: int) -> Proposal:
        labels = annotation.labels[i].cpu().numpy()
        confidence = annotation.confidence[i].cpu().numpy()
        means = {k: float(confidence[labels == k].mean()) for k in np.unique(labels).tolist()}
        weakest = self.labels.names[min(means, key=means.__getitem__)]
        return Proposal(
            ExemplarImage(seed, image, self.why(seed)), labels, confidence, float(confidence.mean()) / 255, weakest
        )

    def _uncertain(
        self, scores: Mapping[int, float], found: Mapping[int, Proposal], painted: Mapping[int, np.ndarray]
    ) -> list[Advice]:
        open_to = {s: v for s, v in scores.items() if s not in painted}
        if not open_to:
            return []
        seed = max(open_to, key=open_to.__getitem__)
        why = (
            f"most uncertain of {len(open_to)}: mean entropy {open_to[seed]:.2f} of 1 (median "
            f"{float(np.median(list(open_to.values()))):.2f}), least sure of {found[seed].weakest}"
        )
        return [Advice(seed, "uncertain", why)]

    def _different(self, painted: Mapping[int, np.ndarray], advised: Sequence[int] = ()) -> list[Advice]:
        """The image farthest from all painted ones in standardised mean features (k-centre greedy).

        advised: images that are advised already, for another reason.
        """
        seeds = list(dict.fromkeys([*self.first, *self.pool, *painted]))
        rows = standardised(torch.stack([self._vector(s) for s in seeds]))
        others = [i for i, s in enumerate(seeds) if s not in painted and s not in advised]
        if not others or not painted:
            return []
        done = rows[[i for i, s in enumerate(seeds) if s in painted]]
        near = torch.cdist(rows[others], done).amin(dim=1)
        best = int(near.argmax())
        why = (
            f"most different of {len(others)}: its features lie {float(near[best]):.0f} deviations from the nearest "
            f"painted image (median {float(near.median()):.0f})"
        )
        return [Advice(seeds[others[best]], "different", why)]

    @torch.no_grad()
    def _vector(self, seed: int) -> torch.Tensor:
        if seed not in self._vectors:
            made = self.source.generator.synthesize(
                self.source.latents([seed]), self.source.settings.noise, None, [seed]
            )
            self._vectors[seed] = descriptors(made.pyramid)[0].cpu()
        return self._vectors[seed]


def paint(
    source: Source, folder: Path, choice: Choice, labels: LabelMap, port: int, opened: Callable[[str], None]
) -> tuple[int, ...]:
    """Serve the page on a bundle that `write_exemplars` wrote until "Finish"; returns the seeds that were painted.

    opened(url) is called when the page can be opened. Errors: UsageError when the extra `ui` is missing, or when the
    page was left unfinished; its strokes are kept, and the same command goes on with them.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"got --ui without {' and '.join(missing)}",
            wanted="the extra `ui`",
            remedy="pip install 'gansegctl[ui]', or leave --ui out and paint in any editor",
        )
    from gansegctl.annotation.ui.serve import serve

    bench = Workbench(source, labels, choice)
    session = serve(folder, bench.backend(), choice.seeds, port, opened)
    if session.finished is None:
        raise UsageError(
            "got a page that was left before Finish",
            wanted="Finish",
            remedy="run the same command again: every stroke is kept",
        )
    seeds = session.finished
    added = [item for item in session.items() if item.seed in seeds and item.seed not in choice.seeds]
    if added:
        places = source.manifest.seeds
        items = [replace(item, index=places.index(item.seed), latent=_latent(source, item.seed)) for item in added]
        write_bundle(folder, items, labels, provenance(source, choice))
    return seeds


def _latent(source: Source, seed: int) -> np.ndarray:
    return source.latents([seed]).float().cpu().numpy()
