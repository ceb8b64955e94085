"""The directory of a zip archive, read with bounds: stored entries only, none copied, names and checksums verified."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from gansegctl.generators.checkpoints.unpickle.limits import damaged

_END = b"PK\x05\x06"
_MOST_ENTRIES = 65_536
_BIG = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an entry's bytes lie, and their CRC-32."""

    start: int
    size: int
    crc: int


class Archive:
    """The entries of `data` by name. UsageError for an archive that is cut off, altered, compressed or encrypted."""

    def __init__(self, data: memoryview, label: str) -> None:
        self.data, self.label = data, label
        self.entries: dict[str, Entry] = {}
        try:
            self._read_directory()
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise damaged(label, f"a broken zip directory ({error})") from error

    def read(self, name: str) -> memoryview:
        """The bytes of an entry, its checksum verified."""
        entry = self.entries[name]
        raw = self.data[entry.start : entry.start + entry.size]
        if zlib.crc32(raw) != entry.crc:
            raise damaged(self.label, f"the checksum of {name!r:.80} is wrong")
        return raw

    def _read_directory(self) -> None:
        position, size, count = self._find_directory()
        if count > _MOST_ENTRIES or position + size > len(self.data):
            raise damaged(self.label, f"a zip directory of {count} entries and {size} bytes")
        total = 0
        for _ in range(count):
            header = struct.unpack_from("<4s6H3L5H2L", self.data, position)
            (signature, _, _, flags, method, _, _, crc, packed, length) = header[:10]
            name_size, extra_size, comment_size, _, _, _, start = header[10:]
            if signature != b"PK\x01\x02":
                raise damaged(self.label, "a zip entry without its signature")
            position += 46
            name = str(self.data[position : position + name_size], "utf-8")
            extra = self.data[position + name_size : position + name_size + extra_size]
            position += name_size + extra_size + comment_size
            length, packed, start = _wide(extra, length, packed, start)
            if method != 0 or flags & 1 or packed != length:
                raise damaged(self.label, f"the entry {name!r:.80} is compressed or encrypted, which torch never does")
            if name in self.entries or len(name) > 512 or ".." in name.split("/") or name[:1] in "/\\" or "\0" in name:
                raise damaged(self.label, f"a zip entry named {name!r:.80}")
            total += length
            if total > len(self.data):
                raise damaged(self.label, "zip entries that overlap: more bytes than the file has")
            self.entries[name] = Entry(self._start_of(start, length), length, crc)

    def _start_of(self, start: int, length: int) -> int:
        """First byte of an entry, behind its own header."""
        header = struct.unpack_from("<4s5H3L2H", self.data, start)
        begin = start + 30 + header[9] + header[10]
        if header[0] != b"PK\x03\x04" or begin + length > len(self.data):
            raise damaged(self.label, "a zip entry that does not lie in the file")
        return begin

    def _find_directory(self) -> tuple[int, int, int]:
        """(position, size, number of entries) of the directory, by the record at the end of the file."""
        tail_at = max(0, len(self.data) - 65_557)
        at = bytes(self.data[tail_at:]).rfind(_END)
        if at < 0:
            raise damaged(self.label, "a zip archive without its end, as a download that was cut off")
        at += tail_at
        count, size, position = struct.unpack_from("<10xH2L", self.data, at)
        if (count == 0xFFFF or _BIG in (size, position)) and at >= 20:
            signature, wide_at = struct.unpack_from("<4s4xQ", self.data, at - 20)
            if signature == b"PK\x06\x07":
                signature, count, size, position = struct.unpack_from("<4s28x3Q", self.data, wide_at)
                if signature != b"PK\x06\x06":
                    raise damaged(self.label, "a zip64 record without its signature")
        return position, size, count


def _wide(extra: memoryview, length: int, packed: int, start: int) -> tuple[int, int, int]:
    """Sizes and position from the zip64 field, where the 32-bit ones are full."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = at + 4
            values = []
            for value in (length, packed, start):
                if value == _BIG:
                    value = struct.unpack_from("<Q", extra, field)[0]
                    field += 8
                values.append(value)
            return values[0], values[1], values[2]
        at += 4 + size
    return length, packed, start
