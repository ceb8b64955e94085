"""From exemplars to what is learned: taps chosen, masks checked, activations made again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gansegctl.contracts import Exemplar, Generator, GeneratorSpec
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import IGNORE, LabelMap


def choose_taps(spec: GeneratorSpec, lowest: int = 0, highest: int | None = None) -> tuple[str, ...]:
    """Names of the taps with lowest ≤ resolution ≤ highest, coarse to fine. UsageError when there is none."""
    chosen = tuple(t.name for t in spec.taps if lowest <= t.resolution <= (highest or spec.resolution))
    if not chosen:
        known = sorted({t.resolution for t in spec.taps})
        raise UsageError(
            f"got taps from {lowest} to {highest or spec.resolution} px, of which this generator has none",
            wanted=f"a range that holds one of {', '.join(map(str, known))}",
            remedy="change the method's min_resolution or max_resolution",
        )
    return chosen


def check_exemplars(generator: Generator, exemplars: Sequence[Exemplar], labels: LabelMap | None) -> LabelMap:
    """The classes. UsageError unless masks have the generator's size, declared values, and pixels to learn from."""
    if not exemplars:
        raise UsageError("got no exemplars", wanted="one annotated image or more", remedy="raise --shots")
    if labels is None:
        raise UsageError("got exemplars without classes", wanted="the label map of their masks")
    side = generator.spec.resolution
    counted = 0
    for exemplar in exemplars:
        mask = exemplar.mask
        if mask.shape != (side, side):
            raise UsageError(
                f"got a mask of shape {list(mask.shape)} for seed {exemplar.seed}",
                wanted=f"[{side}, {side}], the size of the generator's images",
                remedy="paint on the image itself, without resizing it",
            )
        values, counts = torch.from_numpy(mask.astype("int64")).unique(return_counts=True)
        undeclared = [v for v in values.tolist() if v != IGNORE and not 0 <= v < len(labels)]
        if undeclared:
            raise UsageError(
                f"got value {undeclared[0]} in the mask of seed {exemplar.seed}",
                wanted=f"0 to {len(labels) - 1}, or {IGNORE} for pixels to ignore",
                remedy="declare the class, or paint with declared ones",
            )
        counted += int(counts[values != IGNORE].sum())
    if not counted:
        raise UsageError("got exemplars in which every pixel is ignored", wanted="painted pixels")
    return labels


def masks_of(exemplars: Sequence[Exemplar], device: torch.device) -> Tensor:
    """The exemplars' masks, int64 [N,H,W]."""
    return torch.stack([torch.from_numpy(e.mask.astype("int64")) for e in exemplars]).to(device)


def painted_pixels(exemplar: Exemplar) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and classes of the pixels that are not ignored, int64 [P] each."""
    mask = torch.from_numpy(exemplar.mask.astype("int64"))
    rows, columns = (mask != IGNORE).nonzero(as_tuple=True)
    return rows, columns, mask[rows, columns]


def resynthesize(
    generator: Generator, exemplars: Sequence[Exemplar], taps: Sequence[str], device: torch.device
) -> FeaturePyramid:
    """The exemplars' activations, made again from their latents and noise: one pyramid of [N,C_i,h_i,w_i]."""
    pyramids = []
    with torch.no_grad():
        for ex in exemplars:
            synthesis = generator.synthesize(ex.ws.to(device), noise=ex.noise, taps=taps, seeds=[ex.seed])
            pyramids.append(synthesis.pyramid.map(lambda x: x.float()))
    return FeaturePyramid.cat(pyramids)


def device_of(generator: Generator) -> torch.device:
    """Where the generator's weights lie; the CPU for one without parameters."""
    parameters = getattr(generator, "parameters", None)
    first = next(iter(parameters()), None) if parameters else None
    return first.device if first is not None else torch.device("cpu")
