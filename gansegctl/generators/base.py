"""The base of all StyleGAN families: the way from z to ws, truncation, and the choice of taps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gansegctl.choices import NOISE_MODES
from gansegctl.contracts import FeatureTap, GeneratorSpec, Synthesis
from gansegctl.errors import UsageError, did_you_mean
from gansegctl.generators.mapping import Mapping
from gansegctl.generators.stylegan2_config import StyleGAN2Config
from gansegctl.generators.stylegan3_config import StyleGAN3Config


class StyleGAN(nn.Module):
    """Base of the generators (protocol `contracts.Generator`): subclasses give `spec`, `config` and `synthesize`.

    sha256 names the file it was read from; facts are those of its header; assumed lists what its file did not say.
    """

    spec: GeneratorSpec
    config: StyleGAN2Config | StyleGAN3Config
    mapping: Mapping

    def __init__(self) -> None:
        super().__init__()
        self.sha256 = ""
        self.facts: dict[str, Any] = {}
        self.assumed: list[str] = []

    def map(self, z: Tensor, c: Tensor | None = None, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim], c [N,c_dim] → ws [N,num_ws,w_dim]; the first `cutoff` slots (all when None) are truncated.

        Truncation: w_avg + psi·(w − w_avg), with the class's own w_avg where the network has one a class.
        Errors: UsageError for a class vector that is missing or of another size.
        """
        if self.spec.c_dim and (c is None or c.shape != (z.shape[0], self.spec.c_dim)):
            got = "none" if c is None else list(c.shape)
            raise UsageError(
                f"got class vector {got}", wanted=f"[{z.shape[0]}, {self.spec.c_dim}]", remedy="pass --class INDEX"
            )
        if not self.spec.c_dim and c is not None and c.shape[1]:
            raise UsageError("got a class for a generator without classes", wanted="no --class")
        dtype = self.mapping.w_avg.dtype
        c = None if c is None else c.to(dtype)
        ws = self.mapping(z.to(dtype), c).unsqueeze(1).repeat(1, self.spec.num_ws, 1)  # [N, num_ws, w_dim]
        if truncation != 1.0:
            cutoff = self.spec.num_ws if cutoff is None else cutoff
            ws[:, :cutoff] = self.mapping.average(c).lerp(ws[:, :cutoff], truncation)
        return ws

    def synthesize(
        self, ws: Tensor, noise: str = "const", taps: Sequence[str] | None = None, seeds: Sequence[int] | None = None
    ) -> Synthesis:
        """ws [N,num_ws,w_dim] → images [N,c,H,W] in [-1,1] and the pyramid of the named taps; each family's own."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Family and sizes, in one line."""
        s = self.spec
        image, ws = [s.image_channels, s.resolution, s.resolution], [s.num_ws, s.w_dim]
        classes = f", {s.c_dim} classes" if s.c_dim else ""
        return f"{type(self).__name__}({s.family}, image {image}, ws {ws}, {len(s.taps)} taps{classes})"

    def use_precision(self, precision: str) -> None:
        """fp32; families that are run in half precision too say so themselves. UsageError for any other."""
        if precision != "fp32":
            raise UsageError(
                f"got precision {precision} for {self.spec.family}", wanted="fp32", remedy="leave --precision out"
            )

    def compile_synthesis(self, backend: str = "inductor") -> None:
        """For families whose synthesis torch.compile takes whole. UsageError for any other."""
        raise UsageError(f"got --compile for {self.spec.family}", wanted="stylegan2", remedy="leave --compile out")

    def wanted_taps(self, taps: Sequence[str] | None) -> dict[str, FeatureTap]:
        """The named taps (all when None) by name. UsageError for one that the table does not have."""
        table = {t.name: t for t in self.spec.taps}
        if taps is None:
            return table
        unknown = sorted(set(taps) - set(table))
        if unknown:
            raise UsageError(
                f"got tap {unknown[0]!r}",
                wanted="a tap of this generator's table",
                remedy=did_you_mean(unknown[0], table),
            )
        return {name: table[name] for name in taps}


def check_noise(noise: str) -> None:
    """UsageError for a noise mode that is none of NOISE_MODES."""
    if noise not in NOISE_MODES:
        raise UsageError(f"got noise {noise!r}", wanted=" | ".join(NOISE_MODES))
