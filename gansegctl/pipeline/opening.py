"""From what the user typed to loaded networks: a generator by preset name or file, a segmenter, a student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gansegctl import presets
from gansegctl.contracts import Generator
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.weights import load_generator


def generator_path(name_or_file: str) -> Path:
    """The file behind --generator: a path if there is one, else the weights of the preset of that name."""
    path = Path(name_or_file)
    if path.exists() or path.suffix:
        return path
    if name_or_file not in presets.names():
        raise UsageError(
            f"got generator {name_or_file!r}",
            wanted="a .safetensors file or a preset",
            remedy=did_you_mean(name_or_file, presets.names()),
        )
    return Path(presets.resource(presets.load(name_or_file)["generator"]["weights"]))


def open_generator(name_or_file: str, device: str = "cpu") -> Generator:
    """Load a generator in eval mode on `device`."""
    generator = load_generator(generator_path(name_or_file))
    return generator.to(device=torch.device(device), memory_format=torch.channels_last)


def check_class(generator: Generator, class_index: int | None) -> None:
    """UsageError unless --class is given exactly when the generator has classes, and is one of them."""
    count = generator.spec.c_dim
    if class_index is None and not count:
        return
    if class_index is None or not 0 <= class_index < count:
        wanted = f"--class 0 to {count - 1}" if count else "no --class: this generator has no classes"
        raise UsageError(f"got class {class_index}", wanted=wanted)


@torch.no_grad()
def latents_of_seeds(
    generator: Generator,
    seeds: Sequence[int],
    truncation: float = 1.0,
    cutoff: int | None = None,
    class_index: int | None = None,
    device: str = "cpu",
) -> Tensor:
    """ws float32 [N,num_ws,w], each mapped by itself: the same bits whatever batch the seed falls into."""
    check_class(generator, class_index)
    c = None
    if class_index is not None:
        c = torch.eye(generator.spec.c_dim, device=device)[class_index : class_index + 1]
    z = z_of_seeds(seeds, generator.spec.z_dim).to(device)
    rows = [generator.map(row[None], c, truncation, cutoff) for row in z]
    return torch.cat(rows).float()


def grouped(items: Sequence, size: int) -> Iterator[Sequence]:
    """Consecutive runs of at most `size`."""
    for i in range(0, len(items), size):
        yield items[i : i + size]
