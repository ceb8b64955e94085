"""The registry and the file format: names without torch, files that say what is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.io.digest import file_digest
from gansegctl.labels import LabelMap
from gansegctl.methods.base import segmenter_file
from gansegctl.methods.base.annotations import annotation_of
from gansegctl.methods.base.segmenter import read_segmenter
from gansegctl.methods.repurpose import RepurposeSettings

HEADER = {
    "method": "repurpose",
    "generator": "ab" * 32,
    "labels": json.dumps(LabelMap(("a", "b")).to_json()),
    "taps": json.dumps([["b4.conv1", 3]]),
    "settings": "{}",
    "facts": "{}",
}


def test_the_registry_costs_no_torch():
    program = (
        "import sys; from gansegctl import methods; "
        "assert 'repurpose' in methods.METHODS; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_listed_method_exists_under_its_name():
    for name in methods.METHODS:
        assert methods.get(name).name == name


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="did you mean 'repurpose'"):
        methods.get("repurposed")


def test_a_file_is_read_back_and_its_bytes_depend_on_its_content_alone(tmp_path):
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
    segmenter_file.write(tmp_path / "one", HEADER, tensors)
    for _ in range(5):  # the library's own order differs from call to call
        segmenter_file.write(tmp_path / "two", dict(reversed(HEADER.items())), dict(reversed(tensors.items())))
        assert file_digest(tmp_path / "one") == file_digest(tmp_path / "two")
    with safe_open(str(tmp_path / "one"), "pt") as f:
        assert f.metadata() == methods.read_header(tmp_path / "one")
        assert {k: f.get_tensor(k).tolist() for k in ("a", "b")} == {k: v.tolist() for k, v in tensors.items()}
    stored, read = read_segmenter(tmp_path / "one", "repurpose")
    assert stored["taps"] == ("b4.conv1",) and stored["widths"] == (3,) and stored["labels"].names == ("a", "b")
    assert torch.equal(read["b"], tensors["b"])


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        segmenter_file.write(tmp_path / "s", {**HEADER, "taps": 3}, {"a": torch.ones(1)})
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        methods.load(tmp_path / "none.safetensors")
    wrong = {"text": b"hello, this is no safetensors file", "empty": b"", "list": b"\2\0\0\0\0\0\0\0[]    "}
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name}: not a safetensors file"):
            methods.load(tmp_path / name)
    other = {"gansegctl": json.dumps({"kind": "gansegctl.generator"})}  # as generators and students say it
    save_file({"a": torch.ones(1)}, tmp_path / "generator", other)
    with pytest.raises(UsageError, match=r"gansegctl\.generator"):
        methods.load(tmp_path / "generator")
    segmenter_file.write(tmp_path / "newer", {**HEADER, "format": "99"}, {"a": torch.ones(1)})
    with pytest.raises(UsageError, match="update"):
        methods.load(tmp_path / "newer")
    segmenter_file.write(tmp_path / "other", {**HEADER, "method": "linear"}, {"a": torch.ones(1)})
    with pytest.raises(UsageError, match="linear"):
        read_segmenter(tmp_path / "other", "repurpose")


def test_tensors_that_do_not_belong_to_the_head_are_refused(tmp_path):
    settings = json.dumps(asdict(RepurposeSettings(head="mlp", mlp_hidden=(4, 2)).resolved(1, 3)))
    segmenter_file.write(tmp_path / "s", HEADER | {"settings": settings}, {"a": torch.ones(1)})
    with pytest.raises(UsageError, match="tensors of this segmenter"):
        methods.load(tmp_path / "s")


def test_annotation_of_known_logits():
    logits = torch.zeros(2, 4, 1, 2)
    logits[0, 2, 0, :] = 50.0
    a = annotation_of(logits, probabilities=True)
    assert a.labels[0].tolist() == [[2, 2]] and a.confidence[0].tolist() == [[255, 255]]
    assert a.confidence[1].tolist() == [[64, 64]] and a.probabilities[1].unique().tolist() == [0.25]
    torch.testing.assert_close(a.score, torch.tensor([0.0, 1.0]))
    assert annotation_of(torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))).score.tolist() == [0.0]
