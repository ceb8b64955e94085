"""Every codec keeps every byte; plain h5py reads what it is said to read; what is not installed is told."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
from helpers.datasets import LABELS, draw, fill, plan

from gansegctl.bench.store import drawn_pairs
from gansegctl.errors import UsageError
from gansegctl.store import codec as codecs
from gansegctl.store.dataset import ShardDataset
from gansegctl.store.hdf5 import DIFFERENCES, StoredFields
from gansegctl.store.manifest import problems_of_dataset
from gansegctl.store.schema import ShardArrays
from gansegctl.store.shard import problem_of_shard, read_shard, shard_path, write_shard


@pytest.fixture(params=codecs.CODECS)
def codec(request):
    if request.param == "zstd":
        pytest.importorskip("zstandard")
    return request.param


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_lost(codec, channels, tmp_path):
    arrays = draw(range(5), channels=channels)
    write_shard(tmp_path, 0, arrays, LABELS, "ab", codec=codec)
    back = read_shard(tmp_path, 0)
    for name, array in arrays.present().items():
        assert np.array_equal(back.present()[name], array) and back.present()[name].dtype == array.dtype, name
    first = shard_path(tmp_path, 0).read_bytes()
    write_shard(tmp_path, 0, arrays, LABELS, "ab", codec=codec, threads=1)
    assert shard_path(tmp_path, 0).read_bytes() == first
    assert problem_of_shard(tmp_path, 0) is None
    with h5py.File(shard_path(tmp_path, 0)) as f:
        assert f.attrs.get("codec", "deflate") == codec


def test_rows_are_read_in_any_order_and_are_writable(codec, tmp_path):
    manifest = plan()
    manifest.begin(tmp_path / "d")
    for i in range(3):
        write_shard(tmp_path / "d", i, draw(manifest.shard_seeds(i)), LABELS, manifest.digest, codec=codec)
    data = ShardDataset(tmp_path / "d", ("image", "mask", "score"))
    for item in (9, 0, 4, 4):
        wanted = draw([data.seeds[item]])
        sample = data[item]
        assert np.array_equal(sample["image"], wanted.image[0]) and np.array_equal(sample["mask"], wanted.mask[0])
        sample["image"][:] = 0
    assert problems_of_dataset(tmp_path / "d") == []


@pytest.mark.parametrize("codec", ["deflate", "none"])
def test_plain_h5py_reads_these(codec, tmp_path):
    arrays = draw(range(3))
    write_shard(tmp_path, 0, arrays, LABELS, codec=codec)
    with h5py.File(shard_path(tmp_path, 0)) as f:
        assert np.array_equal(f["image"][:], arrays.image) and np.array_equal(f["mask"][:], arrays.mask)
        assert (f["image"].compression == "gzip") == (codec == "deflate")


def test_differences_are_not_called_images_and_the_recipe_in_the_file_holds(tmp_path):
    arrays = draw(range(3))
    write_shard(tmp_path, 0, arrays, LABELS, codec="delta")
    with h5py.File(shard_path(tmp_path, 0)) as f:
        assert "image" not in f and np.array_equal(f["mask"][:], arrays.mask)
        scope = {"numpy": np, "image_delta": f[DIFFERENCES][:]}
        exec(f[DIFFERENCES].attrs["recipe"], scope)
        assert np.array_equal(scope["image"], arrays.image)
        assert "image" in StoredFields(f)


def test_zstd_needs_the_registered_plugin(tmp_path):
    pytest.importorskip("zstandard")
    arrays = draw(range(3))
    write_shard(tmp_path, 0, arrays, LABELS, codec="zstd")
    if "hdf5plugin" not in sys.modules:
        with h5py.File(shard_path(tmp_path, 0)) as f, pytest.raises(OSError):
            f["image"][0]
    pytest.importorskip("hdf5plugin")
    with h5py.File(shard_path(tmp_path, 0)) as f:
        assert np.array_equal(f["image"][:], arrays.image) and np.array_equal(f["mask"][:], arrays.mask)


def test_differences_take_less_room_than_deflate(tmp_path):
    arrays, sizes = drawn_pairs(4, 64), {}
    for name in ("none", "deflate", "delta"):
        sizes[name] = write_shard(tmp_path, 0, arrays, codec=name).bytes
    assert sizes["delta"] < 0.9 * sizes["deflate"] < sizes["none"]


def test_what_is_written_is_left_as_it_was():
    grey = np.random.default_rng(0).integers(0, 256, (5, 7, 1), dtype=np.uint8)
    before = grey.copy()
    codecs.row_differences(grey)
    assert np.array_equal(grey, before)


def test_differences_and_back():
    image = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    moved = codecs.row_differences(image)
    assert moved.shape == (2, 3, 5, 7) and np.array_equal(moved[:, :, 0], np.moveaxis(image, -1, 1)[:, :, 0])
    assert np.array_equal(codecs.summed_rows(moved), image)
    flat = codecs.row_differences(np.full((4, 4, 1), 200, np.uint8))
    assert (flat[:, 1:] == 0).all()


def test_an_empty_shard_is_read_and_whole(codec, tmp_path):
    arrays = draw(range(2))
    empty = ShardArrays(**{k: v[:0] for k, v in arrays.present().items()})
    write_shard(tmp_path, 0, empty, LABELS, codec=codec, candidates="0-1")
    assert len(read_shard(tmp_path, 0)) == 0 and read_shard(tmp_path, 0).image.shape == (0, 16, 16, 3)
    assert problem_of_shard(tmp_path, 0) is None


def test_a_flipped_byte_is_an_error_and_no_other_image(codec, tmp_path):
    fill(tmp_path / "d", plan())
    manifest = plan()
    for i in range(3):
        write_shard(tmp_path / "d", i, draw(manifest.shard_seeds(i)), LABELS, manifest.digest, codec=codec)
    path = shard_path(tmp_path / "d", 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert [p.split(":")[0] for p in problems_of_dataset(tmp_path / "d")] == ["shard-00001"]


def test_unknown_and_missing_codecs_are_told(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="deflate"):
        write_shard(tmp_path, 0, draw([0]), codec="deflat")
    if codecs.zstandard is not None:
        write_shard(tmp_path, 0, draw([0]), codec="zstd")
    monkeypatch.setattr(codecs, "zstandard", None)
    with pytest.raises(UsageError, match=r"pip install 'gansegctl\[zstd\]'") as told:
        write_shard(tmp_path, 1, draw([0]), codec="zstd")
    assert told.value.status == 2
    if shard_path(tmp_path, 0).exists():
        with pytest.raises(UsageError, match="zstandard"):
            read_shard(tmp_path, 0)
