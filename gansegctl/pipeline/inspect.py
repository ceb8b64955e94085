"""The stage `inspect`: facts of a file or folder, read from its header or manifest; of a checkpoint, read as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gansegctl import presets
from gansegctl.errors import UsageError
from gansegctl.generators.base import StyleGAN
from gansegctl.generators.checkpoints.opening import open_checkpoint, our_header
from gansegctl.generators.checkpoints.records import CheckpointReport
from gansegctl.generators.weights import KIND
from gansegctl.methods.base import segmenter_file
from gansegctl.pipeline.inputs.generators import generator_path
from gansegctl.store.manifest import Manifest
from gansegctl.store.shard import shard_record
from gansegctl.students import student


def inspect(subject: Path) -> dict[str, Any]:
    """A table of facts. UsageError for something that is neither ours nor a generator of a family that is read."""
    if subject.is_dir():
        return describe_dataset(subject)
    if str(subject) in presets.names() and not subject.exists():
        return _preset(str(subject))
    kind = (our_header(subject) or {}).get("kind", KIND)
    if kind == segmenter_file.KIND:
        texts = segmenter_file.read_header(subject)
        return {"segmenter": str(subject)} | {k: _value(v) for k, v in texts.items()}
    if kind == student.KIND:
        return {"student": str(subject)} | student.read_header(subject)
    return describe_generator(subject)


def describe_generator(path: Path) -> dict[str, Any]:
    """Sizes, taps and digests of a generator, and what its file left open.

    taps: [name, native size, channels, margin], the native size being that of the map which the network makes, margin
    included. hypercolumn_bytes_avoided: of one image's dense float32 features.
    """
    generator, report = open_checkpoint(path)
    spec = generator.spec
    channels = sum(t.channels for t in spec.taps)
    sizes = {
        "generator": str(path),
        "family": report.family,
        "container": report.container,
        "network": spec.family,
        "resolution": spec.resolution,
        "image_channels": spec.image_channels,
        "z_dim": spec.z_dim,
        "w_dim": spec.w_dim,
        "c_dim": spec.c_dim,
        "num_ws": spec.num_ws,
        "parameters": sum(p.numel() for p in generator.parameters()),
        **_design(generator),
        "taps": [[t.name, t.resolution + 2 * t.margin, t.channels, t.margin] for t in spec.taps],
        "hypercolumn_channels": channels,
        "hypercolumn_bytes_avoided": channels * spec.resolution**2 * 4,
    }
    return sizes | _provenance(generator, report)


def _provenance(generator: StyleGAN, report: CheckpointReport) -> dict[str, Any]:
    return {
        "facts": report.facts,
        "sha256": generator.sha256,
        "source_text_sha256": report.source_sha256,
        "skipped": report.skipped,
        "assumed": report.assumed,
    }


def _design(generator: StyleGAN) -> dict[str, Any]:
    """The network's own configuration, less what the spec says already."""
    known = ("resolution", "image_channels", "z_dim", "w_dim", "c_dim", "num_ws")
    return {k: v for k, v in generator.config.to_json().items() if k not in known}


def _preset(name: str) -> dict[str, Any]:
    tables = presets.load(name)
    try:
        path = generator_path(name)
    except UsageError as e:
        return {"preset": name, "weights": str(e).splitlines()[0].removeprefix("got ")} | tables.get("generator", {})
    return {"preset": name} | describe_generator(path)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def describe_dataset(folder: Path) -> dict[str, Any]:
    """Facts of a dataset: counts, sizes, provenance."""
    manifest = Manifest.read(folder)
    records = [r for r in (shard_record(folder, i) for i in range(len(manifest.shards))) if r]
    done = [r for r in records if r.digest == manifest.digest]
    return {
        "dataset": str(folder),
        "stage": manifest.stage,
        "samples": sum(r.count for r in done),
        "planned": len(manifest.seeds),
        "shards": len(done),
        "bytes": sum(r.bytes for r in done),
        "classes": list(manifest.labels.names) if manifest.labels else None,
        "generator": manifest.generator,
        "segmenter": manifest.segmenter,
        "digest": manifest.digest,
        "licence": manifest.licence,
    } | ({"choice": manifest.facts["choice"]} if "choice" in manifest.facts else {})
