"""A zip, or the folder it was unpacked to, read in memory: nothing is written, and nothing larger than it should be."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath

from gansegctl.annotation.safe_png import read_bytes
from gansegctl.errors import UsageError

MEMBERS = 20_000
MEMBER_BYTES = 64 * 2**20
TOTAL_BYTES = 2 * 2**30


class Archive:
    """Members by their path inside. Errors: UsageError for no zip, names that lead out of it, and sizes out of reason.

    Contents come by `read`, which unpacks one member into memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            self.names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as e:
            raise UsageError(f"got {path}, a damaged zip: {e}", wanted="a whole zip", remedy="export again") from None
        members = [i for i in self._zip.infolist() if not i.is_dir()]
        self.names = [i.filename for i in members]
        self._check(members)

    def _check(self, members: list[zipfile.ZipInfo]) -> None:
        if len(members) > MEMBERS:
            raise UsageError(f"got {self.path} with {len(members)} files", wanted=f"at most {MEMBERS}")
        for info in members:
            inside = PurePosixPath(info.filename.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts or ":" in info.filename.split("/")[0]:
                raise UsageError(
                    f"got {self.path} with the file name {info.filename!r}, which leads out of it",
                    wanted="names inside the zip",
                    remedy="do not use this file; export it anew from the tool",
                )
            if info.flag_bits & 1:
                raise UsageError(f"got {self.path} with a password", wanted="a plain zip", remedy="unpack it first")
            if info.file_size > MEMBER_BYTES:
                raise UsageError(
                    f"got {self.path}: {info.filename} would unpack to {info.file_size >> 20} MiB",
                    wanted=f"at most {MEMBER_BYTES >> 20} MiB a file",
                )
        total = sum(i.file_size for i in members)
        if total > TOTAL_BYTES:
            raise UsageError(
                f"got {self.path}, which would unpack to {total >> 20} MiB in all",
                wanted=f"at most {TOTAL_BYTES >> 20} MiB",
                remedy="export only the exemplars",
            )

    def read(self, name: str) -> bytes:
        """A member's bytes. UsageError for a damaged one: zipfile reads the size that was checked, then its CRC."""
        if self._zip is None:
            return read_bytes(self.path / name)
        try:
            with self._zip.open(name) as f:
                return f.read(MEMBER_BYTES)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as e:
            raise UsageError(
                f"got {self.path}: {name} is damaged ({e})", wanted="a whole zip", remedy="export it again"
            ) from None
