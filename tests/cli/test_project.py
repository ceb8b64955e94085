"""`project`, `annotate --real` and `predict` from the shell: JSON on stdout, refusals on stderr, exit statuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gansegctl.generators.inversion.latent_space import FIRST_SEED
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.weights import load_generator
from gansegctl.io.image import save_png, to_uint8
from gansegctl.labels import LabelMap


@pytest.fixture
def folder(tmp_path):
    f = tmp_path / "in"
    f.mkdir()
    stream = np.random.RandomState(0)
    for i in range(2):
        save_png(f / f"p{i}.png", stream.randint(0, 256, (16, 16, 3)).astype(np.uint8))
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 4:12] = 1
        save_png(f / f"p{i}.mask.png", mask)
    (f / "labels.json").write_text(json.dumps(LabelMap(("ground", "figure")).to_json()))
    return f


QUICK = ("--steps", "4", "--samples", "4", "--calibration", "0")


def test_project_prints_one_object_and_refuses_by_name(folder, generator_file, tmp_path, call):
    (folder / "bad.png").write_bytes(b"x")
    status, out, err = call("project", folder, "--generator", generator_file, "-o", tmp_path / "o", *QUICK, "--json")
    facts = json.loads(out)
    assert status == 1
    assert "bad.png: " in err and "1 of 3 images" in err
    assert list(facts["refused"]) == [str(folder / "bad.png")]
    assert (facts["images"], facts["skipped"], facts["flagged"]) == (3, 0, {})
    assert facts["mean_error"] > 0
    (folder / "bad.png").unlink()
    status, out, _ = call("project", folder, "--generator", generator_file, "-o", tmp_path / "o", *QUICK, "--json")
    assert (status, json.loads(out)["skipped"]) == (0, 2)
    status, _, err = call("project", folder, "--generator", generator_file, "-o", tmp_path / "o", "--steps", "5")
    assert status == 2 and "begun with" in err


def test_project_warns_of_foreign_images(folder, generator_file, tmp_path, call):
    quick = ("--steps", "10", "--samples", "8", "--calibration", "8", "--space", "w")
    status, out, err = call("project", folder, "--generator", generator_file, "-o", tmp_path / "o", *quick, "--json")
    assert status == 0
    assert set(json.loads(out)["flagged"]) == {"p0", "p1"}
    assert "warning: p0 lies outside the generator's domain" in err


def test_annotate_with_real_images(folder, generator_file, tmp_path, call):
    call("generate", "--generator", generator_file, "-n", "3", "-o", tmp_path / "d")
    status, _, err = call("annotate", tmp_path / "d", "--real", folder, "--masks", folder)
    assert status == 2 and "--real" in err
    call_real = ("annotate", tmp_path / "d", "--real", folder, "--real-calibration", "0", "--real-steps", "2")
    status, _, err = call(*call_real, "--real-error", "1")
    assert status == 2 and "that the generator can draw" in err
    generator = load_generator(generator_file)
    drawn = generator.synthesize(generator.map(z_of_seeds([FIRST_SEED], 8))).image
    save_png(folder / "p0.png", to_uint8(drawn)[0])
    status, out, _ = call(*call_real, "--real-error", "255", "--method", "repurpose", "--set", "steps=2", "--json")
    assert status == 0
    facts = json.loads(out)
    assert [e["name"] for e in facts["exemplars"]] == ["p0"]
    assert facts["stage"] == "pairs"


def test_predict_ends_with_status_1_after_doing_the_rest(folder, tmp_path, call):
    import torch

    from gansegctl.students.student import Student, build

    torch.manual_seed(0)
    student = Student(build("unet", 3, 2, (4, 6)), LabelMap(("a", "b")), (16, 16), 3, widths=(4, 6))
    student.save(tmp_path / "s.safetensors")
    (folder / "bad.png").write_bytes(b"x")
    run = ("predict", tmp_path / "s.safetensors", folder, "-o", tmp_path / "o", "--write", "mask,confidence", "--json")
    status, out, err = call(*run)
    assert status == 1 and "bad.png" in err and "Traceback" not in err
    assert json.loads(out)["refused"].keys() == {str(folder / "bad.png")}
    names = sorted(p.name for p in (tmp_path / "o").glob("*.png"))
    assert names == ["p0.confidence.png", "p0.mask.png", "p1.confidence.png", "p1.mask.png"]
    with Image.open(tmp_path / "o" / "p0.mask.png") as mask:
        assert mask.mode == "P"
    assert json.loads(call(*run)[1])["skipped"] == 2
    assert call(*run, "--write", "xml")[0] == 2
