"""`project`: latents, reconstruction, verdict and masks of image files; resumable; nothing stops at a bad file."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from helpers.stages import events_and_result
from PIL import Image

from gansegctl import methods
from gansegctl.contracts import Exemplar, Progress, result_of
from gansegctl.errors import UsageError
from gansegctl.generators.inversion.search import InversionSettings
from gansegctl.generators.weights import load_generator
from gansegctl.io.image import save_png
from gansegctl.labels import LabelMap
from gansegctl.pipeline.inputs.generators import latents_of_seeds
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.pipeline.project import stage as projecting
from gansegctl.pipeline.project.projector import (
    Projection,
    Projector,
    ProjectSettings,
    draw,
    load_projection,
    pixel_error,
    save_projection,
)
from gansegctl.pipeline.project.stage import project, results

QUICK = InversionSettings(space="w", steps=20, start_steps=10, samples=8, patience=10)
PLAIN = ProjectSettings(inversion=QUICK, calibration=0, batch_size=2)
LABELS = LabelMap(("ground", "figure"))


@pytest.fixture(scope="module")
def generator(generator_file):
    return load_generator(generator_file)


@pytest.fixture(scope="module")
def samples(generator):
    """uint8 [3,16,16,3] that the generator draws."""
    return image_and_mask(generator, latents_of_seeds(generator, [1, 2, 3]), [1, 2, 3], "const", None)[0]


@pytest.fixture
def folder(tmp_path, samples):
    (tmp_path / "in").mkdir()
    for i, image in enumerate(samples):
        save_png(tmp_path / "in" / f"p{i}.png", image)
    return tmp_path / "in"


@pytest.fixture(scope="module")
def segmenter(generator, tmp_path_factory):
    ws = latents_of_seeds(generator, [9])
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 1
    tool = methods.get("linear")
    options = tool.settings_type(**({"steps": 3} if "steps" in tool.settings_type.__dataclass_fields__ else {}))
    fitted = tool.fit(generator, [Exemplar(ws, 9, mask)], LABELS, options, 0)
    path = tmp_path_factory.mktemp("s") / "segmenter.safetensors"
    fitted.save(path)
    return path


def run(folder, generator_file, out, settings=PLAIN, **more):
    return list(project([folder], str(generator_file), out, settings, **more))


class TestStage:
    def test_writes_latents_reconstruction_and_numbers(self, folder, samples, generator, generator_file, tmp_path):
        last = run(folder, generator_file, tmp_path / "o")[-1]
        assert (last.done, last.total) == (3, 3)
        table = results(tmp_path / "o", [folder])
        assert list(table) == ["p0", "p1", "p2"]
        for i, (name, facts) in enumerate(table.items()):
            kept = load_projection(tmp_path / "o" / f"{name}.latent.safetensors")
            assert kept.ws.shape == (1, generator.spec.num_ws, 8)
            drawn, _ = draw(generator, kept, "const")
            with Image.open(tmp_path / "o" / f"{name}.reconstruction.png") as stored:
                assert np.array_equal(np.array(stored), drawn)
            assert facts["pixel_error"] == pytest.approx(pixel_error(samples[i], drawn), abs=1e-3)
            assert facts["error"] > 0 and facts["distance"] > 0 and facts["crop"] == [0, 0, 16, 16]
            assert "flagged" not in facts
        assert not list((tmp_path / "o").glob("*.mask.png"))

    def test_a_second_run_does_only_what_is_missing(self, folder, generator_file, tmp_path):
        out = tmp_path / "o"
        run(folder, generator_file, out)
        kept = (out / "p0.latent.safetensors").stat().st_mtime_ns
        before = (out / "p1.latent.safetensors").read_bytes()
        (out / "p1.json").unlink()
        assert run(folder, generator_file, out)[-1].facts["skipped"] == 2
        assert (out / "p0.latent.safetensors").stat().st_mtime_ns == kept
        tensors = [load_projection(p).ws for p in (out / "p1.latent.safetensors",)]
        (tmp_path / "b.safetensors").write_bytes(before)
        assert torch.allclose(tensors[0], load_projection(tmp_path / "b.safetensors").ws, atol=1e-3)

    def test_other_settings_or_another_generator_are_refused(self, folder, generator_file, tmp_path):
        run(folder, generator_file, tmp_path / "o")
        other = ProjectSettings(
            inversion=InversionSettings(space="w+", steps=5, start_steps=5, samples=8), calibration=0
        )
        with pytest.raises(UsageError, match=r"begun with .*: inversion\.\w+: .* there, .* asked for"):
            run(folder, generator_file, tmp_path / "o", other)

    def test_masks_come_from_the_reconstructions_own_activations(
        self, folder, generator, generator_file, segmenter, tmp_path
    ):
        out = tmp_path / "o"
        run(folder, generator_file, out, segmenter=segmenter)
        fitted = methods.load(segmenter)
        kept = load_projection(out / "p1.latent.safetensors")
        image, said = image_and_mask(generator, kept.ws, [0], "const", fitted)
        with Image.open(out / "p1.mask.png") as mask, Image.open(out / "p1.reconstruction.png") as drawn:
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask), said.labels[0].numpy())
            assert np.array_equal(np.array(drawn), image[0])
        assert (out / "p1.confidence.png").exists() and (out / "p1.overlay.png").exists()

    def test_masks_can_be_added_later_without_projecting_again(self, folder, generator_file, segmenter, tmp_path):
        out = tmp_path / "o"
        run(folder, generator_file, out)
        before = load_projection(out / "p2.latent.safetensors").ws
        assert run(folder, generator_file, out, segmenter=segmenter)[-1].facts["skipped"] == 3
        assert (out / "p2.mask.png").exists()
        assert torch.equal(load_projection(out / "p2.latent.safetensors").ws, before)
        stamp = (out / "p2.mask.png").stat().st_mtime_ns
        run(folder, generator_file, out, segmenter=segmenter)
        assert (out / "p2.mask.png").stat().st_mtime_ns == stamp

    def test_a_bad_file_is_refused_and_the_others_done(self, folder, generator_file, tmp_path):
        (folder / "bad.png").write_bytes(b"no image")
        Image.new("RGB", (40, 20), (90, 90, 90)).save(folder / "wide.jpg")
        events, outcome = events_and_result(project([folder], str(generator_file), tmp_path / "o", PLAIN))
        assert list(outcome.refused) == [str(folder / "bad.png")]
        assert (outcome.images, outcome.skipped, events[-1].facts["refused"]) == (5, 0, 1)
        table = results(tmp_path / "o", [folder])
        assert len(table) == 4
        assert table["wide"]["crop"] == [10, 0, 20, 20]

    def test_images_of_their_own_size_are_not_held(self, folder, generator_file, tmp_path, monkeypatch):
        Image.new("RGB", (40, 20), (90, 90, 90)).save(folder / "wide.jpg")
        read, held, plainly = projecting.read_or_refuse, [], Projector.project

        def watched(*a):
            image = read(*a)
            held.extend([weakref.ref(image)] if image.shape[1] == 40 else [])
            return image

        def project_now(self, images, at):
            assert [r() for r in held if r() is not None] == []
            return plainly(self, images, at)

        monkeypatch.setattr(projecting, "read_or_refuse", watched)
        monkeypatch.setattr(Projector, "project", project_now)
        run(folder, generator_file, tmp_path / "o", replace(PLAIN, batch_size=8))
        assert len(held) == 1 and results(tmp_path / "o", [folder])["wide"]["crop"] == [10, 0, 20, 20]

    def test_verdicts_are_measured_once_and_kept(self, folder, generator_file, tmp_path):
        noise = np.random.RandomState(0).randint(0, 256, (16, 16, 3)).astype(np.uint8)
        save_png(folder / "noise.png", noise)
        judged = ProjectSettings(inversion=QUICK, calibration=16, batch_size=16)
        stages = {e.stage for e in run(folder, generator_file, tmp_path / "o", judged)}
        assert stages == {"calibrate", "project"}
        table = results(tmp_path / "o", [folder])
        assert table["noise"]["flagged"] and "as usual" not in table["noise"]["reason"]
        assert table["noise"]["score"] > max(table[f"p{i}"]["score"] for i in range(3))
        assert not any(table[f"p{i}"]["flagged"] for i in range(3))
        kept = json.loads((tmp_path / "o" / "calibration.json").read_text())
        assert kept["count"] == 16 and kept["source"] == "its own samples"
        (tmp_path / "o" / "p0.json").unlink()
        assert "calibrate" not in {e.stage for e in run(folder, generator_file, tmp_path / "o", judged)}
        assert results(tmp_path / "o", [folder])["p0"]["flagged"] is False


class TestProjector:
    def test_known_images_calibrate_too(self, generator, tmp_path):
        images, _ = image_and_mask(generator, latents_of_seeds(generator, range(9)), range(9), "const", None)
        for i, image in enumerate(images):
            save_png(tmp_path / f"{i}.png", image)
        projector = Projector(generator, ProjectSettings(inversion=QUICK, calibration=8, known=str(tmp_path)))
        list(projector.calibrate())
        assert projector.calibration.count == 8
        assert projector.calibration.source == f"images of {tmp_path.name}"
        with h5py.File(tmp_path / "x.h5", "w") as f:
            f["image"], f["split"] = images, np.arange(9, dtype=np.uint8) % 2
        projector.settings = replace(projector.settings, known=str(tmp_path / "x.h5"))
        list(projector.calibrate())
        assert projector.calibration.source == "images of x.h5 (its first 8, whatever of its splits 0, 1)"

    def test_noise_maps_make_the_round_trip(self, generator, samples, tmp_path):
        settings = ProjectSettings(
            inversion=InversionSettings(space="w+n", steps=5, start_steps=5, samples=8), calibration=0
        )
        found = result_of(Projector(generator, settings).project(samples[:1], Progress("project", 0, 1)))
        save_projection(tmp_path / "x.safetensors", found[0], {})
        back = load_projection(tmp_path / "x.safetensors")
        assert all(torch.equal(a, b) for a, b in zip(back.maps, found[0].maps, strict=True))
        assert np.array_equal(draw(generator, back, "const")[0], draw(generator, found[0], "const")[0])
        plain = Projection(back.ws, None, {})
        assert not np.array_equal(draw(generator, plain, "const")[0], draw(generator, back, "const")[0])

    def test_settings_are_checked(self, generator, tmp_path):
        for wrong in ({"noise": "seed"}, {"batch_size": 0}, {"calibration": 3}):
            with pytest.raises(UsageError):
                ProjectSettings(**wrong)
        with pytest.raises(UsageError, match="no --class"):
            Projector(generator, ProjectSettings(inversion=QUICK, class_index=1))
        (tmp_path / "x.safetensors").write_bytes(b"123")
        with pytest.raises(UsageError, match=r"x\.safetensors"):
            load_projection(tmp_path / "x.safetensors")
