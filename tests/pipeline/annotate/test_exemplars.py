"""Exemplars out and in through the pipeline and the command: chosen for a reason, annotated in any tool."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from gansegctl.annotation.bundle import listed_seeds
from gansegctl.choices import SELECTIONS
from gansegctl.cli import cli
from gansegctl.config import AnnotateSettings, GenerateSettings
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.exemplars import exemplar_seeds, exemplars_of, known_labels, write_exemplars
from gansegctl.pipeline.annotate.selection import choose_exemplars
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.annotate.stage import annotate
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.store.manifest import Manifest

LABELS = LabelMap(("dark", "bright"))


def coco_of(folder, image, seed: int, file: str = "instances.json"):
    """Bright pixels of an image as COCO polygons, a pixel row each."""
    bright = image.mean(axis=2) > np.median(image.mean(axis=2))
    side = bright.shape[0]
    cells = [[x, y, x + 1, y, x + 1, y + 1, x, y + 1] for y, x in np.argwhere(bright).tolist()]
    frame = {
        "images": [{"id": 1, "file_name": f"exemplar-{seed:08d}.png", "height": side, "width": side}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "segmentation": cells}],
        "categories": [{"id": 5, "name": "bright"}, {"id": 6, "name": "dark"}],
    }
    path = folder / file
    path.write_text(json.dumps(frame))
    return path, bright


def bundle_of(source):
    """The bundle of one chosen exemplar, and the choice."""
    choice = choose_exemplars(source, source.manifest.seeds, 1)
    return write_exemplars(source, choice, LABELS), choice


@pytest.fixture(scope="module")
def made(generator_file, tmp_path_factory):
    """A dataset of 12 images with a segmenter beside it."""
    folder = tmp_path_factory.mktemp("exemplars") / "data"
    settings = GenerateSettings(generator=str(generator_file), seeds="0-11", batch_size=4, shard_size=6)
    job, network, _ = plan_generate(settings, None, "cpu")
    list(synthesize(job, folder, network))
    source = Source.open(folder)
    bundle, choice = bundle_of(source)
    path, _ = coco_of(bundle, source.images(choice.seeds)[0], choice.seeds[0])
    exemplars = exemplars_of(source, choice.seeds, path, LABELS)
    list(annotate(source, exemplars, LABELS, AnnotateSettings(method="linear", options={"steps": 5})))
    return folder


@pytest.fixture
def dataset(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "data")
    shutil.rmtree(folder / "exemplars")
    return folder


@pytest.mark.parametrize("how", SELECTIONS)
def test_every_choice_has_a_reason_for_every_image(dataset, how):
    source = Source.open(dataset)
    choice = choose_exemplars(source, source.manifest.seeds, 3, how)
    folder = write_exemplars(source, choice, LABELS)
    assert len(set(choice.seeds)) == 3 and set(choice.seeds) <= set(range(12))
    rows = json.loads((folder / "exemplars.json").read_text())
    assert [r["seed"] for r in rows["exemplars"]] == list(choice.seeds)
    assert [r["why"] for r in rows["exemplars"]] == [choice.why(i) for i in range(3)]
    assert rows["provenance"]["why"] == choice.reason
    assert choose_exemplars(source, source.manifest.seeds, 3, how) == choice, "the same again"


def test_the_least_certain_come_first_and_what_was_learnt_is_left_out(dataset):
    source = Source.open(dataset)
    learnt = [int(s) for s in Manifest.read(dataset).settings["annotate"]["exemplars"]]
    every = choose_exemplars(source, range(12), 11, "uncertainty")
    assert sorted([*every.seeds, *learnt]) == list(range(12))
    first = choose_exemplars(source, range(12), 1, "uncertainty")
    assert first.reasons[0].startswith("number 1 of 11 by uncertainty")
    assert first.seeds[0] == every.seeds[0]
    everything = choose_exemplars(source, range(12), 12, "uncertainty", dataset / "segmenter.safetensors")
    assert sorted(everything.seeds) == list(range(12)), "of a segmenter from elsewhere nothing is known"


def test_medoids_stand_for_all_candidates_and_random_follows_the_seed(dataset):
    source = Source.open(dataset)
    reasons = choose_exemplars(source, range(12), 4).reasons
    assert sum(int(r.split()[2]) for r in reasons) == 12
    draws = {choose_exemplars(source, range(12), 3, "random", seed=s).seeds for s in range(6)}
    assert len(draws) > 3


def test_choices_that_mean_nothing(dataset):
    source = Source.open(dataset)
    with pytest.raises(UsageError, match=r"--choose kmedoids(.|\n)*did you mean 'k-medoids'"):
        choose_exemplars(source, range(12), 1, "kmedoids")
    with pytest.raises(UsageError, match="--choose uncertainty with it"):
        choose_exemplars(source, range(12), 1, "random", dataset / "segmenter.safetensors")
    for how in SELECTIONS:
        with pytest.raises(UsageError, match="got --shots 13"):
            choose_exemplars(source, range(12), 13, how)
    (dataset / "segmenter.safetensors").unlink()
    with pytest.raises(UsageError, match="no segmenter in"):
        choose_exemplars(source, range(12), 1, "uncertainty")


def test_masks_from_a_file_elsewhere_belong_to_the_datasets_bundle(dataset, tmp_path):
    source = Source.open(dataset)
    bundle, choice = bundle_of(source)
    (seed,) = choice.seeds
    path, bright = coco_of(tmp_path, source.images([seed])[0], seed)
    renamed = json.loads(path.read_text())
    renamed["images"][0]["file_name"] = "portrait.png"
    path.write_text(json.dumps(renamed))
    assert exemplar_seeds(path, 1, None, dataset) == [seed]
    assert known_labels(path, dataset, None, "x") == LABELS
    said = []
    (exemplar,) = exemplars_of(source, [seed], path, LABELS, said.append)
    np.testing.assert_array_equal(exemplar.mask, bright)
    assert said[0] == f"seed {seed}: {path} (coco)" and "the only exemplar" in said[1]
    assert listed_seeds(bundle) == [seed]


def test_a_bundle_of_another_truncation_is_refused(generator_file, dataset, tmp_path):
    source = Source.open(dataset)
    bundle, choice = bundle_of(source)
    coco_of(bundle, source.images(choice.seeds)[0], choice.seeds[0])
    settings = GenerateSettings(generator=str(generator_file), seeds="0-11", truncation=0.5)
    job, network, _ = plan_generate(settings, None, "cpu")
    list(synthesize(job, tmp_path / "other", network))
    other = Source.open(tmp_path / "other")
    with pytest.raises(UsageError, match="another latent than this dataset's seed"):
        exemplars_of(other, choice.seeds, bundle, LABELS)


def test_the_command_takes_a_file_and_says_what_it_read(dataset, tmp_path):
    run = CliRunner().invoke(
        cli, ["annotate", str(dataset), "--classes", "dark,bright", "--choose", "random", "--json"]
    )
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    (seed,) = told["seeds"]
    assert told["why"].startswith("drawn at random") and told["reasons"] == {str(seed): told["why"]}
    image = Source.open(dataset).images([seed])[0]
    path, _ = coco_of(tmp_path, image, seed, "mine.json")
    run = CliRunner().invoke(cli, ["annotate", str(dataset), "--masks", str(path), "--set", "steps=3", "--dry-run"])
    assert run.exit_code == 0, run.output
    assert f"seed {seed}: {path} (coco)" in run.stderr
    assert "pixels that no shape covers became 'dark', the first class" in run.stderr
