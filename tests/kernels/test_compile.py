"""Every Triton kernel compiles for an sm_90 device that need not be there, and fits its shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json
import torch
from gansegctl.kernels.reference import Activation
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

class NoDevice:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device=None: 0)
    get_active_torch_device = staticmethod(lambda: torch.device("cpu"))

built, run = {}, jit.JITFunction.run

def compile_only(self, *arguments, grid, warmup, **options):
    kernel = run(self, *arguments, grid=grid, warmup=True, **options)
    kernel = kernel.result() if hasattr(kernel, "result") else kernel
    built.setdefault(self.fn.__name__, []).append([kernel.metadata.shared, len(kernel.asm["ptx"])])
    return kernel

driver.set_active(NoDevice())
jit.JITFunction.run = compile_only
from gansegctl.kernels import triton_ops
b = torch.bfloat16
x = torch.zeros(2, 32, 4, 4, dtype=b).contiguous(memory_format=torch.channels_last).requires_grad_()
maps, points = [x, torch.zeros(2, 32, 16, 16, dtype=b)], torch.zeros(3, 3, dtype=torch.int64)
triton_ops.upsample_sum(maps, (16, 16), "bilinear", torch.zeros(32, dtype=b), 0.2).sum().backward()
triton_ops.upsample_concat(maps, (16, 16))
triton_ops.conv_upsampled(x, torch.zeros(4, 32, 1, 1, dtype=b), (16, 16), "bilinear", 1)
triton_ops.squared_norm(x.detach(), (16, 16))
triton_ops.segment_pool_labels(torch.zeros(2, 16, 16, dtype=torch.uint8), [x.detach()], 5)
triton_ops.gather_points(x, points, (16, 16)).sum().backward()
scale, noise = torch.zeros(2, 32, dtype=b), torch.zeros(1, 1, 4, 4, dtype=b)
with torch.no_grad():
    fir = torch.zeros(4, 4, dtype=b)
    triton_ops.filter_activate(x, scale, scale[0], noise[..., 1:, 1:], fir, (1, 1), Activation(1.4, 0.2, 2.0))
    triton_ops.filter_activate(x, scale, scale[0], noise, None, (0, 0), Activation())
for dtype, middle in ((b, 32), (torch.float32, 256)):
    shapes = ((1, middle, 32), (1, middle), (1, 34, middle), (1, 34))
    layers = [torch.zeros(s, dtype=dtype) for s in shapes]
    inputs = [m.to(dtype) for m in maps]
    triton_ops.pixel_head(inputs, (16, 16), [layers[:2], layers[2:]], 1, "bilinear", None, 0, False)
print(json.dumps(built))
"""


@pytest.mark.slow  # half a minute of compiling; gpu-check compiles the same on the device
def test_every_kernel_compiles_and_fits(tmp_path):
    pytest.importorskip("triton")
    settings = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    built = json.loads(done.stdout)
    assert set(built) == {
        "upsample_sum_kernel",
        "upsample_strip_kernel",
        "adjoint_axis_kernel",
        "inner_products_kernel",
        "quadratic_form_kernel",
        "label_rows_kernel",
        "gather_kernel",
        "sum_runs_kernel",
        "pixel_head_kernel",
        "filter_activate_kernel",
    }
    for name, rows in built.items():
        for shared, length in rows:
            assert length > 1000, name
            assert shared <= 160 * 1024, f"{name} asks for {shared} bytes of shared memory"  # an sm_80 has 163 KB
