"""Shards as a torch Dataset: random access, workers, parts of a dataset, damage."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest
import torch
from helpers.datasets import LABELS, draw, fill, plan
from torch.utils.data import DataLoader

from gansegctl.errors import DatasetError
from gansegctl.store import dataset as module
from gansegctl.store.card import write_card
from gansegctl.store.dataset import ShardDataset, iter_shards

SEEDS = [0, 1, 2, 3, 4, 5, 6, 7, 20, 9]
ALL = ("image", "mask", "confidence", "score", "latent", "seed")


def test_items_are_those_written_in_any_order(dataset):
    data, truth = ShardDataset(dataset, ALL), draw(SEEDS)
    assert len(data) == 10 and data.seeds == SEEDS
    assert (data.labels, data.resolution, data.channels) == (LABELS, 16, 3)
    for i in (9, 0, 5, 3, 4, -1, -10):
        item = data[i]
        assert tuple(item) == ALL
        for name in ALL:
            wanted = truth.present()[name][i]
            assert item[name].numpy().dtype == wanted.dtype and np.array_equal(item[name].numpy(), wanted), (i, name)
    data[0]["image"].zero_()  # a copy of one's own
    assert data[0]["image"].any()
    for i in (10, -11):
        with pytest.raises(IndexError, match="wanted 0 to 9"):
            data[i]


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_see_the_same(dataset, start, workers):
    data = ShardDataset(dataset, ("image", "mask", "seed"))
    data[0]  # opened in the parent: the workers must not use its handles
    loader = DataLoader(data, batch_size=4, num_workers=workers, multiprocessing_context=start)
    batches = list(loader)
    truth = draw(SEEDS)
    assert [len(b["seed"]) for b in batches] == [4, 4, 2]
    assert torch.cat([b["seed"] for b in batches]).tolist() == SEEDS
    assert np.array_equal(torch.cat([b["image"] for b in batches]).numpy(), truth.image)
    assert np.array_equal(torch.cat([b["mask"] for b in batches]).numpy(), truth.mask)


def test_a_forked_process_opens_its_own_files(dataset):
    data = ShardDataset(dataset)
    data[0]
    handle = data._files[0]
    data._process = os.getpid() + 1  # what a fork looks like from the child
    data[0]
    assert data._files[0] is not handle


def test_pickling_takes_no_handles_along(dataset):
    data = ShardDataset(dataset)
    data[0]
    again = pickle.loads(pickle.dumps(data))
    assert not again._files and torch.equal(again[7]["mask"], data[7]["mask"])


def test_few_files_stay_open(dataset, monkeypatch):
    monkeypatch.setattr(module, "OPEN_FILES", 2)
    data = ShardDataset(dataset, ("image",))
    truth = draw(SEEDS).image
    for i in (0, 5, 9, 1, 8, 4):
        assert np.array_equal(data[i]["image"].numpy(), truth[i])
        assert len(data._files) <= 2


def test_indices_choose_and_order(dataset):
    data = ShardDataset(dataset, ("image", "seed"), indices=[8, 0, 5])
    assert len(data) == 3 and data.seeds == [20, 0, 5]
    assert [int(data[i]["seed"]) for i in range(3)] == [20, 0, 5]
    assert np.array_equal(data[-1]["image"].numpy(), draw([5]).image[0])
    with pytest.raises(IndexError, match="got index 10"):
        ShardDataset(dataset, indices=[3, 10])


def test_an_unfinished_dataset_is_refused_unless_asked_for(tmp_path):
    fill(tmp_path / "d", plan(), only=[0, 2])
    with pytest.raises(DatasetError, match=r"1 of 3 shards missing: 1\n[\s\S]*goes on where it stopped"):
        ShardDataset(tmp_path / "d")
    with pytest.raises(DatasetError, match="1 of 3 shards missing"):
        next(iter_shards(tmp_path / "d"))
    data = ShardDataset(tmp_path / "d", ("seed",), partial=True)
    assert [int(x["seed"]) for x in data] == data.seeds == [0, 1, 2, 3, 20, 9]
    assert [i for i, _ in iter_shards(tmp_path / "d", partial=True)] == [0, 2]
    assert "**Unfinished: 1 more are planned.**" in write_card(tmp_path / "d").read_text()


def test_a_dataset_with_nothing_yet(tmp_path):
    plan().begin(tmp_path / "d")
    data = ShardDataset(tmp_path / "d", partial=True)
    assert len(data) == 0 and data.seeds == []


def test_fields_that_are_not_there_are_refused_at_once(tmp_path):
    fill(tmp_path / "d", plan(masks=False))
    with pytest.raises(DatasetError, match=r"without masks[\s\S]*gansegctl annotate"):
        ShardDataset(tmp_path / "d")
    with pytest.raises(DatasetError, match=r"without score[\s\S]*image, seed, latent"):
        ShardDataset(tmp_path / "d", ("image", "score"))
    assert ShardDataset(tmp_path / "d", ("image",)).labels is None


def test_a_damaged_chunk_is_named(dataset):
    path = dataset / "shard-00001.h5"
    with h5py.File(path) as f:
        chunk = f["mask"].id.get_chunk_info(2)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size - 1] ^= 1
    path.write_bytes(data)
    items = ShardDataset(dataset)
    assert items[5]["mask"].shape == (16, 16)
    with pytest.raises(DatasetError, match=r"shard-00001.h5[\s\S]*gansegctl verify"):
        items[6]


def test_shards_one_by_one(dataset):
    shards = dict(iter_shards(dataset))
    assert [a.seed.tolist() for a in shards.values()] == [[0, 1, 2, 3], [4, 5, 6, 7], [20, 9]]
    assert np.array_equal(shards[2].mask, draw([20, 9]).mask)


def test_the_card_states_provenance_licence_and_shares(dataset):
    text = write_card(dataset, "contact.png").read_text()
    manifest = plan()
    masks = draw(SEEDS).mask
    assert (dataset / "card.md").exists() and "Unfinished" not in text
    assert "10 generated images with masks, 16 px, in 3 shards." in text
    for part in ("CC0-1.0", "ab" * 32, "cd" * 32, manifest.digest, "repurpose, 1 exemplar(s)", "](contact.png)"):
        assert part in text
    for k, name in enumerate(LABELS.names):
        assert f"| {k} | {name} | {100 * (masks == k).mean():.2f} % |" in text


def test_the_card_of_images_alone(tmp_path):
    fill(tmp_path / "d", plan(masks=False))
    text = write_card(tmp_path / "d").read_text()
    assert "10 generated images, 16 px" in text and "share of pixels" not in text and "![" not in text
