"""The loader of upsample_concat.cu's library, by ctypes: data pointers and the current stream go in. No backward.

It writes the dense hypercolumn, which only `gansegctl extract --dense` asks for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from gansegctl.kernels import build, launch

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_longlong, ctypes.c_int
_ARGUMENTS = (_INT, *(_POINTER,) * 7, _LONG, _LONG, _LONG, _INT, _INT, _INT, _POINTER)


@lru_cache(maxsize=8)
def load(path: Path) -> ctypes.CDLL:
    """The library at `path`, with its two functions typed. RuntimeError when it is not one of ours."""
    try:
        library = ctypes.CDLL(str(path))
        level, error = library.gansegctl_upsample_level, library.gansegctl_error
    except (OSError, AttributeError) as reason:
        remedy = "build it with: python -m gansegctl.kernels.build"
        raise RuntimeError(f"got {path}, which does not load ({reason}); {remedy}") from reason
    level.argtypes, level.restype = _ARGUMENTS, _INT
    error.argtypes, error.restype = (_INT,), ctypes.c_char_p
    return library


def upsample_concat(maps: Sequence[Tensor], size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """maps [N,C_i,h_i,w_i], float32, float16 or bfloat16 on one CUDA device → [N,ΣC_i,H,W], contiguous."""
    launch.check_maps(maps, size, mode, same_channels=False)
    first = maps[0]
    if first.dtype not in DTYPES or not first.is_cuda:
        raise ValueError(f"got {first.dtype} on {first.device}; wanted float32, float16 or bfloat16 on a CUDA device")
    library = load(build.library_path())
    n, channels = first.shape[0], sum(x.shape[1] for x in maps)
    out = launch.empty((n, channels, *size), first.dtype, first.device)
    begin = 0
    with launch.on(first.device):
        stream = torch.cuda.current_stream(first.device).cuda_stream
        for x in maps:
            part = out[:, begin : begin + x.shape[1]]
            begin += x.shape[1]
            if part.numel() == 0:
                continue
            row = launch.taps(x.shape[2], size[0], mode, x.device, torch.float32)
            column = launch.taps(x.shape[3], size[1], mode, x.device, torch.float32)
            tables = [t.data_ptr() for t in (row.source, row.weight, column.source, column.weight)]
            code = library.gansegctl_upsample_level(
                DTYPES[x.dtype], x.data_ptr(), (_LONG * 4)(*x.stride()), *tables, part.data_ptr(),
                n, x.shape[1], out.stride(0), *size, launch.kind((x.shape[2], x.shape[3]), size, mode), stream,
            )  # fmt: skip
            if code:
                raise RuntimeError(f"got CUDA error {code} from upsample_concat.cu: {library.gansegctl_error(code)}")
    return out
