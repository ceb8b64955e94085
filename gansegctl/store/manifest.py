"""manifest.json: what a dataset is, how it was made, and which shards it consists of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gansegctl import __version__
from gansegctl.errors import DatasetError, GansegError, UsageError
from gansegctl.labels import LabelMap
from gansegctl.store.atomic import clean_parts, write_bytes
from gansegctl.store.schema import FORMAT_VERSION, format_seeds, parse_seeds
from gansegctl.store.shard import problem_of_shard, shard_record

NAME = "manifest.json"


def settings_digest(settings: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """settings: one table a stage. generator: name, family, sha256, resolution, channels. shards: seeds of each.

    stage: "images" until masks are in, then "pairs".
    """

    stage: str
    settings: dict[str, Any]
    generator: dict[str, Any]
    shards: tuple[str, ...]
    labels: LabelMap | None = None
    segmenter: dict[str, Any] | None = None
    licence: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Names the settings that shards of this manifest were made with."""
        return settings_digest(
            {"settings": self.settings, "generator": self.generator.get("sha256"), "segmenter": self.segmenter}
        )

    def shard_seeds(self, index: int) -> list[int]:
        return parse_seeds(self.shards[index])

    @property
    def seeds(self) -> list[int]:
        """All seeds, in the order of the shards."""
        return [s for text in self.shards for s in parse_seeds(text)]

    @staticmethod
    def plan(shards: list[tuple[int, ...]]) -> tuple[str, ...]:
        """The form in which a shard plan is stored."""
        return tuple(format_seeds(list(s)) for s in shards)

    def to_json(self) -> dict[str, Any]:
        row = asdict(self) | {"labels": self.labels.to_json() if self.labels else None, "shards": list(self.shards)}
        return {"format": FORMAT_VERSION, "tool": f"gansegctl {__version__}", "digest": self.digest} | row

    @classmethod
    def from_json(cls, row: dict[str, Any], where: Path) -> Manifest:
        if row.get("format", 0) > FORMAT_VERSION:
            raise DatasetError(f"got {where}: format {row['format']}", wanted=f"at most {FORMAT_VERSION}", remedy="update")
        try:
            labels = LabelMap.from_json(row["labels"]) if row["labels"] else None
            names = ("stage", "settings", "generator", "segmenter", "licence", "facts")
            return cls(labels=labels, shards=tuple(row["shards"]), **{k: row[k] for k in names})
        except (KeyError, TypeError) as e:
            raise DatasetError(f"got {where}: not a manifest ({e})", wanted="a manifest of gansegctl") from e

    def write(self, folder: Path) -> None:
        write_bytes(folder / NAME, (json.dumps(self.to_json(), indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """DatasetError for no folder, no manifest, or one that cannot be read."""
        path = Path(folder) / NAME
        if not path.is_file():
            raise DatasetError(
                f"got {folder}: {'no manifest.json in it' if Path(folder).is_dir() else 'no such folder'}",
                wanted="a dataset",
                remedy="make one with `gansegctl generate -o DIR`",
            )
        try:
            return cls.from_json(json.loads(path.read_text()), path)
        except ValueError as e:
            raise DatasetError(f"got {path}: {e}", wanted="a manifest of gansegctl") from e

    def begin(self, folder: Path) -> Manifest:
        """Start a dataset in a new or empty folder, or go on with one made with the same settings.

        Errors: UsageError for a folder with other things in it, DatasetError for other settings (with the difference).
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            entries = [p.name for p in folder.iterdir() if ".part." not in p.name]
        except OSError as e:
            raise GansegError(f"got {folder}: {e.strerror}", wanted="a folder that can be written") from e
        if NAME in entries:
            there = Manifest.read(folder)
            there.require_same(self, folder)
            clean_parts(folder)
            return there
        if entries:
            raise UsageError(
                f"got {folder}, which holds {sorted(entries)[0]} and {len(entries) - 1} more",
                wanted="a new or empty folder, or a dataset to resume",
                remedy="choose another -o",
            )
        self.write(folder)
        return self

    def require_same(self, other: Manifest, folder: Path) -> None:
        """DatasetError, naming each difference, unless `other` would generate the same samples."""
        mine = _flat({"generate": self.settings.get("generate", {}), "generator": self.generator.get("sha256")})
        wanted = _flat({"generate": other.settings.get("generate", {}), "generator": other.generator.get("sha256")})
        keys = [k for k in sorted(mine.keys() | wanted.keys()) if mine.get(k) != wanted.get(k)]
        if self.shards != other.shards and not keys:
            keys, mine, wanted = ["shards"], {"shards": len(self.shards)}, {"shards": len(other.shards)}
        if keys:
            rows = "; ".join(f"{k}: {mine.get(k)!r} in the dataset, {wanted.get(k)!r} asked for" for k in keys)
            raise DatasetError(
                f"got other settings than {folder} was begun with: {rows}",
                wanted="the same settings, to go on",
                remedy="use those settings, or another -o",
            )


def problems_of_dataset(folder: Path) -> list[str]:
    """What is missing, unfinished, damaged, made with other settings, or out of plan; empty when all is well."""
    manifest = Manifest.read(folder)
    rows = []
    for index, seeds in enumerate(manifest.shards):
        problem = problem_of_shard(folder, index)
        record = shard_record(folder, index)
        if problem is None and record and (record.seeds != seeds or record.digest != manifest.digest):
            problem = "made with other settings or seeds than the manifest says"
        if problem:
            rows.append(f"shard-{index:05d}: {problem}")
    planned = {f"shard-{i:05d}.h5" for i in range(len(manifest.shards))}
    rows += [f"{p.name}: not in the plan" for p in sorted(folder.glob("shard-*.h5")) if p.name not in planned]
    return rows


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
