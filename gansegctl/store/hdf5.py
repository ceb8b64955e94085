"""How the fields of a shard lie in its HDF5 file: datasets of one sample a chunk, written and read past the filters."""

from __future__ import annotations

from concurrent.futures import Executor

import h5py
import numpy as np

from gansegctl.store.codec import filter_options, packer, row_differences, summed_rows, unpacker

PACKED = ("image", "mask", "confidence", "probabilities")
DIFFERENCES = "image_delta"
"""Name of the images' dataset under codec delta: nobody shall take differences for images."""
RECIPE = "image = numpy.moveaxis(numpy.cumsum(image_delta, axis=-2, dtype='uint8'), -3, -1)"


def write_field(f: h5py.File, name: str, array: np.ndarray, codec: str, pool: Executor) -> None:
    """Store `array` [n, …]; equal input gives equal bytes."""
    if name not in PACKED:
        f.create_dataset(name, data=array, track_times=False)
        return
    delta = codec == "delta" and name == "image"
    stored = DIFFERENCES if delta else name
    shape = (len(array), array.shape[3], *array.shape[1:3]) if delta else array.shape
    pack = packer(codec)
    # HDF5 takes no chunks larger than the dataset: one without samples has none.
    chunked = {"chunks": (1, *shape[1:])} | filter_options(codec) if len(array) else {}
    d = f.create_dataset(stored, shape, array.dtype, track_times=False, **chunked)
    if delta:
        d.attrs["recipe"] = RECIPE

    def packed(sample: np.ndarray) -> bytes:
        return pack(row_differences(sample) if delta else np.ascontiguousarray(sample))

    for i, chunk in enumerate(pool.map(packed, array)):
        d.id.write_direct_chunk((i,) + (0,) * (d.ndim - 1), chunk)


class StoredFields:
    """The fields of an open shard by their names, whatever the codec.

    Errors: those of h5py and the codecs (READ_ERRORS), and UsageError for a codec that is not installed.
    """

    def __init__(self, f: h5py.File) -> None:
        self.file = f
        codec = f.attrs.get("codec", "deflate")
        self._delta, self._unpack = codec == "delta", unpacker(codec)

    def __contains__(self, name: str) -> bool:
        return self._stored(name) in self.file

    def count(self) -> int:
        """Samples in it."""
        return len(self.file["seed"])

    def row(self, name: str, row: int) -> np.ndarray:
        """One sample of one field, writable."""
        d = self.file[self._stored(name)]
        if name not in PACKED:
            return np.array(d[row])
        _, chunk = d.id.read_direct_chunk((row,) + (0,) * (d.ndim - 1))
        values = np.frombuffer(bytearray(self._unpack(chunk)), dtype=d.dtype).reshape(d.shape[1:])
        return summed_rows(values) if self._delta and name == "image" else values

    def whole(self, name: str) -> np.ndarray:
        """All samples of one field."""
        d = self.file[self._stored(name)]
        if name not in PACKED or not len(d):
            return summed_rows(d[:]) if self._delta and name == "image" else d[:]
        first = self.row(name, 0)
        whole = np.empty((len(d), *first.shape), first.dtype)
        whole[0] = first
        for i in range(1, len(whole)):
            whole[i] = self.row(name, i)
        return whole

    def _stored(self, name: str) -> str:
        return DIFFERENCES if self._delta and name == "image" else name
