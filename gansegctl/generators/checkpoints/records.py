"""The content of a checkpoint file as data: the tree of modules that readers produce and networks are built from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class ModuleRecord:
    """One stored module: its class name, its plain attributes, its own tensors and its children, all inert.

    attributes: plain Python values by name (numbers, strings, lists, dicts, None). tensors: parameters and buffers by
    local name; None where the file says None (the missing filter of StyleGAN3's ToRGB). init_args, init_kwargs: what
    the constructor was called with, nested dicts. source_sha256: digest of the source text stored with it, "" for none.
    """

    class_name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor | None] = field(default_factory=dict)
    children: dict[str, ModuleRecord] = field(default_factory=dict)
    init_args: tuple = ()
    init_kwargs: dict[str, Any] = field(default_factory=dict)
    source_sha256: str = ""

    def walk(self, prefix: str = "") -> Iterator[tuple[str, ModuleRecord]]:
        """(dotted name, record) of this module ("") and all below it, parents first."""
        yield prefix, self
        for name, child in self.children.items():
            yield from child.walk(f"{prefix}.{name}" if prefix else name)

    def state_dict(self) -> dict[str, Tensor]:
        """Dotted name → tensor, those that are None left out."""
        return {
            f"{prefix}.{name}" if prefix else name: tensor
            for prefix, record in self.walk()
            for name, tensor in record.tensors.items()
            if tensor is not None
        }


@dataclass
class CheckpointReport:
    """A report for `inspect`: the family, digests, what was skipped and what had to be assumed."""

    family: str
    container: str
    file_sha256: str
    source_sha256: dict[str, str] = field(default_factory=dict)  # class name → digest of its stored source text
    skipped: list[str] = field(default_factory=list)  # names in the file that were not understood and not needed
    assumed: list[str] = field(default_factory=list)  # what the file does not say, and the value taken
    facts: dict[str, Any] = field(default_factory=dict)  # what else is worth showing (images seen, mirrored, …)
