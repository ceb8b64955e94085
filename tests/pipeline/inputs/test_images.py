"""What users bring: images, labelled sets, names of generators, image files to label."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from gansegctl.config import DistillSettings, EvalSettings
from gansegctl.contracts import Progress, result_of
from gansegctl.errors import DatasetError, UsageError
from gansegctl.generators.stylegan2 import StyleGAN2Config
from gansegctl.generators.training.trainer import Trainer, TrainSettings
from gansegctl.generators.weights import load_generator, read_header
from gansegctl.labels import LabelMap
from gansegctl.pipeline.demo.scenes import write_scenes
from gansegctl.pipeline.distill.pairs import load_pairs
from gansegctl.pipeline.distill.stage import distill
from gansegctl.pipeline.evaluate import evaluate
from gansegctl.pipeline.generate.contact_sheet import write_contact_sheet
from gansegctl.pipeline.inputs.generators import check_class, generator_path, grouped, latents_of_seeds, open_generator
from gansegctl.pipeline.inputs.images import check_split, image_files, load_images
from gansegctl.pipeline.inputs.labelled_sets import classes_of, load_labelled
from gansegctl.pipeline.predict import predict
from gansegctl.pipeline.train import train
from gansegctl.store.manifest import Manifest, problems_of_dataset
from gansegctl.students.student import Student, build

LABELS = LabelMap(("ground", "figure"))


def image(size=(12, 10), value=90, mode="RGB"):
    return Image.new(mode, size, (value, 0, 30) if mode == "RGB" else value)


@pytest.fixture
def folder(tmp_path):
    """Three images below a folder, one of them deeper, with a mask and an overlay that are no images of ours."""
    (tmp_path / "p" / "deeper").mkdir(parents=True)
    image().save(tmp_path / "p" / "a.png")
    image((10, 12), 200).save(tmp_path / "p" / "deeper" / "b.jpg")
    image(mode="L").save(tmp_path / "p" / "c.png")
    image(mode="L").save(tmp_path / "p" / "a.mask.png")
    image().save(tmp_path / "p" / "a.overlay.png")
    (tmp_path / "p" / "notes.txt").write_text("x")
    return tmp_path / "p"


@pytest.fixture
def student(tmp_path):
    torch.manual_seed(0)
    s = Student(build("unet", 3, 2, (4, 6)), LABELS, (16, 16), 3, widths=(4, 6))
    s.save(tmp_path / "s.safetensors")
    return tmp_path / "s.safetensors"


def interrupted(*_):
    raise KeyboardInterrupt


def hdf5(path, **arrays):
    with h5py.File(path, "w") as f:
        for name, value in arrays.items():
            if name == "classes":
                f.attrs["classes"] = json.dumps(value)
            else:
                f[name] = value
    return path


class TestImages:
    def test_files_are_found_in_order_without_masks_and_overlays(self, folder):
        assert [f.name for f in image_files(folder)] == ["a.png", "c.png", "b.jpg"]

    def test_other_sizes_are_cropped_and_resized(self, folder):
        images = load_images(folder, resolution=8)
        assert images.shape == (3, 8, 8, 3)
        assert abs(int(images[0, 4, 4, 0]) - 90) <= 1
        assert load_images(folder, resolution=8, channels=1).shape == (3, 8, 8, 1)

    def test_without_a_resolution_the_sizes_must_agree(self, folder):
        with pytest.raises(UsageError, match="--resolution"):
            load_images(folder)

    def test_an_hdf5_file(self, tmp_path):
        image = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
        assert np.array_equal(load_images(hdf5(tmp_path / "x.h5", image=image), 8), image)
        grey = hdf5(tmp_path / "g.h5", image=image[..., 0])
        assert load_images(grey, 8, channels=1).shape == (2, 8, 8, 1)
        with pytest.raises(UsageError, match="1 channels"):
            load_images(grey, 8, channels=3)
        with pytest.raises(UsageError, match="16 px"):
            load_images(grey, 16, channels=1)

    def test_one_split_of_an_hdf5_file(self, tmp_path, folder):
        image = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
        path = hdf5(tmp_path / "x.h5", image=image, split=np.array([0, 1, 0, 1], np.uint8))
        assert np.array_equal(load_images(path, 8, 1, split=0)[..., 0], image[[0, 2]])
        assert len(load_images(path, 8, 1)) == 4
        with pytest.raises(UsageError, match="split 7"):
            load_images(path, 8, 1, split=7)
        with pytest.raises(UsageError, match="--split 0"):
            load_images(folder, 8, split=0)

    def test_what_learns_wants_one_of_several_splits(self, tmp_path, folder):
        image, mask = np.zeros((4, 32, 32), np.uint8), np.zeros((4, 32, 32), np.uint8)
        arrays = {"image": image, "mask": mask, "classes": ["a", "b"]}
        several = hdf5(tmp_path / "x.h5", split=np.array([0, 2, 0, 2], np.uint8), **arrays)
        one = hdf5(tmp_path / "y.h5", split=np.zeros(4, np.uint8), **arrays)
        none = hdf5(tmp_path / "z.h5", **arrays)
        network = StyleGAN2Config(resolution=32, image_channels=1, channel_base=64, channel_max=8, mapping_layers=1)
        settings = TrainSettings(network=network, images=4, batch_size=2)
        for attempt in (
            lambda: load_pairs(several),
            lambda: list(train(several, tmp_path / "g.safetensors", settings)),
        ):
            with pytest.raises(UsageError, match=r"splits 0, 2 and none chosen[\s\S]*--split 0") as e:
                attempt()
            assert e.value.status == 2
        assert len(load_pairs(several, split=2)[0]) == 2
        assert len(load_pairs(one)[0]) == len(load_pairs(none)[0]) == 4
        assert list(train(several, tmp_path / "g.safetensors", settings, split=2))[-1].done == 4
        student = tmp_path / "s.safetensors"
        list(distill(several, student, DistillSettings(steps=1, batch_size=2), split=0))
        assert Student.load(student).facts["split"] == 0
        check_split(folder, None, "")
        (tmp_path / "cut.h5").write_bytes(several.read_bytes()[:600])
        with pytest.raises(UsageError, match=r"cut\.h5"):
            load_pairs(tmp_path / "cut.h5")

    @pytest.mark.parametrize("broken", ["ground, figure", '"ground"', '{"ground": 0}', "[0, 1]", 3.0])
    def test_an_attribute_that_does_not_name_classes_is_shown(self, tmp_path, broken):
        image, mask = np.zeros((2, 32, 32), np.uint8), np.zeros((2, 32, 32), np.uint8)
        path = hdf5(tmp_path / "x.h5", image=image, mask=mask, classes=list(LABELS.names))
        assert classes_of(path) == load_labelled(path).labels.names == LABELS.names
        with h5py.File(path, "a") as f:
            f.attrs["classes"] = broken
        with pytest.raises(UsageError, match=r"x\.h5 with the attribute classes = [\s\S]*a JSON list"):
            load_labelled(path)
        assert load_labelled(path, LABELS).labels == LABELS

    def test_a_dataset_is_images_too(self, tmp_path):
        list(write_scenes([1, 2], tmp_path / "d", 32))
        assert load_images(tmp_path / "d", 32).shape == (2, 32, 32, 3)

    def test_what_is_missing_is_named(self, tmp_path):
        with pytest.raises(UsageError, match="no such file"):
            load_images(tmp_path / "none")
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="no images"):
            load_images(tmp_path / "empty")
        with pytest.raises(UsageError, match="dataset `image`"):
            load_images(hdf5(tmp_path / "y.h5", other=np.zeros(3)))
        with pytest.raises(UsageError, match="float64"):
            load_images(hdf5(tmp_path / "z.h5", image=np.zeros((2, 8, 8, 3))))


class TestTruth:
    def test_an_hdf5_file_and_its_split(self, tmp_path):
        image = np.zeros((4, 8, 8), np.uint8)
        mask = np.stack([np.full((8, 8), i % 2, np.uint8) for i in range(4)])
        split = np.array([0, 1, 0, 1], np.uint8)
        path = hdf5(tmp_path / "t.h5", image=image, mask=mask, split=split, classes=["a", "b"])
        truth = load_labelled(path, split=1)
        assert truth.image.shape == (2, 8, 8, 1)
        assert truth.mask.min() == 1
        assert truth.labels.names == ("a", "b")
        assert len(load_labelled(path).mask) == 4
        with pytest.raises(UsageError, match=r"split 7\s+wanted: one of 0, 1"):
            load_labelled(path, split=7)
        with pytest.raises(UsageError, match="--split 0 for the folder"):
            load_labelled(tmp_path, split=0)
        list(write_scenes([1], tmp_path / "d", 32))
        with pytest.raises(UsageError, match="--split 0 for the dataset"):
            load_pairs(tmp_path / "d", split=0)

    def test_a_folder_is_grey_where_all_its_images_are(self, tmp_path):
        (tmp_path / "labels.json").write_text(json.dumps(LABELS.to_json()))
        for name, mode in (("a", "L"), ("b", "LA"), ("c", "1")):
            image(mode="L").convert(mode).save(tmp_path / f"{name}.png")
            Image.new("L", (12, 10), 1).save(tmp_path / f"{name}.mask.png")
        assert load_labelled(tmp_path).image.shape == (3, 10, 12, 1)
        assert load_labelled(tmp_path, channels=3).image.shape == (3, 10, 12, 3)
        student = tmp_path / "s.safetensors"
        list(distill(tmp_path, student, DistillSettings(steps=1, batch_size=2)))
        assert Student.load(student).channels == 1
        # And it is scored on a folder of coloured files, which are read as it reads them.
        image().save(tmp_path / "d.png")
        Image.new("L", (12, 10), 1).save(tmp_path / "d.mask.png")
        assert load_labelled(tmp_path).image.shape == (4, 10, 12, 3)
        assert evaluate(student, str(tmp_path), EvalSettings(bootstrap=0)).images == 4

    def test_a_folder_of_pairs(self, tmp_path):
        (tmp_path / "labels.json").write_text(json.dumps(LABELS.to_json()))
        for name, value in (("a", 0), ("b", 1)):
            image().save(tmp_path / f"{name}.png")
            Image.new("L", (12, 10), value).save(tmp_path / f"{name}.mask.png")
        truth = load_labelled(tmp_path)
        assert truth.image.shape == (2, 10, 12, 3)
        assert truth.mask[1].tolist() == np.ones((10, 12)).tolist()

    def test_masks_of_another_size_or_missing_are_named(self, tmp_path):
        (tmp_path / "labels.json").write_text(json.dumps(LABELS.to_json()))
        image().save(tmp_path / "a.png")
        with pytest.raises(UsageError, match="without pairs"):
            load_labelled(tmp_path)
        Image.new("L", (5, 5)).save(tmp_path / "a.mask.png")
        with pytest.raises(UsageError, match=r"a\.mask\.png"):
            load_labelled(tmp_path)
        (tmp_path / "labels.json").unlink()
        with pytest.raises(UsageError, match=r"labels\.json"):
            load_labelled(tmp_path)

    def test_what_is_no_truth_is_refused(self, tmp_path, generator_file):
        with pytest.raises(UsageError, match="no such file"):
            load_labelled(tmp_path / "none")
        with pytest.raises(UsageError, match="`mask`"):
            load_labelled(hdf5(tmp_path / "x.h5", image=np.zeros((1, 8, 8), np.uint8)))
        with pytest.raises(UsageError, match="class names"):
            blank = np.zeros((1, 8, 8), np.uint8)
            load_labelled(hdf5(tmp_path / "y.h5", image=blank, mask=blank))


class TestScenes:
    def test_scenes_are_a_dataset_and_resume(self, tmp_path):
        list(write_scenes([5, 6, 7], tmp_path / "d", 32))
        assert problems_of_dataset(tmp_path / "d") == []
        assert len(load_labelled(tmp_path / "d").mask) == 3
        before = (tmp_path / "d" / "shard-00000.h5").stat().st_mtime_ns
        list(write_scenes([5, 6, 7], tmp_path / "d", 32))
        assert (tmp_path / "d" / "shard-00000.h5").stat().st_mtime_ns == before
        with pytest.raises(DatasetError, match="resolution"):
            list(write_scenes([5, 6, 7], tmp_path / "d", 64))

    def test_a_sheet_needs_a_sample(self, tmp_path):
        list(write_scenes([5], tmp_path / "d", 32))
        (tmp_path / "d" / "shard-00000.json").unlink()
        with pytest.raises(DatasetError, match="without a finished shard"):
            write_contact_sheet(tmp_path / "d")
        assert Manifest.read(tmp_path / "d").seeds == [5]


class TestGenerators:
    def test_names_and_files(self, generator_file):
        assert generator_path("demo").name == "demo-generator.safetensors"
        assert generator_path(str(generator_file)) == generator_file
        with pytest.raises(UsageError, match="did you mean 'demo'"):
            generator_path("demoo")
        g = open_generator("demo")
        assert (g.spec.resolution, g.spec.image_channels) == (64, 3)

    def test_latents_do_not_depend_on_the_batch(self, generator_file):
        g = open_generator(str(generator_file))
        together = latents_of_seeds(g, range(9), truncation=0.7, cutoff=2)
        apart = torch.cat([latents_of_seeds(g, [s], truncation=0.7, cutoff=2) for s in range(9)])
        assert torch.equal(together, apart)
        assert together.shape == (9, 6, 8)

    def test_classes_are_checked(self, generator_file):
        g = open_generator(str(generator_file))
        check_class(g, None)
        with pytest.raises(UsageError, match="no --class"):
            check_class(g, 0)

    def test_groups(self):
        assert [list(x) for x in grouped(range(5), 2)] == [[0, 1], [2, 3], [4]]


class TestPredict:
    def test_masks_in_the_size_of_each_image(self, folder, student, tmp_path):
        events = list(predict(student, [folder], tmp_path / "out"))
        assert isinstance(events[-1], Progress)
        assert events[-1].done == 3
        with Image.open(tmp_path / "out" / "deeper" / "b.mask.png") as mask:
            assert mask.size == (10, 12)
            assert mask.mode == "P"
        assert list(predict(student, [folder], tmp_path / "out"))[-1].facts == {"skipped": 3, "refused": 0}

    def test_what_cannot_be_labelled_is_named(self, folder, student, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="no images"):
            list(predict(student, [tmp_path / "empty"], tmp_path / "out"))
        image().save(folder / "a.jpg")
        with pytest.raises(UsageError, match="two images named a"):
            list(predict(student, [folder], tmp_path / "out"))
        outcome = result_of(predict(student, [folder / "notes.txt"], tmp_path / "out"))
        assert list(outcome.refused) == [str(folder / "notes.txt")]


class TestTrain:
    def test_writes_generator_checkpoint_and_samples(self, folder, tmp_path):
        network = StyleGAN2Config(resolution=8, z_dim=4, w_dim=4, channel_base=32, channel_max=8, mapping_layers=1)
        out = tmp_path / "new" / "g.safetensors"
        settings = TrainSettings(network=network, images=8, batch_size=4)
        events = list(train(folder, out, settings, dtype=torch.float16))
        assert events[-1].done == 8
        assert load_generator(out).config == network
        assert sorted(p.suffix for p in out.parent.iterdir()) == [".ckpt", ".png", ".safetensors"]
        out.unlink()
        assert list(train(folder, out, settings)) == []  # complete already: the generator is written again
        assert out.exists()
        with pytest.raises(UsageError, match=r"\.safetensors"):
            list(train(folder, tmp_path / "g.pt", settings))

    def test_a_kill_at_the_end_leaves_no_generator_of_before(self, folder, tmp_path, monkeypatch):
        network = StyleGAN2Config(resolution=8, z_dim=4, w_dim=4, channel_base=32, channel_max=8, mapping_layers=1)
        out, half = tmp_path / "g.safetensors", TrainSettings(network=network, images=4, batch_size=4)
        list(train(folder, out, half))
        before, whole = out.read_bytes(), replace(half, images=8)
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(Trainer, "save", interrupted)
            list(train(folder, out, whole))
        assert read_header(out)["facts"]["images_seen"] == 8  # the generator is written first
        assert list(train(folder, out, whole))[-1].done == 8
        out.write_bytes(before)  # as a run left it that wrote them the other way round
        assert list(train(folder, out, whole)) == []
        assert read_header(out)["facts"]["images_seen"] == 8
