"""Deflate outside HDF5: ISA-L where it is installed (seven times as fast), else zlib; any HDF5 reader opens both."""

from __future__ import annotations

import zlib

try:
    from isal.isal_zlib import compress as _compress
    from isal.isal_zlib import decompress as inflate
    from isal.isal_zlib import error as _error
except ImportError:
    from zlib import compress as _compress
    from zlib import decompress as inflate

    _error = zlib.error

LEVEL = 1
READ_ERRORS = (OSError, KeyError, TypeError, ValueError, RuntimeError, zlib.error, _error)
"""What h5py and the codecs raise on a file that is damaged or not a shard."""


def deflate(data) -> bytes:
    """A zlib stream of any contiguous buffer; runs without the interpreter's lock."""
    return _compress(data, LEVEL)


__all__ = ["READ_ERRORS", "deflate", "inflate"]
