"""The types that flow between the rooms, and the protocols they meet through.

Shapes: N samples, c image channels, H×W pixels, K classes, num_ws style slots of width w.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from gansegctl.errors import GansegError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from _typeshed import DataclassInstance
    from torch import Tensor

    from gansegctl.features.pyramid import FeaturePyramid
    from gansegctl.labels import LabelMap


@dataclass(frozen=True)
class FeatureTap:
    """One activation of a generator, taken after its non-linearity.

    name: unique in the generator, e.g. "b16.conv1". resolution: sampling rate in pixels, what methods choose by.
    channels: feature channels. margin: pixels cropped from every side when the pyramid is made (StyleGAN3).
    """

    name: str
    resolution: int
    channels: int
    margin: int = 0


@dataclass(frozen=True)
class GeneratorSpec:
    """A generator's description: sizes, and its table of taps from coarse to fine."""

    family: str
    resolution: int
    image_channels: int
    z_dim: int
    w_dim: int
    c_dim: int
    num_ws: int
    taps: tuple[FeatureTap, ...]


@dataclass(repr=False)
class Synthesis:
    """Images and the activations that made them.

    image: float [N,c,H,W], RGB or grey, nominally in [-1,1] (-1 black, 1 white) and not clamped. activations: those of
    the taps that were asked for, None where none was; `pyramid` is the same, and an error in place of None.
    ws [N,num_ws,w], noise and seeds [N] are what they were made from, filled in by the pipeline for methods that make
    further images of the same sample (stylemix); None where nobody did.
    """

    image: Tensor
    activations: FeaturePyramid | None
    ws: Tensor | None = None
    noise: str | None = None
    seeds: tuple[int, ...] | None = None

    @property
    def pyramid(self) -> FeaturePyramid:
        """The activations. GansegError where no tap was asked for."""
        if self.activations is None:
            raise GansegError(
                "got images without activations", wanted="a pyramid", remedy="name taps when calling synthesize"
            )
        return self.activations

    @pyramid.setter
    def pyramid(self, pyramid: FeaturePyramid) -> None:
        self.activations = pyramid

    def to_uint8(self) -> Tensor:
        """The images as every other public function takes and gives them: uint8 [N,H,W,c] on the CPU."""
        import torch

        from gansegctl.io.image import to_uint8

        return torch.from_numpy(to_uint8(self.image))

    def __repr__(self) -> str:
        """Sizes, in one line."""
        of = "none" if self.activations is None else f"{self.activations.channels} channels"
        return f"Synthesis(image {list(self.image.shape)} {self.image.dtype}, activations: {of})"


@dataclass
class Annotation:
    """A segmenter's answer for N images.

    labels uint8 [N,H,W]; confidence uint8 [N,H,W] (255 = sure); score float32 [N] (whole image, higher = less
    certain); probabilities float16 [N,K,H,W] on request, else None.
    """

    labels: Tensor
    confidence: Tensor
    score: Tensor
    probabilities: Tensor | None = None


@dataclass(frozen=True)
class Exemplar:
    """One annotated image: ws float32 [1,num_ws,w], its seed and noise mode, mask uint8 [H,W] (255 = ignore)."""

    ws: Tensor
    seed: int
    mask: np.ndarray
    noise: str = "const"


class Generator(Protocol):
    """A StyleGAN in eval mode. `sha256` names the weights it was read from."""

    spec: GeneratorSpec
    sha256: str

    def map(self, z: Tensor, c: Tensor | None = None, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim], c [N,c_dim] → ws [N,num_ws,w]."""

    def synthesize(
        self, ws: Tensor, noise: str = "const", taps: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> Synthesis:
        """ws → image and pyramid of the named taps (all when None); `seeds` [N] feed noise="seed"."""


@runtime_checkable
class Segmenter(Protocol):
    """A fitted method. `taps` are the names it reads, to be passed to `Generator.synthesize`."""

    method: str
    labels: LabelMap
    taps: tuple[str, ...]

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks of the images in `synthesis`, from the very activations in it."""

    def check_generator(self, generator: Generator) -> None:
        """UsageError for another generator than the one it was fitted on."""

    def save(self, path: Path) -> None:
        """One safetensors file, settings in its header."""


class Method(Protocol):
    """An algorithm. A method that needs no exemplars may be fitted with none and labels None.

    Its segmenter then brings its own classes. A discriminator and real images are handed to `fit` by name.
    """

    name: str  # what --method takes
    needs: frozenset[str]  # beside a generator: of "exemplars", "discriminator"
    takes: frozenset[str]  # what it can use, and works without: of "exemplars"

    @property
    def settings_type(self) -> type[DataclassInstance]:
        """Of the method's own settings, a frozen dataclass."""

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap | None,
        settings: Any,
        seed: int = 0,
    ) -> Segmenter:
        """Fit on the exemplars; deterministic for one `seed` on one machine."""

    def load(self, path: Path) -> Segmenter:
        """Read what `Segmenter.save` wrote."""


@dataclass
class Progress:
    """Progress that a stage yields while it works: `done` of `total` `unit`s, and facts to show beside it."""

    stage: str
    done: int
    total: int
    unit: str = "images"
    facts: dict[str, Any] = field(default_factory=dict)


Result = TypeVar("Result")

Stage = abc.Generator[Progress, None, Result]
"""A stage at work: it yields how far it is, and returns its result. `result = yield from stage(…)` hands both on."""


def result_of(stage: Stage[Result]) -> Result:
    """Run a stage to its end, showing nothing, and return its result."""
    while True:
        try:
            next(stage)
        except StopIteration as end:
            return end.value


class Follow(Protocol):
    """Whoever runs a stage to its end, shows how far it is, and returns the stage's result."""

    def __call__(self, stage: Stage[Result], /) -> Result: ...
