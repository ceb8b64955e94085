"""The stage `verify`: whether a dataset is whole, and its repair: damaged shards are made again from their seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import h5py

from gansegctl import methods
from gansegctl.contracts import Progress, Segmenter, Stage
from gansegctl.errors import DatasetError
from gansegctl.io.digest import file_digest
from gansegctl.pipeline.annotate.source import SEGMENTER, Source
from gansegctl.pipeline.generate.filters import Everything, Known
from gansegctl.pipeline.generate.plan import PlannedShard
from gansegctl.pipeline.generate.shards import finish, write_shards
from gansegctl.store.codec import READ_ERRORS
from gansegctl.store.manifest import Manifest, bad_shards, foreign_files, manifest_changed, problems_of_dataset
from gansegctl.store.schema import format_seeds, parse_seeds
from gansegctl.store.shard import shard_path, shard_record


def check(folder: Path) -> dict[str, list[str]]:
    """problems: what is missing, damaged, of other settings or out of plan. foreign: files of somebody else."""
    folder = Path(folder)
    problems = problems_of_dataset(folder)
    about = Manifest.read(folder).segmenter
    beside = folder / SEGMENTER
    if about and beside.is_file() and file_digest(beside) != about.get("sha256"):
        problems.append(f"{SEGMENTER}: not the one that made the masks, by its sha256")
    return {"problems": problems, "foreign": foreign_files(folder)}


@dataclass(frozen=True)
class Repaired:
    """Names of the shards that `repair` made again, and of those among them whose bytes are not the recorded ones."""

    repaired: list[str]
    differing: list[str]


def repair(
    folder: Path, generator: str | None = None, segmenter: Path | None = None, device: str = "cpu"
) -> Stage[Repaired]:
    """Make every shard that is not whole again, from its seeds; the others are not touched.

    generator, segmenter: the files, where the dataset's own are not to be found. Bytes differ after repair on another
    kind of device. Errors: DatasetError for another generator or segmenter than the dataset was made with.
    """
    folder = Path(folder)
    bad = bad_shards(folder)
    if not bad:
        yield Progress("repair", 0, 0)
        return Repaired([], [])
    if manifest_changed(folder):
        raise DatasetError(
            f"got {folder}/manifest.json, changed since it was written",
            wanted="the settings that the shards were made with: everything would be made anew with others",
            remedy="bring the file back from a copy, or begin a new dataset",
        )
    source = Source.open(folder, generator, device)
    fitted = _segmenter(source, segmenter)
    if source.settings.compile and source.manifest.stage == "images":  # `annotate` does not compile, `generate` did
        source.generator.compile_synthesis()
    manifest = source.manifest
    if manifest.candidates is not None and "choice" not in manifest.facts:
        raise DatasetError(
            f"got {folder}, whose samples are still being chosen",
            wanted="a finished dataset",
            remedy=f"remove the files of the damaged shards ({format_seeds(list(bad))}), and run `generate` again",
        )
    before: dict[int, set[str]] = {}
    batches = {i: _batch_of(shard_path(folder, i), source.settings.batch_size) for i in bad}
    for index in bad:
        record = shard_record(folder, index)
        if record is not None and (record.digest, record.seeds) == (manifest.digest, manifest.shards[index]):
            # either may be the damaged one: the file, or the sha256 in its json
            before[index] = {record.sha256, file_digest(shard_path(folder, index))}
        shard_path(folder, index).with_suffix(".json").unlink(missing_ok=True)  # it is not done
    shards = tuple(PlannedShard(i, tuple(parse_seeds(manifest.plan_of_seeds[i]))) for i in bad)
    chooser = Everything() if manifest.candidates is None else Known(manifest)
    for batch in sorted(set(batches.values()), reverse=True):
        again = tuple(s for s in shards if batches[s.index] == batch)
        settings = replace(source.settings, batch_size=batch)
        yield from write_shards(
            manifest, again, folder, source.generator, fitted, settings, device, "repair", chooser=chooser
        )
    finish(folder)
    made = {i: record for i in bad if (record := shard_record(folder, i))}
    total = sum(len(s.seeds) for s in shards)
    yield Progress("repair", total, total)
    return Repaired(
        [shard_path(folder, i).name for i in made],
        [shard_path(folder, i).name for i, digests in before.items() if i in made and made[i].sha256 not in digests],
    )


def _batch_of(path: Path, asked: int) -> int:
    """The batch size that a shard was made with, where it can be read; with another its last bits would differ.

    Where memory was short it is half, a quarter … of the size asked for.
    """
    try:
        with h5py.File(path, "r", locking=False) as f:
            stored = int(f.attrs["batch_size"])
    except READ_ERRORS:
        return asked
    return stored if stored in {asked >> k for k in range(asked.bit_length())} else asked


def _segmenter(source: Source, path: Path | None) -> Segmenter | None:
    about = source.manifest.segmenter
    if source.manifest.stage != "pairs" or about is None:
        return None
    path = path or source.folder / SEGMENTER
    if not path.is_file() or file_digest(path) != about["sha256"]:
        raise DatasetError(
            f"got {path}, " + ("another segmenter" if path.is_file() else "which is not there"),
            wanted=f"the one with sha256 {about['sha256'][:12]}…, which made the masks of {source.folder}",
            remedy="pass that file as --segmenter",
        )
    return methods.load(path)
