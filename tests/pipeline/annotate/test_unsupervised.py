"""annotate --shots 0, and scores of masks whose classes nobody named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from gansegctl import methods
from gansegctl.cli import main
from gansegctl.config import AnnotateSettings, EvalSettings, GenerateSettings
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.annotate.stage import annotate, check_method
from gansegctl.pipeline.evaluate import aligned, evaluate
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.pipeline.inputs.generators import latents_of_seeds, open_generator
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.store.dataset import iter_shards
from gansegctl.store.manifest import Manifest, problems_of_dataset

QUICK = {
    "stylemix": {"variants": 4, "repeats": 3, "k": 3, "iterations": 4},
    "segment_in_style": {"k": 4, "images": 3, "iterations": 4, "statistics_samples": 2},
}


@pytest.fixture(scope="module")
def plain(generator_file, tmp_path_factory):
    """A dataset without masks."""
    folder = tmp_path_factory.mktemp("plain") / "d"
    job, network, _ = plan_generate(
        GenerateSettings(generator=str(generator_file), seeds="0-5", batch_size=4, noise="seed"), None, "cpu"
    )
    list(synthesize(job, folder, network))
    return folder


@pytest.fixture
def dataset(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "d")


def label(dataset, method, **options):
    settings = AnnotateSettings(shots=0, method=method, options=QUICK[method] | options)
    check_method(settings)
    source = Source.open(dataset)
    return source, list(annotate(source, [], None, settings))


@pytest.mark.parametrize(
    ("method", "names"),
    [("stylemix", ("background", "foreground")), ("segment_in_style", tuple(f"segment-{i}" for i in range(4)))],
)
def test_masks_without_exemplars_belong_to_the_images_beside_them(dataset, generator_file, method, names):
    before = np.concatenate([a.image for _, a in iter_shards(dataset)])
    label(dataset, method)
    manifest = Manifest.read(dataset)
    assert manifest.labels.names == names and manifest.segmenter["shots"] == 0 and manifest.stage == "pairs"
    assert problems_of_dataset(dataset) == [] and not (dataset / "exemplars").exists()
    segmenter, network = methods.load(dataset / "segmenter.safetensors"), open_generator(str(generator_file))
    for _, arrays in iter_shards(dataset):
        seeds = [int(s) for s in arrays.seed]
        image, again = image_and_mask(network, latents_of_seeds(network, seeds), seeds, "seed", segmenter)
        assert np.array_equal(arrays.image, image) and np.array_equal(arrays.image, before[seeds])
        assert (arrays.mask == again.labels.numpy()).mean() > 0.99
        assert len(np.unique(arrays.mask)) > 1 and arrays.score.shape == (len(seeds),)


def test_the_segmenter_of_an_earlier_run_is_used_again(dataset):
    label(dataset, "stylemix")
    _, events = label(dataset, "stylemix")
    assert events[0].facts["fitted"] == "before"
    _, events = label(dataset, "stylemix", k=2)
    assert events[0].facts["shots"] == 0 and "fitted" not in events[0].facts


def test_images_know_their_latents(generator_file):
    network, seen = open_generator(str(generator_file)), []

    class Watching:
        taps = ()

        def predict(self, generator, synthesis, probabilities=False):
            seen.append(synthesis)

    ws = latents_of_seeds(network, [3, 4])
    image_and_mask(network, ws, [3, 4], "seed", Watching())
    assert seen[0].ws is ws and seen[0].noise == "seed" and seen[0].seeds == (3, 4)


def test_shots_that_a_method_cannot_use_are_refused_before_any_work():
    with pytest.raises(UsageError, match=r"--shots 0 for repurpose[\s\S]*segment_in_style"):
        check_method(AnnotateSettings(shots=0, method="repurpose"))
    with pytest.raises(UsageError, match="reads no exemplars"):
        check_method(AnnotateSettings(shots=1, method="stylemix"))
    check_method(AnnotateSettings(shots=1, method="segment_in_style"))
    with pytest.raises(UsageError, match="--masks with --shots 0"):
        check_method(AnnotateSettings(shots=0, method="stylemix", masks="somewhere"))


def rows_of(predicted, truth):
    return iter([(predicted[:2], truth[:2], None), (predicted[2:], truth[2:], None)])


def test_clusters_are_matched_over_all_images_and_the_dataset_keeps_them():
    truth = np.random.RandomState(0).randint(0, 3, (4, 8, 8)).astype(np.uint8)
    predicted = np.array([2, 0, 1], np.uint8)[truth]
    predicted[0, 0, 0] = 255
    segments, classes = LabelMap(tuple(f"segment-{i}" for i in range(4))), LabelMap(("ground", "tree", "sky"))
    rows, labels, matched = aligned(rows_of(predicted, truth), segments, classes)
    found = np.concatenate([p for p, _, _ in rows])
    assert labels == classes and found[0, 0, 0] == 255
    assert np.array_equal(found.flatten()[1:], truth.flatten()[1:])
    assert {k: matched[k] for k in ("segment-0", "segment-1", "segment-2")} == {
        "segment-0": "tree",
        "segment-1": "sky",
        "segment-2": "ground",
    }


def test_confidences_of_clusters_are_not_those_of_classes():
    truth = np.zeros((2, 4, 4), np.uint8)
    row = (truth, truth, None, np.zeros(2), np.full((2, 4, 4), 128, np.uint8))
    segments, classes = LabelMap(("segment-0", "segment-1")), LabelMap(("a", "b"))
    assert [len(r) for r in aligned(iter([row]), segments, classes)[0]] == [4]
    assert [len(r) for r in aligned(iter([row]), classes, classes)[0]] == [5]


def test_two_parts_score_a_truth_of_many_in_two():
    truth = np.array([[[0, 1], [2, 255]]] * 4, np.uint8)
    two = LabelMap(("background", "foreground"))
    rows, labels, matched = aligned(rows_of(truth.clip(0, 1), truth), two, LabelMap(("a", "b", "c")))
    assert labels == two and matched is None
    assert all(np.array_equal(t[0], [[0, 1], [1, 255]]) for _, t, _ in rows)


def test_other_classes_are_refused_and_equal_ones_untouched():
    same, rows = LabelMap(("a", "b")), iter([])
    assert aligned(rows, same, same) == (rows, same, None)
    with pytest.raises(UsageError, match="same class names"):
        aligned(rows, LabelMap(("a", "c")), same)


def test_eval_reports_matches_and_the_two_part_score(plain, tmp_path):
    sets = {}
    for name in ("stylemix", "segment_in_style"):
        sets[name] = shutil.copytree(plain, tmp_path / name)
        label(sets[name], name)
    report = evaluate(sets["segment_in_style"], str(sets["stylemix"]), EvalSettings(bootstrap=5))
    assert set(report.matched) == {f"segment-{i}" for i in range(4)}
    assert set(report.matched.values()) == {"background", "foreground"}
    assert report.to_json()["matched"] == report.matched
    assert report.scores["foreground_miou"] == pytest.approx(report.miou)  # two classes
    two = evaluate(sets["stylemix"], str(sets["segment_in_style"]), EvalSettings(bootstrap=5))
    assert two.labels.names == ("background", "foreground") and two.matched is None
    assert Manifest.read(sets["segment_in_style"]).labels.names[0] == "segment-0"


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


def test_the_command_takes_settings_of_any_method(dataset, tmp_path, call):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"figure": [1, 3]}))
    common = ("annotate", dataset, "--shots", "0", "--method", "segment_in_style", "--json")
    few = [x for k, v in QUICK["segment_in_style"].items() for x in ("--set", f"{k}={v}")]
    status, out, _ = call(*common, *few, "--set", f"names=@{names}", "--dry-run")
    assert status == 0 and json.loads(out)["options"]["names"] == {"figure": [1, 3]}
    assert Manifest.read(dataset).stage == "images"
    status, out, _ = call(*common, *few, "--set", f"names=@{names}")
    assert status == 0 and json.loads(out)["classes"] == ["background", "figure"]
    for wrong, said in (
        (("--set", "k"), "NAME=VALUE"),
        (("--set", "k=3", "--set", "k=4"), "every name once"),
        (("--set", "kk=3"), "options.kk"),
        (("--set", "names=@nowhere"), "a JSON file"),
        (("--set", "coordinates=q"), "coordinates"),
        (("--masks", dataset), "--masks with --shots 0"),
    ):
        status, _, err = call(*common, *wrong)
        assert status == 2 and said in err, wrong
