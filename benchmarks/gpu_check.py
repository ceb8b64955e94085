"""Everything that has to be seen on a GPU, by one command: python benchmarks/gpu_check.py -o gpu-out.

1. Every kernel (Triton as compiled, and CUDA) against the reference in float64: float32, float16, bfloat16, all modes,
   gradients; its error may be twice that of torch in the same dtype. 2. Bandwidth of every kernel beside a copy's.
3. Images and image/mask pairs a second of a StyleGAN2 with random weights, and the mask as the field makes it
   (upsample, concatenate, convolve). Writes gpu.json and gpu.md (the tables of docs/gpu.md) into the folder.
Exit status: 0 done, 1 a kernel is wrong, 3 no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl import kernels
from gansegctl.bench import kernels as bench
from gansegctl.kernels import backend, build, torch_ops
from gansegctl.kernels.interpolation import MODES
from gansegctl.pipeline.runtime.memory import with_peak

SIZE, NATIVES = (61, 83), ((4, 4), (16, 23), (61, 83), (97, 30))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def ops(mode: str, dtype: torch.dtype) -> Iterator[tuple[str, list[Tensor], object, bool]]:
    """(name, inputs in float64, call(backend, inputs) → results, whether gradients are checked)."""
    stream = torch.Generator("cuda").manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream, device="cuda", dtype=torch.float64)

    maps = [draw(2, 19, *native) for native in NATIVES]
    labels = torch.randint(0, 9, (2, *SIZE), generator=stream, device="cuda", dtype=torch.uint8)
    weights = draw(2, 9, *SIZE)
    points = torch.randint(0, 2**31, (500, 3), generator=stream, device="cuda") % torch.tensor([2, *SIZE]).cuda()
    yield "upsample_concat", maps, lambda b, x: kernels.upsample_concat(x, SIZE, mode, backend=b), True
    yield "upsample_sum", maps, lambda b, x: kernels.upsample_sum(x, SIZE, mode, backend=b), True
    pair = [maps[1], draw(16, 19, 3, 3) / 13]
    yield "conv_upsampled", pair, lambda b, x: kernels.conv_upsampled(*x, SIZE, mode, 2, backend=b), True
    yield "squared_norm", maps[1:2], lambda b, x: kernels.squared_norm(*x, SIZE, mode, backend=b), False
    yield "segment_pool", [weights, maps[1]], lambda b, x: kernels.segment_pool(x[0], x[1:], mode, backend=b), True
    yield "segment_pool_labels", maps[1:2], lambda b, x: kernels.segment_pool_labels(labels, x, 9, mode, b), True
    scale, bias, noise = draw(2, 19), draw(19), draw(2, 1, 60, 82)
    fir = torch.outer(*[torch.tensor([1.0, 3, 3, 1], device="cuda", dtype=torch.float64) / 4] * 2)

    def after(b: str, x: list[Tensor]) -> Tensor:
        like = [t.to(x[0]) for t in (scale, bias, noise, fir)]
        return kernels.filter_activate(x[0].clone(), *like, (1, 1), 1.4, 0.2, 2.0, backend=b)

    yield "filter_activate", [draw(2, 19, *SIZE)], after, False
    yield "gather_points", maps[1:2], lambda b, x: kernels.gather_points(*x, points, SIZE, mode, backend=b), True


def correctness() -> list[dict]:
    """A row an op, backend, dtype and mode: largest error and the bound, of results and of gradients."""
    rows = []
    names = [n for n in ("triton", "cuda") if backend.available()[n] is None]
    for mode in MODES:
        for dtype in DTYPES:
            for op, inputs, call, differentiable in ops(mode, dtype):
                for name in names:
                    if name == "cuda" and op != "upsample_concat":
                        continue
                    gradients = differentiable and name == "triton"
                    rounded = [x.to(dtype) for x in inputs]
                    ours, torchs = (
                        results(call, name, rounded, gradients),
                        results(call, "torch", rounded, gradients),
                    )
                    exact = results(call, "reference", [x.double() for x in rounded], gradients)
                    error, bound = 0.0, 0.0
                    passed = True
                    for a, b, c in zip(ours, torchs, exact, strict=True):
                        e = float((a.double() - c).abs().max())
                        limit = 2 * float((b.double() - c).abs().max()) + torch.finfo(a.dtype).eps * float(
                            c.abs().max()
                        )
                        passed &= e <= limit
                        error, bound = max(error, e), max(bound, limit)
                    rows.append({"op": op, "backend": name, "dtype": str(dtype), "mode": mode, "gradients": gradients,
                                 "error": error, "bound": bound, "passed": passed})  # fmt: skip
    return rows + heads() + repeats()


def results(call, name: str, inputs: list[Tensor], gradients: bool) -> list[Tensor]:
    """The result of a call, and its gradients for a fixed cotangent."""
    inputs = [x.detach().requires_grad_(gradients) for x in inputs]
    y = call(name, inputs)
    if not gradients:
        return [y]
    g = torch.linspace(-1, 1, y.numel(), device="cuda", dtype=torch.float64).view(y.shape).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, inputs, g)]


def heads() -> list[dict]:
    """pixel_head: labels where the reference in float64 is clear, and the score."""
    rows, stream = [], torch.Generator("cuda").manual_seed(0)
    for dtype, clear in zip(DTYPES, (1e-4, 1e-2, 8e-2), strict=True):
        for count, widths in ((1, ()), (1, (12,)), (10, (32, 12)), (1, (200, 34))):
            hidden = 128 if widths else 12
            maps = [torch.randn(2, count * hidden, *n, generator=stream, device="cuda") for n in NATIVES]
            layers, before = [], hidden
            for width in widths:
                weight = torch.randn(count, width, before, generator=stream, device="cuda") / before**0.5
                layers.append((weight, torch.randn(count, width, generator=stream, device="cuda")))
                before = width
            cast = [m.to(dtype) for m in maps], [(w.to(dtype), b.to(dtype)) for w, b in layers]
            exact = [m.double() for m in cast[0]], [(w.double(), b.double()) for w, b in cast[1]]
            ours = kernels.pixel_head(cast[0], SIZE, cast[1], count, backend="triton")
            wanted = kernels.pixel_head(exact[0], SIZE, exact[1], count, backend="reference")
            sure = (ours[1].int() - wanted[1].int()).abs().double().max() / 255
            same = float((ours[0] == wanted[0]).double().mean())
            score = float((ours[2] - wanted[2]).abs().max())
            rows.append({"op": "pixel_head", "backend": "triton", "dtype": str(dtype), "mode": f"{count} x {widths}",
                         "gradients": False, "error": max(float(sure), score), "bound": clear, "labels_equal": same,
                         "passed": max(float(sure), score) <= clear + 1 / 255 and same > 1 - 2 * clear})  # fmt: skip
    return rows


def repeats() -> list[dict]:
    """Gradients and scores are the same bits twice."""
    x = torch.randn(2, 19, 16, 23, device="cuda", requires_grad=True)
    g = torch.randn(2, 19, *SIZE, device="cuda")
    twice = [torch.autograd.grad(kernels.upsample_sum([x], SIZE, backend="triton"), x, g)[0] for _ in range(2)]
    scores = [kernels.pixel_head([x.detach()], SIZE, backend="triton")[2] for _ in range(2)]
    same = torch.equal(*twice) and torch.equal(*scores)
    return [{"op": "repeats bit for bit", "backend": "triton", "dtype": "torch.float32", "mode": "bilinear",
             "gradients": True, "error": 0.0 if same else 1.0, "bound": 0.0, "passed": same}]  # fmt: skip


def bandwidth(quick: bool) -> list[dict]:
    """Every op on the shapes of the field in bfloat16 and float32."""
    plans = [("stylegan2-256", 8), ("stylegan3-t-256", 8)] + ([] if quick else [("stylegan2-1024", 1)])
    rows = []
    for shape, batch in plans:
        for dtype in (torch.bfloat16, torch.float32):
            rows += [t.to_json() for t in bench.measure(shape, batch, dtype, "cuda")]
            torch.cuda.empty_cache()
    return rows


@torch.no_grad()
def pairs(quick: bool) -> list[dict]:
    """Seconds of a batch of images alone, with masks, and of the masks alone by upsample-and-concatenate."""
    from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config

    rows = []
    for resolution in (256,) if quick else (256, 1024):
        g = StyleGAN2(StyleGAN2Config(resolution, 3, 512, 512, channel_base=32768, channel_max=512, mapping_layers=8))
        g = g.cuda().eval()
        for batch in (8, 32):
            ws = g.map(torch.randn(batch, 512, device="cuda"))
            for precision in ("bf16", "fp16"):
                g.use_precision(precision)
                rows.append({"precision": precision} | pair(g, ws, resolution, batch))
                torch.cuda.empty_cache()
    return rows


def pair(g, ws: Tensor, resolution: int, batch: int) -> dict:
    """One row of `pairs`: a head of 128 units and 12 classes on all activations."""
    size = (resolution, resolution)
    levels = g.synthesize(ws, "const").pyramid.levels
    channels = sum(x.shape[1] for x in levels)
    first = torch.randn(128, channels, device="cuda", dtype=levels[0].dtype) / channels**0.5
    layers = [(torch.randn(1, 12, 128, device="cuda", dtype=levels[0].dtype), torch.zeros(1, 12, device="cuda"))]
    parts = first.split([x.shape[1] for x in levels], dim=1)

    def mask(maps):
        return kernels.pixel_head(torch_ops.native_project(maps, parts), size, layers)

    def dense(maps):
        up = torch.cat([F.interpolate(x, size, mode="bilinear") for x in maps], dim=1)
        hidden = F.relu(F.conv2d(up, first[:, :, None, None]))
        return F.conv2d(hidden, layers[0][0][0][:, :, None, None]).argmax(dim=1)

    image = bench.seconds(lambda: g.synthesize(ws, "const", taps=()), "cuda")
    plain = plain_seconds(g, ws)
    both = bench.seconds(lambda: mask(g.synthesize(ws, "const").pyramid.levels), "cuda")
    ours, (labels, peak) = (
        bench.seconds(lambda: mask(levels), "cuda"),
        with_peak(lambda: mask(levels)[0], "cuda"),
    )
    row = {"resolution": resolution, "batch": batch, "image_s": image, "pair_s": both, "ratio": both / image,
           "plain_image_s": plain, "pairs_per_s": batch / both, "mask_s": ours, "mask_peak_bytes": peak}  # fmt: skip
    try:
        theirs, dense_peak = with_peak(lambda: dense(levels), "cuda")
        agree = float((theirs == labels).double().mean())
        if agree < 0.97:  # bfloat16 rounds differently where two classes tie
            sys.exit(f"the two masks agree on {agree:.1%} of pixels only: no speed is given")
        row |= {"dense_s": bench.seconds(lambda: dense(levels), "cuda"), "dense_peak_bytes": dense_peak, "agree": agree}
    except torch.OutOfMemoryError:
        row |= {"dense_s": None, "dense_peak_bytes": None, "agree": None}
        torch.cuda.empty_cache()
    return row


def plain_seconds(g, ws: Tensor) -> float:
    """Seconds of the same images with every step after a convolution in plain torch, each writing its own result."""
    fused = kernels.filter_activate

    def plain(*args, **options):
        with torch.enable_grad():  # so that the definition writes nothing in place
            return fused(*args, **options, backend="torch")

    kernels.filter_activate = plain
    try:
        return bench.seconds(lambda: g.synthesize(ws, "const", taps=()), "cuda")
    finally:
        kernels.filter_activate = fused


def tables(facts: dict) -> str:
    """The facts as Markdown."""
    failed = [r for r in facts["correctness"] if not r["passed"]]
    lines = [
        f"{facts['device']}, torch {facts['torch']}, triton {facts['triton']}; a copy: {facts['copy_GB_s']:.0f} GB/s.",
        f"Correctness: {len(facts['correctness'])} checks, {len(failed)} failed.",
        *(f"- failed: {json.dumps(r)}" for r in failed),
    ]
    columns = ("shape, batch", "op", "backend", "dtype", "ms", "GB/s", "of a copy", "peak, MB")
    rows = []
    for r in facts.get("bandwidth", ()):
        speed, place = r["bytes"] / r["seconds"] / 1e9, f"{r['shape']}, {r['batch']}"
        cells = [f"{1e3 * r['seconds']:.3f}", f"{speed:.0f}", f"{r['of_copy']:.0%}", f"{r['peak_bytes'] / 1e6:.0f}"]
        rows.append((place, r["op"], r["backend"], r["dtype"], *cells))
    lines += table(columns, rows)
    columns = (
        "pixels",
        "precision",
        "batch",
        "image in plain torch, ms",
        "image, ms",
        "pair, ms",
        "pair / image",
        "pairs a second",
        "mask, ms",
        "dense mask, ms",
    )
    rows = []
    for r in facts.get("pairs", ()):
        dense = f"{1e3 * r['dense_s']:.1f}" if r["dense_s"] else "out of memory"
        times = [f"{1e3 * r[name]:.2f}" for name in ("plain_image_s", "image_s", "pair_s")]
        cells = [*times, f"{r['ratio']:.2f}", f"{r['pairs_per_s']:.0f}", f"{1e3 * r['mask_s']:.2f}", dense]
        rows.append((str(r["resolution"]), r["precision"], str(r["batch"]), *cells))
    return "\n".join(lines + table(columns, rows)) + "\n"


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """The lines of a Markdown table; none without rows."""
    if not rows:
        return []
    return ["", *("| " + " | ".join(cells) + " |" for cells in (columns, ("---",) * len(columns), *rows))]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("gpu-out"), help="folder for gpu.json and gpu.md")
    parser.add_argument("--quick", action="store_true", help="correctness and 256 px only")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "Error: got no CUDA device; wanted one: this checks the GPU kernels (CPU: make test, make bench)",
            file=sys.stderr,
        )
        return 3
    if backend.available()["triton"]:
        print(f"Error: {backend.available()['triton']}", file=sys.stderr)
        return 3
    import triton

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        build.build(architectures=["".join(map(str, torch.cuda.get_device_capability()))])
    except RuntimeError as error:
        print(f"The CUDA kernel is left out: {error}", file=sys.stderr)
    facts = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__,
             "backends": backend.available(), "copy_GB_s": bench.copy_bandwidth("cuda") / 1e9}  # fmt: skip
    facts["correctness"] = correctness()
    wrong = any(not r["passed"] for r in facts["correctness"])
    if not wrong:  # no speed of a kernel that is wrong
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        facts |= {"bandwidth": bandwidth(options.quick), "pairs": pairs(options.quick)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(facts, indent=1) + "\n")
    (options.out / "gpu.md").write_text(tables(facts))
    print(tables(facts))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
