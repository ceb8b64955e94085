"""Generators on disk: one safetensors file, the network's configuration in its header, nothing that can execute.

float16 storage halves a file; the network that comes back is float32.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators.stylegan2 import FAMILY, StyleGAN2, StyleGAN2Config

KIND = "gansegctl.generator"
FORMAT_VERSION = 1


def save_generator(
    generator: StyleGAN2, path: Path, facts: dict | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write weights, configuration and `facts` (images seen, licence …); the file appears whole or not at all."""
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in generator.state_dict().items()}
    header = {
        "kind": KIND,
        "format": FORMAT_VERSION,
        "family": FAMILY,
        "config": generator.config.to_json(),
        "facts": facts or {},
    }
    part = path.with_name(path.name + ".part")
    # One key: safetensors writes several in an order that changes from run to run, and the sha256 with it.
    part.write_bytes(save(tensors, {"gansegctl": json.dumps(header, sort_keys=True)}))
    part.replace(path)


def read_header(path: Path) -> dict[str, Any]:
    """The header: our table where there is one, else its own keys. UsageError for a missing file or another format."""
    if not path.is_file():
        raise UsageError(f"got {path}: no such file", wanted="a generator", remedy="check --generator")
    try:
        with safe_open(str(path), "pt") as f:
            header = f.metadata() or {}
            return json.loads(header["gansegctl"]) if "gansegctl" in header else header
    except (SafetensorError, ValueError) as e:
        raise UsageError(
            f"got {path}: not a safetensors file ({e})",
            wanted="a generator written by `gansegctl train`",
            remedy="pass the .safetensors file of a StyleGAN2",
        ) from e


def load_generator(path: Path) -> StyleGAN2:
    """Read a generator in eval mode. UsageError for another kind of file, a newer format, missing or extra tensors."""
    path = Path(path)
    header = read_header(path)
    if header.get("kind") != KIND:
        raise UsageError(f"got {path}: {header.get('kind', 'safetensors without a gansegctl header')}", wanted=KIND)
    if int(header["format"]) > FORMAT_VERSION:
        raise UsageError(
            f"got {path}: format {header['format']}", wanted=f"at most {FORMAT_VERSION}", remedy="update gansegctl"
        )
    generator = StyleGAN2(StyleGAN2Config(**header["config"]))
    with safe_open(str(path), "pt") as f:
        tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - safe_open is no mapping
    load_exactly(generator, tensors, path)
    generator.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return generator.eval().requires_grad_(False)


def load_exactly(module: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into the module; a partial load is an error that names what differs."""
    own = module.state_dict()
    wrong = [f"{k} missing" for k in own if k not in tensors]
    wrong += [f"{k} unexpected" for k in tensors if k not in own]
    wrong += [
        f"{k} is {list(tensors[k].shape)}, not {list(own[k].shape)}"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    if wrong:
        raise UsageError(f"got {path}: {'; '.join(wrong[:5])}", wanted="every tensor of the network, no other")
    module.load_state_dict(tensors)
