"""What can only be checked on a GPU: the same results there as on the CPU (make gpu-check)."""

from __future__ import annotations

import shutil

import pytest
import torch

from gansegctl import kernels
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.generators.latents import z_of_seeds
from gansegctl.generators.training.trainer import Trainer, TrainSettings
from gansegctl.generators.weights import load_generator
from gansegctl.kernels import backend, build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def full_precision():
    """TF32 would hide a difference of a thousandth."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bilinear-corners"])
def test_the_pyramid_gives_what_it_gives_on_the_cpu(mode):
    stream = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, c, r, r, generator=stream) for c, r in ((8, 4), (6, 7), (4, 32))]
    here = FeaturePyramid(levels, (32, 32), mode)
    there = here.map(lambda x: x.cuda())
    w = torch.randn(5, 18, 3, 3, generator=stream)
    for name, a, b in (
        ("project", here.project(w[:, :, 0, 0]), there.project(w[:, :, 0, 0].cuda())),
        ("conv", here.conv(w, dilation=2), there.conv(w.cuda(), dilation=2)),
        ("sqnorm", here.sqnorm(), there.sqnorm()),
        ("dense", here.dense(), there.dense()),
        ("mean", here.moments()[0], there.moments()[0]),
    ):
        assert torch.allclose(a, b.cpu(), rtol=1e-4, atol=1e-4), name


def test_the_generator_gives_what_it_gives_on_the_cpu(generator_file):
    g = load_generator(generator_file)
    ws = g.map(z_of_seeds(range(4), g.spec.z_dim))
    here = g.synthesize(ws, "seed", seeds=range(4))
    there = g.cuda().synthesize(ws.cuda(), "seed", seeds=range(4))
    assert torch.allclose(here.image, there.image.cpu(), atol=1e-3)
    for a, b in zip(here.pyramid.levels, there.pyramid.levels, strict=True):
        assert torch.allclose(a, b.cpu(), atol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_runs_and_stays_finite(generator_file, precision):
    network = load_generator(generator_file).config
    images = torch.randint(0, 255, (32, 3, 16, 16), dtype=torch.uint8)
    trainer = Trainer(images, TrainSettings(network=network, images=64, batch_size=8, precision=precision), "cuda")
    facts = [p.facts for p in trainer.run(0.0)]
    assert all(abs(f["loss_g"]) < 100 for f in facts)


MODES = ("bilinear", "nearest", "bilinear-corners")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_and_triton_write_the_same_hypercolumn(mode, dtype, tmp_path, monkeypatch):
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    monkeypatch.setenv(build.PLACE, str(tmp_path / "upsample_concat.so"))
    build.build(architectures=["".join(map(str, torch.cuda.get_device_capability()))])
    for size, natives in (((61, 83), ((4, 4), (16, 23), (61, 83), (97, 30))), ((64, 64), ((4, 4), (32, 32), (64, 64)))):
        maps = [torch.randn(2, 7, *n, device="cuda").to(dtype) for n in natives]
        maps[0] = maps[0].contiguous(memory_format=torch.channels_last)
        cuda, triton = (kernels.upsample_concat(maps, size, mode, backend=b) for b in ("cuda", "triton"))
        exact = kernels.upsample_concat([x.double() for x in maps], size, mode, backend="reference")
        bound = 2 * torch.finfo(dtype).eps * exact.abs().max()
        assert (cuda.double() - exact).abs().max() <= bound
        assert (triton.double() - exact).abs().max() <= bound


def test_auto_is_triton_and_its_pyramid_agrees_with_the_reference():
    stream = torch.Generator("cuda").manual_seed(0)
    levels = [torch.randn(2, c, r, r, generator=stream, device="cuda") for c, r in ((8, 4), (6, 16), (4, 32))]
    w = torch.randn(5, 18, 3, 3, generator=stream, device="cuda")
    auto, plain = (FeaturePyramid(levels, (32, 32), backend=b) for b in ("auto", "reference"))
    assert backend.pick("auto", levels) == "triton"
    for name, arguments in (("project", (w[:, :, 0, 0],)), ("conv", (w,)), ("sqnorm", ()), ("dense", ())):
        ours, theirs = (getattr(p, name)(*arguments) for p in (auto, plain))
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4), name


def test_a_hypercolumn_of_more_than_two_to_the_31_elements():
    if torch.cuda.mem_get_info()[0] < 12e9:
        pytest.skip("needs 12 GB of free GPU memory")
    x = torch.randn(1, 2100, 4, 4, device="cuda", dtype=torch.float16)
    dense = kernels.upsample_concat([x], (1024, 1024), backend="triton")
    assert dense.numel() > 2**31
    assert torch.allclose(dense[:, -1:].float(), kernels.upsample_concat([x[:, -1:].float()], (1024, 1024)), atol=4e-3)
