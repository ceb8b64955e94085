"""A student: a network that labels images without the generator, with everything needed to use it in one file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansegctl.contracts import Annotation
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.features.probabilities import decide, entropy
from gansegctl.io.image import NORMALISATION, from_uint8
from gansegctl.io.tensors import FileKind
from gansegctl.labels import LabelMap
from gansegctl.students import deeplab, unet

KIND = "gansegctl.student"
FIELDS = {"arch": str, "widths": list, "labels": list, "size": list, "channels": int, "facts": dict}
FILE = FileKind(KIND, "a student", "pass a student that `gansegctl distill` wrote", FIELDS)
ARCHITECTURES = {"unet": unet.UNet, "deeplabv3": deeplab.DeepLabV3}
WIDTHS = {"unet": unet.WIDTHS, "deeplabv3": deeplab.WIDTHS}
"""Of an architecture whose widths nobody chose."""


def build(arch: str, channels: int, classes: int, widths: tuple[int, ...]) -> nn.Module:
    """A fresh network; no widths: the architecture's own. UsageError for an unknown architecture."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"got architecture {arch!r}", wanted="a known one", remedy=did_you_mean(arch, ARCHITECTURES))
    network: nn.Module = ARCHITECTURES[arch](channels, classes, widths or WIDTHS[arch])
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks this overload


def normalise(images: Tensor, channels: int) -> Tensor:
    """uint8 [N,H,W,c] → float [N,c,H,W] in [-1,1], channels-last in memory."""
    if images.ndim != 4 or images.dtype != torch.uint8 or images.shape[3] != channels:
        raise UsageError(f"got images {list(images.shape)} {images.dtype}", wanted=f"uint8 [N, H, W, {channels}]")
    return from_uint8(images).contiguous(memory_format=torch.channels_last)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x [N,c,h,w] → [N,c,*size], bilinear, smoothed first where it shrinks; x itself where it has that size."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


@dataclass(repr=False)
class Student:
    """model with its architecture's arguments, classes, the size (H, W) and channels it was trained at, and facts."""

    model: nn.Module
    labels: LabelMap
    size: tuple[int, int]
    channels: int
    arch: str = "unet"
    widths: tuple[int, ...] = (16, 32, 64, 96)
    facts: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def predict(self, images: Tensor, probabilities: bool = False, batch_size: int = 32) -> Annotation:
        """Label images uint8 [N,H,W,c] (channels last, 0 to 255) of any size H×W.

        `Synthesis.image` has another layout and range, float [N,c,H,W] in [-1,1]: `gansegctl.io.image.to_uint8` turns
        it into this one. Returns, on the student's device: labels uint8 [N,H,W]; confidence uint8 [N,H,W], the highest
        probability in steps of 1/255 (255 = sure); score float32 [N], the entropy of the probabilities in units of
        log K, averaged over the pixels (0 = sure, 1 = all classes equal everywhere); probabilities float16 [N,K,H,W]
        if asked for. Images of another size than the training's are resized to it, and the probabilities back. Error:
        UsageError for images of another layout, dtype or number of channels.
        """
        self.model.eval()
        weight = next(self.model.parameters())
        parts = []
        for batch in images.split(batch_size):
            x = normalise(batch.to(weight.device), self.channels).to(weight.dtype)
            size = (x.shape[2], x.shape[3])
            p = self.model(resized(x, self.size)).softmax(dim=1)  # [n, K, h, w]
            if size != tuple(self.size):
                p = F.interpolate(p, size, mode="bilinear", align_corners=False)
            label, sure = decide(p)
            score = entropy(p, p.clamp(min=1e-12).log()).mean(dim=(1, 2)) / math.log(max(len(self.labels), 2))
            parts.append((label, sure, score.float(), p.half() if probabilities else None))
        labels, confidence, score, probability = zip(*parts, strict=True)
        return Annotation(
            torch.cat(labels),
            torch.cat(confidence),
            torch.cat(score),
            torch.cat(probability) if probabilities else None,
        )

    def __repr__(self) -> str:
        """Sizes, in one line."""
        weights = sum(p.numel() for p in self.model.parameters())
        size = "x".join(map(str, (*self.size, self.channels)))
        return (
            f"Student({self.arch} {list(self.widths)}, {weights:,} weights, images {size}, {len(self.labels)} classes)"
        )

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """One safetensors file; float16 halves it. The file appears whole or not at all."""
        header = {
            "arch": self.arch,
            "widths": list(self.widths),
            "labels": self.labels.to_json(),
            "size": list(self.size),
            "channels": self.channels,
            "normalisation": NORMALISATION,
            "facts": self.facts,
        }
        tensors = {}
        for name, value in self.model.state_dict().items():
            tensors[name] = value.to("cpu", dtype) if value.is_floating_point() else value
        FILE.write(path, tensors, header)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Student:
        """Read what `save` wrote. UsageError for a missing file, another kind, damage, or a newer format."""
        header, tensors = FILE.read(path)
        labels = LabelMap.from_json(header["labels"])
        widths = tuple(header["widths"])
        model = build(header["arch"], header["channels"], len(labels), widths)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as e:
            raise UsageError(f"got {path}: {e}", wanted="every tensor of its network") from e
        return cls(
            model.to(device).eval(),
            labels,
            tuple(header["size"]),
            header["channels"],
            header["arch"],
            widths,
            header["facts"],
        )


def load_student(path: Path | str, device: str = "cpu") -> Student:
    """A student that `gansegctl distill` wrote, in eval mode. UsageError for a missing file or one of another kind."""
    return Student.load(Path(path), device)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a student's file. UsageError for a file that is missing, damaged or something else."""
    return FILE.read_header(path)


def predict_masks(student: Student, images: np.ndarray) -> np.ndarray:
    """Images uint8 [N,H,W,c], 0 to 255 → labels uint8 [N,H,W], as `Student.predict` gives them."""
    return student.predict(torch.from_numpy(np.ascontiguousarray(images))).labels.cpu().numpy()
