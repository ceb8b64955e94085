"""Segmenters on disk: one safetensors file, everything but the tensors as text in its header.

Header keys: kind, format, method, generator (sha256 of its weights), and as JSON settings, labels, taps and facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gansegctl.io.tensors import FileKind

if TYPE_CHECKING:
    from torch import Tensor

KIND = "gansegctl.segmenter"
FIELDS = {"method": str, "generator": str, "settings": dict, "labels": list, "taps": list, "facts": dict}
FILE = FileKind(KIND, "a segmenter", "pass a segmenter that `gansegctl annotate` wrote", FIELDS, table=False)


def read_header(path: Path | str) -> dict[str, str]:
    """The header of a segmenter file. UsageError for a file that is missing, damaged, something else or newer."""
    return FILE.read_header(path)


def read(path: Path | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a segmenter file. UsageError as `read_header`."""
    return FILE.read(path)


def write(path: Path | str, header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Write whole or not at all. The same header and tensors give the same bytes, so that a digest names them."""
    FILE.write(Path(path), tensors, header)
