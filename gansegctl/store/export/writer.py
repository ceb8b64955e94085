"""Files of an export: whole or not at all, a record a shard, so that a killed export goes on and ends in equal bytes.

While it runs, OUT/.export holds settings.json, rows-NNNNN.jsonl for every shard that is through (written last) and the
tars under way. At the end the index files are written from the rows, then export.json, then the folder goes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from gansegctl.errors import DatasetError
from gansegctl.io import run_folder
from gansegctl.io.atomic import (
    clean_parts,
    explained,
    part_name,
    sync_disk,
    sync_folder,
    write_bytes,
    write_stream,
)

WORK, FINAL, SETTINGS = ".export", "export.json", "settings.json"
FACTS = ("samples", "class_pixels")
"""The keys of export.json beside those of the record."""


class ExportFolder:
    """One export under way. record: all that determines its bytes, compared when it goes on."""

    def __init__(self, out: Path, record: dict[str, Any]) -> None:
        self.out, self.work, self.record = out, out / WORK, json.loads(json.dumps(record))
        self._folders: set[Path] = set()

    def begin(self) -> bool:
        """Start or go on; True when it is finished already.

        Errors: UsageError for a folder with other things in it, DatasetError for an export of other settings.
        """
        for place in (self.out / FINAL, self.work / SETTINGS):
            if place.is_file():
                there = run_folder.read_record(place, DatasetError)
                before = {k: v for k, v in there.items() if k not in FACTS}
                run_folder.require_same(before, self.record, self.out, DatasetError)
                clean_parts(self.work)
                return place.name == FINAL
        run_folder.require_empty(self.out, besides=(WORK,))
        self._folder(self.work)
        run_folder.begin(self.work, self.record, SETTINGS, error=DatasetError)
        return False

    def through(self, shard: int) -> bool:
        """Whether a shard of the dataset is exported."""
        return self._rows_file(shard).is_file()

    def put(self, name: str, data: bytes) -> None:
        """One file below the export, whole when this returns, and safe on disk when its shard is committed."""
        path = self.out / name
        self._folder(path.parent)
        write_bytes(path, data, sync=False)

    def tar(self, split: str, shard: int) -> TarFile:
        """A tar of one split and shard, kept in the work folder until all are through."""
        return TarFile(self._tar_file(split, shard))

    def commit(self, shard: int, rows: Sequence[dict[str, Any]]) -> None:
        """Declare a shard exported."""
        try:
            sync_disk(self.out)
        except OSError as e:
            raise explained(e, self.out, 0) from e
        write_bytes(self._rows_file(shard), "".join(json.dumps(r) + "\n" for r in rows).encode())

    def rows(self, shards: Iterable[int], split: str | None = None) -> Iterator[dict[str, Any]]:
        """The rows of these shards, of one split or all, streamed."""
        for shard in shards:
            with open(self._rows_file(shard), encoding="utf-8") as f:
                for line in f:
                    row = json.loads(line)
                    if split is None or row["split"] == split:
                        yield row

    def place_tars(self, counts: dict[str, dict[int, int]]) -> dict[str, list[dict[str, Any]]]:
        """Number the tars of each split without gaps and move them up. counts: samples by split and shard."""
        packs: dict[str, list[dict[str, Any]]] = {}
        for split, shards in counts.items():
            filled = [s for s in sorted(shards) if shards[s]]
            packs[split] = [{"file": f"{split}-{i:06d}.tar", "samples": shards[s]} for i, s in enumerate(filled)]
            for pack, shard in zip(packs[split], filled, strict=True):
                source = self._tar_file(split, shard)
                if source.exists():  # else it was moved before the export was killed
                    os.rename(source, self.out / pack["file"])
        sync_folder(self.out)
        return packs

    def text(self, name: str, pieces: Iterable[str]) -> None:
        """A text file in pieces, never whole in memory."""
        path = self.out / name
        self._folder(path.parent)
        write_stream(path, (p.encode() for p in pieces))

    def finish(self, facts: dict[str, Any]) -> None:
        """Declare the export whole; remove the work folder, and what killed processes of other hosts left.

        facts: values for the keys FACTS.
        """
        for part in self.out.rglob("*.part.*"):
            part.unlink(missing_ok=True)
        write_bytes(self.out / FINAL, _json(self.record | facts))
        self.clean()

    def result(self) -> dict[str, Any]:
        """The table in export.json of a finished export: the record, samples of each split, pixels of each class."""
        return run_folder.read_record(self.out / FINAL, DatasetError)

    def clean(self) -> None:
        """Remove the work folder of a finished export."""
        shutil.rmtree(self.work, ignore_errors=True)

    def _folder(self, folder: Path) -> None:
        if folder in self._folders:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise explained(e, folder, 0) from e
        clean_parts(folder)
        self._folders.add(folder)

    def _rows_file(self, shard: int) -> Path:
        return self.work / f"rows-{shard:05d}.jsonl"

    def _tar_file(self, split: str, shard: int) -> Path:
        return self.work / f"{split}-{shard:05d}.tar"


class TarFile:
    """A tar that appears under its name when closed without an error; equal members give equal bytes."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, part_name(path)
        try:
            self._file: BinaryIO = open(self.part, "wb")  # noqa: SIM115 - closed by close and drop
        except OSError as e:
            raise explained(e, path, 0) from e
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, name: str, data: bytes) -> None:
        """Append a member without owner or time."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        try:
            self._tar.addfile(member, io.BytesIO(data))
        except OSError as e:
            raise explained(e, self.path, len(data)) from e

    def close(self) -> None:
        """End it and put it in place."""
        try:
            self._tar.close()
            self._file.close()
            os.rename(self.part, self.path)
        except OSError as e:
            raise explained(e, self.path, self._tar.offset) from e

    def drop(self) -> None:
        """Forget it, if it is not in place."""
        with contextlib.suppress(OSError):  # what is buffered and does not fit; the file goes anyway
            self._file.close()
        self.part.unlink(missing_ok=True)


def _json(table: dict[str, Any]) -> bytes:
    return (json.dumps(table, indent=1, ensure_ascii=False) + "\n").encode()
