"""Reading stored modules: attributes, children and tensors by name, each missing one an error that names it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.records import ModuleRecord

REMEDY = "this is another or an altered network: use the tool it came from, or ask for support of its family"


def attribute(record: ModuleRecord, where: str, name: str) -> Any:
    """A stored attribute. UsageError where there is none: no default stands in for it."""
    if name not in record.attributes:
        raise UsageError(f"got {where} without {name}", wanted="every attribute the forward pass takes", remedy=REMEDY)
    return record.attributes[name]


def child(record: ModuleRecord, where: str, name: str) -> ModuleRecord:
    """A stored module within this one. UsageError where there is none."""
    if name not in record.children:
        raise UsageError(f"got {where} without {name}: its tensors are missing", wanted="a whole network")
    return record.children[name]


def tensor_of(record: ModuleRecord, where: str, name: str) -> Tensor:
    """A tensor by dotted name. UsageError where it is missing, or a weight without two axes."""
    *path, last = name.split(".")
    for part in path:
        record = child(record, where, part)
    tensor = record.tensors.get(last)
    if tensor is None or (last == "weight" and tensor.ndim < 2):
        raise UsageError(f"got {where}.{name} missing", wanted="every tensor of the network")
    return tensor


def clamp_of(record: ModuleRecord, where: str) -> float | None:
    """The stored conv_clamp; None is unbounded. UsageError where nothing is stored."""
    clamp = attribute(record, where, "conv_clamp")
    return None if clamp is None else number(clamp, where, "conv_clamp")


def number(value: Any, where: str, name: str) -> float:
    """A stored number, be it Python's, numpy's, or the same one for both axes."""
    try:
        numbers = np.unique(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.size != 1 or not np.isfinite(numbers[0]):
        raise UsageError(f"got {where}: {name} {value!r:.60}", wanted="one number", remedy=REMEDY)
    return float(numbers[0])


def whole(record: ModuleRecord, where: str, name: str) -> int:
    """A stored attribute that must be a whole number."""
    found = number(attribute(record, where, name), where, name)
    if found != int(found):
        raise UsageError(f"got {where}: {name} {found:g}", wanted="a whole number", remedy=REMEDY)
    return int(found)


def check_linear(record: ModuleRecord, where: str, activation: str) -> float:
    """The learning-rate multiplier of a fully connected layer; UsageError unless it computes what ours does."""
    found = attribute(record, where, "activation")
    if found != activation:
        raise UsageError(f"got {where}: activation {found}", wanted=activation, remedy=REMEDY)
    rate = number(attribute(record, where, "bias_gain"), where, "bias_gain")
    gain = number(attribute(record, where, "weight_gain"), where, "weight_gain")
    if not math.isclose(gain, rate / math.sqrt(tensor_of(record, where, "weight").shape[1]), rel_tol=1e-5):
        raise UsageError(f"got {where}: gains {gain:g} and {rate:g}", wanted="equalised ones", remedy=REMEDY)
    return rate
