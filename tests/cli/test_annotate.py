"""`gansegctl annotate` as a shell sees it, and the main job by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def test_the_main_job_by_hand(dataset, tmp_path, call):
    status, out, err = call("annotate", dataset, "--shots", "1", "--classes", "ground,figure")
    assert status == 0
    assert f"gansegctl annotate {dataset} --shots 1 --masks" in err
    mask = next((dataset / "exemplars").glob("*.mask.png"))
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 1
    Image.fromarray(painted).save(mask)
    before = json.loads((dataset / "manifest.json").read_text())["stage"]
    status, out, _ = call(
        "annotate", dataset, "--shots", "1", "--masks", dataset / "exemplars", "--set", "steps=20", "--json"
    )
    assert (before, status, json.loads(out)["stage"]) == ("images", 0, "pairs")
    student = tmp_path / "s.safetensors"
    status, out, _ = call("distill", dataset, "-o", student, "--steps", "3", "--batch-size", "4", "--json")
    assert (status, json.loads(out)["student"]) == (0, str(student))
    status, out, _ = call("eval", student, "--against", dataset, "--bootstrap", "5", "-o", tmp_path / "e")
    assert status == 0
    assert "figure" in out
    assert "wiou_tritrong" in out
    assert (tmp_path / "e" / "confusion.png").is_file()
    status, out, _ = call("predict", student, dataset / "exemplars", "-o", tmp_path / "p", "--json")
    assert status == 0
    with Image.open(next((tmp_path / "p").glob("*.mask.png"))) as indexed:
        assert (indexed.mode, indexed.size) == ("P", (16, 16))
    status, out, _ = call("predict", student, dataset / "exemplars", "-o", tmp_path / "p", "--json")
    assert json.loads(out)["skipped"] == json.loads(out)["images"] > 0
    assert call("verify", dataset)[0] == 0
    assert call("inspect", dataset, "--json")[0] == 0


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        (Image.new("L", (20, 16), 1), "20"),
        (Image.new("L", (16, 16), 9), "9"),
    ],
)
def test_bad_masks_are_refused_before_anything_is_written(mask, word, dataset, call):
    call("annotate", dataset, "--shots", "1", "--classes", "a,b")
    mask.putpixel((0, 0), 0)
    mask.save(next((dataset / "exemplars").glob("*.mask.png")))
    before = (dataset / "shard-00000.h5").read_bytes()
    status, _, err = call("annotate", dataset, "--shots", "1", "--masks", dataset / "exemplars")
    assert status == 2
    assert word in err
    assert "wanted" in err
    assert (dataset / "shard-00000.h5").read_bytes() == before


def test_masks_of_0_and_255_are_not_taken_for_two_classes(dataset, tmp_path, call):
    masks = tmp_path / "masks"
    masks.mkdir()
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 255
    Image.fromarray(painted).save(masks / "exemplar-00000003.mask.png")
    words = ("annotate", dataset, "--masks", masks, "--classes", "ground,figure,hat", "--set", "steps=2")
    status, _, err = call(*words)
    assert status == 2
    assert "values 0, 255 only; 255 means ignored" in err and "write 1, not 255, for figure" in err
    painted[4:12, 4:12] = 1
    painted[0] = 255
    Image.fromarray(painted).save(masks / "exemplar-00000003.mask.png")
    status, _, err = call(*words)
    assert status == 0
    assert "seed 3: 6.2% of the pixels are 255, ignored" in err and "no pixel is painted as: hat" in err


def test_a_generator_that_has_moved_is_asked_for(generator_file, tmp_path, call):
    moved = tmp_path / "g.safetensors"
    moved.write_bytes(Path(generator_file).read_bytes())
    assert call("generate", "--generator", moved, "-n", 2, "-o", tmp_path / "d")[0] == 0
    moved.unlink()
    status, _, err = call("annotate", tmp_path / "d", "--classes", "a,b")
    assert status == 2 and "was made with it" in err and "--generator FILE" in err


def test_masks_that_are_not_used_are_named(dataset, tmp_path, call):
    masks = tmp_path / "masks"
    masks.mkdir()
    painted = np.zeros((16, 16), np.uint8)
    painted[4:12, 4:12] = 1
    for seed in (1, 3):
        Image.fromarray(painted).save(masks / f"exemplar-{seed:08d}.mask.png")
    words = ("annotate", dataset, "--shots", 1, "--masks", masks, "--classes", "ground,figure", "--set", "steps=2")
    assert "2 masks and --shots 1: not used are seeds 3" in call(*words, "--dry-run")[2]
    assert "not used" not in call(*words, "--dry-run", "--exemplars", "1")[2]


BAD = {
    "no dataset": (("annotate", "{new}", "--shots", "1"), 4, "no such folder"),
    "no classes": (("annotate", "{data}", "--shots", "1"), 2, "--classes"),
    "an unknown method": (
        ("annotate", "{data}", "--method", "repurposed", "--classes", "a,b"),
        2,
        "did you mean 'repurpose'",
    ),
    "zero shots": (("annotate", "{data}", "--shots", "0", "--classes", "a,b"), 2, "--shots 0"),
    "masks nowhere": (("annotate", "{data}", "--shots", "1", "--masks", "{new}"), 2, "--masks"),
    "no masks in it": (("annotate", "{data}", "--shots", "1", "--masks", "{full}", "--classes", "a,b"), 2, "0 masks"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, refused):
    refused(*BAD[case])
