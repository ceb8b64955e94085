"""From a file to a generator: the container and the family are found by content, never by the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from gansegctl.errors import UsageError
from gansegctl.generators import weights
from gansegctl.generators.base import StyleGAN
from gansegctl.generators.checkpoints.build import generator_from_record
from gansegctl.generators.checkpoints.containers import reading
from gansegctl.generators.checkpoints.families import (
    bare,
    genforce,
    lucidrains,
    mmgeneration,
    nvlabs,
    refused,
    rosinality,
    tensorflow,
)
from gansegctl.generators.checkpoints.records import CheckpointReport, ModuleRecord
from gansegctl.io.tensors import read_header


class Reader(Protocol):
    """The functions that the module of a family offers."""

    def matches(self, value: Any) -> bool:
        """Whether this loaded value is a file of the family."""

    def read(self, value: Any, container: str = "", sha256: str = "") -> tuple[ModuleRecord, CheckpointReport]:
        """The generator's record and what was read. UsageError for what the family's reader refuses."""


READERS: tuple[Reader, ...] = (tensorflow, rosinality, mmgeneration, genforce, bare, lucidrains)
"""One module a family; the first that matches reads."""


def open_checkpoint(path: Path) -> tuple[StyleGAN, CheckpointReport]:
    """A generator in eval mode from any file that is read, float32 on the CPU, and the report on the file.

    `generator.sha256` is that of the whole file. Errors: UsageError for a file that is missing, damaged, of a family
    that is not read, or with missing or extra tensors; it names the family where it can be told.
    """
    path = Path(path)
    header = our_header(path)
    if header is not None:
        return _ours(path, header)
    loaded = reading.read(path)
    try:
        record, report = _record(loaded)
        refused.refuse_record(record)
        generator = generator_from_record(record)
    except UsageError as e:
        raise UsageError(f"got {path}: {e.got.removeprefix('got ')}", wanted=e.wanted, remedy=e.remedy) from e
    report.assumed += [line for line in generator.assumed if line not in report.assumed]
    report.skipped += [line for line in loaded.unknown if line not in report.skipped]
    generator.assumed, generator.sha256 = list(report.assumed), loaded.sha256
    return generator, report


def our_header(path: Path) -> dict[str, Any] | None:
    """The header of a safetensors file that gansegctl wrote, else None; reads nothing but the header."""
    try:
        header = read_header(path)
    except (OSError, ValueError):
        return None
    return header if str(header.get("kind")).startswith("gansegctl.") else None


def _ours(path: Path, header: dict[str, Any]) -> tuple[StyleGAN, CheckpointReport]:
    if header["kind"] != weights.KIND:
        raise UsageError(
            f"got {path}: a {header['kind'].removeprefix('gansegctl.')}, not a generator",
            wanted="a generator",
            remedy="check --generator",
        )
    generator = weights.load_generator(path)
    facts = dict(header.get("facts") or {})
    report = CheckpointReport(generator.spec.family, "safetensors of gansegctl", generator.sha256, facts=facts)
    report.assumed = list(facts.get("assumed", ()))
    return generator, report


def _record(loaded: reading.Loaded) -> tuple[ModuleRecord, CheckpointReport]:
    for family in READERS:
        if family.matches(loaded.value):
            return family.read(loaded.value, loaded.container, loaded.sha256)
    if nvlabs.is_snapshot(loaded.value):
        return nvlabs.generator_record(loaded)
    return refused.refuse(loaded.value)
