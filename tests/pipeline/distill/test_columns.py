"""Training from disk equals training from memory, and the filters leave out what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gansegctl.config import DistillSettings
from gansegctl.errors import DatasetError, UsageError
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.pipeline.demo.scenes import write_scenes
from gansegctl.pipeline.distill.columns import ShardColumn, kept_samples
from gansegctl.pipeline.distill.pairs import load_pairs
from gansegctl.pipeline.distill.stage import distill
from gansegctl.store.manifest import Manifest
from gansegctl.store.schema import ShardArrays
from gansegctl.store.shard import write_shard
from gansegctl.students.training import MOST_HELD, StudentSettings, StudentTraining

LABELS = LabelMap(("a", "b"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two shards of 6 and 4 pairs of 8 px; sample i has score (7i mod 10)/10 and confidence 20·i everywhere."""
    folder = tmp_path_factory.mktemp("pairs") / "d"
    stream = np.random.default_rng(0)
    facts = {"name": "x", "family": "tiny", "sha256": "0" * 64, "resolution": 8, "channels": 3}
    plan = [tuple(range(6)), tuple(range(6, 10))]
    manifest = Manifest("pairs", {"generate": {}}, facts, Manifest.plan(plan), labels=LABELS, licence="CC0-1.0")
    manifest.begin(folder)
    for index, seeds in enumerate(plan):
        n = len(seeds)
        arrays = ShardArrays(
            stream.integers(0, 255, (n, 8, 8, 3), np.uint8),
            np.array(seeds, np.uint64),
            mask=stream.integers(0, 2, (n, 8, 8)).astype(np.uint8),
            confidence=np.stack([np.full((8, 8), 20 * s, np.uint8) for s in seeds]),
            score=np.array([(7 * s % 10) / 10 for s in seeds], np.float32),
        )
        write_shard(folder, index, arrays, LABELS, manifest.digest)
    return folder


def test_a_column_reads_what_memory_holds(dataset):
    pairs, labels = load_pairs(dataset)
    assert labels == LABELS and isinstance(pairs.image, torch.Tensor)
    column = ShardColumn(dataset, "image")
    chosen = torch.tensor([9, 0, 6, 6])
    assert column.shape == pairs.image.shape == (10, 8, 8, 3)
    assert torch.equal(column[chosen], pairs.image[chosen])
    assert torch.equal(column[2:4], pairs.image[2:4])


def test_training_from_disk_equals_training_from_memory(dataset):
    weights = []
    for budget in (10**9, 0):
        pairs, labels = load_pairs(dataset, in_memory=budget)
        assert isinstance(pairs.image, torch.Tensor) == bool(budget)
        training = StudentTraining(pairs, labels, StudentSettings(widths=(4, 8), steps=3, batch_size=4, validation=0.2))
        facts = list(training.run())[-1].facts
        assert "validation_miou" in facts
        weights.append(training.student.model.state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_values_on_disk_are_checked_when_read(dataset):
    pairs, _ = load_pairs(dataset, in_memory=0)
    training = StudentTraining(pairs, LabelMap(("only",)), StudentSettings(widths=(4, 8), steps=2, batch_size=8))
    with pytest.raises(UsageError, match="mask value 1"):
        list(training.run())


def test_the_least_certain_are_left_out(dataset):
    # scores of samples 0-9: .0 .7 .4 .1 .8 .5 .2 .9 .6 .3
    assert kept_samples(dataset, 0.2) == [0, 1, 2, 3, 5, 6, 8, 9]
    assert kept_samples(dataset, 0.0) is None
    pairs, _ = load_pairs(dataset, drop_uncertain=0.5)
    everything, _ = load_pairs(dataset)
    assert torch.equal(pairs.image, everything.image[[0, 2, 3, 6, 9]])
    limited, _ = load_pairs(dataset, limit=2, drop_uncertain=0.5)
    assert torch.equal(limited.target, everything.target[[0, 2]])
    for share in (1.0, -0.1, 0.99):
        with pytest.raises(UsageError, match="drop-uncertain"):
            kept_samples(dataset, share)


@pytest.mark.parametrize("budget", [10**9, 0])
def test_unsure_pixels_are_ignored(dataset, budget):
    pairs, _ = load_pairs(dataset, ignore_below=100, in_memory=budget)
    everything, _ = load_pairs(dataset)
    target = pairs.target[torch.arange(10)]
    assert (target[:5] == IGNORE).all()  # confidence 0 to 80
    assert torch.equal(target[5:], everything.target[5:])


def test_filters_need_scores(tmp_path):
    list(write_scenes([1, 2], tmp_path / "scenes", 32))
    pairs, _ = load_pairs(tmp_path / "scenes")
    assert len(pairs) == 2
    with pytest.raises(DatasetError, match="scores"):
        load_pairs(tmp_path / "scenes", drop_uncertain=0.5)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="filters"):
        load_pairs(tmp_path / "folder", ignore_below=3)


def test_the_stage_takes_the_filters(dataset, tmp_path):
    chosen = DistillSettings(steps=2, batch_size=4, drop_uncertain=0.5, ignore_below=30)
    list(distill(dataset, tmp_path / "s.safetensors", chosen))
    from gansegctl.students.student import read_header

    assert read_header(tmp_path / "s.safetensors")["facts"]["pairs"] == 5
    for changes in ({"drop_uncertain": 1.0}, {"ignore_below": 256}, {"augment": "some"}):
        with pytest.raises(UsageError):
            DistillSettings(**changes)


def test_validation_does_not_grow_without_bound():
    image = torch.zeros(1, 2, 2, 3, dtype=torch.uint8).expand(60_000, 2, 2, 3)
    from gansegctl.students.pairs import Pairs

    training = StudentTraining(Pairs(image, image[..., 0]), LABELS, StudentSettings(widths=(4,), steps=1))
    assert len(training.validation) == MOST_HELD
