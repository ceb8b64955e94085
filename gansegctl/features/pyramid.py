"""FeaturePyramid: generator activations at their native sizes, standing for the hypercolumn that is never built.

The hypercolumn of an image is [ΣC_i, H, W]: every activation upsampled to full size and concatenated. Upsampling is
linear and acts on each channel alone, so projections, convolutions, norms, k-means and sampling of that tensor can be
computed from the native maps exactly; each method states the identity it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gansegctl import kernels
from gansegctl.kernels.interpolation import axis_matrix, check_mode, widened
from gansegctl.kernels.reference import Layers


class FeaturePyramid:
    """levels: Tensor [N,C_i,h_i,w_i] each; size: (H, W) of the hypercolumn; mode: how levels are upsampled to it.

    Channels run in the order of the levels. A level larger than `size` is sampled down by the same rule, without
    smoothing. Errors: ValueError for no levels, unequal batches, an empty size or an unknown mode.
    """

    def __init__(
        self, levels: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear", backend: str = "auto"
    ) -> None:
        check_mode(mode)
        self.levels, self.size, self.mode, self.backend = tuple(levels), (int(size[0]), int(size[1])), mode, backend
        if not self.levels:
            raise ValueError("got a pyramid without levels; wanted at least one map [N,C,h,w]")
        shapes = [tuple(x.shape) for x in self.levels]
        if any(len(s) != 4 or s[0] != shapes[0][0] for s in shapes):
            raise ValueError(f"got levels {shapes}; wanted [N,C_i,h_i,w_i] with one N")
        if min(self.size) < 1:
            raise ValueError(f"got size {self.size}; wanted (H, W) of 1 pixel or more")

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def widths(self) -> list[int]:
        """C_i of each level."""
        return [x.shape[1] for x in self.levels]

    @property
    def channels(self) -> int:
        """ΣC_i, the channels of the hypercolumn."""
        return sum(self.widths)

    @property
    def batch(self) -> int:
        """N, the samples."""
        return self.levels[0].shape[0]

    def __len__(self) -> int:
        return self.batch

    def __repr__(self) -> str:
        """Levels from the first to the last, and the hypercolumn they stand for, in one line."""
        first = self.levels[0]
        maps = ", ".join(f"{c}×{x.shape[2]}×{x.shape[3]}" for c, x in zip(self.widths, self.levels, strict=True))
        dtype = str(first.dtype).removeprefix("torch.")
        stands_for = f"[{self.batch}, {self.channels}, {self.size[0]}, {self.size[1]}]"
        return f"FeaturePyramid({stands_for} {dtype} on {first.device}, {self.mode}, from {maps})"

    @property
    def hypercolumn_bytes(self) -> int:
        """Bytes that `dense` would allocate for the batch."""
        return len(self) * self.channels * self.size[0] * self.size[1] * self.levels[0].element_size()

    def map(self, function: Callable[[Tensor], Tensor]) -> FeaturePyramid:
        """The same pyramid with every level passed through `function` (a cast, a flip, a slice of samples)."""
        return FeaturePyramid([function(x) for x in self.levels], self.size, self.mode, self.backend)

    def __getitem__(self, samples: slice | Tensor) -> FeaturePyramid:
        return self.map(lambda x: x[samples])

    def to(self, *args: Any, **options: Any) -> FeaturePyramid:
        """Every level through `Tensor.to`: a device, a dtype, or both."""
        return self.map(lambda x: x.to(*args, **options))

    def detach(self) -> FeaturePyramid:
        """The same maps, cut from the graph that made them."""
        return self.map(lambda x: x.detach())

    def with_mode(self, mode: str) -> FeaturePyramid:
        """The same maps under another upsampling."""
        return FeaturePyramid(self.levels, self.size, mode, self.backend)

    def joined(self) -> FeaturePyramid:
        """The same hypercolumn with neighbouring levels of one size as one level."""
        groups: list[list[Tensor]] = []
        for x in self.levels:
            if groups and groups[-1][0].shape[2:] == x.shape[2:]:
                groups[-1].append(x)
            else:
                groups.append([x])
        return FeaturePyramid([_cat(group) for group in groups], self.size, self.mode, self.backend)

    @staticmethod
    def cat(pyramids: Sequence[FeaturePyramid]) -> FeaturePyramid:
        """Pyramids of one generator, joined along samples. ValueError when their sizes or modes differ."""
        if not pyramids:
            raise ValueError("got no pyramids; wanted at least one")
        first = pyramids[0]
        kinds = {(p.size, p.mode, p.backend, tuple(p.widths)) for p in pyramids}
        if len(kinds) > 1:
            raise ValueError(f"got pyramids of {sorted(kinds)}; wanted one size, mode, backend and table of channels")
        levels = [torch.cat(maps) for maps in zip(*(p.levels for p in pyramids), strict=True)]
        return FeaturePyramid(levels, first.size, first.mode, first.backend)

    # -- what it stands for -----------------------------------------------------------------------------------------

    def dense(self) -> Tensor:
        """The hypercolumn itself, [N,ΣC,H,W]: for checks, plots and small images."""
        return kernels.upsample_concat(self.levels, self.size, self.mode, backend=self.backend)

    def project(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """weight [K,ΣC], bias [K] → [N,K,H,W]. W·concat U(a_i) = Σ U(W_i a_i)."""
        self._check(weight, 2)
        return kernels.project(self.levels, weight, self.size, self.mode, bias, backend=self.backend)

    def perceptron(self, layers: Layers, slope: float = 0.0) -> Tensor:
        """A per-pixel head: layers (weight [K_out,K_in], bias [K_out]), leaky ReLU between → logits [N,K,H,W].

        The first layer is `project`, and its maps never exist whole where no gradients are asked for. With gradients
        they are kept for the backward pass, once, up to a size, and made again in it beyond (kernels.torch_ops).
        slope: of the leaky ReLU, 0 for a plain one.
        """
        self._check(layers[0][0], 2)
        return kernels.perceptron(self.levels, layers, self.size, self.mode, slope, backend=self.backend)

    def classify(self, heads: Sequence[Layers], slope: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """One per-pixel head or several → labels uint8, confidence uint8, uncertainty float32, [N,H,W] each.

        p is the mean over heads of their probabilities: label argmax p, confidence round(255·max p). Uncertainty, in
        0…1: of one head H(p)/log K; of several the Jensen-Shannon divergence (H(mean p) − mean H(p))/log K.
        Error: ValueError for no heads.
        """
        if not heads:
            raise ValueError("got no heads; wanted one or more")
        for layers in heads:
            self._check(layers[0][0], 2)
        return kernels.classify(self.levels, heads, self.size, self.mode, slope, backend=self.backend)

    def conv(self, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
        """k×k convolution, k odd: weight [K,ΣC,k,k], bias [K] → [N,K,H,W]; outside the image is 0.

        The k² taps are projected at native size; shifts and upsampling follow on K channels instead of ΣC.
        """
        self._check(weight, 4)
        if weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
            raise ValueError(f"got a kernel {list(weight.shape[2:])}; wanted k×k with k odd")
        if dilation < 1:
            raise ValueError(f"got dilation {dilation}; wanted 1 or more")
        return kernels.conv(self.levels, weight, self.size, self.mode, bias, dilation, backend=self.backend)

    def sqnorm(self) -> Tensor:
        """Squared L2 norm over channels, [N,H,W]: a quadratic form of the four native taps of each pixel."""
        first, *others = (kernels.squared_norm(x, self.size, self.mode, backend=self.backend) for x in self.levels)
        for norm in others:
            first = first + norm
        return first

    def assign(self, centroids: Tensor) -> Tensor:
        """Nearest centroid of every pixel: centroids [K,ΣC] → int64 [N,H,W]. argmin‖x−c‖² = argmax c·x − ½‖c‖².

        m·x − ½‖m‖², m the centroids' mean, is taken from every score: no rank changes, and what all centroids have
        in common no longer drowns what tells them apart.
        """
        self._check(centroids, 2)
        middle = centroids.mean(dim=0)
        apart = centroids - middle
        return self.project(apart, -0.5 * (apart * (centroids + middle)).sum(dim=1)).argmax(dim=1)

    def pool(self, weights: Tensor) -> Tensor:
        """Σ_p weight_k(p)·x(p): weights [N,K,H,W], one-hot for sums over segments → [K,ΣC]."""
        wanted = (len(self), *self.size)
        if (weights.shape[0], *weights.shape[2:]) != wanted:
            raise ValueError(f"got weights {list(weights.shape)}; wanted [{wanted[0]}, K, {wanted[1]}, {wanted[2]}]")
        return kernels.segment_pool(weights, self.levels, self.mode, backend=self.backend)

    def pool_labels(self, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """`pool` over the segments of labels [N,H,W]: sums [K,ΣC] and pixels int64 [K], K = classes.

        Labels outside 0…K−1, such as 255 for ignored pixels, count nowhere.
        """
        if tuple(labels.shape) != (self.batch, *self.size):
            raise ValueError(f"got labels {list(labels.shape)}; wanted {[self.batch, *self.size]}")
        flat = labels.long()
        counts = torch.bincount(flat[(flat >= 0) & (flat < classes)], minlength=classes)
        return kernels.segment_pool_labels(labels, self.levels, classes, self.mode, backend=self.backend), counts

    def at(self, points: Tensor) -> Tensor:
        """Hypercolumns of sampled pixels: points int64 [P,3] as (sample, row, column) → [P,ΣC]."""
        parts = [kernels.gather_points(x, points, self.size, self.mode, backend=self.backend) for x in self.levels]
        return torch.cat(parts, dim=1)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of every channel over all N·H·W pixels of the hypercolumn, [ΣC] each, exactly.

        ΣU(a) = ⟨Uᵀ1, a⟩, and ΣU(a)² = ⟨a, (RᵀR) a (CᵀC)⟩ with the axis matrices R and C of the upsampling. Both are
        taken about the native mean, which U keeps: else a mean far from 0 cancels the variance in float32.
        """
        h, w = self.size
        count = self.batch * h * w
        means, variances = [], []
        for x in self.levels:
            x = widened(x)
            centre = x.mean(dim=(0, 2, 3))
            x = x - centre.view(1, -1, 1, 1)
            rows = axis_matrix(x.shape[2], h, self.mode, x)
            columns = axis_matrix(x.shape[3], w, self.mode, x)
            offset = torch.einsum("nchw,h,w->c", x, rows.sum(dim=0), columns.sum(dim=0)) / count
            square = (x * ((rows.T @ rows) @ x @ (columns.T @ columns))).sum(dim=(0, 2, 3)) / count
            means.append(centre + offset)
            variances.append((square - offset.square()).clamp(min=0))
        return torch.cat(means), torch.cat(variances)

    def covariance(self) -> tuple[Tensor, Tensor]:
        """Mean [ΣC] and covariance [ΣC,ΣC] of the channels over all N·H·W pixels of the hypercolumn, exactly.

        ΣU(a)·U(b) = ⟨a, UᵀU(b)⟩, and UᵀU takes b from its native size to that of a by two small matrices, RaᵀRb along
        rows and CaᵀCb along columns: so each pair of levels is multiplied at the smaller native size. In float64.
        """
        h, w = self.size
        count = self.batch * h * w
        levels = [x.detach().double() for x in self.joined().levels]
        centres = [x.mean(dim=(0, 2, 3)) for x in levels]
        levels = [x - c.view(1, -1, 1, 1) for x, c in zip(levels, centres, strict=True)]
        rows = [axis_matrix(x.shape[2], h, self.mode, x) for x in levels]
        columns = [axis_matrix(x.shape[3], w, self.mode, x) for x in levels]
        offset = torch.cat(
            [
                torch.einsum("nchw,h,w->c", x, r.sum(dim=0), c.sum(dim=0)) / count
                for x, r, c in zip(levels, rows, columns, strict=True)
            ]
        )
        ends = torch.tensor([0, *(x.shape[1] for x in levels)]).cumsum(0).tolist()
        square = torch.empty(self.channels, self.channels, dtype=torch.float64, device=levels[0].device)
        for i in range(len(levels)):
            for j in range(i, len(levels)):
                small, large = sorted((i, j), key=lambda k: levels[k].shape[2] * levels[k].shape[3])
                near = (rows[small].T @ rows[large]) @ levels[large] @ (columns[small].T @ columns[large]).T
                block = torch.einsum("nchw,ndhw->cd", levels[small], near) / count
                here, there = slice(ends[small], ends[small + 1]), slice(ends[large], ends[large + 1])
                square[here, there], square[there, here] = block, block.T
        return torch.cat(centres) + offset, square - torch.outer(offset, offset)

    def _check(self, weight: Tensor, dimensions: int) -> None:
        if weight.ndim != dimensions or weight.shape[1] != self.channels:
            wanted = f"{dimensions} dimensions, {self.channels} channels"
            raise ValueError(f"got weight {list(weight.shape)}; wanted {wanted}")


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along channels; torch.cat would copy a single one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim=1)


def fold_affine(weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Weights that act on x as `weight`, `bias` act on scale·x + shift: weight [K,ΣC], scale, shift [ΣC].

    Exact for `project`. For a k×k `conv` the shift is not folded at borders: centre the weights' input instead.
    """
    folded = weight * scale
    offset = weight @ shift
    return folded, offset if bias is None else bias + offset
