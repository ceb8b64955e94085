"""The names of checkpoints that are understood, and our own functions that make their data. All else stays a record.

A handler takes (session, *arguments of the call in the file) and may only make plain values, tensors, arrays and
records. What it cannot make raises TypeError or ValueError, which the reader reports as damage.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansegctl.generators.checkpoints.unpickle.inert import Cell, Inert, Named, PlainDict, Storage, check_key
from gansegctl.generators.checkpoints.unpickle.limits import damaged, shown
from gansegctl.generators.checkpoints.unpickle.session import Session

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
_DTYPES = {*(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "bool", "bfloat16"}
_DTYPES |= {
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "half",
    "float",
    "double",
    "short",
    "int",
    "long",
}
_PLAIN_DTYPE = re.compile(r"([<>=|]?)([biufcSU])(\d{1,4})")
_LARGEST_SIDE = 1 << 40


def find(module: str, name: str) -> Any:
    """What `module.name` of a file stands for: a `Named` made for this load, or a torch.dtype."""
    dotted = f"{module}.{name}"
    if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
        return Named(dotted, True, dtype=STORAGES[name])
    if module == "torch" and name in _DTYPES:
        return getattr(torch, name)
    handler = _HANDLERS.get(dotted.replace("__builtin__.", "builtins.").replace("numpy._core.", "numpy.core."))
    if handler is None and name == "_reconstruct_persistent_obj" and module.rpartition(".")[2] == "persistence":
        handler = _persistent_object  # projects keep this module under prefixes of their own
    if handler is None and name == "EasyDict" and module.rpartition(".")[2] in ("util", "dnnlib", "easydict", "misc"):
        handler = _ordered_dict
    return Named(dotted, handler is not None or _harmless(module, name), handler)


def _harmless(module: str, name: str) -> bool:
    """Classes whose records are plain data: torch's own layers, settings of trainers, TensorFlow StyleGAN networks."""
    return (
        module.startswith("torch.nn.modules.")
        or f"{module}.{name}" in _PLAIN_CLASSES
        or (name == "Network" and module.endswith("tflib.network"))
    )


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


def make_set(session: Session, values: Any, kind: type) -> Any:
    """A set or frozenset of plain values."""
    session.budget.take_memory(250 + 100 * len(values))
    return kind(check_key(session.label, v) for v in values)


def _whole(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < _LARGEST_SIDE:
        raise ValueError(f"{shown(value)} where a count belongs")
    return value


# --- Python's own types ---------------------------------------------------------------------------------------------


def _ordered_dict(session: Session, *args: Any, **kwargs: Any) -> PlainDict:
    session.budget.take_memory(250)
    made = PlainDict()
    pairs = args[0] if args else []
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if len(args) > 1 or not isinstance(pairs, list | tuple):
        raise TypeError("a dictionary made of something else than pairs")
    session.budget.take_memory(120 * (len(pairs) + len(kwargs)))
    for pair in pairs:
        key, value = pair
        made[check_key(session.label, key)] = value
    made.update(kwargs)
    return made


def _default_dict(session: Session, *_: Any) -> PlainDict:
    return _ordered_dict(session)


def _list(session: Session, values: Any = (), *_: Any) -> list:
    if not isinstance(values, list | tuple | set | frozenset):
        raise TypeError("a list made of something else than values")
    session.budget.take_memory(60 + 16 * len(values))
    return list(values)


def _tuple(session: Session, values: Any = ()) -> tuple:
    return tuple(_list(session, values))


def _set(session: Session, values: Any = ()) -> set:
    return make_set(session, _list(session, values), set)


def _frozenset(session: Session, values: Any = ()) -> frozenset:
    return make_set(session, _list(session, values), frozenset)


def _complex(session: Session, real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise TypeError("a complex number made of something else than numbers")
    return complex(real, imaginary)


def _encode(session: Session, text: Any = "", encoding: Any = "utf-8", *_: Any) -> bytes:
    """`_codecs.encode(text, 'latin1')`: how protocols 0 to 2 write bytes."""
    if isinstance(text, bytes | memoryview):
        return bytes(text)
    if (
        not isinstance(text, str)
        or not isinstance(encoding, str)
        or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii")
    ):
        raise TypeError("bytes made of something else than text")
    session.budget.take_memory(len(text) * (1 if encoding.startswith("latin") else 4) + 40)
    return text.encode(encoding)


def _slice(session: Session, *parts: Any) -> tuple:
    return parts


def _reconstructor(session: Session, cls: Any, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor`: objects in protocols 0 and 1."""
    if not isinstance(cls, Named):
        raise TypeError("an object of something that is no class")
    made = session.call(cls, (), "object")
    if isinstance(made, dict) and isinstance(state, dict):
        made.update(state)
    elif isinstance(made, Inert) and isinstance(state, dict):
        made.entries = state
    elif isinstance(made, Inert) and isinstance(state, list):
        made.items = state
    return made


def _new_object(session: Session, cls: Any, *args: Any) -> Any:
    if not isinstance(cls, Named) or cls.handler in (_new_object, _new_object_ex):
        raise TypeError("an object of something that is no class")
    return session.call(cls, args, "object")


def _new_object_ex(session: Session, cls: Any, args: Any = (), kwargs: Any = None) -> Any:
    if not isinstance(cls, Named) or cls.handler in (_new_object, _new_object_ex):
        raise TypeError("an object of something that is no class")
    return session.call(cls, args, "object", kwargs)


# --- torch ----------------------------------------------------------------------------------------------------------


def new_storage(session: Session, dtype: torch.dtype, numel: Any) -> Storage:
    """Room for `numel` values, once the budget has it. The values are undefined until the storage is filled."""
    size = _whole(numel) * dtype.itemsize
    session.budget.take_storage(size)
    session.budget.take_memory(1500)
    return Storage(torch.empty(size, dtype=torch.uint8), dtype, numel)


def fill_storage(storage: Storage, raw: Any) -> None:
    """Copy little-endian bytes in; any byte but 0 is True for bool."""
    if len(raw) != storage.raw.numel():
        raise ValueError(f"{len(raw)} bytes for a tensor storage of {storage.raw.numel()}")
    values = np.frombuffer(raw, np.uint8) if len(raw) else np.empty(0, np.uint8)
    np.copyto(storage.raw.numpy(), values != 0 if storage.dtype == torch.bool else values, casting="unsafe")
    storage.filled = True


def _load_from_bytes(session: Session, raw: Any) -> Storage:
    storage = session.nested(raw)
    if not isinstance(storage, Storage):
        raise TypeError("tensor values that are no storage")
    return storage


def _tensor(session: Session, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None) -> Tensor:
    """The view (offset, size, stride) of a storage, all in elements and all within its bounds."""
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise TypeError("a tensor without storage or shape")
    dtype = dtype or storage.dtype
    if torch.bool in (dtype, storage.dtype) and dtype != storage.dtype:
        raise TypeError("truth values from other bytes")
    capacity = storage.raw.numel() // dtype.itemsize
    if len(size) != len(stride) or len(size) > 16:
        raise ValueError(f"a tensor of {len(size)} dimensions with {len(stride)} strides")
    numel, last = 1, _whole(offset)
    for side, step in zip(size, stride, strict=True):
        numel *= _whole(side)
        last += (side - 1) * _whole(step)
    if (numel and last >= capacity) or offset > capacity:
        raise damaged(session.label, f"a tensor that reaches element {last} of a storage of {capacity}")
    session.budget.take_view(numel * dtype.itemsize)
    whole = storage.raw[: capacity * dtype.itemsize].view(dtype)
    return whole.as_strided(size, stride, offset) if numel else torch.empty(size, dtype=dtype)


def _tensor_v2(session: Session, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    return _tensor(session, storage, offset, size, stride, None)


def _tensor_v3(
    session: Session, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    if not isinstance(dtype, torch.dtype):
        raise TypeError("a tensor of no dtype")
    return _tensor(session, storage, offset, size, stride, dtype)


def _parameter(session: Session, data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError("a parameter that is no tensor")
    return data


def _from_type(session: Session, function: Any, cls: Any, args: Any, *_: Any) -> Any:
    """A tensor that carried Python attributes; those are not data."""
    if not isinstance(function, Named) or function.handler not in (_tensor_v2, _tensor_v3) or type(args) is not tuple:
        raise TypeError("a tensor made by something else")
    return function.handler(session, *args)


def _size(session: Session, sizes: Any = ()) -> tuple:
    return tuple(_whole(s) for s in _list(session, sizes))


def _device(session: Session, kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or len(kind) > 32:
        raise TypeError("a device without a name")
    return kind if index is None else f"{kind}:{_whole(index)}"


# --- numpy ----------------------------------------------------------------------------------------------------------


def _dtype(session: Session, spec: Any, *_: Any) -> Cell:
    if not isinstance(spec, str) or len(spec) > 64:
        raise TypeError("a numpy dtype without a name")
    return Cell("dtype", spec)


def _reconstruct(session: Session, *_: Any) -> Cell:
    return Cell("array")


def fill(session: Session, cell: Cell, state: Any) -> Any:
    """The dtype or array that a state makes of its cell; a record, not understood, for object and record arrays."""
    if not isinstance(state, tuple):
        raise TypeError(f"a numpy {cell.kind} with a state that is no tuple")
    if cell.kind == "dtype":
        plain = _PLAIN_DTYPE.fullmatch(cell.spec)
        if not plain or len(state) < 4 or state[3] is not None:
            return Inert(f"numpy.dtype[{cell.spec}]")
        order = state[1] if isinstance(state[1], str) and state[1] in ("<", ">", "=", "|") else plain[1]
        return np.dtype(f"{order}{plain[2]}{plain[3]}")
    shape, dtype, fortran, raw = state[-4:]
    return _array(session, raw, dtype, shape, "F" if fortran is True else "C")


def _array(session: Session, raw: Any, dtype: Any, shape: Any, order: str = "C") -> Any:
    """An array over the bytes of the file, not copied and not writable."""
    if isinstance(dtype, Inert):
        return Inert(f"numpy.ndarray of {dtype.name}")
    if isinstance(raw, str):
        raw = _encode(session, raw, "latin1")
    if not isinstance(dtype, np.dtype) or not isinstance(raw, bytes | memoryview) or not isinstance(shape, tuple):
        raise TypeError("a numpy array without dtype, shape or values")
    if len(shape) > 32:
        raise ValueError(f"a numpy array of {len(shape)} dimensions")
    count = 1
    for side in shape:
        count *= _whole(side)
    if count * dtype.itemsize != len(raw):
        raise ValueError(f"{len(raw)} bytes for a numpy array of {count} values")
    session.budget.take_memory(500)
    values = np.frombuffer(raw, dtype) if len(raw) else np.zeros(count, dtype)
    if not dtype.isnative:
        session.budget.take_memory(len(raw))
        values = values.astype(dtype.newbyteorder("="))
    values.flags.writeable = False
    return values.reshape(shape, order=order)


def _scalar(session: Session, dtype: Any, raw: Any = b"") -> Any:
    """A numpy number as Python's own."""
    value = _array(session, raw, dtype, ())
    return value if isinstance(value, Inert) else value.item()


def _from_buffer(session: Session, raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
    return _array(session, raw, dtype, shape, "F" if isinstance(order, str) and order == "F" else "C")


# --- NVlabs ---------------------------------------------------------------------------------------------------------


def digest_of(session: Session, text: Any) -> str:
    """sha256 of a source text, "" where there is none; one text is digested once."""
    if not isinstance(text, str):
        return ""
    if text not in session.digests:
        session.digests[text] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return session.digests[text]


def _persistent_object(session: Session, meta: Any) -> Inert:
    """One object of `torch_utils.persistence`: its class name, its state and the digest of its source; no text."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise TypeError("a persistent object without a class name")
    if not meta["class_name"].isidentifier() or len(meta["class_name"]) > session.limits.name_bytes:
        raise ValueError(f"a class named {shown(meta['class_name'])}")
    session.budget.take_memory(600)
    source = digest_of(session, meta.get("module_src"))
    return Inert(
        meta["class_name"], "persistent", state=meta.get("state"), source_sha256=source, understood=True, built=True
    )


def give_state(session: Session, target: Inert, state: Any) -> None:
    """Set the state of a fresh record, once. Of TensorFlow networks the source text is replaced by its digest."""
    if target.class_name == "Network" and isinstance(state, dict) and "build_module_src" in state:
        target.source_sha256 = digest_of(session, state["build_module_src"])
        state = {k: v for k, v in state.items() if k != "build_module_src"}
    target.state, target.built = state, True


_HANDLERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.deque": _list,
    "builtins.dict": _ordered_dict,
    "builtins.list": _list,
    "builtins.tuple": _tuple,
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.complex": _complex,
    "builtins.bytearray": _encode,
    "builtins.bytes": _encode,
    "builtins.slice": _slice,
    "_codecs.encode": _encode,
    "copyreg._reconstructor": _reconstructor,
    "copy_reg._reconstructor": _reconstructor,
    "copyreg.__newobj__": _new_object,
    "copyreg.__newobj_ex__": _new_object_ex,
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.storage._load_from_bytes": _load_from_bytes,
    "torch.Size": _size,
    "torch.device": _device,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
}
