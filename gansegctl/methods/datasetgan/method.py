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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, Synthesis
from gansegctl.errors import GansegError, UsageError
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.methods.base.fitting import feature_statistics, grown
from gansegctl.methods.base.segmenter import (
    BaseSegmenter,
    check_exemplars,
    choose_taps,
    device_of,
    read_segmenter,
    resynthesize,
    vote_of_heads,
)
from gansegctl.methods.base.settings import filled, one_of, within
from gansegctl.methods.datasetgan.ensemble import Ensemble, StackedPerceptrons

PROFILES: dict[str, dict] = {
    "fixed": {
        "mode": "bilinear",
        "init": "he",
        "standardise": True,
        "steps": 220,
        "batch": 64,
        "lr": 3e-3,
        "schedule": "cosine",
        "sampling": "uniform",
        "min_pixels": 0,
        "vote": "mean",
        "divergence": "probabilities",
    },
    "release": {
        "mode": "bilinear",
        "init": "small",
        "standardise": False,
        "steps": 0,
        "batch": 64,
        "lr": 1e-3,
        "schedule": "constant",
        "sampling": "epochs",
        "min_pixels": 30,
        "vote": "majority",
        "divergence": "probabilities",
    },
}
"""What a profile puts where the settings leave None.

fixed: the algorithm as meant; steps are those of one exemplar, times the root of how many there are. release: as the
authors' code runs since it was mended (bilinear maps, the divergence of mean probabilities), with its quirks:
- channels as they come, weights drawn with deviation 0.02;
- at most 100 epochs over all pixels, the last batch of each as small as what is left, but from the fifth epoch on a
  member stops once 51 batches of 64 pixels in a row had no lower loss than the lowest since that epoch began;
- classes of fewer than 30 pixels in an exemplar are taught as class 0.
As first published it was this with mode nearest and divergence logits, which takes the softmax of the members' mean
logits for their mean answer, and may so be negative.
Not repeated: its filter also drops the most certain samples, features are kept in half precision in memory, those of
1024 px images at 512, and the first 7 or 8 styles of its samples are truncated. A last batch of one pixel, of which
the release's batch-norm makes an error, is left out.
"""

EPOCHS, FIRST_STOP, PATIENCE = 100, 4, 50


@dataclass(frozen=True)
class DatasetGANSettings:
    """Settings of `datasetgan`; None takes the profile's value.

    members: perceptrons. hidden: their two hidden widths, as "128,32" (None: 128,32 below 32 classes, else 256,128).
    min_resolution, max_resolution: of the taps to read, in pixels. mode: bilinear | nearest | bilinear-corners.
    init: he | small. standardise: channels over their root mean square in `statistics_samples` random samples; with
    centre, to mean 0 and deviation 1. steps: of `batch` pixels a member (fixed: 220·√exemplars; release: 0). schedule:
    cosine | constant. sampling: uniform (pixels drawn alike) | balanced (classes drawn alike) | epochs (every pixel
    once an epoch, early stop; `steps` bounds them, 0 does not). min_pixels: classes with fewer in an exemplar become
    class 0 there. vote: mean (of probabilities) | majority (shares of votes, ties by the mean). divergence:
    probabilities | logits. score_share: the share of an image's least certain pixels whose mean divergence is its
    score (1 = all; 0.1 as released). Errors: UsageError for values out of range.
    """

    profile: str = "fixed"
    members: int = 10
    hidden: str | None = None
    min_resolution: int = 0
    max_resolution: int | None = None
    mode: str | None = None
    init: str | None = None
    standardise: bool | None = None
    centre: bool = False
    statistics_samples: int = 16
    steps: int | None = None
    batch: int | None = None
    lr: float | None = None
    schedule: str | None = None
    sampling: str | None = None
    min_pixels: int | None = None
    vote: str | None = None
    divergence: str | None = None
    score_share: float = 0.1

    def __post_init__(self) -> None:
        one_of("profile", self.profile, tuple(PROFILES))
        one_of("mode", self.mode, ("bilinear", "nearest", "bilinear-corners"))
        one_of("init", self.init, ("he", "small"))
        one_of("schedule", self.schedule, ("cosine", "constant"))
        one_of("sampling", self.sampling, ("uniform", "balanced", "epochs"))
        one_of("vote", self.vote, ("mean", "majority"))
        one_of("divergence", self.divergence, ("probabilities", "logits"))
        within("members", self.members, 1)
        within("statistics_samples", self.statistics_samples, 0, 10_000)
        within("steps", self.steps, 0)
        within("batch", self.batch, 2)  # batch-norm of one pixel is 0
        within("lr", self.lr, 0, above=True)
        within("min_pixels", self.min_pixels, 0)
        within("score_share", self.score_share, 0, 1, above=True)
        if self.hidden is not None:
            self.widths(2)

    def resolved(self, exemplars: int) -> DatasetGANSettings:
        """The same settings with values in place of None, for that many exemplars."""
        values = dict(PROFILES[self.profile])
        return filled(self, values | {"steps": grown(values["steps"], exemplars)})

    def widths(self, classes: int) -> tuple[int, int]:
        """The two hidden widths. UsageError for a text that is not two positive numbers."""
        text = self.hidden or ("128,32" if classes < 32 else "256,128")
        parts = text.split(",")
        if len(parts) != 2 or not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
            raise UsageError(f"got hidden {text!r}", wanted='two widths, as in "128,32"')
        return int(parts[0]), int(parts[1])


class DatasetGAN:
    """The method (protocol `contracts.Method`)."""

    name = "datasetgan"
    needs = frozenset({"exemplars"})
    settings_type = DatasetGANSettings

    def fit(
        self,
        generator: Generator,
        exemplars: Sequence[Exemplar],
        labels: LabelMap,
        settings: DatasetGANSettings | None = None,
        seed: int = 0,
    ) -> DatasetGANSegmenter:
        """Fit the ensemble on the exemplars' pixels; the same seed gives the same.

        Errors: UsageError as `check_exemplars`, and for steps 0 with another sampling than epochs; GansegError for a
        loss that is not finite.
        """
        check_exemplars(generator, exemplars, labels)
        settings = (settings or DatasetGANSettings()).resolved(len(exemplars))
        if settings.sampling != "epochs" and settings.steps < 1:
            raise UsageError(
                f"got steps {settings.steps} with sampling {settings.sampling}",
                wanted="steps of 1 or more: only epochs end by themselves",
                remedy="set the method's steps, or sampling to epochs",
            )
        device, stream = device_of(generator), torch.Generator().manual_seed(seed)
        taps = choose_taps(generator.spec, settings.min_resolution, settings.max_resolution)
        pyramid = resynthesize(generator, exemplars, taps, device).with_mode(settings.mode)
        mean = scale = None
        if settings.standardise:
            samples, noise = settings.statistics_samples, exemplars[0].noise
            mean, scale = feature_statistics(generator, taps, samples, noise, pyramid, stream, settings.centre)
        points, targets = _taught(exemplars, settings.min_pixels)
        sizes = (pyramid.channels, *settings.widths(len(labels)), len(labels))
        ensemble = Ensemble(settings.members, sizes, settings.init, stream).to(device)

        def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
            """rows [M,B] → features [M,B,ΣC], classes [M,B]."""
            x = pyramid.at(points[rows.flatten()].to(device))
            x = x if mean is None else (x - mean) * scale
            return x.unflatten(0, rows.shape), targets[rows].to(device)

        if settings.sampling == "epochs":
            steps, loss = _fit_epochs(ensemble, gather, len(points), settings, stream)
        else:
            steps, loss = _fit_steps(ensemble, gather, targets, settings, stream)
        return DatasetGANSegmenter(
            method=self.name,
            labels=labels,
            taps=taps,
            widths=tuple(pyramid.widths),
            generator_sha256=generator.sha256,
            settings=asdict(settings),
            facts={"exemplars": len(exemplars), "loss": round(loss, 6), "seed": seed, "steps": steps},
            stack=ensemble.folded(mean, scale),
        )

    def load(self, path: Path) -> DatasetGANSegmenter:
        """Read what `save` wrote, onto the CPU. Errors: UsageError for a file of another kind or method."""
        stored, tensors = read_segmenter(Path(path), self.name)
        known = {f.name for f in fields(DatasetGANSettings)}
        settings = DatasetGANSettings(**{k: v for k, v in stored["settings"].items() if k in known})
        classes = len(stored["labels"])
        stack = StackedPerceptrons(settings.members, (sum(stored["widths"]), *settings.widths(classes), classes))
        try:
            stack.load_state_dict(tensors)
        except RuntimeError as e:
            raise UsageError(f"got {path}: {e}", wanted="the tensors of this segmenter's ensemble") from None
        return DatasetGANSegmenter(**stored, stack=stack)


def _taught(exemplars: Sequence[Exemplar], min_pixels: int) -> tuple[Tensor, Tensor]:
    """Every pixel that is not ignored: points int64 [P,3] as (exemplar, row, column), classes int64 [P]."""
    points, targets = [], []
    for i, exemplar in enumerate(exemplars):
        mask = torch.from_numpy(exemplar.mask.astype("int64"))
        rows, columns = (mask != IGNORE).nonzero(as_tuple=True)
        if not len(rows):
            continue
        classes = mask[rows, columns]
        classes = classes.where(torch.bincount(classes)[classes] >= min_pixels, 0)
        points.append(torch.stack([torch.full_like(rows, i), rows, columns], dim=1))
        targets.append(classes)
    return torch.cat(points), torch.cat(targets)


def _losses(ensemble: Ensemble, x: Tensor, target: Tensor, step: int) -> Tensor:
    """Mean cross-entropy of each member [M]. Error: GansegError when one is not finite."""
    logits = ensemble(x)
    picked = logits.log_softmax(dim=2).gather(2, target[:, :, None])[:, :, 0]  # [M, B]
    losses = -picked.mean(dim=1)
    if not bool(losses.detach().isfinite().all()):
        raise GansegError(f"got a loss that is not finite at step {step}", remedy="lower the method's lr")
    return losses


def _fit_steps(ensemble: Ensemble, gather, targets: Tensor, settings: DatasetGANSettings, stream: torch.Generator):
    """Every member its own pixels at every step → steps, last mean loss."""
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=settings.lr)
    by_class = _by_class(targets) if settings.sampling == "balanced" else None
    shape, loss = (settings.members, settings.batch), 0.0
    for step in range(settings.steps):
        if by_class is None:
            rows = torch.randint(len(targets), shape, generator=stream)
        else:
            rows = _balanced(*by_class, shape, stream)
        if settings.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        losses = _losses(ensemble, *gather(rows), step)
        optimizer.zero_grad()
        losses.sum().backward()  # members share nothing: each gets the gradient of its own loss
        optimizer.step()
        loss = float(losses.detach().mean())
    return step + 1, loss


def _by_class(targets: Tensor) -> tuple[Tensor, Tensor]:
    """targets [P] → pixels int64 [P], those of a class together, and how many each class has that is there at all."""
    counts = torch.bincount(targets)
    return targets.argsort(stable=True), counts[counts > 0]


def _balanced(order: Tensor, counts: Tensor, shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Pixels of this shape from `_by_class`: a class, each as likely, then one of its pixels, each as likely.

    Not torch.multinomial over pixels, which takes at most 2^24 of them.
    """
    classes = torch.randint(len(counts), shape, generator=stream)
    many, ends = counts[classes], counts.cumsum(dim=0)[classes]
    place = (torch.rand(shape, dtype=torch.float64, generator=stream) * many).long()  # below many: rand is below 1
    return order[ends - many + place]


def _fit_epochs(ensemble: Ensemble, gather, pixels: int, settings: DatasetGANSettings, stream: torch.Generator):
    """Epochs over all pixels, each member in its own order; a member that has stopped is put back as it was.

    Losses before FIRST_STOP count for nothing, so the lowest there is no bar for later ones. → steps, last mean loss.
    """
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=settings.lr)
    batch = min(settings.batch, pixels)
    best = torch.full((settings.members,), math.inf)
    waited, stopped, kept = torch.zeros(settings.members, dtype=torch.long), torch.zeros(settings.members) > 0, {}
    step, losses = 0, best
    for epoch in range(EPOCHS):
        orders = torch.stack([torch.randperm(pixels, generator=stream) for _ in range(settings.members)])
        alone = pixels % batch == 1 and pixels > 1  # batch-norm makes 0 of one pixel
        for rows in orders[:, : pixels - alone].split(batch, dim=1):
            losses = _losses(ensemble, *gather(rows), step)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            step += 1
            if epoch >= FIRST_STOP:
                now = losses.detach().cpu()
                waited = torch.where(now < best, 0, waited + 1)
                best = torch.minimum(best, now)
            for i in ((waited > PATIENCE) & ~stopped).nonzero().flatten().tolist():
                kept[i] = {name: t[i].clone() for name, t in ensemble.state_dict().items()}
                stopped[i] = True
            if bool(stopped.all()) or step == settings.steps:
                break
        if bool(stopped.all()) or step == settings.steps:
            break
    state = ensemble.state_dict()
    for i, tensors in kept.items():
        for name, tensor in tensors.items():
            state[name][i] = tensor
    return step, float(losses.detach().mean())


@dataclass
class DatasetGANSegmenter(BaseSegmenter):
    """A fitted ensemble (protocol `contracts.Segmenter`)."""

    stack: StackedPerceptrons | None = None

    def predict(self, generator: Generator, synthesis: Synthesis, probabilities: bool = False) -> Annotation:
        """Masks by the members' vote; score: mean divergence of the `score_share` least certain pixels, over log K."""
        if self.settings["vote"] == "mean" and self.settings["divergence"] != "logits":
            return self._in_one(generator, synthesis, probabilities)
        parts = []
        for p, divergence in self._images(generator, synthesis):
            worst = self._worst(divergence[None])[0]
            parts.append((p.argmax(dim=0).to(torch.uint8), p.amax(dim=0), worst, p.half() if probabilities else None))
        labels, top, score, kept = zip(*parts, strict=True)
        return Annotation(
            labels=torch.stack(labels),
            confidence=(torch.stack(top) * 255).round().to(torch.uint8),
            score=torch.stack(score),
            probabilities=torch.stack(kept) if probabilities else None,
        )

    def _in_one(self, generator: Generator, synthesis: Synthesis, probabilities: bool) -> Annotation:
        """The mean of probabilities and its divergence, by the pyramid's own operation."""
        pyramid = self.features(generator, synthesis).with_mode(self.settings["mode"])
        stack = self.stack.to(pyramid.levels[0].device)
        labels, confidence, divergence, p = vote_of_heads(pyramid, stack.heads(), probabilities=probabilities)
        members, classes = stack.members, stack.sizes[-1]
        most = math.log(min(members, classes)) / math.log(max(classes, 2))  # see `_divergence`
        divergence = divergence / most if members > 1 and most else torch.zeros_like(divergence)
        return Annotation(labels, confidence, self._worst(divergence.clamp(0, 1)), p)

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
    def _images(self, generator: Generator, synthesis: Synthesis):
        """One image after another: probabilities [K,H,W] and divergence [H,W]."""
        pyramid = self.features(generator, synthesis).with_mode(self.settings["mode"])
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
        each = -(log_p.exp() * log_p).sum(dim=1).mean(dim=0)  # mean entropy [H, W]
        if self.settings["divergence"] == "logits":
            log_mean = logits.mean(dim=0).log_softmax(dim=0)
        else:
            log_mean = log_p.logsumexp(dim=0) - math.log(members)
        whole = -(log_mean.exp() * log_mean).sum(dim=0)
        divergence = (whole - each) / most
        # The softmax of mean logits can be surer than the members: that, too, is as released.
        return divergence.clamp(max=1) if self.settings["divergence"] == "logits" else divergence.clamp(0, 1)

    def tensors(self) -> dict[str, Tensor]:
        """The folded layers, by name."""
        return dict(self.stack.state_dict())
