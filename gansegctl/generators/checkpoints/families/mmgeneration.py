"""open-mmlab/mmgeneration and mmagic: rosinality's structure under other names, `generator_ema.` in `state_dict`.

`weight_orig` is the raw weight, its gain applied at run time. Later versions clamp activations at ±256 when they train
in half precision; the file does not say so, and a network trained in float32 has none. Channel order: weights that were
converted from the official ones draw RGB, those trained there with its default image loader draw BGR; the training
configuration stored in the file tells (`bgr2rgb=True`), and only then are the channels swapped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gansegctl.generators.checkpoints.families.layout import (
    Assumptions,
    fill_in,
    stylegan2_record,
    unlike,
    without_prefix,
)
from gansegctl.generators.checkpoints.families.rosinality import Names, renamed
from gansegctl.generators.checkpoints.records import CheckpointReport, ModuleRecord

FAMILY = "mmgeneration"
PREFIXES = ("generator_ema.module.", "generator_ema.", "generator.module.", "generator.", "module.", "")
"""Where the generator lies, the averaged one first."""
NAMES = Names(
    style="style_mapping.{i}.linear.weight_orig",
    style_bias="style_mapping.{i}.bias",
    const="constant_input.input",
    kernel="conv.weight_orig",
    affine="conv.style_modulation.linear.weight_orig",
    affine_bias="conv.style_modulation.bias",
    strength="noise_injector.weight",
    noise="injected_noise_{i}",
)


def matches(value: Any) -> bool:
    """Whether this is such a file, or its bare state dict."""
    return _prefix(_state(value)) is not None


def read(value: Any, container: str = "", sha256: str = "") -> tuple[ModuleRecord, CheckpointReport]:
    """The generator's record, in RGB. UsageError for missing tensors and for those without a place, each by name."""
    state, assumed = _state(value), Assumptions()
    prefix = _prefix(state)
    if prefix is None:
        raise unlike(FAMILY)
    tensors = fill_in(renamed(without_prefix(state, prefix), NAMES, assumed), assumed)
    if not prefix.startswith("generator_ema"):
        assumed.note(f"weights: from {prefix or 'a bare state dict'}, there being no generator_ema")
    if says_bgr(value):
        for name in [k for k in tensors if re.search(r"\.torgb\.(weight|bias)$", k)]:
            tensors[name] = tensors[name].flip(0)
        assumed.note("channel order: BGR, as the stored training configuration says (bgr2rgb=True); swapped to RGB")
    else:
        assumed.note("channel order: RGB; the file does not say, and networks trained there may draw BGR")
    assumed.note("mapping learning-rate multiplier 0.01, conv_clamp none: not stored, as that project trains")
    skipped = sorted({k.split(".")[0] for k in state if not k.startswith(prefix)})
    if state is not value:
        skipped += sorted(str(k) for k in value if k != "state_dict")
    report = CheckpointReport(FAMILY, container, sha256, skipped=skipped, assumed=assumed.lines)
    report.facts = {"part": prefix.rstrip(".") or "state dict"}
    return stylegan2_record(tensors, None), report


def says_bgr(value: Any) -> bool:
    """Whether the training configuration that the file carries states that its images are BGR."""
    meta = value.get("meta") if isinstance(value, Mapping) else None
    config = str((meta.get("config") or meta.get("cfg") or "") if isinstance(meta, Mapping) else "")
    return re.search(r"\bbgr2rgb\s*=\s*True", config) is not None


def _state(value: Any) -> Mapping[str, Any]:
    inner = value.get("state_dict") if isinstance(value, Mapping) else None
    state = inner if isinstance(inner, Mapping) else value
    return state if isinstance(state, Mapping) and all(isinstance(k, str) for k in state) else {}


def _prefix(state: Mapping[str, Any]) -> str | None:
    key = NAMES.style.format(i=1)
    return next((p for p in PREFIXES if f"{p}{key}" in state and f"{p}{NAMES.const}" in state), None)
