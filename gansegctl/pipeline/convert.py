"""The stage `convert`: a checkpoint of any family → our own safetensors, so that the risky format is read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gansegctl.errors import GansegError, UsageError
from gansegctl.generators.base import StyleGAN
from gansegctl.generators.checkpoints.opening import open_checkpoint
from gansegctl.generators.checkpoints.records import CheckpointReport
from gansegctl.generators.weights import load_generator, save_generator


def convert(checkpoint: Path, out: Path) -> dict[str, Any]:
    """Write `out` and return what was written. The file that appears was read back and holds the same bits.

    Errors: UsageError for a name that is not .safetensors, a file that is there already, and those of
    `open_checkpoint`; GansegError when what was written differs.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"got -o {out}", wanted="a name ending in .safetensors")
    if out.exists():
        raise UsageError(
            f"got -o {out}, which is there already", wanted="a new file", remedy="remove it, or choose another"
        )
    generator, report = open_checkpoint(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(out.name + ".part.safetensors")
    try:
        save_generator(generator, draft, facts_of(report), dtype=None)
        written = load_generator(draft)
        _compare(generator, written, out)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return {
        "generator": str(out),
        "family": written.spec.family,
        "source": str(checkpoint),
        "source_sha256": report.file_sha256,
        "sha256": written.sha256,
        "bytes": out.stat().st_size,
        "assumed": report.assumed,
    }


def facts_of(report: CheckpointReport) -> dict[str, Any]:
    """The facts of the source that the converted file keeps; a second conversion keeps those of the first source."""
    if "source_sha256" in report.facts:
        return dict(report.facts)
    return {
        **report.facts,
        "source_family": report.family,
        "source_container": report.container,
        "source_sha256": report.file_sha256,
        "source_text_sha256": report.source_sha256,
        "assumed": report.assumed,
    }


def _compare(generator: StyleGAN, written: StyleGAN, out: Path) -> None:
    before, after = generator.state_dict(), written.state_dict()
    differing = sorted(set(before) ^ set(after))
    differing += [k for k in before if k in after and not torch.equal(before[k], after[k])]
    if differing or generator.spec != written.spec:
        names = ", ".join(differing[:5]) or "spec"
        raise GansegError(f"got {out}: differs from its source in {names}", wanted="the same bits")
