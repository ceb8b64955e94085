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
from gansegctl.io.atomic import write_bytes

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
    from safetensors.torch import save

    tensors = {"stream": stream.get_state()}
    for name, network in networks.items():
        tensors |= {f"{name}/{k}": v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}/{i}/{k}": torch.as_tensor(v).detach().cpu().contiguous() for k, v in state.items()}
    write_bytes(path, save(tensors, {"kind": kind} | {k: json.dumps(v) for k, v in facts.items()}))


@dataclass
class SavedState:
    """What `save_state` wrote, read but not yet put anywhere."""

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
    """Read a state. UsageError for a damaged file, or one of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as f:
            header = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - safe_open is no mapping
    except SafetensorError as e:
        raise UsageError(f"got {path}: {e}", wanted=kind, remedy=f"delete {path} to start anew") from e
    if header.pop("kind", None) != kind:
        raise UsageError(f"got {path}: another kind of file", wanted=kind, remedy=f"delete {path} to start anew")
    return SavedState({k: json.loads(v) for k, v in header.items()}, tensors)


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """`key: then, now …` of the keys whose values differ, for a message; "" where none does."""
    both = {k: (then.get(k, "not said"), now.get(k, "not said")) for k in {**now, **then}}
    return "; ".join(f"{k}: {a}, now {b}" for k, (a, b) in both.items() if a != b)
