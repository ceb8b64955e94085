"""How many samples a batch holds: an estimate of memory from the table of taps, and half as many when it was too much.

The batch size is one of the settings that determine a dataset, because other batches round differently. So it is
resolved before the plan is made, stands in the manifest, and a shard made with a smaller one says so in its attributes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gansegctl.config import GenerateSettings
from gansegctl.contracts import Generator, GeneratorSpec, Segmenter
from gansegctl.errors import GansegError
from gansegctl.pipeline.runtime.memory import available_memory
from gansegctl.store.manifest import Manifest

LARGEST = 64
"""Samples per batch at most: more fill no device better, and lose more work when they fail."""
SHARE = 0.7
"""Of the memory that is free, so much is planned with."""
_IN_WORK = 5  # maps of a layer's size that exist while it runs: input, scaled input, product, filtered product, output
_OVERSAMPLED = 16  # StyleGAN3 works at twice the rate and up to twice that in its filters, along both axes
_HEAD_MAPS = 3 * 128  # full-size maps that a convolutional head holds, for one or two samples at a time
_HEAD_SAMPLES = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a pass of `batch` samples: activations kept for the head, a layer at work, the head, the images."""

    batch: int
    activations: int
    layer: int
    head: int
    images: int

    @property
    def total(self) -> int:
        """All of it, as if it existed at once."""
        return self.activations + self.layer + self.head + self.images

    def describe(self) -> str:
        """One line for people."""
        parts = asdict(self)
        shares = ", ".join(f"{k} {_size(parts[k])}" for k in ("activations", "layer", "head", "images") if parts[k])
        return f"{self.batch} samples per batch, about {_size(self.total)} of memory ({shares})"


def estimate(
    spec: GeneratorSpec, batch: int, taps: Sequence[str] = (), itemsize: int = 4, classes: int = 0
) -> MemoryEstimate:
    """Memory of one pass, from sizes alone; taps: the names that a segmenter reads, none for images only.

    classes: whose probabilities are kept, as float16 and once more as float32 while they become bytes; none as a rule.
    """
    maps = {t.name: t.channels * (t.resolution + 2 * t.margin) ** 2 * itemsize for t in spec.taps}
    margins = any(t.margin for t in spec.taps)
    work = max(maps.values()) * (_OVERSAMPLED if margins else _IN_WORK)
    pixels = spec.resolution**2
    return MemoryEstimate(
        batch,
        activations=batch * sum(maps[name] for name in taps),
        layer=batch * work,
        head=min(batch, _HEAD_SAMPLES) * _HEAD_MAPS * pixels * 4 if taps else 0,
        images=batch * pixels * (5 * spec.image_channels + (2 if taps else 0) + 6 * classes),
    )


def choose_batch(spec: GeneratorSpec, taps: Sequence[str], free: int, classes: int = 0) -> int:
    """The largest power of two up to `LARGEST` whose estimate stays within `SHARE` of `free` bytes; at least 1."""
    size = LARGEST
    while size > 1 and estimate(spec, size, taps, classes=classes).total > SHARE * free:
        size //= 2
    return size


def resolve_batch(
    settings: GenerateSettings, generator: Generator, segmenter: Segmenter | None, device: str, out: Path
) -> GenerateSettings:
    """The settings with the batch size that suits this machine, or that of the dataset begun in `out`."""
    try:
        begun = Manifest.read(out).settings["generate"]["batch_size"]
    except (GansegError, KeyError):
        begun = None
    taps = segmenter.taps if segmenter else ()
    classes = len(segmenter.labels) if segmenter and settings.probabilities else 0
    chosen = begun or choose_batch(generator.spec, taps, available_memory(device), classes)
    return replace(settings, batch_size=chosen)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in torch's allocator on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    messages = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(message in text for message in messages)


class FittingBatch:
    """Makes shards with the batch size of `settings`, or a half, a quarter, … of it once memory ran out.

    halve: whether that is allowed; else GansegError. facts: for progress, the size once it was halved. A shard is made
    with one size from its first seed to its last: one that fails is begun again, and all after it keep the new size.
    """

    def __init__(self, settings: GenerateSettings, halve: bool) -> None:
        self.settings, self.halve = settings, halve
        self.facts: dict[str, Any] = {}

    def run(self, make: Callable[[GenerateSettings], Iterator[Any]]) -> Iterator[Any]:
        """Items of make(settings): counts of samples and the shard's arrays. Begun again: minus the count so far."""
        while True:
            made = 0
            try:
                for step in make(self.settings):
                    made += step if isinstance(step, int) else 0
                    yield step
                return
            except Exception as e:
                smaller = halved(e, self.settings.batch_size, self.halve)
            gc.collect()  # after the except clause, which held the frames, and so the tensors, of the pass that failed
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.settings = replace(self.settings, batch_size=smaller)
            self.facts = {"batch_size": smaller}
            if made:
                yield -made


def halved(error: Exception, batch: int, allowed: bool) -> int:
    """Half the batch, after `error` ended a pass. Raises `error` again when it is of another kind.

    Errors: GansegError when memory does not suffice for one sample, or when the batch size was asked for by number.
    """
    if not is_out_of_memory(error):
        raise error
    if batch > 1 and allowed:
        return batch // 2
    remedy = f"--batch-size auto, or --batch-size {batch // 2}"
    if batch == 1:
        remedy = "use a smaller generator, fewer taps (min_resolution, max_resolution) or another --device"
    raise GansegError(
        f"got out of memory in a batch of {batch}", wanted="memory for one batch", remedy=remedy
    ) from error


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
