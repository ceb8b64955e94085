"""One shard: what goes in comes out, in any HDF5 reader, and damage does not pass unseen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.datasets import LABELS, draw

from gansegctl.errors import DatasetError
from gansegctl.labels import LabelMap
from gansegctl.store.shard import (
    class_histogram,
    problem_of_shard,
    read_shard,
    shard_done,
    shard_path,
    shard_record,
    write_shard,
)


def same(a, b) -> bool:
    left, right = a.present(), b.present()
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype and np.array_equal(left[k], right[k]) for k in left
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("masks", [True, False])
def test_round_trip(tmp_path, channels, masks):
    arrays = draw([5, 6, 9], channels=channels, masks=masks)
    record = write_shard(tmp_path, 2, arrays, LABELS if masks else None, "digest")
    assert same(read_shard(tmp_path, 2), arrays)
    assert shard_record(tmp_path, 2) == record
    assert record.seeds == "5-6,9" and record.count == 3 and record.index == 2 and record.digest == "digest"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard-00002.h5", "shard-00002.json"]
    assert record.bytes == shard_path(tmp_path, 2).stat().st_size
    assert problem_of_shard(tmp_path, 2) is None


def test_rows_that_are_not_contiguous_and_other_latents(tmp_path):
    arrays = draw(range(6))
    turned = np.asfortranarray(arrays.image)
    arrays = replace(arrays, image=turned, mask=arrays.mask[:, ::-1], latent=np.ones((6, 4, 8), np.float16))
    write_shard(tmp_path, 0, arrays, LABELS)
    assert same(read_shard(tmp_path, 0), arrays)


def test_equal_input_gives_equal_bytes(tmp_path):
    for name, threads in (("a", 1), ("b", 4)):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name, 0, draw(range(20)), LABELS, "d", {"noise": "const"}, threads)
    for file in ("shard-00000.h5", "shard-00000.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    write_shard(tmp_path / "b", 0, draw(range(1, 21)), LABELS, "d", {"noise": "const"})
    assert (tmp_path / "a/shard-00000.h5").read_bytes() != (tmp_path / "b/shard-00000.h5").read_bytes()


def test_the_stock_library_reads_it_without_us_or_plugins(tmp_path):
    arrays = draw([1, 2, 3])
    write_shard(tmp_path, 0, arrays, LABELS, "d", {"licence": "CC0-1.0"})
    script = """
import sys, json, h5py, numpy as np
with h5py.File(sys.argv[1], "r") as f:
    filters = {n: f[n].compression for n in f}
    print(json.dumps([filters, f["image"].chunks, int(f["image"][:].sum()), f["mask"][2].tolist(), f.attrs["licence"],
                      json.loads(f.attrs["labels"])[1]["name"]]))
assert not {m for m in sys.modules if m.startswith(("gansegctl", "isal", "hdf5plugin"))}
"""
    run = [sys.executable, "-I", "-c", script, str(shard_path(tmp_path, 0))]
    told = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    filters, chunks, total, mask, licence, name = told
    assert filters == dict.fromkeys(("image", "mask", "confidence"), "gzip") | dict.fromkeys(
        ("seed", "latent", "score")
    )
    assert chunks == [1, 16, 16, 3] and total == arrays.image.sum() and mask == arrays.mask[2].tolist()
    assert licence == "CC0-1.0" and name == "face"


def test_masks_compress(tmp_path):
    arrays = draw(range(8), size=64)
    write_shard(tmp_path, 0, arrays, LABELS)
    with h5py.File(shard_path(tmp_path, 0)) as f:
        assert f["mask"].id.get_storage_size() < arrays.mask.nbytes / 20


def test_the_histogram_counts_classes_and_not_ignored_pixels(tmp_path):
    arrays = draw([0, 1])
    arrays.mask[:] = 2
    arrays.mask[0, :4], arrays.mask[1, 0, 0] = 255, 0
    record = write_shard(tmp_path, 0, arrays, LABELS)
    assert record.class_histogram == (1, 0, 2 * 256 - 64 - 1)


def test_a_mask_value_of_no_class_is_refused_and_nothing_written(tmp_path):
    arrays = draw([0])
    arrays.mask[0, 3, 3] = 3
    with pytest.raises(DatasetError, match="got mask value 3"):
        write_shard(tmp_path, 0, arrays, LABELS)
    assert not list(tmp_path.iterdir())


def test_done_means_named_recorded_whole_and_of_these_settings(tmp_path):
    write_shard(tmp_path, 0, draw([0, 1]), LABELS, "d")
    path, record = shard_path(tmp_path, 0), tmp_path / "shard-00000.json"
    assert shard_done(tmp_path, 0, "d") and shard_done(tmp_path, 0, "d", "0-1")
    assert not shard_done(tmp_path, 0, "e") and not shard_done(tmp_path, 0, "d", "0-2")
    assert not shard_done(tmp_path, 1, "d")
    for name in (".h5", ".json"):  # another shard's files under this name
        shutil.copy(tmp_path / f"shard-00000{name}", tmp_path / f"shard-00001{name}")
    assert not shard_done(tmp_path, 1, "d") and "number" in problem_of_shard(tmp_path, 1)
    whole, text = path.read_bytes(), record.read_text()
    path.write_bytes(whole[:-1])
    assert not shard_done(tmp_path, 0, "d") and "size" in problem_of_shard(tmp_path, 0)
    path.write_bytes(whole)
    record.write_text(text[:-20])
    assert not shard_done(tmp_path, 0, "d") and "cannot be read" in problem_of_shard(tmp_path, 0)
    record.unlink()
    assert not shard_done(tmp_path, 0, "d") and "no json" in problem_of_shard(tmp_path, 0)
    path.unlink()
    assert problem_of_shard(tmp_path, 0) == "missing"


def test_any_flipped_byte_is_found(tmp_path):
    write_shard(tmp_path, 0, draw([0, 1]), LABELS, "d")
    path = shard_path(tmp_path, 0)
    whole = bytearray(path.read_bytes())
    for place in np.linspace(0, len(whole) - 1, 25).astype(int):
        whole[place] ^= 4
        path.write_bytes(whole)
        assert "sha256" in problem_of_shard(tmp_path, 0), place
        whole[place] ^= 4
    path.write_bytes(whole)
    assert problem_of_shard(tmp_path, 0) is None


def test_reading_a_damaged_chunk_is_an_error_and_not_a_image(tmp_path):
    write_shard(tmp_path, 0, draw([0, 1]), LABELS, "d")
    path = shard_path(tmp_path, 0)
    with h5py.File(path) as f:
        chunk = f["image"].id.get_chunk_info(1)
    whole = bytearray(path.read_bytes())
    whole[chunk.byte_offset + chunk.size // 2] ^= 4
    path.write_bytes(whole)
    with pytest.raises(DatasetError, match=r"shard-00000.h5"):
        read_shard(tmp_path, 0)


@pytest.mark.parametrize("content", [None, b"", b"not hdf5"])
def test_reading_what_is_no_shard(tmp_path, content):
    if content is not None:
        shard_path(tmp_path, 0).write_bytes(content)
    with pytest.raises(DatasetError, match="wanted: a whole shard"):
        read_shard(tmp_path, 0)


def test_reading_a_file_of_another_kind(tmp_path):
    with h5py.File(shard_path(tmp_path, 0), "w") as f:
        f["mask"] = np.zeros(3)
    with pytest.raises(DatasetError, match="wanted: a whole shard"):
        read_shard(tmp_path, 0)


def test_zlib_writes_and_reads_the_same_format_where_isal_is_absent(tmp_path):
    script = """
import sys, zlib
from pathlib import Path
sys.modules["isal"] = sys.modules["isal.isal_zlib"] = None
sys.path.insert(0, sys.argv[2])
from helpers.datasets import draw, LABELS
from gansegctl.store import codec, shard
assert codec.inflate is zlib.decompress
shard.write_shard(Path(sys.argv[1]), 1, draw([3, 4]), LABELS)
assert (shard.read_shard(Path(sys.argv[1]), 0).image == draw([1, 2]).image).all()
"""
    write_shard(tmp_path, 0, draw([1, 2]), LABELS)
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", script, str(tmp_path), tests], check=True)
    assert same(read_shard(tmp_path, 1), draw([3, 4]))


@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 5, 4), (1, 1, 1)])
def test_the_histogram_counts_every_pixel_of_odd_sizes_too(shape):
    mask = np.random.RandomState(0).choice([0, 1, 2, 255], shape).astype(np.uint8)
    labels = LabelMap(("a", "b", "c"))
    assert class_histogram(mask, labels) == tuple(int((mask == k).sum()) for k in range(3))
    with pytest.raises(DatasetError, match="got mask value 7"):
        class_histogram(np.full(shape, 7, np.uint8), labels)
