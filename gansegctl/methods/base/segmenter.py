"""What methods share: exemplars in, annotations out, segmenters to and from disk."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansegctl.contracts import Annotation, Exemplar, Generator, GeneratorSpec, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid, Layers
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.methods.base import segmenter_file as files


def choose_taps(spec: GeneratorSpec, lowest: int = 0, highest: int | None = None) -> tuple[str, ...]:
    """Names of the taps with lowest ≤ resolution ≤ highest, coarse to fine. UsageError when there is none."""
    chosen = tuple(t.name for t in spec.taps if lowest <= t.resolution <= (highest or spec.resolution))
    if not chosen:
        known = sorted({t.resolution for t in spec.taps})
        raise UsageError(
            f"got taps from {lowest} to {highest or spec.resolution} px, of which this generator has none",
            wanted=f"a range that holds one of {', '.join(map(str, known))}",
            remedy="change the method's min_resolution or max_resolution",
        )
    return chosen


def check_exemplars(generator: Generator, exemplars: Sequence[Exemplar], labels: LabelMap) -> None:
    """UsageError unless there are masks of the generator's size, of declared values, with pixels to learn from."""
    if not exemplars:
        raise UsageError("got no exemplars", wanted="one annotated image or more", remedy="raise --shots")
    side = generator.spec.resolution
    counted = 0
    for exemplar in exemplars:
        mask = exemplar.mask
        if mask.shape != (side, side):
            raise UsageError(
                f"got a mask of shape {list(mask.shape)} for seed {exemplar.seed}",
                wanted=f"[{side}, {side}], the size of the generator's images",
                remedy="paint on the image itself, without resizing it",
            )
        values, counts = torch.from_numpy(mask.astype("int64")).unique(return_counts=True)
        undeclared = [v for v in values.tolist() if v != IGNORE and not 0 <= v < len(labels)]
        if undeclared:
            raise UsageError(
                f"got value {undeclared[0]} in the mask of seed {exemplar.seed}",
                wanted=f"0 to {len(labels) - 1}, or {IGNORE} for pixels to ignore",
                remedy="declare the class, or paint with declared ones",
            )
        counted += int(counts[values != IGNORE].sum())
    if not counted:
        raise UsageError("got exemplars in which every pixel is ignored", wanted="painted pixels")


def resynthesize(
    generator: Generator, exemplars: Sequence[Exemplar], taps: Sequence[str], device: torch.device
) -> FeaturePyramid:
    """The exemplars' activations, made again from their latents and noise: one pyramid of [N,C_i,h_i,w_i]."""
    pyramids = []
    with torch.no_grad():
        for ex in exemplars:
            synthesis = generator.synthesize(ex.ws.to(device), noise=ex.noise, taps=taps, seeds=[ex.seed])
            pyramids.append(synthesis.pyramid.map(lambda x: x.float()))
    return FeaturePyramid.cat(pyramids)


def device_of(generator: Any) -> torch.device:
    """Where the generator's weights lie; the CPU for one without parameters."""
    parameters = getattr(generator, "parameters", None)
    first = next(iter(parameters()), None) if parameters else None
    return first.device if first is not None else torch.device("cpu")


def annotation_of(logits: Tensor, probabilities: bool = False) -> Annotation:
    """logits [N,K,H,W] → labels argmax, confidence round(255·max p), score mean entropy / log K; p as float16."""
    log_p = logits.float().log_softmax(dim=1)
    p = log_p.exp()
    top, labels = p.max(dim=1)  # [N, H, W]
    classes = logits.shape[1]
    entropy = -(p * log_p).sum(dim=1).mean(dim=(1, 2))  # [N]
    return Annotation(
        labels=labels.to(torch.uint8),
        confidence=(top * 255).round().to(torch.uint8),
        score=entropy / math.log(classes) if classes > 1 else torch.zeros_like(entropy),
        probabilities=p.half() if probabilities else None,
    )


@torch.no_grad()
def vote_of_heads(
    pyramid: FeaturePyramid, heads: Sequence[Layers], slope: float = 0.0, probabilities: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Per-pixel heads → labels, confidence uint8 and uncertainty float32, as `FeaturePyramid.classify`; p float16.

    Only where probabilities are asked for do maps of all classes exist, for one image and head at a time.
    """
    if not probabilities:
        return *pyramid.classify(heads, slope), None
    if pyramid.batch > 1:  # maps of all classes at full size: one image at a time
        alone = [vote_of_heads(pyramid[i : i + 1], heads, slope, True) for i in range(pyramid.batch)]
        return tuple(torch.cat(parts) for parts in zip(*alone, strict=True))
    p = each = 0.0
    for layers in heads:
        log_p = pyramid.perceptron(layers, slope).float().log_softmax(dim=1)  # [N, K, H, W]
        p, each = p + log_p.exp() / len(heads), each - (log_p.exp() * log_p).sum(dim=1) / len(heads)
    uncertainty = -(p * p.clamp(min=1e-30).log()).sum(dim=1)
    uncertainty = (uncertainty if len(heads) == 1 else uncertainty - each) / math.log(max(p.shape[1], 2))
    top, labels = p.max(dim=1)
    confidence = (top * 255).round().to(torch.uint8)
    return labels.to(torch.uint8), confidence, uncertainty.clamp(0, 1), p.half()


def annotation_by_heads(
    pyramid: FeaturePyramid, heads: Sequence[Layers], slope: float = 0.0, probabilities: bool = False
) -> Annotation:
    """`vote_of_heads` as an annotation; score: the mean uncertainty of an image's pixels."""
    labels, confidence, uncertainty, p = vote_of_heads(pyramid, heads, slope, probabilities)
    return Annotation(labels, confidence, uncertainty.mean(dim=(1, 2)), p)


@dataclass
class BaseSegmenter:
    """What every fitted method carries: its classes, its taps and their widths, and the generator it belongs to.

    settings: as JSON, all values filled in. facts: what fitting found (losses, seconds), for reports only.
    """

    method: str
    labels: LabelMap
    taps: tuple[str, ...]
    widths: tuple[int, ...]
    generator_sha256: str
    settings: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """The weights to save; of the method that inherits."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """One safetensors file, whole or not there."""
        header = {
            "method": self.method,
            "generator": self.generator_sha256,
            "labels": json.dumps(self.labels.to_json(), ensure_ascii=False),
            "taps": json.dumps([list(pair) for pair in zip(self.taps, self.widths, strict=True)]),
            "settings": json.dumps(self.settings, sort_keys=True),
            "facts": json.dumps(self.facts, sort_keys=True),
        }
        files.write(path, header, self.tensors())

    def check_generator(self, generator: Generator) -> None:
        """UsageError for a generator other than the one it was fitted on."""
        if generator.sha256 and self.generator_sha256 and generator.sha256 != self.generator_sha256:
            raise UsageError(
                f"got generator {generator.sha256[:12]}…",
                wanted=f"{self.generator_sha256[:12]}…, on whose activations this segmenter was fitted",
                remedy="pass that generator, or fit again on this one",
            )

    def features(self, generator: Generator, synthesis: Synthesis) -> FeaturePyramid:
        """The pyramid to read, float32. UsageError for another generator, or other taps than this segmenter's."""
        self.check_generator(generator)
        pyramid = synthesis.pyramid
        widths = tuple(pyramid.widths) if pyramid is not None else ()
        if widths != self.widths:
            raise UsageError(
                f"got activations of {list(widths)} channels",
                wanted=f"{list(self.widths)}, the taps {', '.join(self.taps)}",
                remedy="synthesize with taps=segmenter.taps on the generator it was fitted on",
            )
        return pyramid.map(lambda x: x.float())


def read_segmenter(path: Path, method: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of `BaseSegmenter` and the tensors of a saved segmenter. UsageError for that of another method."""
    header, tensors = files.read(path)
    if header["method"] != method:
        raise UsageError(
            f"got {path}: a segmenter of method {header['method']!r}", wanted=method, remedy="use methods.load"
        )
    pairs = json.loads(header["taps"])
    fields = {
        "method": method,
        "labels": LabelMap.from_json(json.loads(header["labels"])),
        "taps": tuple(name for name, _ in pairs),
        "widths": tuple(width for _, width in pairs),
        "generator_sha256": header["generator"],
        "settings": json.loads(header["settings"]),
        "facts": json.loads(header["facts"]),
    }
    return fields, tensors
