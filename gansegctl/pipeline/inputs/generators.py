"""From what the user typed to loaded networks: a generator by preset name or file, a segmenter, a student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gansegctl import presets
from gansegctl.contracts import Generator
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.generators.base import StyleGAN
from gansegctl.generators.checkpoints.opening import open_checkpoint
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.layers import channels_last


def generator_path(name_or_file: str) -> Path:
    """The file behind --generator: a path if there is one, else the weights of the preset of that name.

    A preset either brings its weights or names the upstream file, which is then looked for in the current folder.
    UsageError for an unknown name, and for weights that are not here: it says where they are published.
    """
    path = Path(name_or_file)
    if path.exists() or path.suffix:
        return path
    if name_or_file not in presets.names():
        raise UsageError(
            f"got generator {name_or_file!r}",
            wanted="a checkpoint file or a preset",
            remedy=did_you_mean(name_or_file, presets.names()),
        )
    tables = presets.load(name_or_file)
    brought = tables.get("generator", {})
    if "weights" in brought:
        return Path(presets.resource(brought["weights"]))
    if not brought.get("file"):
        raise UsageError(
            f"got preset {name_or_file!r}, for which no weights are published",
            wanted="a generator of that domain",
            remedy="pass --generator FILE; `gansegctl train` makes a small one from images",
        )
    if Path(brought["file"]).is_file():
        return Path(brought["file"])
    raise UsageError(
        f"got preset {name_or_file!r}, whose weights {brought['file']} are not here",
        wanted=f"{brought['file']}, published as {brought['published']} ({brought['licence']})",
        remedy=f"download it, and pass --generator FILE (as in `gansegctl run {name_or_file} --generator FILE`)",
    )


def open_generator(name_or_file: str, device: str = "cpu", precision: str = "fp32") -> StyleGAN:
    """Load a generator of any family that is read, in eval mode on `device`; see `generators.checkpoints`.

    precision: fp32, or fp16 | bf16 for its largest blocks. UsageError for a family that is not run in half precision.
    """
    generator, _ = open_checkpoint(generator_path(name_or_file))
    generator.use_precision(precision)
    return channels_last(generator, device)


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
