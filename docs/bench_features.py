"""The first layer of a head: through the pyramid, and as the field does it (upsample, concatenate, convolve).

Side by side in one process on this machine; refuses to print a speed before the two agree. Writes docs/pyramid.md's
table to stdout.
"""

from __future__ import annotations

import resource
import sys
import time

import torch
import torch.nn.functional as F

from gansegctl.features.pyramid import FeaturePyramid

SHAPES = {
    "demo, 64 px": (64, {4: [128], 8: [128] * 2, 16: [96] * 2, 32: [48] * 2, 64: [24] * 2}),
    "StyleGAN2 config-F, 256 px": (
        256,
        {4: [512], 8: [512] * 2, 16: [512] * 2, 32: [512] * 2, 64: [512] * 2, 128: [256] * 2, 256: [128] * 2},
    ),
}
WIDTH = 128
ROUNDS = 3


def best(function) -> float:
    """Seconds of the fastest of ROUNDS runs after one to warm up."""
    function()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


@torch.no_grad()
def rows():
    """(shape, layer, seconds of both, bytes of the hypercolumn)."""
    stream = torch.Generator().manual_seed(0)
    for name, (size, levels) in SHAPES.items():
        maps = [torch.randn(1, c, r, r, generator=stream) for r, widths in levels.items() for c in widths]
        p = FeaturePyramid(maps, (size, size))
        for layer, k in (("1x1", 1), ("3x3", 3)):
            if k == 3 and size > 64:
                continue  # the dense 3x3 takes minutes on a CPU
            w = torch.randn(WIDTH, p.channels, k, k, generator=stream) / (p.channels * k * k) ** 0.5

            def ours(p=p, w=w, k=k):
                return p.project(w[:, :, 0, 0]) if k == 1 else p.conv(w)

            def dense(p=p, w=w, k=k):
                return F.conv2d(p.dense(), w, padding=k // 2)

            difference = (ours() - dense()).abs().max().item()
            if difference > 1e-3:
                sys.exit(f"{name} {layer}: the two differ by {difference}; no speed is printed")
            yield name, layer, best(ours), best(dense), p.hypercolumn_bytes, difference


if __name__ == "__main__":
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {WIDTH} output channels, one picture\n")
    print("| shape | layer | pyramid, ms | dense, ms | ratio | hypercolumn never built | largest difference |")
    print("|---|---|---|---|---|---|---|")
    for name, layer, a, b, size, error in rows():
        cells = (
            name,
            layer,
            f"{1e3 * a:.1f}",
            f"{1e3 * b:.1f}",
            f"{b / a:.1f}",
            f"{size / 1e6:.0f} MB",
            f"{error:.0e}",
        )
        print("| " + " | ".join(cells) + " |")
    print(f"\nPeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
