"""datasetgan: an ensemble of perceptrons on single pixels, whose disagreement says where they guess.

Zhang et al.: DatasetGAN: Efficient Labeled Data Factory with Minimal Human Effort, CVPR 2021. Ten perceptrons learn the
classes of pixels from their activations; masks are their vote, and the Jensen-Shannon divergence of their answers,
H(mean p) − mean H(p), is the uncertainty by which bad samples are left out.

Pixels for training are gathered from the native maps (`FeaturePyramid.at`), 10 x 64 at a time; masks are one stacked
projection. Memory at StyleGAN2-256 shapes: 123 MB of maps an exemplar, 27.5 MB of first-layer weights (four times that
with gradients and Adam), at most 128 MB of hidden maps while labelling. The released code holds 1.31 GB an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.probabilities import confidence, entropy
from gansegctl.labels import LabelMap
from gansegctl.methods.base.annotations import vote_of_heads
from gansegctl.methods.base.exemplars import check_exemplars, choose_taps, device_of, resynthesize
from gansegctl.methods.base.fitting import feature_statistics
from gansegctl.methods.base.method import BaseMethod
from gansegctl.methods.base.segmenter import BaseSegmenter, loaded, read_segmenter
from gansegctl.methods.base.settings import read_settings
from gansegctl.methods.datasetgan.ensemble import Ensemble, StackedPerceptrons
from gansegctl.methods.datasetgan.fitting import all_pixels, fit_by_epochs, fit_by_steps
from gansegctl.methods.datasetgan.settings import DatasetGANSettings, DatasetGANValues


class DatasetGAN(BaseMethod):
    """The method (protocol `contracts.Method`)."""

    name = "datasetgan"
    needs = frozenset({"exemplars"})
    settings_type = DatasetGANSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap | None,
        settings: DatasetGANSettings | None = None,
        seed: int = 0,
    ) -> DatasetGANSegmenter:
        """Fit the ensemble on the exemplars' pixels; the same seed gives the same.

        Errors: UsageError as `check_exemplars`, and for steps 0 with another sampling than epochs; GansegError for a
        loss that is not finite.
        """
        labels = check_exemplars(generator, exemplars, labels)
        values = (settings or DatasetGANSettings()).resolved(len(exemplars))
        if values.sampling != "epochs" and values.steps < 1:
            raise UsageError(
                f"got steps {values.steps} with sampling {values.sampling}",
                wanted="steps of 1 or more: only epochs end by themselves",
                remedy="set the method's steps, or sampling to epochs",
            )
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, values.min_resolution, values.max_resolution)
        pyramid = resynthesize(generator, exemplars, taps, device).with_mode(values.mode)
        statistics = None
        if values.standardise:
            samples, noise = values.statistics_samples, exemplars[0].noise
            statistics = feature_statistics(generator, taps, samples, noise, pyramid, stream, values.centre)
        points, targets = all_pixels(exemplars, values.min_pixels)
        sizes = (pyramid.channels, *values.widths(len(labels)), len(labels))
        ensemble = Ensemble(values.members, sizes, values.init, stream).to(device)

        def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
            """rows [M,B] → features [M,B,ΣC], classes [M,B]."""
            x = pyramid.at(points[rows.flatten()].to(device))
            if statistics is not None:
                mean, scale = statistics
                x = (x - mean) * scale
            return x.unflatten(0, rows.shape), targets[rows].to(device)

        if values.sampling == "epochs":
            steps, loss = fit_by_epochs(ensemble, gather, len(points), values, stream)
        else:
            steps, loss = fit_by_steps(ensemble, gather, targets, values, stream)
        return DatasetGANSegmenter(
            method=self.name,
            labels=labels,
            taps=taps,
            widths=tuple(pyramid.widths),
            generator_sha256=generator.sha256,
            settings=asdict(values),
            facts={"exemplars": len(exemplars), "loss": round(loss, 6), "seed": seed, "steps": steps},
            stack=ensemble.folded(statistics),
        )

    def load(self, path: Path) -> DatasetGANSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(path, self.name)
        values = read_settings(DatasetGANValues, stored["settings"], f"settings of {path}")
        classes = len(stored["labels"])
        stack = StackedPerceptrons(values.members, (sum(stored["widths"]), *values.widths(classes), classes))
        return DatasetGANSegmenter(**stored, stack=loaded(stack, tensors, path, "this segmenter's ensemble"))


@dataclass(repr=False, kw_only=True)
class DatasetGANSegmenter(BaseSegmenter):
    """A fitted ensemble (protocol `contracts.Segmenter`)."""

    stack: StackedPerceptrons

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks by the members' vote; score: mean divergence of the `score_share` least certain pixels, over log K."""
        if self.settings["vote"] == "mean" and self.settings["divergence"] != "logits":
            return self._in_one(generator, synthesis, probabilities)
        labels, top, score, kept = [], [], [], []
        for p, divergence in self._images(generator, synthesis):
            labels.append(p.argmax(dim=0).to(torch.uint8))
            top.append(p.amax(dim=0))
            score.append(self._worst(divergence[None])[0])
            kept += [p.half()] if probabilities else []
        return Annotation(
            labels=torch.stack(labels),
            confidence=confidence(torch.stack(top)),
            score=torch.stack(score),
            probabilities=torch.stack(kept) if probabilities else None,
        )

    def _in_one(self, generator: Generator, synthesis: Synthesis, probabilities: bool) -> Annotation:
        """The mean of probabilities and its divergence, by the pyramid's own operation."""
        pyramid = self.features(generator, synthesis)
        stack = self.stack.to(pyramid.levels[0].device)
        labels, sure, divergence, p = vote_of_heads(pyramid, stack.heads(), probabilities=probabilities)
        members, classes = stack.members, stack.sizes[-1]
        most = math.log(min(members, classes)) / math.log(max(classes, 2))  # see `_divergence`
        divergence = divergence / most if members > 1 and most else torch.zeros_like(divergence)
        return Annotation(labels, sure, self._worst(divergence.clamp(0, 1)), p)

    def _worst(self, divergence: Tensor) -> Tensor:
        """[N,H,W] → the mean of each image's least certain pixels [N]."""
        flat = divergence.flatten(1)
        return flat.topk(max(1, round(self.settings["score_share"] * flat.shape[1])), dim=1).values.mean(dim=1)

    def uncertainty(self, generator: Generator, synthesis: Synthesis) -> Tensor:
        """Jensen-Shannon divergence of the members' answers a pixel over its largest value: float32 [N,H,W], 0 to 1.

        With divergence logits it is no divergence, and may be negative.
        """
        return torch.stack([divergence for _, divergence in self._images(generator, synthesis)])

    @torch.no_grad()
    def _images(self, generator: Generator, synthesis: Synthesis) -> Iterator[tuple[Tensor, Tensor]]:
        """One image after another: probabilities [K,H,W] and divergence [H,W]."""
        pyramid = self.features(generator, synthesis)
        stack = self.stack.to(pyramid.levels[0].device)
        for i in range(pyramid.batch):
            logits = stack(pyramid[i : i + 1])[0]  # [M, K, H, W]
            yield self._vote(logits), self._divergence(logits)

    def _vote(self, logits: Tensor) -> Tensor:
        mean = logits.softmax(dim=1).mean(dim=0)  # [K, H, W]
        if self.settings["vote"] == "mean":
            return mean
        votes = F.one_hot(logits.argmax(dim=1), logits.shape[1]).float().mean(dim=0).movedim(-1, 0)
        return (votes + 1e-4 * mean) / (1 + 1e-4)  # the mean decides ties alone

    def _divergence(self, logits: Tensor) -> Tensor:
        members, classes = logits.shape[:2]
        most = math.log(min(members, classes))  # the largest divergence that so many answers can have
        if not most:
            return torch.zeros_like(logits[0, 0])
        log_p = logits.log_softmax(dim=1)
        each = entropy(log_p.exp(), log_p).mean(dim=0)  # mean entropy [H, W]
        if self.settings["divergence"] == "logits":
            log_mean = logits.mean(dim=0).log_softmax(dim=0)
        else:
            log_mean = log_p.logsumexp(dim=0) - math.log(members)
        whole = entropy(log_mean.exp(), log_mean, dim=0)
        divergence = (whole - each) / most
        # The softmax of mean logits can be surer than the members: that, too, is as released.
        return divergence.clamp(max=1) if self.settings["divergence"] == "logits" else divergence.clamp(0, 1)

    def tensors(self) -> dict[str, Tensor]:
        """The folded layers, by name."""
        return dict(self.stack.state_dict())
