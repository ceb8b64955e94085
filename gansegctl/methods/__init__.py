"""The methods by name: what --method takes. Listing them costs no torch import; modules are read when used."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from gansegctl.errors import UsageError, did_you_mean
from gansegctl.methods.base.segmenter_file import read_header

if TYPE_CHECKING:
    from gansegctl.contracts import Method, Segmenter

__all__ = ["METHODS", "get", "load", "read_header"]

METHODS: dict[str, str] = {
    "oneshot": "gansegctl.methods.oneshot:OneShot",
    "contrastive": "gansegctl.methods.contrastive.method:Contrastive",
    "labels4free": "gansegctl.methods.labels4free.method:Labels4Free",
    "repurpose": "gansegctl.methods.repurpose:Repurpose",
    "linear": "gansegctl.methods.linear:Linear",
    "datasetgan": "gansegctl.methods.datasetgan.method:DatasetGAN",
    "segment_in_style": "gansegctl.methods.segment_in_style:SegmentInStyle",
    "stylemix": "gansegctl.methods.stylemix.method:StyleMix",
}
"""Name → "module:class" of the method. The class takes no arguments."""


def get(name: str) -> Method:
    """The method of that name. Error: UsageError with the nearest name."""
    if name not in METHODS:
        raise UsageError(f"got method {name!r}", wanted="a method of gansegctl", remedy=did_you_mean(name, METHODS))
    module, attribute = METHODS[name].split(":")
    return getattr(import_module(module), attribute)()


def load(path: Path | str) -> Segmenter:
    """A saved segmenter of any method, on the CPU. Errors: UsageError for a file that is missing or something else."""
    path = Path(path)
    return get(read_header(path)["method"]).load(path)
