"""`gansegctl export` as a shell sees it."""

from __future__ import annotations

import json

import pytest
from helpers.exports import make

from gansegctl.cli.export import command
from gansegctl.store.export import FORMATS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make(tmp_path_factory.mktemp("d") / "faces")


def test_the_command_offers_every_format():
    offered = next(option.type.choices for option in command.params if option.name == "form")
    assert tuple(offered) == FORMATS


def test_it_exports_and_tells_what(dataset, tmp_path, call):
    words = ("--format", "coco", "-o", tmp_path / "o", "--where", "score < 2 and face > 0.01", "--split")
    chosen = (*words, "train=0.5,val=0.5", "--split-seed", 1, "--min-class", "face:5", "--instances", "--json")
    status, out, err = call("export", dataset, *chosen)
    told = json.loads(out)
    assert status == 0 and told["format"] == "coco" and told["licence"] == "CC-BY-4.0"
    assert sum(told["samples"].values()) == 8 and set(told["samples"]) == {"train", "val"}
    assert "export: 8/8 samples" in err
    assert call("export", dataset, *chosen)[:2] == (0, out)  # again: the same answer, nothing to do
    assert call("export", dataset, *chosen[:-2], "--polygons")[0] == 4


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--where", "score << 1"), 2, "--where"),
        (("--where", "eyes > 1"), 2, "unknown name 'eyes'"),
        (("--split", "train=2"), 2, "add to 1"),
        (("--min-class", "fase:3"), 2, "did you mean 'face'"),
        (("--licence", "MIT"), 2, "leave --license out"),
        (("--where", "score > 5"), 4, "no sample"),
        (("--polygons",), 2, "--format coco"),
    ],
)
def test_what_cannot_be_is_told(dataset, tmp_path, call, words, status, said):
    got, _, err = call("export", dataset, "--format", "png", "-o", tmp_path / "o", *words)
    assert got == status and said in err


def test_without_a_licence_nothing_is_written(tmp_path, call):
    status, _, err = call("export", make(tmp_path / "d", licence=""), "--format", "hf", "-o", tmp_path / "o")
    assert status == 2 and "--license TEXT" in err and not (tmp_path / "o").exists()
