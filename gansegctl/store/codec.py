"""How a sample's bytes are packed, outside HDF5 and its global lock.

deflate: ISA-L where it is installed (seven times as fast as zlib); the filter that every HDF5 library has. none: as
they are. zstd: needs a plugin to be read. delta: images as differences between rows, planar,
then deflate: smaller, and readers must add the rows up.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from gansegctl.choices import CODECS
from gansegctl.errors import UsageError, did_you_mean


def _installed(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None


_zlib = _installed("isal.isal_zlib") or zlib
zstandard = _installed("zstandard")
inflate: Callable[[bytes], bytes] = _zlib.decompress
"""The content of a zlib stream."""

LEVEL = 2
"""Of ISA-L: on images with grain 4 % smaller than 1, as fast end to end (`gansegctl bench store`)."""
ZSTD_LEVEL = 1
READ_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, KeyError, TypeError, ValueError, RuntimeError, zlib.error, _zlib.error),
    *((zstandard.ZstdError,) if zstandard else ()),
)
"""The exceptions of h5py and the codecs for a file that is damaged or not a shard."""
ZSTD_FILTER = 32015  # its number in the HDF Group's register


def deflate(data: np.ndarray | bytes) -> bytes:
    """A zlib stream of any contiguous buffer; runs without the interpreter's lock."""
    return _zlib.compress(data, LEVEL)


def require_codec(name: str) -> None:
    """UsageError for a codec that is not known, or not installed here."""
    if name not in CODECS:
        raise UsageError(f"got codec {name!r}", wanted=" | ".join(CODECS), remedy=did_you_mean(name, CODECS))
    if name == "zstd":
        _zstandard()


def _zstandard() -> ModuleType:
    if zstandard is None:
        raise UsageError(
            "got codec zstd without the package zstandard",
            wanted="the extra `zstd`",
            remedy="pip install 'gansegctl[zstd]', or --codec deflate",
        )
    return zstandard


def packer(codec: str) -> Callable[[np.ndarray], bytes]:
    """The function that packs one contiguous sample; safe in several threads."""
    require_codec(codec)
    if codec == "none":
        return lambda sample: sample.tobytes()
    if codec == "zstd":
        compressor = _zstandard().ZstdCompressor
        return lambda sample: compressor(level=ZSTD_LEVEL).compress(sample)
    return deflate


def unpacker(codec: str) -> Callable[[bytes], bytes]:
    """The inverse of `packer`."""
    require_codec(codec)
    if codec == "none":
        return bytes
    return _zstandard().ZstdDecompressor().decompress if codec == "zstd" else inflate


def filter_options(codec: str) -> dict[str, Any]:
    """The arguments of h5py's `create_dataset` that tell readers how chunks are packed."""
    if codec == "none":
        return {}
    if codec == "zstd":
        return {"compression": ZSTD_FILTER, "compression_opts": (ZSTD_LEVEL,), "allow_unknown_filter": True}
    return {"compression": "gzip", "compression_opts": LEVEL}


def row_differences(image: np.ndarray) -> np.ndarray:
    """uint8 [..., H, W, c] → uint8 [..., c, H, W]: each row less the one above, modulo 256."""
    planar = np.array(np.moveaxis(image, -1, -3), order="C")  # a copy always: it is worked on in place
    planar[..., 1:, :] -= planar[..., :-1, :].copy()
    return planar


def summed_rows(differences: np.ndarray) -> np.ndarray:
    """The inverse of `row_differences`."""
    planar = np.add.accumulate(differences, axis=-2, dtype=np.uint8)
    return np.ascontiguousarray(np.moveaxis(planar, -3, -1))
