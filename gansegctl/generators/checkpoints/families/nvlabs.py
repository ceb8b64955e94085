"""NVlabs snapshots (StyleGAN2-ADA, the StyleGAN3 repository, StyleGAN-XL) → the record of their `G_ema`.

Snapshots are a dict with `G`, `D`, `G_ema`, `augment_pipe` and `training_set_kwargs`; published ones often hold `G_ema`
alone. Each network is a persistent object: class name, source text, and a state that is the module's `__dict__`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.reading import Loaded
from gansegctl.generators.checkpoints.records import CheckpointReport, ModuleRecord
from gansegctl.generators.checkpoints.unpickle.inert import Inert, Named, Storage, unknown_under
from gansegctl.generators.checkpoints.unpickle.limits import damaged, shown

_GENERATORS = ("Generator", "SuperresGenerator")
_WANTED = "a StyleGAN2, StyleGAN3 or StyleGAN-XL generator"
_FACTS = ("use_labels", "xflip", "resolution")  # never `path`: it is a place on the trainer's machine
_DEEPEST = 32
_MOST_PARTS = 50_000  # the largest published ones have some 10,000


def is_snapshot(value: Any) -> bool:
    """Whether a loaded value is an NVlabs snapshot: a dict with such networks, or one network alone."""
    if isinstance(value, dict):
        return any(_is_network(value.get(key)) for key in ("G_ema", "G", "D", "Gs"))
    return _is_network(value)


def generator_record(loaded: Loaded) -> tuple[ModuleRecord, CheckpointReport]:
    """The record of the averaged generator and what was read.

    UsageError: no `G_ema` (a discriminator alone, a training state without averages), another architecture (by name),
    names within `G_ema` that this package does not know.
    """
    network = _find_network(loaded.value)
    unknown = unknown_under(network)
    if unknown:
        raise UsageError(
            f"got a generator (G_ema) that contains {', '.join(unknown[:5])}",
            wanted="only parts of StyleGAN2, StyleGAN3 and StyleGAN-XL and plain torch layers",
            remedy="this is another or an altered network: use the tool it came from, or ask for support of its family",
        )
    record = _Records().of(network)
    family = _family(record)
    report = CheckpointReport(
        family=family,
        container=loaded.container,
        file_sha256=loaded.sha256,
        source_sha256={r.class_name: r.source_sha256 for _, r in record.walk() if r.source_sha256},
        skipped=list(loaded.unknown),
        facts=_facts(loaded.value),
    )
    return record, report


def discriminator_record(value: Any) -> ModuleRecord:
    """The record of a snapshot's `D`, or of a file that is one. UsageError where there is none, or an unknown part."""
    network = value.get("D") if isinstance(value, dict) else value
    if not isinstance(network, Inert) or "Discriminator" not in network.class_name:
        raise UsageError(
            "got a snapshot without a discriminator",
            wanted="one with D",
            remedy="published snapshots often hold G_ema alone: pass one of the training, or --perceptual gradients",
        )
    if unknown := unknown_under(network):
        raise UsageError(f"got a discriminator that contains {', '.join(unknown[:5])}", wanted="StyleGAN2's")
    return _Records().of(network)


def _is_network(value: Any) -> bool:
    return isinstance(value, Inert) and value.kind == "persistent" and isinstance(value.state, dict)


def _find_network(value: Any) -> Inert:
    """The averaged generator of a snapshot, or the one network of the file."""
    if isinstance(value, dict):
        network, held = value.get("G_ema"), [_spelled(key) for key, part in value.items() if part is not None]
        if isinstance(network, Inert):
            return _checked(network)
        lone = [k for k in ("D", "G") if isinstance(value.get(k), Inert)]
        what = {("D",): "a discriminator alone (D)", ("D", "G"): "training networks (G, D)"}.get(tuple(lone))
        what = what or ("the raw training generator (G)" if lone else f"{', '.join(held[:8]) or 'nothing'}")
        raise UsageError(
            f"got a snapshot with {what} and no G_ema",
            wanted="the averaged generator G_ema",
            remedy="pass the full network-snapshot file of the training, or its published G_ema",
        )
    if isinstance(value, Inert):
        return _checked(value)
    raise UsageError(
        f"got an object stream that holds a {type(value).__name__}",
        wanted="an NVlabs network snapshot",
        remedy="pass the network-snapshot-*.pkl of the training",
    )


def _checked(network: Inert) -> Inert:
    """The network, unless its class or its children are those of another architecture."""
    name, modules = network.class_name, _part(network, "_modules")
    remedy = "use the tool it came from; only its two-dimensional StyleGAN relatives can be read here"
    if "Discriminator" in name or ("b4" in modules and not {"mapping", "synthesis"} & set(modules)):
        raise UsageError(
            f"got a discriminator alone ({name})", wanted="a generator", remedy="pass the snapshot with G_ema"
        )
    if name.startswith("TriPlane") or {"renderer", "backbone"} & set(modules):
        raise UsageError(f"got an EG3D generator ({name})", wanted=_WANTED, remedy=remedy)
    if name.startswith(("StyleGAN1", "G_style")) or (name == "Network" and network.kind != "persistent"):
        raise UsageError(f"got a StyleGAN1 or TensorFlow network ({name})", wanted=_WANTED, remedy=remedy)
    if network.kind != "persistent" or name not in _GENERATORS or not {"mapping", "synthesis"} <= set(modules):
        parts = ", ".join(_spelled(name) for name in list(modules)[:6])
        raise UsageError(
            f"got a network of the class {name}" + (f" with the parts {parts}" if parts else ""),
            wanted=_WANTED,
            remedy=remedy,
        )
    return network


def _is_name(name: Any) -> bool:
    """A name as torch allows it for parts of modules, and one that can be shown."""
    return isinstance(name, str) and 0 < len(name) <= 200 and "." not in name and name.isprintable()


def _spelled(name: Any) -> str:
    return name if _is_name(name) else shown(name)


def _part(network: Inert, key: str) -> dict:
    part = network.state.get(key) if isinstance(network.state, dict) else None
    return part if isinstance(part, dict) else {}


class _Records:
    """Turns inert modules into `ModuleRecord`s, with an eye on files whose modules contain themselves or each other."""

    def __init__(self) -> None:
        self.left = _MOST_PARTS

    def of(self, module: Any, depth: int = 0) -> ModuleRecord:
        """One module and all below it."""
        self._take(depth)
        if not isinstance(module, Inert) or not isinstance(module.state, dict):
            raise damaged("the generator", f"a module that is a {type(module).__name__}")
        record = ModuleRecord(module.class_name, source_sha256=module.source_sha256)
        for key in ("_parameters", "_buffers"):
            for name, tensor in _part(module, key).items():
                if not _is_name(name) or not isinstance(tensor, Tensor | None) or name in record.tensors:
                    raise damaged("the generator", f"the tensor {shown(name)} is a {type(tensor).__name__}")
                self._take(depth)
                record.tensors[name] = tensor
        for name, child in _part(module, "_modules").items():
            if not _is_name(name) or name in record.tensors:
                raise damaged("the generator", f"a module named {shown(name)}")
            if child is not None:
                record.children[name] = self.of(child, depth + 1)
        for name, value in module.state.items():
            if _is_name(name) and not name.startswith("_"):
                record.attributes[name] = self.plain(value, depth)
        args, kwargs = self.plain(module.state.get("_init_args", ()), depth), module.state.get("_init_kwargs", {})
        record.init_args = tuple(args) if isinstance(args, list | tuple) else ()
        kwargs = self.plain(kwargs, depth)
        record.init_kwargs = kwargs if isinstance(kwargs, dict) else {}
        return record

    def plain(self, value: Any, depth: int) -> Any:
        """A copy of plain values; numpy arrays become lists, sets sorted lists, records their class names."""
        self._take(depth)
        if isinstance(value, dict):
            return {key: self.plain(part, depth + 1) for key, part in value.items()}
        if isinstance(value, list):
            return [self.plain(part, depth + 1) for part in value]
        if isinstance(value, tuple):
            return tuple(self.plain(part, depth + 1) for part in value)
        if isinstance(value, set | frozenset):
            return sorted((self.plain(part, depth + 1) for part in value), key=repr)
        if isinstance(value, np.ndarray):
            self.left -= value.size
            self._take(depth)
            return value.tolist()
        if isinstance(value, memoryview):
            return bytes(value)
        if isinstance(value, Storage):
            raise damaged("the generator", "tensor values where an attribute belongs")
        return value.class_name if isinstance(value, Inert) else value.name if isinstance(value, Named) else value

    def _take(self, depth: int) -> None:
        self.left -= 1
        if self.left < 0 or depth > _DEEPEST:
            raise damaged("the generator", f"more than {_MOST_PARTS} parts or {_DEEPEST} levels")


def _family(record: ModuleRecord) -> str:
    """One of stylegan2-ada, stylegan2 (of the StyleGAN3 repository), stylegan3-t, stylegan3-r, stylegan-xl."""
    mapping, synthesis = record.children["mapping"], record.children["synthesis"]
    layers = [r for name, r in synthesis.children.items() if name.startswith("L")]
    if "input" in synthesis.children and layers:
        if record.class_name == "SuperresGenerator" or "embed_proj" in mapping.children:
            return "stylegan-xl"
        weight = layers[0].tensors.get("weight")
        return "stylegan3-r" if weight is not None and weight.shape[-1] == 1 else "stylegan3-t"
    if "b4" in synthesis.children:
        return "stylegan2-ada" if "synthesis_kwargs" in record.init_kwargs else "stylegan2"
    raise UsageError(
        f"got a {record.class_name} whose synthesis has the parts {', '.join(list(synthesis.children)[:6])}",
        wanted=_WANTED,
        remedy="use the tool it came from: this is another architecture under the same name",
    )


def _facts(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    training = value.get("training_set_kwargs")
    training = training if isinstance(training, dict) else {}
    facts = {k: training[k] for k in _FACTS if isinstance(training.get(k), bool | int)}
    others = [k for k in ("G", "D", "augment_pipe") if value.get(k) is not None]
    return {**facts, "not used": others} if others else facts
