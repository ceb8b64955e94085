"""From logits or per-pixel heads to an annotation: labels, confidence, score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gansegctl.contracts import Annotation
from gansegctl.features.probabilities import decide, entropy
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.kernels.reference import Layers


def annotation_of(logits: Tensor, probabilities: bool = False) -> Annotation:
    """logits [N,K,H,W] → labels argmax, confidence round(255·max p), score mean entropy / log K; p as float16."""
    log_p = logits.float().log_softmax(dim=1)
    p = log_p.exp()
    labels, confidence = decide(p)
    classes = logits.shape[1]
    score = entropy(p, log_p).mean(dim=(1, 2))  # [N], in nats
    return Annotation(
        labels=labels,
        confidence=confidence,
        score=score / math.log(classes) if classes > 1 else torch.zeros_like(score),
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
    alone = [_probable_vote(pyramid[i : i + 1], heads, slope) for i in range(pyramid.batch)]
    labels, confidence, uncertainty, p = (torch.cat(parts) for parts in zip(*alone, strict=True))
    return labels, confidence, uncertainty, p


def _probable_vote(
    pyramid: FeaturePyramid, heads: Sequence[Layers], slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One image's labels, confidence, uncertainty [1,H,W] and probabilities float16 [1,K,H,W]."""
    p = each = torch.zeros(())
    for layers in heads:
        log_p = pyramid.perceptron(layers, slope).float().log_softmax(dim=1)  # [1, K, H, W]
        p, each = p + log_p.exp() / len(heads), each + entropy(log_p.exp(), log_p) / len(heads)
    uncertainty = entropy(p, p.clamp(min=1e-30).log())
    uncertainty = (uncertainty if len(heads) == 1 else uncertainty - each) / math.log(max(p.shape[1], 2))
    return *decide(p), uncertainty.clamp(0, 1), p.half()


def annotation_by_heads(
    pyramid: FeaturePyramid, heads: Sequence[Layers], slope: float = 0.0, probabilities: bool = False
) -> Annotation:
    """`vote_of_heads` as an annotation; score: the mean uncertainty of an image's pixels."""
    labels, confidence, uncertainty, p = vote_of_heads(pyramid, heads, slope, probabilities)
    return Annotation(labels, confidence, uncertainty.mean(dim=(1, 2)), p)
