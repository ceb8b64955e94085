"""The bit-packed run lengths of Label Studio's brush.

Bits, highest first: 32 the number of values · 5 the size of a value less 1 · four times 4 the sizes of a length, less
1 · then blocks: 1 "one value for all" · 2 which size of length · the length less 1 · one value, or that many.
(https://github.com/thi-ng/umbrella, rle-pack.) The values are the brush's RGBA image, row by row; alpha is the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_HEADER = 32 + 5 + 4 * 4


def decode(packed: Sequence[int], height: int, width: int) -> np.ndarray:
    """Bytes as numbers 0 to 255 → alpha uint8 [H,W].

    Errors: ValueError for another number of values than H·W·4, values that are no bytes, and data that ends too early.
    """
    data = bytes(packed)
    bits = 8 * len(data)
    if bits < _HEADER:
        raise ValueError(f"got {len(data)} bytes, less than a header")
    count, size = _read(data, 0, 32), _read(data, 32, 5) + 1
    lengths = [_read(data, 37 + 4 * i, 4) + 1 for i in range(4)]
    if count != height * width * 4:
        raise ValueError(
            f"got {count} values; wanted {height * width * 4}: red, green, blue, alpha of {width}x{height}"
        )
    if size != 8:
        raise ValueError(f"got values of {size} bits; wanted 8")
    out = np.empty(count, np.uint8)
    unpacked = np.unpackbits(np.frombuffer(data, np.uint8))
    at, done = _HEADER, 0
    while done < count:
        if at + 3 > bits:
            raise ValueError(f"got the end after {done} of {count} values")
        same, which = _read(data, at, 1), _read(data, at + 1, 2)
        n = _read(data, at + 3, lengths[which]) + 1
        at += 3 + lengths[which]
        taken = 8 if same else 8 * n
        if at + taken > bits:
            raise ValueError(f"got the end after {done} of {count} values")
        if done + n > count:
            raise ValueError(f"got more than {count} values")
        out[done : done + n] = _read(data, at, 8) if same else np.packbits(unpacked[at : at + taken])
        at, done = at + taken, done + n
    return out.reshape(height, width, 4)[..., 3]


def _read(data: bytes, at: int, size: int) -> int:
    last = at + size
    chunk = int.from_bytes(data[at >> 3 : (last + 7) >> 3], "big")
    return (chunk >> (-last & 7)) & ((1 << size) - 1)
