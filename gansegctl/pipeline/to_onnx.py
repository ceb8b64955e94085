"""A student as an ONNX file, for runtimes without Python: images in as they are, labels out."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansegctl.errors import GansegError, UsageError
from gansegctl.features.probabilities import decide
from gansegctl.io.image import from_uint8
from gansegctl.students.student import Student

NEEDED = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18


class WholeStudent(nn.Module):
    """From bytes to labels, as `Student.predict` labels images of the training's size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image uint8 [N,H,W,c] → labels uint8 [N,H,W], confidence uint8 [N,H,W] (255 sure)."""
        return decide(self.model(from_uint8(image)).softmax(dim=1))


def student_to_onnx(path: Path, out: Path) -> dict[str, Any]:
    """Write the student `path` as `out`, run it on noise and compare with the student itself.

    The file takes `image` uint8 [N,H,W,c] of the training's size, any N, and gives `labels` and `confidence` uint8
    [N,H,W]; its metadata `classes` and `colours` are JSON lists. Errors: UsageError for another suffix, a file that is
    there, or missing packages; GansegError when the two disagree.
    """
    if out.exists():
        raise UsageError(f"got -o {out}, which is there already", wanted="a new file", remedy="remove it")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"got -o {out} without {', '.join(missing)}",
            wanted="the packages that write and check ONNX",
            remedy="pip install 'gansegctl[onnx]'",
        )
    import onnx

    student = Student.load(path)
    h, w = student.size
    noise = np.random.RandomState(0).randint(0, 256, (2, h, w, student.channels), dtype=np.uint8)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(out.name + ".part.onnx")
    try:
        torch.onnx.export(
            WholeStudent(student.model.float()).eval(),
            (torch.from_numpy(noise),),
            str(draft),
            input_names=["image"],
            output_names=["labels", "confidence"],
            dynamic_shapes={"image": {0: torch.export.Dim("N")}},
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        written = onnx.load(str(draft))
        about = {"classes": list(student.labels.names), "colours": [list(c) for c in student.labels.colours]}
        onnx.helper.set_model_props(written, {k: json.dumps(v) for k, v in about.items()})
        onnx.checker.check_model(written)
        onnx.save(written, str(draft))
        agreement = _agreement(student, draft, noise)
        if agreement < 0.999:
            raise GansegError(f"got {out}: equal to the student in {agreement:.2%} of pixels", wanted="99.9 % or more")
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    facts = {"onnx": str(out), "source": str(path), "opset": OPSET, "size": [h, w], "channels": student.channels}
    return facts | {"classes": about["classes"], "agreement": agreement, "bytes": out.stat().st_size}


def _agreement(student: Student, path: Path, noise: np.ndarray) -> float:
    """Share of pixels with equal labels, of three images: another number than it was written with."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = np.concatenate([noise, noise[:1, ::-1]])
    labels, _ = session.run(None, {"image": images})
    return float((labels == student.predict(torch.from_numpy(images.copy())).labels.numpy()).mean())
