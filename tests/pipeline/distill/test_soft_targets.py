"""From `annotate --probabilities` to `distill --soft --temperature`: what is kept is what the segmenter said."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from gansegctl import methods
from gansegctl.cli import main
from gansegctl.config import AnnotateSettings, DistillSettings
from gansegctl.contracts import result_of
from gansegctl.errors import DatasetError, UsageError
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.annotate.stage import annotate
from gansegctl.pipeline.distill.columns import SoftTargets
from gansegctl.pipeline.distill.pairs import load_pairs
from gansegctl.pipeline.distill.stage import distill
from gansegctl.pipeline.inputs.generators import latents_of_seeds, open_generator
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.run import read_plan
from gansegctl.pipeline.verify import Repaired, repair
from gansegctl.store.dataset import iter_shards
from gansegctl.store.manifest import problems_of_dataset
from gansegctl.store.schema import ShardArrays
from gansegctl.store.shard import read_shard
from gansegctl.students.pairs import Pairs
from gansegctl.students.student import read_header
from gansegctl.students.training import StudentSettings, StudentTraining, loss_and_weight

QUICK = ("--shots", "0", "--method", "stylemix", "--set", "variants=4", "--set", "repeats=3", "--set", "k=3")


def run(*line):
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in line])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def soft(generator_file, tmp_path_factory):
    """Six pairs of 16 px in two shards, with probabilities."""
    folder = tmp_path_factory.mktemp("soft") / "d"
    about = ("--generator", generator_file, "-n", 6, "--shard-size", 4, "--batch-size", 4, "-o", folder)
    assert run("generate", *about) == 0
    assert run("annotate", folder, *QUICK, "--probabilities") == 0
    return folder


@pytest.fixture
def dataset(soft, tmp_path):
    return shutil.copytree(soft, tmp_path / "d")


def test_shards_hold_what_the_segmenter_said(soft, generator_file):
    network, segmenter = open_generator(str(generator_file)), methods.load(soft / "segmenter.safetensors")
    for index, seeds in enumerate([[0, 1, 2, 3], [4, 5]]):
        arrays = read_shard(soft, index)
        said = image_and_mask(network, latents_of_seeds(network, seeds), seeds, "const", segmenter, True)[1]
        assert arrays.probabilities.shape == (len(seeds), 2, 16, 16) and arrays.probabilities.dtype == np.uint8
        away = np.abs(arrays.probabilities / 255 - said.probabilities.float().numpy())
        assert away.max() < 0.51 / 255 + 1e-3
        assert (arrays.probabilities.argmax(1) == arrays.mask).mean() > 0.95  # but for ties and rounding
    assert problems_of_dataset(soft) == []


def test_generate_keeps_them_too_and_plain_datasets_do_not(soft, generator_file, tmp_path, capsys):
    again = ("--generator", generator_file, "-n", 4, "--segmenter", soft / "segmenter.safetensors", "--batch-size", 4)
    assert run("generate", *again, "-o", tmp_path / "with", "--probabilities") == 0
    assert run("generate", *again, "-o", tmp_path / "without") == 0
    kept, plain = read_shard(tmp_path / "with", 0), read_shard(tmp_path / "without", 0)
    assert plain.probabilities is None
    np.testing.assert_array_equal(kept.probabilities, read_shard(soft, 0).probabilities)
    np.testing.assert_array_equal(kept.mask, plain.mask)
    with h5py.File(tmp_path / "with" / "shard-00000.h5") as f:  # by anybody's h5py
        assert f["probabilities"].chunks == (1, 2, 16, 16)
        np.testing.assert_array_equal(f["probabilities"][:], kept.probabilities)
    capsys.readouterr()
    assert run("generate", *again, "-o", tmp_path / "without", "--probabilities") == 4
    assert "generate.probabilities" in capsys.readouterr().err


def test_probabilities_of_images_alone_are_refused(generator_file, tmp_path, capsys):
    status = run("generate", "--generator", generator_file, "-n", 2, "-o", tmp_path / "d", "--probabilities")
    assert status == 2 and "--segmenter" in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_repair_brings_them_back(dataset):
    before = (dataset / "shard-00001.h5").read_bytes()
    (dataset / "shard-00001.h5").write_bytes(before[:-7])
    assert result_of(repair(dataset)) == Repaired(["shard-00001.h5"], [])
    assert (dataset / "shard-00001.h5").read_bytes() == before


def test_annotating_without_them_drops_them(dataset):
    assert run("annotate", dataset, *QUICK) == 0
    assert read_shard(dataset, 0).probabilities is None and problems_of_dataset(dataset) == []


def test_a_shape_that_is_not_theirs_is_refused():
    image, seed = np.zeros((2, 4, 4, 3), np.uint8), np.arange(2, dtype=np.uint64)
    for wrong in (np.zeros((2, 3, 4, 5), np.uint8), np.zeros((2, 4, 4), np.uint8), np.zeros((2, 3, 4, 4), np.float16)):
        with pytest.raises(DatasetError, match="probabilities"):
            ShardArrays(image, seed, probabilities=wrong)


def test_shards_too_large_to_hold_are_refused_before_anything_is_fitted(generator_file, tmp_path, capsys, monkeypatch):
    about = ("--generator", generator_file, "-n", 6, "--batch-size", 4)
    assert run("generate", *about, "-o", tmp_path / "d") == 0
    monkeypatch.setattr("gansegctl.pipeline.annotate.stage.LARGEST_SHARD", 6 * 2 * 16 * 16 - 1)
    source = Source.open(tmp_path / "d")
    labels = LabelMap(("a", "b"))
    with pytest.raises(UsageError, match="--shard-size 2"):
        list(annotate(source, [], labels, AnnotateSettings(probabilities=True)))
    assert not (tmp_path / "d" / "segmenter.safetensors").exists()


def test_what_is_kept_does_not_change_what_is_fitted(dataset):
    before = (dataset / "segmenter.safetensors").stat().st_mtime_ns
    assert run("annotate", dataset, *QUICK) == 0
    assert read_shard(dataset, 0).probabilities is None
    assert (dataset / "segmenter.safetensors").stat().st_mtime_ns == before


def test_readers_take_what_they_need(soft):
    arrays = read_shard(soft, 0, wanted=("score",))
    assert list(arrays.present()) == ["image", "seed", "score"]
    assert [list(a.present()) for _, a in iter_shards(soft, wanted=())] == [["image", "seed"]] * 2


def test_a_plan_of_soft_targets_without_probabilities_is_refused_at_once(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text("[generate]\n[annotate]\n[distill]\nsoft = true\n")
    with pytest.raises(UsageError, match=r"annotate\.probabilities"):
        read_plan(str(plan))
    plan.write_text("[generate]\n[annotate]\nprobabilities = true\n[distill]\nsoft = true\ntemperature = 2.0\n")
    assert read_plan(str(plan)).distill.temperature == 2.0
    plan.write_text("[generate]\nprobabilities = true\n")
    with pytest.raises(UsageError, match=r"annotate\.probabilities"):
        read_plan(str(plan))


# -- targets -----------------------------------------------------------------------------------------------------------


def test_softening_is_the_softmax_of_divided_logits():
    logits = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    stored = (logits.softmax(dim=1) * 255).round().byte()
    for temperature in (1.0, 2.0, 0.5):
        targets = SoftTargets(stored, temperature)[torch.tensor([2, 0])]
        wanted = (logits[[2, 0]] / temperature).softmax(dim=1)
        torch.testing.assert_close(targets, wanted, atol=0.02, rtol=0)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(2, 5, 5))
    empty = SoftTargets(torch.zeros(1, 4, 2, 2, dtype=torch.uint8))[:]
    assert torch.equal(empty, torch.zeros(1, 4, 2, 2))  # weighs nothing, and is not nan


def test_all_probabilities_count_when_a_dataset_is_held(soft):
    pairs, masks, everything = 6, 6 * 256 * (3 + 2), 6 * 256 * (3 + 2 + 2)
    assert len(load_pairs(soft)[0]) == pairs
    for room, held in ((everything, True), (everything - 1, False), (masks, False)):
        target = load_pairs(soft, in_memory=room, temperature=1.0)[0].target
        assert isinstance(target.probabilities, torch.Tensor) == held
    assert isinstance(load_pairs(soft, in_memory=masks)[0].target, torch.Tensor)


@pytest.mark.parametrize("room", [10**9, 0])
def test_soft_pairs_are_the_shards_whether_held_or_read(soft, room):
    stored = np.concatenate([read_shard(soft, i).probabilities for i in (0, 1)])
    confidence = np.concatenate([read_shard(soft, i).confidence for i in (0, 1)])
    floor = int(np.unique(confidence)[-1])  # the surest alone
    pairs, labels = load_pairs(soft, in_memory=room, temperature=1.0, ignore_below=floor)
    assert len(labels) == 2 and isinstance(pairs.target.probabilities, torch.Tensor) == bool(room)
    target = pairs.target[torch.arange(6)]
    sure = torch.from_numpy(confidence >= floor)
    assert sure.any() and not sure.all()
    assert torch.equal(target.sum(dim=1) > 0.5, sure)
    torch.testing.assert_close(
        target[:, 1][sure], torch.from_numpy(stored[:, 1] / 255).float()[sure], atol=5e-3, rtol=0
    )


def test_temperature_keeps_the_size_of_gradients():
    """Logits near zero: the gradient is p − q over T, times T² and again softened by T: the same (Hinton et al.)."""
    target_logits = 0.01 * torch.randn(8, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    gradients = []
    for temperature in (1.0, 8.0):
        logits = torch.zeros(8, 5, 3, 3, requires_grad=True)
        total, weight = loss_and_weight(logits, (target_logits / temperature).softmax(dim=1), temperature)
        assert weight.item() == pytest.approx(8 * 9)
        total.backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.05, atol=5e-5)


def test_held_out_soft_pixels_without_weight_are_not_scored():
    stream = torch.Generator().manual_seed(0)
    image = torch.randint(0, 255, (4, 8, 8, 3), generator=stream, dtype=torch.uint8)
    soft = torch.zeros(4, 2, 8, 8)
    soft[:, 1, :4] = 1.0
    hard = soft.argmax(dim=1).to(torch.uint8)
    hard[:, 4:] = IGNORE
    settings = StudentSettings(widths=(4, 8), steps=1, validation=0.5)
    both = [StudentTraining(Pairs(image, target), LabelMap(("a", "b")), settings) for target in (soft, hard)]
    counts = [training._confusion(training.validation) for training in both]
    assert torch.equal(*counts) and counts[0].sum() == 2 * 4 * 8


# -- the command -------------------------------------------------------------------------------------------------------


def test_distill_soft_learns_and_is_its_own_student(soft, tmp_path, capsys):
    line = ("distill", soft, "--steps", 3, "--batch-size", 4)
    assert run(*line, "-o", tmp_path / "hard.safetensors") == 0
    assert run(*line, "-o", tmp_path / "soft.safetensors", "--soft", "--temperature", 2) == 0
    facts = read_header(tmp_path / "soft.safetensors")["facts"]
    assert facts["made_of"]["soft"] is True and facts["made_of"]["temperature"] == 2.0
    assert "soft" not in read_header(tmp_path / "hard.safetensors")["facts"]["made_of"]
    hard, learned = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("hard", "soft"))
    assert hard != learned
    capsys.readouterr()
    assert run(*line, "-o", tmp_path / "soft.safetensors") == 2  # finished, but of something else
    assert "soft: true there, nothing asked for" in capsys.readouterr().err
    assert run(*line, "-o", tmp_path / "soft.safetensors", "--soft", "--temperature", 2, "--json") == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == "finished already"


def test_a_soft_run_is_not_gone_on_with_as_a_hard_one(soft, tmp_path):
    out, settings = tmp_path / "s.safetensors", DistillSettings(steps=4, batch_size=4, soft=True)
    events = distill(soft, out, settings)
    next(events)
    events.close()
    assert out.with_suffix(".ckpt").exists()
    with pytest.raises(UsageError, match=r"soft: 1.0 there, nothing asked for"):
        list(distill(soft, out, DistillSettings(steps=4, batch_size=4)))


def test_soft_targets_of_masks_alone_are_refused(dataset, tmp_path, capsys):
    assert run("annotate", dataset, *QUICK) == 0
    capsys.readouterr()
    assert run("distill", dataset, "-o", tmp_path / "s.safetensors", "--soft") == 2
    error = capsys.readouterr().err
    assert "--probabilities" in error and not (tmp_path / "s.safetensors").exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="--soft"):
        load_pairs(tmp_path / "folder", temperature=1.0)


def test_a_temperature_needs_something_to_soften():
    for wrong in (
        {"temperature": 2.0},
        {"temperature": 0.0, "soft": True},
        {"temperature": float("nan"), "soft": True},
    ):
        with pytest.raises(UsageError, match="temperature"):
            DistillSettings(**wrong)
    assert AnnotateSettings(probabilities=True).probabilities
