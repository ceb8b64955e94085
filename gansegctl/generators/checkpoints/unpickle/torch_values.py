"""Storages and tensors as a checkpoint describes them, within their bounds: handlers of `known_globals` for torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansegctl.generators.checkpoints.unpickle.inert import Named, Storage
from gansegctl.generators.checkpoints.unpickle.limits import count_of, damaged
from gansegctl.generators.checkpoints.unpickle.python_values import make_list
from gansegctl.generators.checkpoints.unpickle.session import Session


def new_storage(session: Session, dtype: torch.dtype, numel: Any) -> Storage:
    """Room for `numel` values, once the budget has it. The values are undefined until the storage is filled."""
    size = count_of(numel) * dtype.itemsize
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


def storage_of_bytes(session: Session, raw: Any) -> Storage:
    """`torch.storage._load_from_bytes`: the values of one NVlabs tensor, a stream within the stream."""
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
    numel, last = 1, count_of(offset)
    for side, step in zip(size, stride, strict=True):
        numel *= count_of(side)
        last += (side - 1) * count_of(step)
    if (numel and last >= capacity) or offset > capacity:
        raise damaged(session.label, f"a tensor that reaches element {last} of a storage of {capacity}")
    session.budget.take_view(numel * dtype.itemsize)
    whole = storage.raw[: capacity * dtype.itemsize].view(dtype)
    return whole.as_strided(size, stride, offset) if numel else torch.empty(size, dtype=dtype)


def tensor_v2(session: Session, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """`_rebuild_tensor_v2` and its predecessor: a view of a storage, of the storage's type."""
    return _tensor(session, storage, offset, size, stride, None)


def tensor_v3(
    session: Session, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """`_rebuild_tensor_v3`: a view of a storage under a type of its own."""
    if not isinstance(dtype, torch.dtype):
        raise TypeError("a tensor of no dtype")
    return _tensor(session, storage, offset, size, stride, dtype)


def parameter(session: Session, data: Any, *_: Any) -> Tensor:
    """`_rebuild_parameter`: its tensor."""
    if not isinstance(data, Tensor):
        raise TypeError("a parameter that is no tensor")
    return data


def tensor_of_type(session: Session, function: Any, cls: Any, args: Any, *_: Any) -> Any:
    """A tensor that carried Python attributes; those are not data."""
    if not isinstance(function, Named) or function.handler not in (tensor_v2, tensor_v3) or type(args) is not tuple:
        raise TypeError("a tensor made by something else")
    return function.handler(session, *args)


def torch_size(session: Session, sizes: Any = ()) -> tuple:
    """`torch.Size`, as a tuple."""
    return tuple(count_of(s) for s in make_list(session, sizes))


def device_name(session: Session, kind: Any, index: Any = None) -> str:
    """`torch.device`, as its name."""
    if not isinstance(kind, str) or len(kind) > 32:
        raise TypeError("a device without a name")
    return kind if index is None else f"{kind}:{count_of(index)}"
