"""Files that appear whole or not at all: bytes to a `.part`, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from gansegctl.errors import GansegError

HOST_NUMBERING = 0xEFFFFFFC
"""The inode of Linux' first namespace of process numbers: the host's own, in which no container is."""


def this_host() -> str:
    """The name under which process numbers mean something: that of the host, and of the container's own numbering."""
    try:
        own = int(os.readlink("/proc/self/ns/pid").strip("pid:[]"))
    except (OSError, ValueError):
        own = HOST_NUMBERING
    return socket.gethostname() + ("" if own == HOST_NUMBERING else f"+{own:x}")


def part_name(path: Path) -> Path:
    """Where `path` is built; host and process in the name, so that two writers never share one."""
    return path.with_name(f"{path.name}.part.{this_host()}.{os.getpid()}")


def create_text(path: Path, text: str, sync: bool = False) -> None:
    """Make a file that is not there yet, with its content, or FileExistsError; a kill in between leaves none.

    sync: the content survives a power cut; the name does after `sync_folder`. On a file system without hard links the
    file is made and filled in two steps. OSError as the disk says.
    """
    part = part_name(path)
    try:
        with open(part, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            if sync:
                os.fsync(f.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:
            with open(path, "x", encoding="utf-8") as f:
                f.write(text)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, retire: Path | None = None, sync: bool = True) -> int:
    """`write_stream` of one piece."""
    return write_stream(path, (data,), retire, sync, len(data))


def write_text(path: Path, text: str, sync: bool = True) -> int:
    """`write_bytes` of UTF-8."""
    return write_bytes(path, text.encode(), sync=sync)


def write_stream(
    path: Path, pieces: Iterable[bytes], retire: Path | None = None, sync: bool = True, needed: int | None = None
) -> int:
    """Write and commit; returns the inode of the new file. Nothing half-named stays, whatever goes wrong.

    retire: a file that vouches for the old content of `path`, removed when the new content is safe on disk and before
    it takes the name. sync: make it survive a power cut; False where the caller does so once for many files, with
    `sync_disk`. needed: bytes in all, where they are known. Errors: GansegError for a full disk, a quota or a folder
    that cannot be written.
    """
    part = part_name(path)
    written = 0
    try:
        with open(part, "wb") as f:
            for piece in pieces:
                written += len(piece)
                f.write(piece)
            f.flush()
            if sync:
                os.fsync(f.fileno())
            inode = os.fstat(f.fileno()).st_ino
        if retire is not None and retire.exists():
            retire.unlink(missing_ok=True)
            sync_folder(path.parent)
        os.rename(part, path)
        if sync:
            sync_folder(path.parent)
        return inode
    except BaseException as e:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(e, OSError):
            raise explained(e, path, written if needed is None else needed) from e
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_disk(folder: Path) -> None:
    """Make all that was written to the file system of `folder` survive a power cut: one call for many small files.

    Errors: OSError when something written before could not be stored.
    """
    flush = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if flush is None:  # no glibc or musl: all file systems
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if flush(handle):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(handle)


def clean_parts(folder: Path, stem: str = "") -> list[Path]:
    """Remove what processes of this host that are gone left unfinished: all, or of the files STEM.suffix alone."""
    removed = []
    for part in folder.glob(f"{glob.escape(stem + '.' if stem else '')}*.part.{this_host()}.*"):
        pid = part.name.rsplit(".", 1)[1]
        if pid.isdigit() and not process_lives(int(pid)):
            part.unlink(missing_ok=True)
            removed.append(part)
    return removed


def process_lives(pid: int) -> bool:
    """Whether a process of this host is there, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def explained(e: OSError, path: Path, needed: int) -> GansegError:
    """The disk's error, for people: with the bytes needed and free where there is no room."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        there = next(p for p in (path.parent, *path.parent.parents, Path()) if p.exists())
        free = shutil.disk_usage(there).free
        return GansegError(
            f"got no room for {path} ({e.strerror})",
            wanted=f"{needed:,} bytes; {free:,} are free on the disk, a quota or limit may be lower",
            remedy="free space or raise the limit, then run the same command: finished shards are kept",
        )
    return GansegError(
        f"got {path}: {e.strerror}", wanted="a folder that can be written", remedy="check --out and its permissions"
    )
