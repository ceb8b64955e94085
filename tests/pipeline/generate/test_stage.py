"""The stages together, on a tiny random generator: same samples whatever happens, masks of their own images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from gansegctl import methods
from gansegctl.config import AnnotateSettings, DistillSettings, EvalSettings, GenerateSettings
from gansegctl.errors import DatasetError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.exemplars import (
    exemplar_seeds,
    exemplars_of,
    known_labels,
    seeds_with_masks,
    write_exemplars,
)
from gansegctl.pipeline.annotate.selection import choose_exemplars
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.annotate.stage import annotate
from gansegctl.pipeline.distill.pairs import source_of
from gansegctl.pipeline.distill.stage import distill
from gansegctl.pipeline.evaluate import evaluate, kind_of, write_report
from gansegctl.pipeline.generate.shards import compact_latents
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.pipeline.inputs.generators import latents_of_seeds, open_generator
from gansegctl.pipeline.inspect import describe_dataset, inspect
from gansegctl.store.dataset import iter_shards
from gansegctl.store.manifest import Manifest, problems_of_dataset
from gansegctl.store.shard import read_shard, write_shard

LABELS = LabelMap(("dark", "bright"))


def settings(generator, **changes) -> GenerateSettings:
    return GenerateSettings(
        **{"generator": str(generator), "seeds": "0-11", "batch_size": 4, "shard_size": 5} | changes
    )


def make(generator, out, **changes):
    job, network, _ = plan_generate(settings(generator, **changes), None, "cpu")
    return list(synthesize(job, out, network))


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("shard-*.h5"))}


def paint(source, folder, seeds):
    """Masks that follow from the image: bright pixels."""
    from PIL import Image

    for seed, image in zip(seeds, source.images(seeds), strict=True):
        mask = (image.mean(axis=2) > np.median(image.mean(axis=2))).astype(np.uint8)
        indexed = Image.fromarray(mask)
        indexed.putpalette(LABELS.flat_palette())
        indexed.save(folder / f"exemplar-{seed:08d}.mask.png")


@pytest.fixture(scope="module")
def made(generator_file, tmp_path_factory):
    """The dataset without masks, and the same with them: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("made")
    make(generator_file, folder / "plain")
    shutil.copytree(folder / "plain", folder / "annotated")
    source = Source.open(folder / "annotated")
    choice = choose_exemplars(source, source.manifest.seeds, 2)
    exemplars_folder = write_exemplars(source, choice, LABELS)
    paint(source, exemplars_folder, choice.seeds)
    chosen = AnnotateSettings(shots=2, masks="painted", options={"steps": 20})
    exemplars = exemplars_of(source, choice.seeds, exemplars_folder, LABELS)
    list(annotate(source, exemplars, LABELS, chosen))
    return folder


@pytest.fixture
def dataset(made, tmp_path):
    return shutil.copytree(made / "plain", tmp_path / "plain")


@pytest.fixture
def annotated(made, tmp_path):
    return shutil.copytree(made / "annotated", tmp_path / "annotated")


def test_twice_the_same_command_gives_the_same_bytes(generator_file, dataset, tmp_path):
    make(generator_file, tmp_path / "again")
    assert bytes_of(dataset) == bytes_of(tmp_path / "again")
    assert len(bytes_of(dataset)) == 3


def test_another_batch_size_gives_the_same_latents_and_nearly_the_same_images(generator_file, dataset, tmp_path):
    make(generator_file, tmp_path / "b", batch_size=1)
    for (_, a), (_, b) in zip(iter_shards(dataset), iter_shards(tmp_path / "b"), strict=True):
        assert np.array_equal(a.latent, b.latent)
        assert np.array_equal(a.seed, b.seed)
        assert np.abs(a.image.astype(int) - b.image).max() <= 1


def test_stopped_and_resumed_equals_unbroken(generator_file, dataset, tmp_path):
    out = tmp_path / "stopped"
    job, network, _ = plan_generate(settings(generator_file), None, "cpu")
    events = synthesize(job, out, network)
    for _ in range(4):  # in the middle of the second shard
        next(events)
    events.close()
    assert 0 < len(bytes_of(out)) < 3
    first = out / "shard-00000.h5"
    before = first.stat().st_mtime_ns
    list(synthesize(job, out, network))
    assert bytes_of(out) == bytes_of(dataset)
    assert first.stat().st_mtime_ns == before  # what was done is not made again
    assert (out / "contact.png").is_file()
    assert "shards" in (out / "card.md").read_text()


def test_stored_latents_make_the_stored_images(generator_file, dataset):
    g = open_generator(str(generator_file))
    _, arrays = next(iter_shards(dataset))
    ws = torch.from_numpy(np.repeat(arrays.latent.astype(np.float32)[:, None], g.spec.num_ws, axis=1))
    assert torch.equal(ws, latents_of_seeds(g, range(5)))
    image = g.synthesize(ws, taps=()).image
    made = (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.abs(made.astype(int) - arrays.image).max() <= 1
    cut = ws.clone()
    cut[:, 3:] += 1
    assert compact_latents(cut.numpy()).shape == cut.shape


def test_other_settings_are_refused_with_the_difference(generator_file, dataset):
    before = bytes_of(dataset)
    with pytest.raises(DatasetError, match=r"truncation.*0\.5"):
        make(generator_file, dataset, truncation=0.5)
    assert bytes_of(dataset) == before


def test_masks_belong_to_the_images_beside_them(generator_file, annotated):
    g = open_generator(str(generator_file))
    segmenter = methods.load(annotated / "segmenter.safetensors")
    images = 0
    for _, arrays in iter_shards(annotated):
        seeds = [int(s) for s in arrays.seed]
        for a in range(0, len(seeds), 4):
            ws = latents_of_seeds(g, seeds[a : a + 4])
            synthesis = g.synthesize(ws, taps=segmenter.taps)
            assert np.array_equal(segmenter.predict(g, synthesis).labels.numpy(), arrays.mask[a : a + 4])
            images += len(ws)
    assert images == 12


def test_annotating_keeps_the_images_and_fills_the_manifest(generator_file, annotated, tmp_path):
    make(generator_file, tmp_path / "new")
    for (_, a), (_, b) in zip(iter_shards(annotated), iter_shards(tmp_path / "new"), strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.latent, b.latent)
        assert a.confidence.shape == a.mask.shape
        assert a.score.shape == (len(a),)
    manifest = Manifest.read(annotated)
    assert manifest.stage == "pairs"
    assert manifest.segmenter["shots"] == 2
    assert problems_of_dataset(annotated) == []
    assert describe_dataset(annotated)["samples"] == 12
    assert list((annotated / "exemplars").glob("*.overlay.png"))


def test_pairs_in_one_pass_equal_pairs_in_two(generator_file, annotated, tmp_path):
    job, network, fitted = plan_generate(settings(generator_file), annotated / "segmenter.safetensors", "cpu")
    list(synthesize(job, tmp_path / "one", network, fitted))
    for (_, a), (_, b) in zip(iter_shards(annotated), iter_shards(tmp_path / "one"), strict=True):
        assert np.array_equal(a.mask, b.mask)
        assert np.array_equal(a.image, b.image)


def test_distill_and_eval(annotated, tmp_path):
    student = tmp_path / "student.safetensors"
    events = list(distill(annotated, student, DistillSettings(steps=25, batch_size=8)))
    assert events[-1].done == 25
    assert not student.with_suffix(".ckpt").exists()
    assert (kind_of(annotated), kind_of(student)) == ("dataset", "student")
    assert kind_of(annotated / "segmenter.safetensors") == "segmenter"
    report = evaluate(student, str(annotated), EvalSettings(bootstrap=20))
    assert report.images == 12
    assert 0 < report.scores["miou"] <= 1
    same = evaluate(annotated, str(annotated), EvalSettings(bootstrap=20))
    assert same.scores["miou"] == 1.0
    files = write_report(report, tmp_path / "eval")
    assert json.loads(files[0].read_text())["images"] == 12
    assert all(f.is_file() for f in files)
    by_student = evaluate(annotated, str(student), EvalSettings(bootstrap=20))
    assert by_student.scores["miou"] == pytest.approx(report.scores["miou"])


def test_eval_of_a_segmenter_needs_its_generator(generator_file, annotated, tmp_path):
    student = tmp_path / "s.safetensors"
    list(distill(annotated, student, DistillSettings(steps=2, batch_size=4)))
    segmenter = annotated / "segmenter.safetensors"
    with pytest.raises(UsageError, match="without a generator"):
        evaluate(segmenter, str(student), EvalSettings(bootstrap=5, num=3))
    report = evaluate(segmenter, str(student), EvalSettings(bootstrap=5, num=3), str(generator_file))
    assert report.images == 3
    with pytest.raises(UsageError, match="segmenter against labelled"):
        evaluate(segmenter, str(annotated), EvalSettings())
    with pytest.raises(UsageError, match="no such file"):
        evaluate(tmp_path / "none", str(student), EvalSettings())


def test_a_dataset_of_another_generator_is_refused(dataset, tmp_path):
    from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
    from gansegctl.generators.weights import save_generator

    other = tmp_path / "other.safetensors"
    save_generator(StyleGAN2(StyleGAN2Config(resolution=16, z_dim=8, w_dim=8, channel_base=64)), other)
    with pytest.raises(DatasetError, match="sha256"):
        Source.open(dataset, str(other))


def test_exemplars_are_explained_and_kept(dataset):
    source = Source.open(dataset)
    choice = choose_exemplars(source, source.manifest.seeds, 3)
    folder = write_exemplars(source, choice, LABELS)
    assert len(set(choice.seeds)) == 3
    assert seeds_with_masks(folder) == list(choice.seeds)
    with pytest.raises(UsageError, match="painted"):
        exemplars_of(source, choice.seeds, folder, LABELS)
    with pytest.raises(UsageError, match="got 3 masks"):
        exemplar_seeds(folder, 4)
    assert known_labels(None, dataset, None, "x") == LABELS
    assert known_labels(None, dataset, "a, b", "x").names == ("a", "b")
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="--classes"):
        known_labels(None, dataset, None, "x")
    with pytest.raises(UsageError, match="at most 12"):
        choose_exemplars(source, source.manifest.seeds, 13)


def test_inspect(generator_file, annotated):
    facts = inspect(generator_file)
    assert (facts["resolution"], facts["num_ws"]) == (16, 6)
    assert facts["hypercolumn_bytes_avoided"] == facts["hypercolumn_channels"] * 16 * 16 * 4
    assert inspect(annotated)["samples"] == 12
    assert inspect(annotated / "segmenter.safetensors")["method"] == "oneshot"
    with pytest.raises(UsageError, match="no such file"):
        inspect(annotated / "nothing.safetensors")


def test_an_interrupted_distillation_does_not_go_on_with_other_pairs(annotated, tmp_path):
    settings, out = DistillSettings(steps=4, batch_size=4), tmp_path / "s.safetensors"
    events = distill(annotated, out, settings)
    training = next(e for e in events)
    assert training.done < training.total and out.with_suffix(".ckpt").exists()
    events.close()
    other = Manifest.read(annotated)
    again = tmp_path / "again"
    again.mkdir()
    replace(other, segmenter=(other.segmenter or {}) | {"sha256": "0" * 64}).write(again)
    assert source_of(again, settings, None, None)["digest"] != source_of(annotated, settings, None, None)["digest"]
    changed = DistillSettings(steps=4, batch_size=4, ignore_below=9)
    with pytest.raises(UsageError, match=r"begun with .*: ignore: 0 there, 9 asked for"):
        list(distill(annotated, out, changed))
    with pytest.raises(UsageError, match=r"inputs: pairs: 12 there, 8 asked for; limit: null there, 8 asked for"):
        list(distill(annotated, out, settings, limit=8))
    list(distill(annotated, out, settings))
    assert out.exists() and not out.with_suffix(".ckpt").exists()


def test_a_finished_student_is_left_alone(annotated, tmp_path):
    settings, out = DistillSettings(steps=2, batch_size=4), tmp_path / "s.safetensors"
    list(distill(annotated, out, settings))
    before = out.stat().st_mtime_ns
    (event,) = distill(annotated, out, replace(settings, accumulate=2))  # the same student, spread otherwise
    assert event.done == event.total == 2 and event.facts == {"skipped": "finished already"}
    with pytest.raises(UsageError, match=r"begun with .*: steps: 2 there, 3 asked for; seed: 0 there, 1 asked for"):
        list(distill(annotated, out, replace(settings, steps=3, seed=1)))
    with pytest.raises(UsageError, match="limit: null there, 8 asked for"):
        list(distill(annotated, out, settings, limit=8))
    with pytest.raises(UsageError, match=r'dtype: "torch.float32" there, "torch.float16" asked for'):
        list(distill(annotated, out, settings, dtype=torch.float16))
    assert out.stat().st_mtime_ns == before
    list(distill(annotated, tmp_path / "half.safetensors", settings, dtype=torch.float16))
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * out.stat().st_size
    out.write_bytes(b"something of the user's")
    with pytest.raises(UsageError, match="not a safetensors file"):
        list(distill(annotated, out, settings))


def test_a_dataset_is_scored_on_its_own_images_only(generator_file, annotated, tmp_path):
    other = shutil.copytree(annotated, tmp_path / "other")
    for index in range(3):
        arrays = read_shard(other, index)
        write_shard(other, index, replace(arrays, image=255 - arrays.image), LABELS, Manifest.read(other).digest)
    with pytest.raises(UsageError, match="not those of the truth, first at sample 0"):
        evaluate(annotated, str(other), EvalSettings(bootstrap=2))
    for index in range(3):  # as another device may round
        arrays = read_shard(annotated, index)
        write_shard(other, index, replace(arrays, image=arrays.image ^ 1), LABELS, Manifest.read(other).digest)
    assert evaluate(annotated, str(other), EvalSettings(bootstrap=2)).scores["miou"] == 1
