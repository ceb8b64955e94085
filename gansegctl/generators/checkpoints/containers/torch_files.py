"""Files of torch as data: the zip archive (since 1.6) and the stream before it, which NVlabs has in each tensor.

Both are object streams with references to storages. In the archive a storage is an entry `data/KEY`; in the older
stream the values follow behind all objects, so that tensors are described before their bytes arrive.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.ziparchive import Archive
from gansegctl.generators.checkpoints.unpickle import opcodes
from gansegctl.generators.checkpoints.unpickle.inert import Named, Storage
from gansegctl.generators.checkpoints.unpickle.limits import damaged, shown
from gansegctl.generators.checkpoints.unpickle.machine import Reader
from gansegctl.generators.checkpoints.unpickle.session import Session
from gansegctl.generators.checkpoints.unpickle.torch_values import fill_storage, new_storage

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read_zip(data: Any, session: Session) -> Any:
    """The object of a torch zip archive. UsageError for other archives and for TorchScript."""
    archive = Archive(memoryview(data), session.label)
    roots = [name.removesuffix("/data.pkl") for name in archive.entries if name.endswith("/data.pkl")]
    roots = [root for root in roots if "/" not in root]
    if len(roots) != 1:
        raise UsageError(
            f"got {session.label}: a zip archive that torch did not write (no data.pkl in it)",
            wanted="a checkpoint",
            remedy="unpack the archive and pass the checkpoint in it",
        )
    root = roots[0]
    if f"{root}/constants.pkl" in archive.entries:
        raise UsageError(
            f"got {session.label}: a TorchScript program, not a checkpoint",
            wanted="stored weights",
            remedy="pass the checkpoint that it was exported from",
        )
    order = f"{root}/byteorder"
    if order in archive.entries and bytes(archive.read(order)[:16]).strip() != b"little":
        raise _big_endian(session.label)
    storages: dict[str, Storage] = {}

    def storage(key: str, dtype: Any, numel: Any) -> Storage:
        if key in storages:
            return storages[key]
        name = f"{root}/data/{key}"
        if name not in archive.entries:
            raise damaged(session.label, f"the values {name!r:.80} are missing")
        made = new_storage(session, dtype, numel)
        fill_storage(made, archive.read(name))
        storages[key] = made
        return made

    return opcodes.read(Reader(archive.read(f"{root}/data.pkl"), session, persistent=_references(session, storage)))


def read_legacy(data: Any, session: Session) -> Any:
    """The object of the stream that torch wrote before 1.6, whole; also the values of one NVlabs tensor."""
    storages: dict[str, Storage] = {}

    def storage(key: str, dtype: Any, numel: Any) -> Storage:
        if key not in storages:
            storages[key] = new_storage(session, dtype, numel)
        return storages[key]

    reader = Reader(data, session)
    magic = opcodes.read(reader)
    if type(magic) is not int or magic != MAGIC:
        raise damaged(session.label, "tensor values without torch's signature")
    version, system = _following(reader), _following(reader)
    if type(version) is not int or version != PROTOCOL or not isinstance(system, dict):
        raise damaged(session.label, f"a torch stream of version {shown(version)}, not {PROTOCOL}")
    if system.get("little_endian") is not True:
        raise _big_endian(session.label)
    value = _following(reader, _references(session, storage))
    keys = _following(reader)
    if not isinstance(keys, list) or len(keys) != len(storages):
        raise damaged(session.label, "a list of storages that does not fit its tensors")
    for key in keys:
        made = storages.get(key) if isinstance(key, str) else None
        if made is None or made.filled:
            raise damaged(session.label, f"values for the storage {shown(key)}, which no tensor has")
        numel = reader.number("<q")
        if numel != made.numel:
            raise damaged(session.label, f"{numel} values for a tensor storage of {made.numel}")
        fill_storage(made, reader.take(made.raw.numel()))
    return value


def nested_storage(session: Session, raw: Any) -> Any:
    """The storage that `torch.storage._load_from_bytes` would give, read by the same machine."""
    if not isinstance(raw, bytes | memoryview):
        raise TypeError("tensor values that are no bytes")
    return read_legacy(raw, session)


def _following(reader: Reader, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The next object of a stream of several, each with a memo of its own."""
    following = Reader(reader.data, reader.session, reader.position, persistent)
    value = opcodes.read(following)
    reader.position = following.position
    return value


def _references(session: Session, storage: Callable[[str, Any, Any], Storage]) -> Callable[[Any], Any]:
    """Resolves ('storage', type, key, location, numel[, view]); the location is another machine's and ignored."""

    def resolve(pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 2 or not isinstance(pid[0], str):
            raise damaged(session.label, "a reference that torch does not write")
        if pid[0] == "module":  # torch before 1.6 keeps the source text of whole modules here: not kept
            return pid[1]
        view = len(pid) == 6 and pid[5] is not None  # of torch before 0.4
        if pid[0] != "storage" or len(pid) not in (5, 6) or view or not isinstance(pid[2], str):
            raise damaged(session.label, f"a reference of the kind {shown(pid[0])}")
        if not isinstance(pid[1], Named) or pid[1].dtype is None:
            raise damaged(session.label, "a storage of no known type")
        made = storage(pid[2], pid[1].dtype, pid[4])
        if made.dtype != pid[1].dtype or type(pid[4]) is not int or made.numel != pid[4]:
            raise damaged(session.label, f"two sizes or types for the storage {shown(pid[2])}")
        return made

    return resolve


def _big_endian(label: str) -> UsageError:
    return UsageError(
        f"got {label}: written on a big-endian machine ({sys.byteorder}-endian here)",
        wanted="little-endian values",
        remedy="save it again on an ordinary machine",
    )
