"""`predict` on whatever lies in a folder: right, or refused by name, and the rest is done."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.stages import events_and_result
from PIL import Image

from gansegctl.contracts import result_of
from gansegctl.errors import GansegError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline import predict as stage
from gansegctl.pipeline.inputs.images import Outcome, named_images, raise_refused, square_of
from gansegctl.pipeline.predict import PredictSettings, predict
from gansegctl.students.student import Student, build

LABELS = LabelMap(("ground", "figure"), ((0, 0, 0), (200, 30, 30)))
ALL = PredictSettings(outputs=("mask", "grey", "confidence", "overlay"), batch_size=4)


def student_file(path, channels=3, seed=0):
    torch.manual_seed(seed)
    model = build("unet", channels, 2, (4, 6))
    Student(model, LABELS, (16, 16), channels, widths=(4, 6)).save(path)
    return path


@pytest.fixture
def student(tmp_path):
    return student_file(tmp_path / "s.safetensors")


def scene(w=20, h=12, seed=0):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (h, w, 3)).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    """One of everything."""
    f = tmp_path / "in"
    (f / "deep").mkdir(parents=True)
    rgb = scene()
    rgb.save(f / "plain.png")
    rgb.save(f / "photo.jpg", quality=95)
    (f / "corrupt.png").write_bytes((f / "plain.png").read_bytes()[:60])
    (f / "cut.jpg").write_bytes((f / "photo.jpg").read_bytes()[:-400])
    (f / "empty.png").write_bytes(b"")
    (f / "text.png").write_text("no image")
    scene(1, 1).save(f / "one.png")
    Image.fromarray((np.arange(240).reshape(12, 20) * 257).astype(np.uint16)).save(f / "deep16.png")
    rgb.convert("L").save(f / "grey.png")
    clear = rgb.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.array([0, 255] * 10, np.uint8), (12, 1))))
    clear.save(f / "clear.png")
    rgb.convert("CMYK").save(f / "print.jpg")
    rgb.quantize(8).save(f / "indexed.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(f / "turned.jpg", exif=turned)
    rgb.save(f / "moving.webp", save_all=True, append_images=[scene(seed=1)])
    Image.fromarray(np.zeros((4, 4), np.float32)).save(f / "floats.tiff")
    rgb.save(f / "deep" / "plain.png")
    return f


REFUSED = {"corrupt.png", "cut.jpg", "empty.png", "text.png", "moving.webp", "floats.tiff"}


def size_of(path):
    with Image.open(path) as p:
        return p.size


class TestFiles:
    def test_right_or_refused_by_name_and_the_rest_is_done(self, folder, student, tmp_path):
        events, outcome = events_and_result(predict(student, [folder], tmp_path / "out", settings=ALL))
        last, refused = events[-1], outcome.refused
        assert {p.rsplit("/", 1)[1] for p in refused} == REFUSED
        assert all(reason for reason in refused.values())
        assert "2 frames" in next(r for f, r in refused.items() if f.endswith("moving.webp"))
        assert "range is unknown" in next(r for f, r in refused.items() if f.endswith("floats.tiff"))
        done = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.mask.png")}
        assert done == {
            f"{n}.mask.png"
            for n in ("plain", "photo", "one", "deep16", "grey", "clear", "print", "indexed", "turned", "deep/plain")
        }
        assert (last.done, last.total, last.facts) == (16, 16, {"skipped": 0, "refused": 6})
        assert size_of(tmp_path / "out" / "turned.mask.png") == (12, 20)  # upright
        assert size_of(tmp_path / "out" / "one.mask.png") == (1, 1)
        with pytest.raises(GansegError, match=r"6 of 16 images[\s\S]*moving\.webp: .*2 frames") as raised:
            raise_refused(outcome)
        assert raised.value.status == 1
        raise_refused(Outcome(16, 0, {}))

    def test_the_outputs_agree_with_the_student(self, folder, student, tmp_path):
        list(predict(student, [folder / "plain.png"], tmp_path / "out", settings=ALL))
        with Image.open(tmp_path / "out" / "plain.mask.png") as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[3:6] == [200, 30, 30]
            labels = np.array(mask)
        image = torch.from_numpy(np.array(scene()))[None]
        said = Student.load(student).predict(image)
        assert np.array_equal(labels, said.labels[0].numpy())
        with Image.open(tmp_path / "out" / "plain.mask-grey.png") as grey:
            assert grey.mode == "L" and np.array_equal(np.array(grey), labels)
        with Image.open(tmp_path / "out" / "plain.confidence.png") as sure:
            assert np.array_equal(np.array(sure), said.confidence[0].numpy())
        assert size_of(tmp_path / "out" / "plain.overlay.png") == (20, 12)

    def test_a_second_run_does_only_what_is_missing(self, folder, student, tmp_path):
        out = tmp_path / "out"
        list(predict(student, [folder], out, settings=ALL))
        kept = (out / "grey.mask.png").stat().st_mtime_ns
        (out / "plain.mask.png").unlink()
        (out / "photo.confidence.png").unlink()
        events, outcome = events_and_result(predict(student, [folder], out, settings=ALL))
        assert events[-1].facts == {"skipped": 8, "refused": 6}
        assert (outcome.images, outcome.skipped, len(outcome.refused)) == (16, 8, 6)
        assert (out / "plain.mask.png").exists() and (out / "photo.confidence.png").exists()
        assert (out / "grey.mask.png").stat().st_mtime_ns == kept

    def test_masks_of_two_students_do_not_mix(self, folder, student, tmp_path):
        list(predict(student, [folder / "plain.png"], tmp_path / "out"))
        other = student_file(tmp_path / "t.safetensors", seed=1)
        with pytest.raises(UsageError, match=r'begun with .*: student: "\w{12}…" there, "\w{12}…" asked for'):
            list(predict(other, [folder / "plain.png"], tmp_path / "out"))
        with pytest.raises(UsageError, match=r"begun with .*: tile: 0 there, 8 asked for"):
            list(predict(student, [folder / "plain.png"], tmp_path / "out", settings=PredictSettings(tile=8)))
        (tmp_path / "out" / "predict.json").write_text("{")
        with pytest.raises(UsageError, match=r"predict\.json"):
            list(predict(student, [folder / "plain.png"], tmp_path / "out"))

    def test_a_grey_student_takes_colour_and_16_bits(self, folder, tmp_path):
        grey = student_file(tmp_path / "g.safetensors", channels=1)
        outcome = result_of(predict(grey, [folder / "deep16.png", folder / "plain.png"], tmp_path / "o"))
        assert outcome.refused == {}
        assert size_of(tmp_path / "o" / "deep16.mask.png") == (20, 12)

    def test_a_missing_file_is_refused_and_the_others_done(self, folder, student, tmp_path):
        outcome = result_of(predict(student, [tmp_path / "no.png", folder / "plain.png"], tmp_path / "o"))
        assert list(outcome.refused) == [str(tmp_path / "no.png")]
        assert (tmp_path / "o" / "plain.mask.png").exists()

    def test_forty_megapixels(self, tmp_path, monkeypatch):
        student = student_file(tmp_path / "g.safetensors", channels=1)
        Image.new("L", (8000, 5000), 200).save(tmp_path / "large.png", compress_level=1)
        written = []
        monkeypatch.setattr(stage, "save_png", lambda path, image: written.append((path.name, np.array(image).shape)))
        assert result_of(predict(student, [tmp_path / "large.png"], tmp_path / "o")).refused == {}
        assert written == [("large.overlay.png", (1250, 2000, 3)), ("large.mask.png", (5000, 8000))]

    def test_out_of_memory_is_one_images_trouble(self, folder, student, tmp_path, monkeypatch):
        def full(*_):
            raise MemoryError("no")

        monkeypatch.setattr(stage, "label_image", full)
        monkeypatch.setattr(stage, "SMALL", 10)
        outcome = result_of(predict(student, [folder / "one.png", folder / "plain.png"], tmp_path / "o"))
        assert "more than memory holds" in outcome.refused[str(folder / "plain.png")]
        assert (tmp_path / "o" / "one.mask.png").exists()

    def test_a_pass_is_bounded_by_the_bytes_of_its_probabilities(self, student, tmp_path, monkeypatch):
        (tmp_path / "in").mkdir()
        for i in range(5):
            scene(seed=i).save(tmp_path / "in" / f"{i}.png")
        plainly, sizes = Student.predict, []
        monkeypatch.setattr(Student, "predict", lambda s, x: sizes.append(len(x)) or plainly(s, x))
        settings = PredictSettings(outputs=("mask",), batch_size=4)
        for room, passes in ((1 << 20, [4, 1]), (2 * 4 * 240 * 2, [2, 2, 1]), (4 * 240 * 2 - 1, [])):
            monkeypatch.setattr(stage, "ROOM", room)
            sizes.clear()
            list(predict(student, [tmp_path / "in"], tmp_path / f"o{room}", settings=settings))
            assert sizes == passes
            assert len(list((tmp_path / f"o{room}").glob("*.mask.png"))) == 5

    def test_tiles(self, student, tmp_path):
        scene(50, 40).save(tmp_path / "a.png")
        list(predict(student, [tmp_path / "a.png"], tmp_path / "o", settings=PredictSettings(tile=16)))
        assert size_of(tmp_path / "o" / "a.mask.png") == (50, 40)
        assert json.loads((tmp_path / "o" / "predict.json").read_text())["tile"] == 16

    def test_settings_are_checked(self):
        for wrong in ({"outputs": ("mask", "xml")}, {"outputs": ()}, {"tile": -1}, {"batch_size": 0}):
            with pytest.raises(UsageError):
                PredictSettings(**wrong)


def test_names_keep_their_folders(tmp_path):
    for name in ("a/1.png", "b/1.png", "b/1.mask.png", "b/1.reconstruction.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        scene().save(tmp_path / name)
    assert list(named_images([tmp_path])) == ["a/1", "b/1"]
    assert list(named_images([tmp_path / "a" / "1.png"])) == ["1"]
    with pytest.raises(UsageError, match="two images named 1"):
        named_images([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UsageError, match="none, which is not there"):
        named_images([tmp_path / "a", tmp_path / "none"])
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no images"):
        named_images([tmp_path / "none"])


def test_squares_are_of_the_middle():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert square_of(image, 4).min() > 190
    mask = np.zeros((8, 16), np.uint8)
    mask[:, 4:8] = 7
    assert square_of(mask, 4, smooth=False).tolist() == [[7, 7, 0, 0]] * 4
    assert square_of(image[..., :1], 4).shape == (4, 4, 1)
    small = np.zeros((4, 4, 3), np.uint8)
    assert square_of(small, 4) is small
