"""A student as ONNX: another runtime gives the same labels, at any number of images, and knows the classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from gansegctl.cli import cli
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline import to_onnx
from gansegctl.students.student import Student, build

WIDTHS = {"unet": (4, 6), "deeplabv3": (4, 4, 8, 8)}


def student(path, arch="unet", channels=3):
    torch.manual_seed(0)
    labels = LabelMap(("background", "disc", "bar"))
    model = build(arch, channels, 3, WIDTHS[arch]).eval()
    made = Student(model, labels, (24, 20), channels, arch, WIDTHS[arch])
    made.save(path)
    return made


@pytest.mark.filterwarnings("ignore")  # of the exporter's own making
@pytest.mark.parametrize("arch, channels", [("unet", 3), ("unet", 1), ("deeplabv3", 3)])
def test_another_runtime_gives_the_same_labels(arch, channels, tmp_path):
    for name in to_onnx.NEEDED:
        pytest.importorskip(name, reason=f"needs {name}")
    import onnxruntime

    made = student(tmp_path / "s.safetensors", arch, channels)
    result = CliRunner().invoke(
        cli, ["convert", str(tmp_path / "s.safetensors"), "-o", str(tmp_path / "s.onnx"), "--json"]
    )
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout[result.stdout.index("{") :])
    assert facts["agreement"] >= 0.999 and facts["classes"] == ["background", "disc", "bar"]
    session = onnxruntime.InferenceSession(str(tmp_path / "s.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == facts["classes"]
    for n in (1, 5):
        images = np.random.RandomState(n).randint(0, 256, (n, 24, 20, channels), dtype=np.uint8)
        labels, confidence = session.run(None, {"image": images})
        wanted = made.predict(torch.from_numpy(images))
        assert labels.dtype == confidence.dtype == np.uint8 and labels.shape == (n, 24, 20)
        assert (labels == wanted.labels.numpy()).mean() > 0.999
        assert np.abs(confidence.astype(int) - wanted.confidence.numpy()).max() <= 1
    with pytest.raises(UsageError, match="there already"):
        to_onnx.student_to_onnx(tmp_path / "s.safetensors", tmp_path / "s.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.onnx", "s.safetensors"]


def test_without_the_packages_it_says_what_to_install(tmp_path, monkeypatch):
    student(tmp_path / "s.safetensors")
    monkeypatch.setattr(to_onnx, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"gansegctl\[onnx\]"):
        to_onnx.student_to_onnx(tmp_path / "s.safetensors", tmp_path / "s.onnx")
    assert not (tmp_path / "s.onnx").exists()
