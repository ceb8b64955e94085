"""Confusion matrices, and the IoU family of scores read off them.

A matrix counts pixels: row = class of the truth, column = class that was predicted. Every score below takes matrices
[..., K, K] and is vectorised over the leading dimensions, so one function serves the pooled matrix of a data set,
the matrices of its images and a thousand bootstrap resamples. A class that occurs in neither truth nor prediction has
no IoU: it is nan and left out of means, never 0 (the one exception is `wiou_manerikar`, which is coded otherwise).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.labels import IGNORE


def tensor(array: np.ndarray | Tensor) -> Tensor:
    """The array as a tensor, without a copy where torch allows: it warns of numpy arrays that must not be written."""
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.copy()
    return torch.as_tensor(array)


def _masks(predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    predicted, truth = tensor(predicted), tensor(truth)
    if predicted.shape != truth.shape or predicted.ndim < 2:
        raise UsageError(
            f"got predicted masks of shape {tuple(predicted.shape)} and true masks of shape {tuple(truth.shape)}",
            wanted="two stacks of masks [..., H, W] of one shape",
            remedy="resize the masks of one side (nearest) to the size of the other",
        )
    return predicted, truth.to(predicted.device)


def _check_values(mask: Tensor, counted: Tensor, classes: int, ignore: int, side: str) -> None:
    bad = counted & ((mask < 0) | (mask >= classes))
    if bool(bad.any()):
        values = torch.unique(mask[bad])[:5].tolist()
        raise UsageError(
            f"got mask values {', '.join(map(str, values))} in the {side}",
            wanted=f"0 to {classes - 1}, or {ignore} for pixels to leave out",
            remedy="check that both sides have the same label map",
        )


def per_image_confusion(
    predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor, classes: int, ignore: int = IGNORE
) -> np.ndarray:
    """One matrix an image: predicted, truth integer [N, H, W] (numpy, or torch on any device) → int64 [N, K, K].

    Pixels that are `ignore` in the truth or in the prediction are not counted; how many those are is for the caller to
    tell (`Report.ignored`). Errors: UsageError for shapes that differ and for values that are no class.
    """
    predicted, truth = _masks(predicted, truth)
    if predicted.ndim != 3:
        raise UsageError(f"got masks of shape {tuple(predicted.shape)}", wanted="a stack of masks [N, H, W]")
    n, k = len(predicted), classes
    counted = (truth != ignore) & (predicted != ignore)  # [N, H, W]
    _check_values(truth, counted, k, ignore, "truth")
    _check_values(predicted, counted, k, ignore, "prediction")
    cell = truth.long() * k + predicted + torch.arange(n, device=predicted.device).view(n, 1, 1) * (k * k)
    return torch.bincount(cell[counted], minlength=n * k * k).view(n, k, k).cpu().numpy()


def confusion(
    predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor, classes: int, ignore: int = IGNORE
) -> np.ndarray:
    """One matrix for all: predicted, truth integer [..., H, W] → int64 [K, K]. See `per_image_confusion`."""
    predicted, truth = _masks(predicted, truth)
    flat = (1, -1, predicted.shape[-1])
    return per_image_confusion(predicted.reshape(flat), truth.reshape(flat), classes, ignore)[0]


def _parts(conf: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class [..., K] in float64: true positives, pixels of the truth, pixels of the prediction."""
    conf = np.asarray(conf)
    if conf.ndim < 2 or conf.shape[-1] != conf.shape[-2]:
        raise UsageError(f"got a confusion matrix of shape {conf.shape}", wanted="[..., K, K]")
    conf = conf.astype(np.float64, copy=False)
    return np.diagonal(conf, axis1=-2, axis2=-1), conf.sum(-1), conf.sum(-2)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, nan where below is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def nanmean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean of what is not nan; nan (without a warning) where everything is."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0.0).sum(axis), there.sum(axis))


def iou(conf: np.ndarray) -> np.ndarray:
    """Intersection over union, TP / (TP + FP + FN): [..., K, K] → [..., K]; nan where absent from both sides."""
    hit, true, predicted = _parts(conf)
    return _ratio(hit, true + predicted - hit)


def dice(conf: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), the F1 score of pixels: [..., K, K] → [..., K]; nan where absent from both sides."""
    hit, true, predicted = _parts(conf)
    return _ratio(2 * hit, true + predicted)


def mean_iou(conf: np.ndarray) -> np.ndarray:
    """The plain mean of the IoU of the classes that occur, background included: [..., K, K] → [...]."""
    return nanmean(iou(conf))


def foreground_miou(conf: np.ndarray) -> np.ndarray:
    """`mean_iou` of two parts, class 0 against all others together: [..., K, K] → [...] (Feng et al.'s fg/bg mIoU)."""
    conf = np.asarray(conf)
    columns = np.stack([conf[..., 0], conf[..., 1:].sum(-1)], -1)  # [..., K, 2]
    return mean_iou(np.stack([columns[..., 0, :], columns[..., 1:, :].sum(-2)], -2))


def pixel_accuracy(conf: np.ndarray) -> np.ndarray:
    """The share of counted pixels that are right: [..., K, K] → [...]; nan where none is counted."""
    hit, true, _ = _parts(conf)
    return _ratio(hit.sum(-1), true.sum(-1))


def class_shares(conf: np.ndarray) -> np.ndarray:
    """The share of the truth's counted pixels that each class has: [..., K, K] → [..., K], adding up to 1."""
    _, true, _ = _parts(conf)
    return _ratio(true, true.sum(-1, keepdims=True))


def wiou_tritrong(conf: np.ndarray, background: bool = True) -> np.ndarray:
    """Weighted IoU of Tritrong et al. 2021 (RepurposeGAN): Σ_c share_c · IoU_c, weights adding up to 1; [...].

    share_c = truth pixels of c / truth pixels of the evaluated classes. `background=False` evaluates classes 1 … K-1
    and renormalises over them, as their 3-class table does; their 10-class table includes the background.
    nan where the truth has no pixel of an evaluated class.
    """
    _, true, _ = _parts(conf)
    first = 0 if background else 1
    true, values = true[..., first:], iou(conf)[..., first:]
    # A class without truth pixels has weight 0; its IoU may be nan and must not spread.
    return _ratio((true * np.where(true > 0, values, 0.0)).sum(-1), true.sum(-1))


def wiou_manerikar_each(conf: np.ndarray) -> np.ndarray:
    """The summand of `wiou_manerikar`, one value a matrix: [..., K, K] → [...]."""
    _, true, _ = _parts(conf)
    weights = _ratio(true, true.sum(-1, keepdims=True))[..., 1:]
    return (weights * np.nan_to_num(iou(conf)[..., 1:], nan=0.0)).sum(-1)


def wiou_manerikar(per_image: np.ndarray) -> float:
    """Weighted IoU as the released code of Manerikar & Kak 2023 computes it: per-image matrices [N, K, K] → float.

    Per image Σ_{c ≥ 1} (truth pixels of c / all counted pixels) · IoU_c, with IoU 0 where a class is absent from both
    sides, then the mean over images. The weights are not renormalised: the most a perfect prediction reaches is the
    share of foreground in the truth (`wiou_manerikar_maximum`), not 1. Images without a counted pixel are left out.
    """
    return float(nanmean(wiou_manerikar_each(per_image).reshape(-1)))


def wiou_manerikar_maximum(per_image: np.ndarray) -> float:
    """The score of a perfect prediction in `wiou_manerikar`: the mean foreground share of the images [N, K, K]."""
    return float(nanmean(class_shares(per_image)[..., 1:].sum(-1).reshape(-1)))
