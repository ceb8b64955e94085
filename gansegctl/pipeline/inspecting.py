"""What a file or folder of ours is, from its header or manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gansegctl import presets
from gansegctl.errors import UsageError
from gansegctl.generators import weights
from gansegctl.methods import files
from gansegctl.pipeline.opening import generator_path
from gansegctl.pipeline.stages import describe_dataset
from gansegctl.students import student


def inspect(subject: Path) -> dict[str, Any]:
    """A table of facts. UsageError for something that is none of ours."""
    if subject.is_dir():
        return describe_dataset(subject)
    if str(subject) in presets.names() and not subject.exists():
        return {"preset": str(subject)} | _generator(generator_path(str(subject)))
    header = weights.read_header(subject)
    if header.get("kind") == weights.KIND:
        return _generator(subject)
    if header.get("kind") == files.KIND:
        texts = files.read_header(subject)
        return {"segmenter": str(subject)} | {k: _value(v) for k, v in texts.items()}
    if header.get("kind") == student.KIND:
        return {"student": str(subject)} | student.read_header(subject)
    raise UsageError(f"got {subject}: a safetensors file of someone else", wanted="a file that gansegctl wrote")


def _generator(path: Path) -> dict[str, Any]:
    g = weights.load_generator(path)
    spec = g.spec
    channels = sum(t.channels for t in spec.taps)
    return {
        "generator": str(path),
        "family": spec.family,
        "resolution": spec.resolution,
        "image_channels": spec.image_channels,
        "z_dim": spec.z_dim,
        "w_dim": spec.w_dim,
        "c_dim": spec.c_dim,
        "num_ws": spec.num_ws,
        "parameters": sum(p.numel() for p in g.parameters()),
        "taps": [[t.name, t.resolution, t.channels] for t in spec.taps],
        "hypercolumn_channels": channels,
        "hypercolumn_bytes_avoided": channels * spec.resolution**2 * 4,
        "facts": weights.read_header(path)["facts"],
        "sha256": g.sha256,
    }


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
