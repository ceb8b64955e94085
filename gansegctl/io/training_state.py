"""Training state on disk: networks, optimisers and the random stream of a run, so that a killed one goes on to the bit.

One safetensors file: tensors and JSON in its header, nothing that can execute. It appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansegctl.errors import UsageError
from gansegctl.io.tensors import FileKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def save_state(
    path: Path,
    kind: str,
    facts: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    stream: torch.Generator,
) -> None:
    """Write everything a resume needs. facts: JSON values by name, such as settings and counters."""
    import torch

    tensors = {"stream": stream.get_state()}
    for name, network in networks.items():
        tensors |= {f"{name}/{k}": v for k, v in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}/{i}/{k}": torch.as_tensor(v) for k, v in state.items()}
    _file(kind).write(path, tensors, {k: json.dumps(v) for k, v in facts.items()})


@dataclass
class SavedState:
    """A state that `save_state` wrote, read but not yet put anywhere."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def restore(
        self,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        stream: torch.Generator,
    ) -> None:
        """Put it into networks, optimisers and stream of the same names and shapes."""
        for name, network in networks.items():
            network.load_state_dict(self.below(name))
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in self.below(name).items():
                i, field = key.split("/")
                state.setdefault(int(i), {})[field] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        stream.set_state(self.tensors["stream"])

    def below(self, name: str) -> dict[str, Tensor]:
        """The tensors of the network or optimiser `name`, by their own names."""
        return {k.removeprefix(f"{name}/"): v for k, v in self.tensors.items() if k.startswith(f"{name}/")}


def load_state(path: Path, kind: str) -> SavedState:
    """Read a state. UsageError for a file that is missing, damaged or of another kind."""
    header, tensors = _file(kind).read(path)
    try:
        return SavedState({k: json.loads(v) for k, v in header.items() if k != "kind"}, tensors)
    except ValueError as e:
        raise UsageError(f"got {path}: {e} in its header", wanted=kind, remedy=f"delete {path} to start anew") from e


def _file(kind: str) -> FileKind:
    return FileKind(kind, "a training state", "delete {path} to start anew", newest=None, table=False)
