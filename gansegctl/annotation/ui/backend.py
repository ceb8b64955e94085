"""The arrays and callables that the page takes from the rest of the program; no network is known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gansegctl.labels import LabelMap


@dataclass(frozen=True)
class ExemplarImage:
    """One image: its seed, its place in the dataset, uint8 [H,W,c], and why it is worth painting."""

    seed: int
    image: np.ndarray
    why: str = ""


@dataclass(frozen=True)
class Proposal:
    """The masks of one image by the segmenter as it is fitted now.

    labels, confidence: uint8 [H,W]; sure: mean of max p over the pixels, 0…1; weakest: the class it is least sure of.
    """

    image: ExemplarImage
    labels: np.ndarray
    confidence: np.ndarray
    sure: float
    weakest: str = ""


@dataclass(frozen=True)
class Advice:
    """An image to annotate next, and the reason: kind is "uncertain" or "different"."""

    seed: int
    kind: str
    why: str


@dataclass(frozen=True)
class Proposals:
    """One refit: of the strokes up to `revision`; seconds of the fit alone and of all."""

    exemplars: tuple[Proposal, ...] = ()
    samples: tuple[Proposal, ...] = ()
    advice: tuple[Advice, ...] = ()
    fit_seconds: float = 0.0
    seconds: float = 0.0
    revision: int = 0


@dataclass(frozen=True)
class Backend:
    """Everything that a session needs besides people.

    image(seed) → ExemplarImage. parts(seed, level) → int32 [H,W], level 0 coarse to 2 fine.
    split(seed, inside bool [H,W]) → int32 [H,W], −1 outside.
    propose(masks, stale) → Proposals: refit on seed → mask uint8 [H,W] (255 = not painted);
    `stale()` turns true when newer strokes wait, and None may be returned then. offered: seeds that may be added.
    """

    labels: LabelMap
    size: tuple[int, int]
    image: Callable[[int], ExemplarImage]
    parts: Callable[[int, int], np.ndarray]
    split: Callable[[int, np.ndarray], np.ndarray]
    propose: Callable[[Mapping[int, np.ndarray], Callable[[], bool]], Proposals | None]
    offered: tuple[int, ...] = ()
    about: dict[str, str] = field(default_factory=dict)
