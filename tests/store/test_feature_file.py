"""The file of features: any HDF5 reader reads it, and it is the same bytes however often its writer was stopped."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from gansegctl.errors import GansegError, UsageError
from gansegctl.store import feature_file
from gansegctl.store.feature_file import FeatureFile, lay_out, read_constants, read_record, unfinished

FIELDS = {"features": ((5, 3, 4, 4), "float16"), "points": ((5, 7, 2), "uint16")}
CONSTANTS = {"mean": np.arange(3, dtype=np.float32)}
SEEDS = [4, 5, 6, 7, 2**32 - 1]


def values() -> dict[str, np.ndarray]:
    stream = np.random.RandomState(0)
    return {name: (100 * stream.rand(*shape)).astype(dtype) for name, (shape, dtype) in FIELDS.items()}


def begin(path):
    lay_out(path, {"kind": "pca"}, [{"tap": "b4"}], FIELDS, CONSTANTS)
    return FeatureFile(path)


def write(file, first, end):
    file.write(first, SEEDS[first:end], {name: array[first:end] for name, array in values().items()})


def whole(path):
    with begin(path) as file:
        write(file, 0, 5)
        file.finish()
    return path.read_bytes()


def test_any_reader_reads_it(tmp_path):
    whole(tmp_path / "f.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["f.h5"]
    with h5py.File(tmp_path / "f.h5") as f:
        for name, array in values().items():
            assert np.array_equal(f[name][:], array) and f[name].dtype == array.dtype
            assert f[name].chunks == (1, *array.shape[1:]) and f[name].compression is None
        assert f["seed"][:].tolist() == SEEDS
        assert np.array_equal(f["mean"][:], CONSTANTS["mean"])
        assert json.loads(f.attrs["channels"]) == [{"tap": "b4"}]
    assert read_record(tmp_path / "f.h5") == {"kind": "pca"}
    assert list(read_constants(tmp_path / "f.h5", ("mean", "weight"))) == ["mean"]


def test_a_writer_that_stops_anywhere_leaves_whole_samples_and_the_same_bytes(tmp_path):
    wanted, path = whole(tmp_path / "whole.h5"), tmp_path / "f.h5"
    for first, end in ((0, 2), (2, 3), (3, 5)):
        with begin(path) as file:
            assert (file.committed, file.count) == (first, 5)
            write(file, first, end)
        assert not path.exists()
        with h5py.File(unfinished(path), "r") as f:  # whatever happens now, these are readable
            assert np.array_equal(f["features"][:end], values()["features"][:end])
    with begin(path) as file:
        file.finish()
    assert path.read_bytes() == wanted


def test_features_without_their_seed_are_not_there(tmp_path, monkeypatch):
    path, put, calls = tmp_path / "f.h5", FeatureFile._put, []

    def stopped(self, offset, data):
        calls.append(offset)
        if len(calls) == 4:  # two samples of two fields each are written, and not their seeds
            raise KeyboardInterrupt
        put(self, offset, data)

    with monkeypatch.context() as patch, begin(path) as file:
        patch.setattr(FeatureFile, "_put", stopped)
        with pytest.raises(KeyboardInterrupt):
            write(file, 0, 2)
    with begin(path) as file:
        assert file.committed == 0
        write(file, 0, 5)
        file.finish()
    assert path.read_bytes() == whole(tmp_path / "whole.h5")


def test_an_unfinished_file_is_not_finished_and_stays(tmp_path):
    with begin(tmp_path / "f.h5") as file:
        write(file, 0, 2)
        with pytest.raises(GansegError, match="2 of 5 samples"):
            file.finish()
    assert unfinished(tmp_path / "f.h5").exists()


def test_two_writers_are_refused(tmp_path):
    pytest.importorskip("fcntl")
    with begin(tmp_path / "f.h5"), pytest.raises(GansegError, match="another process"):
        FeatureFile(tmp_path / "f.h5")


def test_a_file_that_was_replaced_is_not_named(tmp_path):
    path = tmp_path / "f.h5"
    with begin(path) as file:
        write(file, 0, 5)
        unfinished(path).unlink()
        begin(path).__exit__(None, None, None)
        with pytest.raises(GansegError, match="replaced"):
            file.finish()
    assert not path.exists()


def test_a_sample_beyond_a_chunk_and_a_foreign_file_are_refused(tmp_path):
    with pytest.raises(UsageError, match="largest chunk"):
        lay_out(tmp_path / "f.h5", {}, [], {"features": ((2, 5568, 1024, 1024), "float16")}, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.h5").write_text("text")
    with h5py.File(tmp_path / "y.h5", "w"):
        pass
    for name in ("x.h5", "y.h5"):
        with pytest.raises(UsageError, match="gansegctl extract"):
            read_record(tmp_path / name)


def test_without_hard_links_the_file_is_named_all_the_same(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(1, "not permitted")

    monkeypatch.setattr(feature_file.os, "link", refuse)
    assert whole(tmp_path / "a.h5") == whole(tmp_path / "b.h5")
