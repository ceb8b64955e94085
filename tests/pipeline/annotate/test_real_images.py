"""Real annotated images as exemplars: projected, judged, and used by any method."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from gansegctl import methods
from gansegctl.config import AnnotateSettings, GenerateSettings
from gansegctl.contracts import result_of
from gansegctl.errors import UsageError
from gansegctl.generators.inversion.search import InversionSettings
from gansegctl.generators.weights import load_generator
from gansegctl.io.image import save_png
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.real_images import (
    RealImages,
    RealSettings,
    real_exemplars,
    usable_mask,
)
from gansegctl.pipeline.annotate.source import REAL_SEEDS, Source
from gansegctl.pipeline.annotate.stage import ExemplarRequest, annotate_dataset, digest_of
from gansegctl.pipeline.generate.stage import plan_generate, synthesize
from gansegctl.pipeline.inputs import labelled_sets
from gansegctl.pipeline.inputs.generators import latents_of_seeds
from gansegctl.pipeline.inputs.labelled_sets import AnnotatedImage, annotated_images
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.project.projector import Projector, ProjectSettings
from gansegctl.store.manifest import Manifest

LABELS = LabelMap(("ground", "figure"))
QUICK = ProjectSettings(
    inversion=InversionSettings(space="w", steps=25, start_steps=10, samples=8, patience=25), calibration=0
)
ANY = RealSettings(highest_error=250.0, ignore_above=0.0)


@pytest.fixture(scope="module")
def generator(generator_file):
    return load_generator(generator_file)


@pytest.fixture(scope="module")
def images(generator):
    """Four that the generator draws, and noise, which it does not."""
    drawn, _ = image_and_mask(generator, latents_of_seeds(generator, range(4)), range(4), "const", None)
    noise = np.random.RandomState(1).randint(0, 256, (1, 16, 16, 3)).astype(np.uint8)
    return np.concatenate([noise, drawn])


def make(generator_file, out, seeds):
    job, network, _ = plan_generate(
        GenerateSettings(generator=str(generator_file), seeds=seeds, batch_size=4), None, "cpu"
    )
    return list(synthesize(job, out, network))


@pytest.fixture
def folder(tmp_path, images):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "labels.json").write_text(json.dumps(LABELS.to_json()))
    for i, image in enumerate(images):
        save_png(tmp_path / "real" / f"r{i}.png", image)
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, i : i + 6] = 1
        indexed = Image.fromarray(mask)
        indexed.putpalette(LABELS.flat_palette())
        save_png(tmp_path / "real" / f"r{i}.mask.png", indexed)
    return tmp_path / "real"


class TestReading:
    def test_a_folder_of_pairs(self, folder):
        Image.new("RGB", (32, 16)).save(folder / "unpainted.png")
        found = annotated_images(folder, LABELS, 16, 3)
        assert [p.name for p in found] == [f"r{i}" for i in range(5)]
        assert found[2].mask[5, 2:8].tolist() == [1] * 6
        assert RealImages(folder).labels(folder, None, "none").names == LABELS.names

    def test_images_and_masks_are_cropped_alike(self, tmp_path):
        Image.new("RGB", (64, 32), (10, 200, 10)).save(tmp_path / "a.png")
        mask = np.zeros((32, 64), np.uint8)
        mask[:, 16:32] = 1  # the left half of the centred square
        save_png(tmp_path / "a.mask.png", mask)
        one = annotated_images(tmp_path, LABELS, 16, 3)[0]
        assert one.image.shape == (16, 16, 3)
        assert one.mask[:, :8].min() == 1 and one.mask[:, 8:].max() == 0

    def test_an_hdf5_file_and_its_split(self, tmp_path, images):
        masks = np.zeros((5, 16, 16), np.uint8)
        masks[:, 3:9] = 1
        with h5py.File(tmp_path / "x.h5", "w") as f:
            f["image"], f["mask"], f["split"] = images, masks, np.array([0, 1, 1, 0, 1], np.uint8)
            f.attrs["classes"] = json.dumps(["ground", "figure"])
        labels = RealImages(tmp_path / "x.h5").labels(tmp_path, None, "none")
        assert labels.names == LABELS.names
        assert len(annotated_images(tmp_path / "x.h5", labels, 16, 3, split=1)) == 3
        with pytest.raises(UsageError, match="3 channels"):
            annotated_images(tmp_path / "x.h5", labels, 16, 1, split=1)
        with pytest.raises(UsageError, match=r"splits 0, 1 and none chosen[\s\S]*--real-split 0"):
            annotated_images(tmp_path / "x.h5", labels, 16, 3)
        with pytest.raises(UsageError, match="--real-split 1 for the folder"):
            annotated_images(tmp_path, labels, 16, 3, split=1)

    def test_a_image_is_reduced_before_the_next_is_read(self, tmp_path, monkeypatch):
        for name in "ab":
            Image.new("RGB", (64, 32), (10, 200, 10)).save(tmp_path / f"{name}.png")
            save_png(tmp_path / f"{name}.mask.png", np.tile((np.arange(64) < 30).astype(np.uint8), (32, 1)))
        done = []
        for name in ("read_image", "square_of"):
            plainly = getattr(labelled_sets, name)
            monkeypatch.setattr(labelled_sets, name, lambda *a, f=plainly, n=name, **k: done.append(n) or f(*a, **k))
        assert len(annotated_images(tmp_path, LABELS, 16, 3)) == 2
        assert done == ["read_image", "square_of", "square_of"] * 2

    def test_what_is_missing_is_named(self, tmp_path, folder):
        with pytest.raises(UsageError, match="no such file"):
            annotated_images(tmp_path / "none", LABELS, 16, 3)
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="without pairs"):
            annotated_images(tmp_path / "empty", LABELS, 16, 3)
        save_png(folder / "r1.mask.png", np.full((16, 16), 9, np.uint8))
        with pytest.raises(UsageError, match=r"r1\.mask\.png"):
            annotated_images(folder, LABELS, 16, 3)


class TestJudging:
    def test_what_cannot_be_drawn_is_refused_and_the_next_one_taken(self, generator, folder, tmp_path):
        found = annotated_images(folder, LABELS, 16, 3)
        limits = RealSettings(highest_error=30, ignore_above=0)
        into = result_of(real_exemplars(Projector(generator, QUICK), found, 2, limits, tmp_path / "k"))
        assert list(into.refused) == ["r0"]
        assert "over 30" in into.refused["r0"]
        assert into.names == ["r1", "r2"]
        assert [e.seed for e in into.exemplars] == [REAL_SEEDS + 1, REAL_SEEDS + 2]
        assert into.exemplars[0].ws.shape == (1, generator.spec.num_ws, 8)
        assert np.array_equal(into.exemplars[0].mask, found[1].mask)
        assert max(into.errors) <= 30
        assert into.table()[0]["name"] == "r1"

    def test_too_few_are_an_error_that_says_why(self, generator_file, folder, tmp_path):
        for name in ("r1", "r2", "r3", "r4"):
            (folder / f"{name}.mask.png").unlink()
        make(generator_file, tmp_path / "d", "0-1")
        images = RealImages(folder, limits=RealSettings(5.0), projecting=QUICK)
        with pytest.raises(UsageError, match=r"0 of 1[\s\S]*r0: reconstruction off"):
            result_of(images.project(Source.open(tmp_path / "d"), LABELS, 1))

    def test_flagged_images_are_refused(self, generator, folder, tmp_path):
        settings = ProjectSettings(inversion=QUICK.inversion, calibration=16, batch_size=16)
        found = annotated_images(folder, LABELS, 16, 3)
        into = result_of(real_exemplars(Projector(generator, settings), found, 1, ANY, tmp_path / "k"))
        assert "outside the generator's domain" in into.refused["r0"]

    def test_latents_are_kept_for_the_same_image_only(self, generator, folder, tmp_path):
        found = annotated_images(folder, LABELS, 16, 3)[1:2]
        path = tmp_path / "k" / "r1.latent.safetensors"
        list(real_exemplars(Projector(generator, QUICK), found, 1, ANY, tmp_path / "k"))
        stamp = path.stat().st_mtime_ns
        list(real_exemplars(Projector(generator, QUICK), found, 1, ANY, tmp_path / "k"))
        assert path.stat().st_mtime_ns == stamp
        other = [AnnotatedImage("r1", 255 - found[0].image, found[0].mask)]
        list(real_exemplars(Projector(generator, QUICK), other, 1, ANY, tmp_path / "k"))
        assert path.stat().st_mtime_ns > stamp

    def test_free_noise_is_refused(self, generator, folder, tmp_path):
        settings = ProjectSettings(inversion=InversionSettings(space="w+n", samples=8), calibration=0)
        with pytest.raises(UsageError, match=r"w\+n"):
            list(real_exemplars(Projector(generator, settings), [], 1, ANY, tmp_path))

    def test_pixels_drawn_otherwise_are_ignored(self):
        image = np.full((16, 16, 3), 100, np.uint8)
        drawn = image.copy()
        drawn[:, 10:] = 220
        mask = np.ones((16, 16), np.uint8)
        used = usable_mask(mask, image, drawn, 60)
        assert (used[:, :8] == 1).all() and (used[:, 12:] == 255).all()
        assert (usable_mask(mask, image, drawn, 0) == 1).all()
        with pytest.raises(UsageError):
            RealSettings(highest_error=0)


@pytest.mark.parametrize("method", ["linear", "repurpose"])
def test_a_dataset_is_labelled_from_real_images(folder, generator_file, tmp_path, method):
    make(generator_file, tmp_path / "d", "0-3")
    options = {"steps": 3} if "steps" in methods.get(method).settings_type.__dataclass_fields__ else {}
    settings = AnnotateSettings(shots=2, method=method, options=options)
    request = ExemplarRequest(real=RealImages(folder, limits=ANY, projecting=QUICK))
    result = result_of(annotate_dataset(tmp_path / "d", settings, request))
    manifest = Manifest.read(tmp_path / "d")
    assert manifest.stage == "pairs"
    record = manifest.settings["annotate"]
    assert record["masks"] == str(folder)
    assert record["exemplars"] == {str(e.seed): digest_of(e) for e in result.real.exemplars}
    overlays = sorted((tmp_path / "d" / "exemplars").glob("*.overlay.png"))
    assert [p.name for p in overlays] == [f"exemplar-{REAL_SEEDS + i}.overlay.png" for i in range(2)]
    assert (tmp_path / "d" / "exemplars" / "real" / "r0.reconstruction.png").exists()


def test_a_dry_run_projects_and_labels_nothing(folder, generator_file, tmp_path):
    make(generator_file, tmp_path / "d", "0-1")
    request = ExemplarRequest(real=RealImages(folder, limits=ANY, projecting=QUICK))
    result = result_of(annotate_dataset(tmp_path / "d", AnnotateSettings(shots=1), request, dry_run=True))
    assert len(result.real.exemplars) == 1 and not result.labelled
    assert Manifest.read(tmp_path / "d").stage == "images"
