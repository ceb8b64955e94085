"""Generators on disk: one safetensors file, the network's configuration in its header, nothing that can execute.

float16 storage halves a file; the network that comes back is float32. Families: stylegan2, stylegan3, stylegan-xl.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.generators import stylegan2, stylegan3_config
from gansegctl.generators.base import StyleGAN
from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from gansegctl.generators.stylegan3 import StyleGAN3
from gansegctl.generators.stylegan3_config import StyleGAN3Config
from gansegctl.io.digest import file_digest
from gansegctl.io.tensors import FileKind

KIND = "gansegctl.generator"
FILE = FileKind(KIND, "a generator", "pass a file that `gansegctl train` or `convert` wrote", {"config": dict})
Built = TypeVar("Built", bound=StyleGAN)
NETWORKS: dict[str, tuple[type, type]] = {
    stylegan2.FAMILY: (StyleGAN2, StyleGAN2Config),
    **dict.fromkeys(stylegan3_config.FAMILIES, (StyleGAN3, StyleGAN3Config)),
}
"""Family in the header → network and the table it is built from."""


def save_generator(
    generator: StyleGAN, path: Path, facts: dict | None = None, dtype: torch.dtype | None = torch.float32
) -> None:
    """Write weights, configuration and `facts` (images seen, licence …); the file appears whole or not at all.

    facts: the generator's own when None; what it had to assume is added as "assumed". dtype: None keeps every tensor's
    own, which loses nothing.
    """
    tensors = {k: v.detach().to("cpu", dtype or v.dtype) for k, v in generator.state_dict().items()}
    facts = dict(generator.facts if facts is None else facts)
    if generator.assumed:
        facts.setdefault("assumed", list(generator.assumed))
    header = {"family": generator.spec.family, "config": generator.config.to_json(), "facts": facts}
    FILE.write(path, tensors, header)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a generator's file. UsageError for a file that is missing, damaged or something else."""
    return FILE.read_header(path)


def load_generator(path: Path) -> StyleGAN:
    """Read a generator in eval mode. UsageError for another kind of file, a newer format, missing or extra tensors."""
    path = Path(path)
    header, tensors = FILE.read(path)
    family = header.get("family")
    if family not in NETWORKS:
        raise UsageError(f"got {path}: family {family!r}", wanted=" | ".join(NETWORKS), remedy="update gansegctl")
    network, config = NETWORKS[family]
    try:
        settings = config(**header["config"])
    except (KeyError, TypeError) as e:
        raise UsageError(
            f"got {path}: a configuration that cannot be read ({e})", wanted=KIND, remedy="update gansegctl"
        ) from e
    generator = network_of_tensors(lambda: network(settings), tensors, str(path))
    generator.facts = header.get("facts", {})
    generator.assumed = list(generator.facts.get("assumed", []))
    generator.sha256 = file_digest(path)
    return generator


def network_of_tensors(make: Callable[[], Built], tensors: dict[str, Tensor], source: str) -> Built:
    """`make()` with these tensors in place of its own, in eval mode; float32, or float64 where that would lose values.

    Leaves torch's random stream as it was. Errors: UsageError naming tensors missing, unexpected or of another shape.
    """
    # Not on the "meta" device: its first use imports a compiler, which takes longer than drawing what is thrown away.
    with torch.random.fork_rng(devices=[]):
        generator = make()
    check_tensors(generator.state_dict(), tensors, source)
    wide = any(t.dtype == torch.float64 and not torch.equal(t.float().double(), t) for t in tensors.values())
    dtype = torch.float64 if wide else torch.float32
    # Copies: what a reader hands over may lie anywhere in the bytes of a file.
    tensors = {k: v.detach().to("cpu", dtype, copy=True).contiguous() for k, v in tensors.items()}
    generator.load_state_dict(tensors, assign=True)
    return generator.eval().requires_grad_(False)


def check_tensors(own: dict[str, Tensor], tensors: dict[str, Tensor], source: str) -> None:
    """UsageError unless names and shapes are the same: a partial load is an error that names what differs."""
    wrong = [f"{k} missing" for k in own if k not in tensors]
    wrong += [f"{k} unexpected" for k in tensors if k not in own]
    wrong += [
        f"{k} is {list(tensors[k].shape)}, not {list(own[k].shape)}"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UsageError(
            f"got {source}: {'; '.join(wrong[:5])}{more}",
            wanted="every tensor of the network, no other",
            remedy="the file is incomplete, or of a network that was changed: get it again from where it was trained",
        )
