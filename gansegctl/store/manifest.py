"""manifest.json: what a dataset is, how it was made, and which shards it consists of."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gansegctl.errors import DatasetError
from gansegctl.io.atomic import clean_parts, write_bytes
from gansegctl.io.run_folder import claim, differences, require_same
from gansegctl.labels import LabelMap
from gansegctl.store.schema import FORMAT_VERSION, format_seeds, parse_seeds
from gansegctl.store.shard import problem_of_shard, shard_done, shard_record
from gansegctl.version import __version__

NAME = "manifest.json"


def settings_digest(settings: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """settings: one table a stage. generator: name, family, sha256, resolution, channels. shards: seeds of each.

    stage: "images" until masks are in, then "pairs". candidates: where samples are chosen, the seeds that each shard
    chooses from; `shards` are the same while the dataset is unfinished, then the seeds that were kept.
    """

    stage: str
    settings: dict[str, Any]
    generator: dict[str, Any]
    shards: tuple[str, ...]
    labels: LabelMap | None = None
    segmenter: dict[str, Any] | None = None
    licence: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    candidates: tuple[str, ...] | None = None

    @property
    def digest(self) -> str:
        """Names the settings that shards of this manifest were made with."""
        return settings_digest(
            {"settings": self.settings, "generator": self.generator.get("sha256"), "segmenter": self.segmenter}
        )

    def shard_seeds(self, index: int) -> list[int]:
        """The seeds of one shard, in the order of its samples."""
        return _seeds_in(self.shards[index])

    @property
    def seeds(self) -> list[int]:
        """All seeds, in the order of the shards."""
        return [s for text in self.shards for s in _seeds_in(text)]

    @property
    def plan_of_seeds(self) -> tuple[str, ...]:
        """The seeds that each shard is made from: its own, or its candidates."""
        return self.shards if self.candidates is None else self.candidates

    @staticmethod
    def plan(shards: list[tuple[int, ...]]) -> tuple[str, ...]:
        """The form in which a shard plan is stored."""
        return tuple(format_seeds(list(s)) for s in shards)

    def done(self, folder: Path) -> list[int]:
        """The shards of the plan that are finished, by name, size, settings and seeds."""
        return [i for i, seeds in enumerate(self.shards) if shard_done(Path(folder), i, self.digest, seeds)]

    def require_whole(self, folder: Path) -> None:
        """DatasetError, listing what is missing, unless every shard of the plan is finished."""
        missing = sorted(set(range(len(self.shards))) - set(self.done(folder)))
        if missing:
            raise DatasetError(
                f"got {folder} with {len(missing)} of {len(self.shards)} shards missing: {format_seeds(missing)}",
                wanted="a finished dataset",
                remedy="run the command that made it again: it goes on where it stopped",
            )

    def to_json(self) -> dict[str, Any]:
        """The table in manifest.json."""
        row = asdict(self) | {"labels": self.labels.to_json() if self.labels else None, "shards": list(self.shards)}
        row = {k: v for k, v in row.items() if k != "candidates" or v is not None}
        return {"format": FORMAT_VERSION, "tool": f"gansegctl {__version__}", "digest": self.digest} | row

    @classmethod
    def from_json(cls, row: dict[str, Any], where: Path) -> Manifest:
        try:
            if row["format"] > FORMAT_VERSION:
                raise DatasetError(
                    f"got {where}: format {row['format']}",
                    wanted=f"at most {FORMAT_VERSION}",
                    remedy="update gansegctl",
                )
            labels = LabelMap.from_json(row["labels"]) if row["labels"] else None
            names = ("stage", "settings", "generator", "segmenter", "licence", "facts")
            candidates = tuple(row["candidates"]) if "candidates" in row else None
            shards = tuple(row["shards"])
            return cls(labels=labels, shards=shards, candidates=candidates, **{k: row[k] for k in names})
        except (KeyError, TypeError) as e:
            raise DatasetError(f"got {where}: not a manifest ({e})", wanted="a manifest of gansegctl") from e

    def write(self, folder: Path) -> None:
        """Put it in place, whole or not at all."""
        write_bytes(folder / NAME, self._text().encode())

    def _text(self) -> str:
        row = self.to_json()
        return json.dumps(row | {"checksum": settings_digest(row)}, indent=1) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """DatasetError for no folder, no manifest, or one that cannot be read."""
        path = Path(folder) / NAME
        if not path.is_file():
            here = Path(folder)
            is_file = "a file, not a folder" if here.exists() else "no such folder"
            raise DatasetError(
                f"got {folder}: {'no manifest.json in it' if here.is_dir() else is_file}",
                wanted="a dataset",
                remedy="make one with `gansegctl generate -o DIR`",
            )
        try:
            return cls.from_json(json.loads(path.read_text()), path)
        except (ValueError, OSError) as e:
            raise DatasetError(f"got {path}: {e}", wanted="a manifest of gansegctl") from e

    def begin(self, folder: Path) -> Manifest:
        """Start a dataset in a new or empty folder, or go on with one made with the same settings.

        Errors: UsageError for a folder with other things in it, DatasetError for other settings (with the difference).
        """
        if claim(folder, NAME, self._text()):
            return self
        there = Manifest.read(folder)
        there.require_same(self, folder)
        clean_parts(folder)
        return there

    def sample_settings(self, masks: bool) -> dict[str, Any]:
        """The settings that determine the images and, on request, their masks."""
        if masks:
            return {**self.settings, "generator": self.generator.get("sha256"), "segmenter": self.segmenter}
        return {"generate": self.settings.get("generate", {}), "generator": self.generator.get("sha256")}

    def require_same(self, other: Manifest, folder: Path) -> None:
        """DatasetError, naming each difference, unless `other` would generate the same samples.

        Where `other` has masks they must be made the same way too; where it has none, those that are there may stay.
        The same generator may lie elsewhere by now: it is known by its digest.
        """
        mine, wanted = (m.sample_settings(masks=other.stage == "pairs") for m in (self, other))
        if mine["generator"] and mine["generator"] == wanted["generator"]:
            mine, wanted = _without_place(mine), _without_place(wanted)
        if self.plan_of_seeds != other.plan_of_seeds and not differences(mine, wanted):
            mine, wanted = {"shards": _brief(self)}, {"shards": _brief(other)}
        require_same(mine, wanted, folder, DatasetError)


def problems_of_dataset(folder: Path) -> list[str]:
    """All that is missing, unfinished, damaged, made with other settings or not planned; empty when all is well."""
    manifest = Manifest.read(folder)
    rows = [f"{NAME}: changed since it was written"] if manifest_changed(folder) else []
    rows += [f"shard-{index:05d}: {problem}" for index, problem in bad_shards(folder).items()]
    planned = {f"shard-{i:05d}.h5" for i in range(len(manifest.shards))}
    found = {p.with_suffix(".h5").name for suffix in ("h5", "json") for p in folder.glob(f"shard-*.{suffix}")}
    return rows + [f"{name}: not in the plan" for name in sorted(found - planned)]


def bad_shards(folder: Path) -> dict[int, str]:
    """The shards of the plan that are not whole, and why."""
    manifest = Manifest.read(folder)
    bad = {}
    for index, seeds in enumerate(manifest.shards):
        problem = problem_of_shard(folder, index)
        record = shard_record(folder, index)
        if problem is None and record and not shard_done(folder, index, manifest.digest, seeds):
            problem = "made with other settings or seeds than the manifest says"
        if problem:
            bad[index] = problem
    return bad


def foreign_files(folder: Path) -> list[str]:
    """The files in a dataset's folder that are none of its own; harmless, but named."""
    own = re.compile(
        r"manifest\.json|card\.md|contact\.png|segmenter\.safetensors|exemplars(-.*)?|[^.]+-eval|shard-\d{5,}\.(h5|json|claim)"
    )
    return sorted(p.name for p in folder.iterdir() if not own.fullmatch(p.name))


def manifest_changed(folder: Path) -> bool:
    """Whether the text of manifest.json is another than `write` wrote, by the checksum in it."""
    text = (folder / NAME).read_text()
    row = json.loads(text)
    checksum = row.pop("checksum", None)
    return checksum != settings_digest(row) or text != json.dumps(row | {"checksum": checksum}, indent=1) + "\n"


def _brief(manifest: Manifest) -> str:
    plan = manifest.plan_of_seeds
    return f"{len(plan)} ({plan[0]} to {plan[-1]})" if plan else "none"


def _seeds_in(text: str) -> list[int]:
    """A shard of which nothing was kept has none."""
    return parse_seeds(text) if text else []


def _without_place(settings: dict[str, Any]) -> dict[str, Any]:
    """Without the preset's name or path by which the generator was found."""
    generate = {k: v for k, v in settings.get("generate", {}).items() if k != "generator"}
    return settings | {"generate": generate}
