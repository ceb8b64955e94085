"""The names of checkpoints that are understood, and our own functions that make their data. All else stays a record.

A handler takes (session, *arguments of the call in the file) and may only make plain values, tensors, arrays and
records. It raises TypeError or ValueError for anything else, which the reader reports as damage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gansegctl.generators.checkpoints.unpickle import numpy_values, nvlabs_objects, python_values, torch_values
from gansegctl.generators.checkpoints.unpickle.inert import Named

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}

"""Storage classes of torch, and the type of their values."""

_FLOATS = ("bfloat16", "float16", "float32", "float64", "complex64", "complex128")
_INTEGERS = tuple(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
_DTYPES = {"bool", "half", "float", "double", "short", "int", "long", *_FLOATS, *_INTEGERS}

_PLAIN_CLASSES = {
    "argparse.Namespace",
    "builtins.object",
    "builtins.int",
    "builtins.float",
    "builtins.str",
    "builtins.bool",
    "__builtin__.object",
    "__builtin__.int",
    "__builtin__.float",
    "__builtin__.str",
    "__builtin__.bool",
    "numpy.ndarray",
    "torch.Tensor",
    "torch._tensor.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
    "torch.nn.backends.thnn._get_thnn_function_backend",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.Path",
}
"""Classes whose records are plain data."""

_HANDLERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": python_values.ordered_dict,
    "collections.Counter": python_values.ordered_dict,
    "collections.defaultdict": python_values.default_dict,
    "collections.deque": python_values.make_list,
    "builtins.dict": python_values.ordered_dict,
    "builtins.list": python_values.make_list,
    "builtins.tuple": python_values.make_tuple,
    "builtins.set": python_values.set_of,
    "builtins.frozenset": python_values.frozenset_of,
    "builtins.complex": python_values.complex_number,
    "builtins.bytearray": python_values.encoded,
    "builtins.bytes": python_values.encoded,
    "builtins.slice": python_values.slice_parts,
    "_codecs.encode": python_values.encoded,
    "copyreg._reconstructor": python_values.reconstructor,
    "copy_reg._reconstructor": python_values.reconstructor,
    "copyreg.__newobj__": python_values.new_object,
    "copyreg.__newobj_ex__": python_values.new_object_ex,
    "torch._utils._rebuild_tensor": torch_values.tensor_v2,
    "torch._utils._rebuild_tensor_v2": torch_values.tensor_v2,
    "torch._utils._rebuild_tensor_v3": torch_values.tensor_v3,
    "torch._utils._rebuild_parameter": torch_values.parameter,
    "torch._utils._rebuild_parameter_with_state": torch_values.parameter,
    "torch._tensor._rebuild_from_type_v2": torch_values.tensor_of_type,
    "torch.storage._load_from_bytes": torch_values.storage_of_bytes,
    "torch.Size": torch_values.torch_size,
    "torch.device": torch_values.device_name,
    "numpy.dtype": numpy_values.dtype_cell,
    "numpy.core.multiarray._reconstruct": numpy_values.array_cell,
    "numpy.core.multiarray.scalar": numpy_values.scalar,
    "numpy.core.numeric._frombuffer": numpy_values.array_of_buffer,
}
"""Name in the file → our own function that makes the data of the call."""


def find(module: str, name: str) -> Any:
    """The stand-in for `module.name` of a file: a `Named` made for this load, or a torch.dtype."""
    dotted = f"{module}.{name}"
    if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
        return Named(dotted, True, dtype=STORAGES[name])
    if module == "torch" and name in _DTYPES:
        return getattr(torch, name)
    handler = _HANDLERS.get(dotted.replace("__builtin__.", "builtins.").replace("numpy._core.", "numpy.core."))
    if handler is None and name == "_reconstruct_persistent_obj" and module.rpartition(".")[2] == "persistence":
        handler = nvlabs_objects.persistent_object  # projects keep this module under prefixes of their own
    if handler is None and name == "EasyDict" and module.rpartition(".")[2] in ("util", "dnnlib", "easydict", "misc"):
        handler = python_values.ordered_dict
    return Named(dotted, handler is not None or _harmless(module, name), handler)


def _harmless(module: str, name: str) -> bool:
    """Classes whose records are plain data: torch's own layers, settings of trainers, TensorFlow StyleGAN networks."""
    return (
        module.startswith("torch.nn.modules.")
        or f"{module}.{name}" in _PLAIN_CLASSES
        or (name == "Network" and module.endswith("tflib.network"))
    )
