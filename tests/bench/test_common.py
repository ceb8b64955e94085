"""Benchmarks: no speed before outputs agree, memory and ratios as they are, tables that say what ran."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from gansegctl.bench import (
    common as benching,
)
from gansegctl.bench import (
    features as bench_features,
)
from gansegctl.bench import (
    kernels as bench_kernels,
)
from gansegctl.bench import (
    pairs as bench_pairs,
)
from gansegctl.bench import (
    store as bench_store,
)
from gansegctl.bench.common import Row
from gansegctl.demo.scenes import LABELS
from gansegctl.errors import DeviceError, GansegError, UsageError
from gansegctl.features import pyramid as pyramids
from gansegctl.generators.stylegan2 import StyleGAN2Config
from gansegctl.kernels import cpu_strips
from gansegctl.pipeline.runtime import memory as peak


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A shape of milliseconds beside the real ones."""
    config = StyleGAN2Config(resolution=32, channel_base=512, channel_max=32)
    monkeypatch.setitem(benching.SHAPES, "tiny", lambda: config)


def features(*operations: str, **options) -> list[Row]:
    return list(bench_features.bench_features(["tiny"], operations, 1, **options))


@pytest.mark.parametrize(
    ("shape", "total", "sizes"),
    [
        ("stylegan2-256", 5376, [4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256]),
        ("stylegan3-t-256", 5663, [16] * 3 + [32] * 2 + [64] * 2 + [128] * 3 + [256] * 4),
    ],
)
def test_shapes_are_those_of_the_published_networks(shape, total, sizes):
    resolution, taps = benching.levels_of(shape)
    assert sum(channels for _, channels, _ in taps) == total
    assert [rate for rate, _, _ in taps] == sizes
    assert resolution == 256


def test_activations_lie_in_memory_as_a_generator_leaves_them():
    p = benching.random_pyramid("tiny")
    assert p.size == (32, 32)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in p.levels)
    again = benching.random_pyramid("tiny", batch=2, seed=1)
    assert again.batch == 2
    assert not torch.equal(again.levels[0][:1], p.levels[0])


def test_the_generator_of_a_shape_has_the_taps_of_its_pyramid():
    g, p = benching.make_generator("tiny"), benching.random_pyramid("tiny")
    made = g.synthesize(g.map(torch.zeros(1, g.spec.z_dim))).pyramid
    assert [x.shape for x in made.levels] == [x.shape for x in p.levels]
    assert torch.equal(benching.random_pyramid("tiny").levels[3], p.levels[3])
    with pytest.raises(UsageError, match="shape"):
        benching.make_generator("stylegan9")


@pytest.mark.parametrize("operation", bench_features.OPERATIONS)
def test_rows_of_every_operation(operation):
    rows = features(operation)
    assert {r.path for r in rows} >= {bench_features.DENSE, bench_features.OURS}
    for r in rows:
        if r.seconds is None:
            assert r.note
            continue
        assert 0 < r.fastest <= r.seconds
        assert r.moved is None or r.moved > 0
    dense, ours = (next(r for r in rows if r.path == p) for p in (bench_features.DENSE, bench_features.OURS))
    assert dense.ratio == 1
    assert ours.ratio == pytest.approx(dense.seconds / ours.seconds)
    assert ours.moved < dense.moved
    json.dumps([r.to_json() for r in rows])


@pytest.mark.parametrize(("operation", "kernel"), [("project", "project"), ("conv", "conv"), ("ensemble", "classify")])
def test_no_speed_for_a_path_that_computes_something_else(operation, kernel, monkeypatch):
    original = getattr(cpu_strips, kernel)

    def wrong(*arguments):
        made = original(*arguments)
        return made * 1.01 if torch.is_tensor(made) else ((made[0] + 1) % 16, *made[1:])

    monkeypatch.setattr(cpu_strips, kernel, wrong)
    with pytest.raises(GansegError, match="no speed is printed"):
        features(operation)


def test_no_speed_for_other_clusters(monkeypatch):
    monkeypatch.setattr(bench_features, "kmeans", lambda p, k, **options: replace_centroids(options["start"]))
    with pytest.raises(GansegError, match="labels"):
        features("kmeans")


def replace_centroids(start):
    return type("Result", (), {"centroids": start.flip(0)})()


@pytest.mark.parametrize("operation", ["project", "conv", "ensemble"])
def test_a_hypercolumn_that_does_not_fit_is_not_built_and_ours_is_checked_at_pixels(operation, monkeypatch):
    monkeypatch.setattr(bench_features, "available_memory", lambda device: 1 << 20)
    monkeypatch.setattr(bench_features, "hypercolumn", None)
    dense, ours = features(operation)
    assert dense.seconds is None
    assert "not run" in dense.note
    assert ours.ratio is None
    assert "sampled pixels" in ours.note


@pytest.mark.parametrize("operation", ["project", "conv", "ensemble"])
def test_the_check_at_pixels_sees_what_is_wrong(operation, monkeypatch):
    monkeypatch.setattr(bench_features, "available_memory", lambda device: 1 << 20)
    original = pyramids.FeaturePyramid.at
    monkeypatch.setattr(pyramids.FeaturePyramid, "at", lambda self, points: original(self, points.flip(0)))
    with pytest.raises(GansegError, match="no speed is printed"):
        features(operation)


def test_torch_compile_runs_only_when_asked_and_says_why_it_cannot(monkeypatch):
    asked = []

    def broken(function, **options):
        asked.append(function)
        raise RuntimeError("no compiler\nin sight")

    monkeypatch.setattr(torch, "compile", broken)
    row = next(r for r in features("project") if r.path == bench_features.COMPILED)
    assert (asked, row.seconds) == ([], None)
    assert "--compile" in row.note
    row = next(r for r in features("project", try_compile=True) if r.path == bench_features.COMPILED)
    assert row.seconds is None
    assert "no compiler" in row.note
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    row = next(r for r in features("project", try_compile=True) if r.path == bench_features.COMPILED)
    assert row.seconds > 0


def test_an_unknown_operation_or_head_is_refused_before_any_work():
    with pytest.raises(UsageError, match="operation"):
        features("projekt")
    with pytest.raises(UsageError, match="head"):
        next(bench_pairs.bench_pairs(["tiny"], ["cnn-xl"], 1))


def test_pairs():
    heads = ("linear", "mlp", "cnn-s", "ensemble")
    rows = list(bench_pairs.bench_pairs(["tiny"], heads, 1, batch=2))
    assert [r.path for r in rows] == list(heads)
    for r in rows:
        assert r.ratio > 0.3
        assert r.facts["batch"] == 2
        assert r.facts["image_seconds"] > 0


@pytest.mark.parametrize(("head", "kernel"), [("mlp", "classify"), ("cnn-s", "conv")])
def test_no_pair_is_timed_with_a_wrong_head(head, kernel, monkeypatch):
    original = getattr(cpu_strips, kernel)

    def wrong(*arguments):
        made = original(*arguments)
        return made * 2 if torch.is_tensor(made) else (1 - made[0].clamp(max=1), *made[1:])

    monkeypatch.setattr(cpu_strips, kernel, wrong)
    with pytest.raises(GansegError, match="no speed is printed"):
        list(bench_pairs.bench_pairs(["tiny"], [head], 1))


def test_store(tmp_path):
    rows = list(bench_store.bench_store(1, count=3, size=32, folder=tmp_path, many=9))
    packed = (bench_store.GZIP_4, bench_store.GZIP_1, bench_store.OURS)
    wanted = [(f"{what} 3 pairs", path) for what in ("write", "read") for path in packed]
    wanted += [("read 3 at random", path) for path in (bench_store.PNG_FOLDER, bench_store.OURS)]
    wanted += [(f"write {n} pairs", bench_store.OURS) for n in ("1,000", "9")]
    assert [(r.operation, r.path) for r in rows] == wanted
    assert all(r.facts["file_bytes"] > 0 for r in rows[:-2])
    assert all("pairs/s" in r.note for r in rows)
    assert not list(tmp_path.iterdir())


def test_pairs_to_bench_with_pack_as_photographs_do():
    isal_zlib = pytest.importorskip("isal.isal_zlib", reason="needs isal")
    arrays = bench_store.drawn_pairs(2, 256)
    packed = sum(len(isal_zlib.compress(x, 1)) for x in arrays.image) / arrays.image.nbytes
    assert 0.68 < packed < 0.76
    assert set(np.unique(arrays.mask)) <= set(range(len(LABELS)))
    inside = np.pad(arrays.mask, ((0, 0), (16, 16), (16, 16)), mode="edge")
    calm = np.all([np.roll(inside, (dy, dx), (1, 2)) == inside for dy in (-16, 0, 16) for dx in (-16, 0, 16)], axis=0)
    calm = calm[:, 16:-16, 16:-16]
    assert arrays.confidence[calm].mean() > 250 > arrays.confidence[~calm].mean()


def test_no_speed_for_a_store_that_changes_pixels(tmp_path, monkeypatch):
    original = bench_store.read_shard

    def wrong(folder, index):
        arrays = original(folder, index)
        return replace(arrays, mask=np.flip(arrays.mask, axis=1))

    monkeypatch.setattr(bench_store, "read_shard", wrong)
    with pytest.raises(GansegError, match="mask"):
        list(bench_store.bench_store(1, count=2, size=32, folder=tmp_path))


def test_repeats_are_interleaved_and_end_when_patience_does(monkeypatch):
    order = []
    seconds = benching.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == list("ababab")
    assert [len(v) for v in seconds.values()] == [3, 3]
    monkeypatch.setattr(benching, "PATIENCE", 0.01)
    assert len(benching.interleaved({"a": lambda: time.sleep(0.02)}, 5)["a"]) == 1
    assert benching.median_ratio([4, 6, 100], [2, 2, 10]) == 3


MEASURED = """
import sys, time, torch
from gansegctl.pipeline.runtime import memory as peak

def call():
    big = torch.ones(40_000_000, dtype=torch.uint8)
    small = big[:10_000_000].clone()
    time.sleep(0.1)
    del big
    return small

if sys.argv[1] == "sampling":
    def refuse(*a):
        raise PermissionError
    peak.Path.write_text = refuse
call()
print(peak.peak_extra(call))
"""


@pytest.mark.parametrize("way", ["high-water mark", "sampling"])
def test_peak_memory_is_what_a_call_holds_at_its_worst(way):
    """In a process of its own: of a long one the system may take back memory while it is measured."""
    if peak._resident() is None:
        pytest.skip("no /proc here")
    done = subprocess.run([sys.executable, "-c", MEASURED, way], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(50_000_000, rel=0.1)


def test_copying_and_free_memory_are_plausible():
    assert 1e8 < benching.copy_bandwidth(nbytes=1 << 22) < 1e13
    assert 1e7 < peak.available_memory() < 1e14


def test_differences_are_judged_by_the_largest_value():
    x = torch.tensor([0.0, 1000.0])
    assert benching.check_equal("x", x + 0.05, x) == pytest.approx(5e-5, rel=0.01)
    for wrong in (x + 0.2, x * float("nan")):
        with pytest.raises(GansegError, match="no speed"):
            benching.check_equal("x", wrong, x)
    with pytest.raises(GansegError, match="shapes"):
        benching.check_equal("x", x[:1], x)
    labels = torch.zeros(20_000, dtype=torch.uint8)
    other = labels.clone()
    other[0] = 1
    assert benching.check_labels("x", other, labels) == pytest.approx(5e-5)
    other[:10] = 1
    with pytest.raises(GansegError, match="other labels"):
        benching.check_labels("x", other, labels)


def test_the_table_and_the_page(tmp_path):
    rows = [Row("s", "o", "p", 0.0123, 0.0120, 2_500_000_000, 123_000_000, 12.34, "why"), Row("s", "o", "q", note="no")]
    lines = benching.markdown_table(rows, "a ÷ b", 2e10)
    assert lines[2] == "| s | o | p | 12.3 | 12.0 | 12.3 | 2.50 GB | 123 MB | 50 % | why |"
    assert lines[3].endswith("|  |  |  |  |  |  | no |")
    assert len({line.count("|") for line in lines}) == 1
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench-x -->\nold\n<!-- /bench-x -->\nafter\n")
    benching.write_between_marks(page, "x", lines)
    text = page.read_text()
    assert text.startswith("before\n<!-- bench-x -->\n| shape")
    assert text.endswith("<!-- /bench-x -->\nafter\n")
    assert "old" not in text
    with pytest.raises(UsageError, match="page"):
        benching.write_between_marks(page, "y", lines)


def test_kernels_need_a_gpu():
    with pytest.raises(DeviceError, match="GPU") as caught:
        list(bench_kernels.bench_kernels(["demo"], 1, "fp16", 1, "cpu"))
    assert caught.value.status == 3
