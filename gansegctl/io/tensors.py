"""Safetensors with a header of ours: one writer, one reader, one reader of headers. Nothing in a file can execute.

A header says what kind of file it is. Generators, students and latents keep theirs as one JSON table under the key
"gansegctl"; segmenters and training states keep one text a key. Headers are read without torch.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansegctl.errors import UsageError
from gansegctl.io.atomic import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

KEY = "gansegctl"
LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
SHOWN = 60  # characters of a foreign header in a message


@dataclass(frozen=True)
class FileKind:
    """One kind of file: how it is written, read, and told from others.

    name: `kind` in the header. noun: what messages call it. remedy: what to do about another file; {path} in it stands
    for that file. fields: keys that the header must have, and the type of their values. newest: the highest format
    that can be read; None for a kind without formats. table: the header is one JSON table; else a text a key, in which
    values of other types than str are JSON.
    """

    name: str
    noun: str
    remedy: str
    fields: Mapping[str, type] = field(default_factory=dict)
    newest: int | None = 1
    table: bool = True

    def write(self, path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Write tensors and header; kind and format are added. The file appears whole or not at all.

        Equal input gives equal bytes. Errors: TypeError for a header value that cannot be written, GansegError as
        `write_bytes`.
        """
        from safetensors.torch import save

        about: dict[str, Any] = {"kind": self.name}
        if self.newest is not None:
            about["format"] = self.newest if self.table else str(self.newest)
        about |= header
        metadata = {KEY: json.dumps(about, sort_keys=True)} if self.table else about
        data = save({name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}, metadata)
        write_bytes(path, data if len(metadata) == 1 else _with_sorted_header(data))

    def read_header(self, path: Path | str) -> dict[str, Any]:
        """The checked header. UsageError for a file that is missing, cut short, of another kind or a newer format."""
        path = Path(path)
        try:
            metadata, whole = _layout(path)
            header, there = _table(metadata), path.stat().st_size
        except FileNotFoundError:
            raise self._refusal(path, "no such file") from None
        except OSError as e:
            raise self._refusal(path, str(e.strerror)) from e
        except ValueError as e:
            raise self._refusal(path, f"not a safetensors file ({e})") from e
        if header.get("kind") != self.name:
            kind = header.get("kind")
            other = f"a file of kind {str(kind)[:SHOWN]}" if kind else "no gansegctl header in it"
            raise self._refusal(path, other, f"{self.noun} (kind {self.name})")
        self._check_format(path, header)
        if there != whole:
            raise self._refusal(path, f"{there:,} bytes, where its header says {whole:,}", "the whole file")
        for key, kind in self.fields.items():
            if not self._holds(header, key, kind):
                value = f"{key} {str(header[key])[:SHOWN]!r}" if key in header else f"no {key}"
                raise self._refusal(path, f"{value} in its header", f"{self.noun} with {key} of type {kind.__name__}")
        return header

    def read(self, path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The checked header and all tensors, on the CPU. UsageError as `read_header`, and for damage."""
        header = self.read_header(path)
        try:
            return header, read_tensors(Path(path))
        except (OSError, ValueError) as e:
            raise self._refusal(Path(path), f"not a whole safetensors file ({e})") from e

    def _check_format(self, path: Path, header: Mapping[str, Any]) -> None:
        if self.newest is None:
            return
        written = str(header.get("format"))
        if not written.isdecimal():
            raise self._refusal(path, f"format {written[:SHOWN]!r} in its header", f"a number up to {self.newest}")
        if int(written) > self.newest:
            raise UsageError(
                f"got {path}: format {written}", wanted=f"{self.noun}, format {self.newest}", remedy="update gansegctl"
            )

    def _holds(self, header: Mapping[str, Any], key: str, kind: type) -> bool:
        """Whether the header has a value of that type, as itself or as JSON."""
        value = header.get(key)
        if not self.table and kind is not str and isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return False
        return isinstance(value, kind)

    def _refusal(self, path: Path, got: str, wanted: str = "") -> UsageError:
        return UsageError(f"got {path}: {got}", wanted=wanted or self.noun, remedy=self.remedy.format(path=path))


def read_header(path: Path) -> dict[str, Any]:
    """The header of any safetensors file: our table where there is one, else its own keys.

    Errors: OSError; ValueError for another format, saying why.
    """
    return _table(_layout(path)[0])


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of any safetensors file, by key. Errors as `read_header`."""
    return _layout(path)[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of any safetensors file, on the CPU. Errors: OSError; ValueError for damage, saying which."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except SafetensorError as e:
        raise ValueError(str(e)) from e


def _layout(path: Path) -> tuple[dict[str, str], int]:
    """The texts of the header, and the bytes of the whole file by what the header says of its tensors."""
    there = path.stat()
    if not stat.S_ISREG(there.st_mode):  # opening a pipe would wait for its writer
        raise ValueError("it is a folder or a device")
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(LARGEST_HEADER, there.st_size - 8):
            raise ValueError("its first bytes are no length of a header")
        try:
            entries = json.loads(file.read(size).decode())
            metadata = entries.pop("__metadata__", None) or {}
            ends = [entry["data_offsets"][1] for entry in entries.values()]
            texts = all(isinstance(text, str) for text in metadata.values())
        except (AttributeError, IndexError, KeyError, TypeError, RecursionError) as e:
            raise ValueError("its header is no table of tensors") from e
    if not texts or not all(isinstance(end, int) for end in ends):
        raise ValueError("its header is no table of tensors")
    return metadata, 8 + size + max(ends, default=0)


def _table(metadata: dict[str, str]) -> dict[str, Any]:
    if KEY not in metadata:
        return dict(metadata)
    try:
        table = json.loads(metadata[KEY])
    except RecursionError as e:
        raise ValueError(f"its {KEY} header is nested too deeply") from e
    if not isinstance(table, dict):
        raise ValueError(f"its {KEY} header is no table")
    return table


def _with_sorted_header(data: bytes) -> bytes:
    """The file with its header's keys in order: the library writes texts in another order in every process."""
    size = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + size :]
