"""The kind of file that a checkpoint is, by its content: suffixes lie, and a wrong download has many faces."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.unpickle.limits import damaged

CONTAINERS = ("torch-zip", "torch-legacy", "pickle", "safetensors", "hdf5")
_WANTED = "a generator checkpoint (.pkl, .pt, .pth, .safetensors)"
_LEGACY = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", re.DOTALL)
_TEXT_PICKLE = re.compile(rb"[(\]}]|c[\w.]+\n[\w.]+\n")
_LONGEST_HEADER = 1 << 27
_OTHERS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x7fELF", "a program"),
    (b"GGUF", "a GGUF language model"),
)


def detect(path: Path) -> str:
    """One of `CONTAINERS`. UsageError, each with its remedy, for what is no checkpoint or only part of one."""
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"got {path}: a directory", wanted=_WANTED, remedy="pass the checkpoint file in it")
    if not path.exists():
        raise UsageError(f"got {path}: no such file", wanted=_WANTED, remedy="check the path")
    if not path.is_file():
        raise UsageError(f"got {path}: not a regular file", wanted=_WANTED, remedy="download it to a file first")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            size = file.seek(0, 2)
            file.seek(max(0, size - 65_557))
            tail = file.read()
    except OSError as error:
        raise UsageError(
            f"got {path}: cannot be read ({error.strerror})", wanted=_WANTED, remedy="check the file's rights"
        ) from error
    _refuse_stand_ins(path, head)
    header = _safetensors_header(head)
    if header is not None:
        if 8 + header > size:
            raise _truncated(path, f"its header alone has {header} bytes, the file {size}")
        return "safetensors"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        end = _hdf5_end(head)
        if end is not None and end > size:
            raise _truncated(path, f"HDF5 of {end} bytes, the file has {size}")
        return "hdf5"
    if head.startswith(b"PK\x03\x04"):
        if b"PK\x05\x06" not in tail:
            raise _truncated(path, "a zip archive without its end")
        return "torch-zip"
    if _LEGACY.match(head):
        return "torch-legacy"
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return "pickle"
    if _TEXT_PICKLE.match(head) and tail.rstrip(b"\r\n").endswith(b"."):
        return "pickle"
    raise UsageError(
        f"got {path}: {_name(head)}, no checkpoint",
        wanted=_WANTED,
        remedy="pass the generator's file; `gansegctl inspect FILE` says what a checkpoint holds",
    )


def _refuse_stand_ins(path: Path, head: bytes) -> None:
    """Files that stand where the checkpoint should be: empty, a pointer, a web page."""
    if not head:
        raise UsageError(f"got {path}: an empty file", wanted=_WANTED, remedy="download it again")
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"\nsize (\d+)", head)
        raise UsageError(
            f"got {path}: a git-LFS pointer, not the file itself" + (f" ({int(size[1][:18])} bytes)" if size else ""),
            wanted=_WANTED,
            remedy="run `git lfs pull` in that repository, or download the file from its page",
        )
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512].lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b"<script")):
        quota = b"quota" in head.lower() or b"google drive" in head.lower()
        raise UsageError(
            f"got {path}: a web page (HTML) saved under the name of a checkpoint"
            + (": the host's download quota was exceeded" if quota else ""),
            wanted=_WANTED,
            remedy="open the link in a browser and download the file itself" + ("; try later" if quota else ""),
        )


def _safetensors_header(head: bytes) -> int | None:
    """Length of the JSON header, None for another kind of file."""
    if len(head) < 9 or head[8:9] != b"{":
        return None
    length = struct.unpack("<Q", head[:8])[0]
    return length if 2 <= length < _LONGEST_HEADER else None


def _hdf5_end(head: bytes) -> int | None:
    """The end of file address in an HDF5 superblock with 8-byte addresses; None where it cannot be told."""
    if len(head) < 64:
        return None
    version = head[8]
    if version in (0, 1) and head[13] == 8:
        base, _, end = struct.unpack_from("<3Q", head, 24 if version == 0 else 28)
    elif version in (2, 3) and head[9] == 8:
        base, _, end = struct.unpack_from("<3Q", head, 12)
    else:
        return None
    return base + end


def _truncated(path: Path, why: str) -> UsageError:
    return damaged(str(path), f"{why}: a download that was cut off")


def _name(head: bytes) -> str:
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if head[:4] == b"RIFF":
        return "a sound, film or WebP image"
    if head[0] == 0x80:
        return "an object stream of a newer protocol"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return f"a text that begins {head[:24].decode('utf-8', 'replace')!r}"
    return f"a file that begins {head[:8].hex(' ')}"
