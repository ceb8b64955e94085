"""`extract`: features equal those of the dense hypercolumn, resumed files have the same bytes, memory stays flat."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from gansegctl.config import GenerateSettings
from gansegctl.errors import DatasetError, GansegError, UsageError
from gansegctl.pipeline import extract as stage
from gansegctl.pipeline.extract import ExtractSettings, colours, extract, plan_extract, sampled_pixels
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.pipeline.inputs.generators import latents_of_seeds, open_generator
from gansegctl.pipeline.runtime.memory import peak_extra
from gansegctl.store.feature_file import FeatureFile, unfinished

KINDS = {"pca": 6, "random": 5, "dense": 0, "points": 40}


def generate(folder, generator, seeds="0-6", **settings):
    options = {"generator": str(generator), "seeds": seeds, "batch_size": 2, "shard_size": 3} | settings
    job, network, _ = plan_generate(GenerateSettings(**options), None, "cpu")
    list(synthesize(job, folder, network))
    return folder


@pytest.fixture(scope="module")
def dataset(generator_file, tmp_path_factory):
    """Seven images in three shards, with noise of their own."""
    return generate(tmp_path_factory.mktemp("extract") / "d", generator_file, noise="seed")


def run(folder, out, kind="pca", count=None, batch_size=2, **options):
    settings = ExtractSettings(kind, KINDS[kind] if count is None else count, batch_size)
    steps = extract(plan_extract(folder, out, settings, **options))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def dense(generator_file):
    """Upsample and concatenate, as the field does it, of the same seeds: float32 [7,ΣC,H,W]."""
    network = open_generator(str(generator_file))
    with torch.no_grad():
        made = network.synthesize(latents_of_seeds(network, range(7)), "seed", None, range(7))
    up = [torch.nn.functional.interpolate(x, (16, 16), mode="bilinear") for x in made.pyramid.levels]
    return torch.cat(up, dim=1).numpy()


@pytest.fixture(scope="module")
def files(dataset, tmp_path_factory):
    """One file of each kind, and what the stage said of it."""
    folder = tmp_path_factory.mktemp("features")
    return {kind: (folder / f"{kind}.h5", run(dataset, folder / f"{kind}.h5", kind)) for kind in KINDS}


def close(ours, wanted):
    """Equal to 1e-3 of the largest value, as float16 allows."""
    assert ours.shape == wanted.shape and ours.dtype == np.float16
    assert np.abs(ours.astype(np.float64) - wanted).max() <= 1e-3 * np.abs(wanted).max()


def test_dense_is_upsample_and_concatenate(files, dense):
    with h5py.File(files["dense"][0]) as f:
        close(f["features"][:], dense)
        assert f["features"].chunks == (1, *dense.shape[1:])


@pytest.mark.parametrize("kind", ["pca", "random"])
def test_directions_are_projections_of_the_dense_tensor(kind, files, dense):
    with h5py.File(files[kind][0]) as f:
        mean, weight = f["mean"][:], f["weight"][:]
        assert weight.shape == (KINDS[kind], dense.shape[1])
        apart = dense.astype(np.float64) - mean[:, None, None]
        close(f["features"][:], np.einsum("kc,nchw->nkhw", weight.astype(np.float64), apart))
        assert ("explained" in f) == (kind == "pca")


def test_components_are_those_of_all_pixels(files, dense):
    """Fewer samples than `FITTED`: the fit is on every pixel, so the values are centred and uncorrelated."""
    with h5py.File(files["pca"][0]) as f:
        values = f["features"][:].astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, KINDS["pca"])
        explained = f["explained"][:]
    covariance = np.cov(values, rowvar=False)
    assert np.abs(values.mean(axis=0)).max() < 1e-3
    assert np.abs(covariance - np.diag(covariance.diagonal())).max() < 1e-3 * covariance.max()
    assert np.all(np.diff(explained) <= 0) and 0 < explained.sum() <= 1.0001
    assert files["pca"][1]["explained"] == pytest.approx(explained.sum(), abs=1e-4)


def test_points_are_pixels_of_the_dense_tensor(files, dense):
    with h5py.File(files["points"][0]) as f:
        points, features = f["points"][:], f["features"][:]
    assert points.dtype == np.uint16
    for i, (rows, columns) in enumerate(points.transpose(0, 2, 1)):
        close(features[i], dense[i][:, rows, columns].T)
        assert np.array_equal(points[i], sampled_pixels(i, (16, 16), 40))
    assert len(np.unique(points[0], axis=0)) == 40
    assert not np.array_equal(points[0], points[1])


def test_the_table_of_channels_and_the_seeds(files, generator_file):
    taps = open_generator(str(generator_file)).spec.taps
    with h5py.File(files["pca"][0]) as f:
        table = json.loads(f.attrs["channels"])
        assert [(r["tap"], r["resolution"]) for r in table] == [(t.name, t.resolution) for t in taps]
        assert [r["end"] - r["first"] for r in table] == [t.channels for t in taps]
        assert table[0]["first"] == 0 and table[-1]["end"] == f["weight"].shape[1]
        assert all(a["end"] == b["first"] for a, b in pairwise(table))
        assert f["seed"][:].tolist() == list(range(7))


def test_the_image_beside_it_is_a_sheet_of_samples(files):
    for path, facts in files.values():
        with Image.open(path.with_suffix(".png")) as image:
            assert image.width > 500 and len(image.convert("RGB").getcolors(1 << 24)) > 1000
        assert facts["image"] == str(path.with_suffix(".png"))


def test_colours_span_their_range_over_all_samples_and_are_bright():
    maps = np.zeros((2, 3, 8, 8))
    maps[0, 0, :2], maps[1, 1], maps[:, 2, 0, 0] = 3.0, -1.0, 1.0
    shown = colours(maps)
    assert shown.shape == (2, 8, 8, 3) and shown.dtype == np.uint8
    assert (shown[0, 0, 0, 0], shown[1, 5, 5, 0]) == (0, 255)  # most pixels are 0, so 0 is bright
    assert colours(maps[:, :1]).shape == (2, 8, 8, 3)


class Killed(BaseException):
    """What ends a process at any line."""


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_killed_run_goes_on_to_the_same_bytes(kind, dataset, files, tmp_path, monkeypatch):
    out, write, calls = tmp_path / "f.h5", FeatureFile.write, []

    def stopped(self, *arguments):
        calls.append(arguments[0])
        if len(calls) == 3:
            raise Killed
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureFile, "write", stopped)
        with pytest.raises(Killed):
            run(dataset, out, kind)
    assert not out.exists() and unfinished(out).exists()
    again = []
    monkeypatch.setattr(FeatureFile, "write", lambda self, *a: again.append(a[0]) or write(self, *a))
    run(dataset, out, kind)
    assert calls == [0, 2, 3] and again == [3, 5, 6]  # batches never lie across shards
    assert out.read_bytes() == files[kind][0].read_bytes()
    assert out.with_suffix(".png").read_bytes() == files[kind][0].with_suffix(".png").read_bytes()
    assert not unfinished(out).exists()


def test_a_finished_file_is_left_alone_and_its_image_made_again(dataset, files, tmp_path, monkeypatch):
    out = shutil.copy(files["pca"][0], tmp_path / "f.h5")
    before = out.stat().st_mtime_ns
    run(dataset, out)
    assert out.with_suffix(".png").read_bytes() == files["pca"][0].with_suffix(".png").read_bytes()
    monkeypatch.setattr(stage, "_pyramids", None)
    facts = run(dataset, out)
    assert out.stat().st_mtime_ns == before and facts["shape"] == [7, 6, 16, 16]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "random"}, 'kind: "pca" there, "random" asked for'),
        ({"count": 7}, "count: 6 there, 7 asked for"),
        ({"batch_size": 3}, "batch_size: 2 there, 3 asked for"),
    ],
)
def test_other_settings_are_refused_by_name(options, words, dataset, files, tmp_path):
    for out in (tmp_path / "f.h5", tmp_path / "g.h5"):
        shutil.copy(files["pca"][0], out if out.name == "f.h5" else unfinished(out))
        with pytest.raises(UsageError) as refused:
            run(dataset, out, **options)
        assert words in str(refused.value)


def test_another_dataset_is_refused_by_name(files, generator_file, tmp_path):
    out = shutil.copy(files["pca"][0], tmp_path / "f.h5")
    other = generate(tmp_path / "d", generator_file, seeds="0-3", noise="seed")
    with pytest.raises(UsageError, match='seeds: "0-6" there, "0-3" asked for'):
        run(other, out)


def test_an_image_that_does_not_come_out_as_stored_is_refused(dataset, tmp_path, monkeypatch):
    made = stage.to_uint8
    monkeypatch.setattr(stage, "to_uint8", lambda image: np.clip(made(image), 3, 255) - 3)
    with pytest.raises(DatasetError, match="sample 0, whose image"):
        run(dataset, tmp_path / "f.h5")
    monkeypatch.setattr(stage, "to_uint8", lambda image: np.clip(made(image), 1, 255) - 1)
    run(dataset, tmp_path / "f.h5")  # rounding of another device


def test_all_slots_of_a_latent_are_used_where_they_differ(generator_file, tmp_path):
    folder = generate(tmp_path / "d", generator_file, seeds="0-1", truncation=0.5, truncation_cutoff=2)
    run(folder, tmp_path / "f.h5")


def test_the_batch_size_is_chosen_once(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "choose_batch", lambda *a: 4)
    run(dataset, tmp_path / "f.h5", batch_size=None)
    monkeypatch.setattr(stage, "choose_batch", lambda *a: 8)
    run(dataset, tmp_path / "f.h5", batch_size=None)  # that of the file


def test_what_cannot_be_is_refused_before_the_generator_runs(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_pyramids", None)
    for kind, count, words in (("points", 257, "256 pixels"), ("pca", 1000, "channels"), ("random", 1000, "channels")):
        with pytest.raises(UsageError, match=words):
            run(dataset, tmp_path / "f.h5", kind, count)
    for kind, count in (("pca", 0), ("dense", 3), ("all", 3)):
        with pytest.raises(UsageError, match="0 of dense"):
            ExtractSettings(kind, count)
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 0, 1000))
    with pytest.raises(GansegError, match="1,000, which are free"):
        run(dataset, tmp_path / "f.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_feature_beyond_float16_is_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.FeaturePyramid, "dense", lambda self: torch.full((1, 4, 16, 16), 7e4))
    with pytest.raises(GansegError, match="65504"):
        run(dataset, tmp_path / "f.h5", "dense")


def test_memory_does_not_grow_with_the_samples(generator_file, tmp_path):
    """200 and 2,000 samples; dense features of the larger run are 80 MB."""
    few, many = (
        generate(tmp_path / f"d{n}", generator_file, f"0-{n - 1}", batch_size=50, shard_size=100) for n in (200, 2000)
    )
    run(few, tmp_path / "warm.h5", "dense", batch_size=50)
    least = peak_extra(lambda: run(few, tmp_path / "few.h5", "dense", batch_size=50))
    if least is None:
        pytest.skip("memory cannot be measured here")
    most = peak_extra(lambda: run(many, tmp_path / "many.h5", "dense", batch_size=50))
    assert (tmp_path / "many.h5").stat().st_size > 70e6
    assert most < least + 10e6
