"""Segmenters: their common fields, to disk and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from gansegctl.contracts import Generator, Synthesis
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import LabelMap
from gansegctl.methods.base import segmenter_file


@dataclass(repr=False)
class BaseSegmenter:
    """The base of all fitted methods: classes, taps and their widths, and the generator they belong to.

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
        segmenter_file.write(path, header, self.tensors())

    def __repr__(self) -> str:
        """Method, classes, activations read and parameters, in one line."""
        reads = f"{len(self.taps)} taps of {sum(self.widths):,} channels" if self.taps else "no taps"
        parameters = sum(t.numel() for t in self.tensors().values())
        classes = "1 class" if len(self.labels) == 1 else f"{len(self.labels)} classes"
        return f"{type(self).__name__}({self.method}, {classes}, {reads}, {parameters:,} parameters)"

    def check_generator(self, generator: Generator) -> None:
        """UsageError for a generator other than the one it was fitted on."""
        if generator.sha256 and self.generator_sha256 and generator.sha256 != self.generator_sha256:
            raise UsageError(
                f"got generator {generator.sha256[:12]}…",
                wanted=f"{self.generator_sha256[:12]}…, on whose activations this segmenter was fitted",
                remedy="pass that generator, or fit again on this one",
            )

    def features(self, generator: Generator, synthesis: Synthesis) -> FeaturePyramid:
        """The pyramid to read, float32, upsampled as the settings say.

        UsageError for another generator, or other taps than this segmenter's.
        """
        self.check_generator(generator)
        widths = () if synthesis.activations is None else tuple(synthesis.activations.widths)
        if widths != self.widths:
            raise UsageError(
                f"got activations of {list(widths)} channels",
                wanted=f"{list(self.widths)}, the taps {', '.join(self.taps)}",
                remedy="synthesize with taps=segmenter.taps on the generator it was fitted on",
            )
        pyramid = synthesis.pyramid.map(lambda x: x.float())
        return pyramid.with_mode(self.settings.get("mode", pyramid.mode))


def read_segmenter(path: Path, method: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of `BaseSegmenter` and the tensors of a saved segmenter. UsageError for that of another method."""
    header, tensors = segmenter_file.read(path)
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


def check_tensors(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """UsageError unless a file has just the tensors of these names and shapes."""
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != dict(wanted):
        raise UsageError(f"got {path} with other tensors", wanted=f"the tensors of this segmenter: {wanted}")


M = TypeVar("M", bound=nn.Module)


def loaded(module: M, tensors: Mapping[str, Tensor], path: Path, owner: str) -> M:
    """The module with a file's tensors in it, for predictions alone. UsageError for others than `owner` has."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as e:
        raise UsageError(f"got {path}: {e}", wanted=f"the tensors of {owner}, no other") from None
    return module.requires_grad_(False).eval()
