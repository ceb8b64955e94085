"""labels4free: soft foreground masks without any label, by making the background exchangeable.

Abdal, Zhu, Mitra, Wonka: Labels4Free: Unsupervised Segmentation using StyleGAN, ICCV 2021. The generator is frozen. An
alpha network reads its activations; an image's foreground is laid over a background that the same generator makes with
its coarse content silenced, x = A·fg + (1 − A)·bg; a discriminator tells such composites from images. Alpha learns
to give away only what a background can stand in for.

Its needs beyond a generator are handed in as an `Adversary` (the pipeline makes one): a discriminator, own or of a
checkpoint, and backgrounds. Without real images the generator's own samples stand in for them: composites are then
asked to look like samples. That keeps the generator's artefacts from giving composites away, but makes "everything is
foreground" a perfect answer that only the area terms forbid: give bg_share some thought, and real images if you can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.probabilities import confidence
from gansegctl.labels import LabelMap
from gansegctl.methods.base.clusters import FOREGROUND, no_exemplars
from gansegctl.methods.base.method import BaseMethod
from gansegctl.methods.base.segmenter import BaseSegmenter, loaded, read_segmenter
from gansegctl.methods.base.settings import read_settings
from gansegctl.methods.labels4free.alpha_network import AlphaNetwork, alpha_taps
from gansegctl.methods.labels4free.settings import Labels4FreeSettings, Labels4FreeValues
from gansegctl.methods.labels4free.training import Adversary, AlphaTraining


class Labels4Free(BaseMethod):
    """The method (protocol `contracts.Method`); `fit` takes what it needs beyond the generator by name."""

    name = "labels4free"
    needs = frozenset({"discriminator"})
    settings_type = Labels4FreeSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap | None = None,
        settings: Labels4FreeSettings | None = None,
        seed: int = 0,
        *,
        adversary: Adversary | None = None,
        images: Tensor | np.ndarray | None = None,
    ) -> Labels4FreeSegmenter:
        """Train alpha against a discriminator. labels: two, background first (None: background, foreground).

        images: real images, uint8 [N,H,W,c]. Errors: UsageError for exemplars, other than two classes, no adversary,
        images of another size; GansegError for a collapse, of alpha or of what its threshold leaves, or a loss that
        is not finite.
        """
        no_exemplars(self.name, exemplars)
        labels = labels or FOREGROUND
        if len(labels) != 2:
            raise UsageError(
                f"got {len(labels)} classes", wanted="two, background first", remedy="--classes background,foreground"
            )
        if adversary is None:
            raise UsageError(
                "got no adversary", wanted="a discriminator and backgrounds of this generator", remedy="pass adversary="
            )
        spec = generator.spec
        wanted = (spec.resolution, spec.resolution, spec.image_channels)
        if images is not None and (tuple(images.shape[1:]) != wanted or str(images.dtype).split(".")[-1] != "uint8"):
            raise UsageError(
                f"got images {list(images.shape)} {images.dtype}", wanted=f"uint8 [N, {', '.join(map(str, wanted))}]"
            )
        taps = alpha_taps(spec)
        values = (settings or Labels4FreeSettings()).resolved(tuple(t.resolution for t in taps))
        training = AlphaTraining(generator, adversary, images, values, seed)
        facts = training.run() | {"seed": seed, "real_images": 0 if images is None else len(images)}
        return Labels4FreeSegmenter(
            method=self.name,
            labels=labels,
            taps=tuple(t.name for t in taps),
            widths=tuple(t.channels for t in taps),
            generator_sha256=generator.sha256,
            settings=asdict(values),
            facts=facts,
            network=training.finished(),
        )

    def load(self, path: Path) -> Labels4FreeSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(path, self.name)
        values = read_settings(Labels4FreeValues, stored["settings"], f"settings of {path}")
        network = AlphaNetwork(values.resolutions, stored["widths"])
        return Labels4FreeSegmenter(**stored, network=loaded(network, tensors, path, "an alpha network"))


@dataclass(repr=False, kw_only=True)
class Labels4FreeSegmenter(BaseSegmenter):
    """A trained alpha network (protocol `contracts.Segmenter`); it follows the activations to their device."""

    network: AlphaNetwork

    @torch.no_grad()
    def alpha(self, generator: Generator, synthesis: Synthesis) -> Tensor:
        """Soft foreground mask, float32 [N,1,H,W] in [0,1]."""
        pyramid = self.features(generator, synthesis)
        network = self.network.to(pyramid.levels[0].device)
        return network(pyramid.levels, pyramid.size).sigmoid()

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Label 1 where alpha exceeds the threshold; confidence is the probability of the label that is written, the
        score mean binary entropy in bits; probabilities are (1 − alpha, alpha)."""
        a = self.alpha(generator, synthesis)[:, 0]  # [N, H, W]
        labels = a > self.settings["threshold"]
        p = torch.stack([1 - a, a], dim=1)
        bits = -(torch.xlogy(a, a) + torch.xlogy(1 - a, 1 - a)) / torch.log(torch.tensor(2.0))
        return Annotation(
            labels=labels.to(torch.uint8),
            confidence=confidence(torch.where(labels, a, 1 - a)),
            score=bits.mean(dim=(1, 2)),
            probabilities=p.half() if probabilities else None,
        )

    def tensors(self) -> dict[str, Tensor]:
        """The network's weights, by name."""
        return dict(self.network.state_dict())
