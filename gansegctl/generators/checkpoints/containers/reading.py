"""Open a checkpoint of any container and get its content as data: dicts, lists, tensors and inert records."""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.detect import detect
from gansegctl.generators.checkpoints.containers.torch_files import nested_storage, read_legacy, read_zip
from gansegctl.generators.checkpoints.unpickle import known_globals, opcodes
from gansegctl.generators.checkpoints.unpickle.inert import Cell, Inert, Named, Storage, unknown_under, walk
from gansegctl.generators.checkpoints.unpickle.limits import Limits, damaged
from gansegctl.generators.checkpoints.unpickle.machine import Reader
from gansegctl.generators.checkpoints.unpickle.session import Session
from gansegctl.io.tensors import read_metadata, read_tensors

__all__ = ["Loaded", "read", "unknown_under"]


@dataclass
class Loaded:
    """A checkpoint as data.

    value: dict, list, tensor (torch.Tensor), numpy array (not writable), `inert.Inert` record, or numbers and text.
    container: see `container.detect`. sha256: of the file. unknown: names that became inert records because this
    package does not know them, "NAME at PATH" or, where no value holds them, "NAME (result not used)".
    metadata: the text header of a safetensors file.
    """

    value: Any
    container: str
    sha256: str
    unknown: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Loaded:
    """Read a checkpoint without executing anything of it and without importing anything it names.

    Memory: at most twice the file and 64 MiB. UsageError for what `container.detect` refuses, for damaged or abusive
    content, and for HDF5.
    """
    path = Path(path)
    container = detect(path)
    if container == "hdf5":
        raise UsageError(
            f"got {path}: an HDF5 file (Keras or Chainer weights, or a dataset)",
            wanted="a PyTorch or TensorFlow StyleGAN checkpoint",
            remedy="convert the generator to PyTorch with the project that published it",
        )
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"got {path}: cannot be read ({error})", wanted="a checkpoint", remedy="check the file"
        ) from error
    data = memoryview(content)
    digest = hashlib.sha256(data).hexdigest()
    if container == "safetensors":
        try:
            return Loaded(read_tensors(path), container, digest, [], read_metadata(path))
        except (OSError, ValueError) as error:
            raise damaged(str(path), f"not a whole safetensors file ({error})") from error
    session = Session(Limits.for_file(len(data)), known_globals.find, str(path), nested_storage)
    if container == "torch-zip":
        value = read_zip(data, session)
    elif container == "torch-legacy":
        value = read_legacy(data, session)
    else:
        value = opcodes.read(Reader(data, session))
    return Loaded(value, container, digest, _unknown_globals(value, session))


def _unknown_globals(value: Any, session: Session) -> list[str]:
    """Where the unknown names sit, each once for every part at the top level; refuses what is half made."""
    rows: dict[tuple[str, str], str] = {}
    for path, found in walk(value, session.limits, session.label):
        if isinstance(found, Cell):
            raise damaged(session.label, f"a numpy {found.kind} without values")
        if isinstance(found, Storage):
            continue
        if isinstance(found, Named | Inert) and not found.understood:
            rows.setdefault((found.name, path.partition(".")[0]), f"{found.name} at {path or 'the top'}")
    placed = {name for name, _ in rows}
    unused = [f"{name} (result not used)" for name in session.unknown() if name not in placed]
    return sorted(rows.values()) + unused
