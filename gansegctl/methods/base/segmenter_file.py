"""Segmenters on disk: one safetensors file, everything but the tensors as text in its header. Reads without torch.

Header keys: kind, format, method, generator (sha256 of its weights), and as JSON settings, labels, taps and facts.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gansegctl.errors import UsageError
from gansegctl.io.atomic import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

KIND = "gansegctl.segmenter"
FORMAT_VERSION = 1
_LARGEST_HEADER = 100_000_000  # of the safetensors format itself


def read_header(path: Path | str) -> dict[str, str]:
    """The header of a segmenter file. Errors: UsageError for a missing file, another kind of file or a newer format."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"got {path}: no such file", wanted="a segmenter", remedy="check --segmenter")
    header = _metadata(path)
    if header.get("kind") != KIND:
        other = json.loads(header.get("gansegctl", "{}")).get("kind", "no header of gansegctl")
        raise UsageError(
            f"got {path}: {other}",
            wanted=KIND,
            remedy="pass the segmenter that `gansegctl annotate` wrote",
        )
    if int(header["format"]) > FORMAT_VERSION:
        raise UsageError(
            f"got {path}: format {header['format']}", wanted=f"at most {FORMAT_VERSION}", remedy="update gansegctl"
        )
    return header


def digest(path: Path | str) -> str:
    """sha256 of the file, in hex: the segmenter's name in manifests."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path | str, header: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """Write whole or not at all. The same header and tensors give the same bytes, so that `digest` means something."""
    from safetensors.torch import save

    path = Path(path)
    ready = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    header = {"kind": KIND, "format": str(FORMAT_VERSION), **header}
    write_bytes(path, _sorted_header(save(ready, header)))


def _sorted_header(data: bytes) -> bytes:
    """The library writes metadata in the order of a hash map, another in every process: sort it."""
    size = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _metadata(path: Path) -> dict[str, str]:
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(size) if size < min(_LARGEST_HEADER, path.stat().st_size) else b""
    try:
        return json.loads(text).get("__metadata__", {})
    except (ValueError, AttributeError):
        raise UsageError(
            f"got {path}: not a safetensors file",
            wanted="a segmenter",
            remedy="pass the segmenter that `gansegctl annotate` wrote",
        ) from None
