"""Killed at every step, killed at random, a full disk, two writers: nothing lost, nothing silently wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import LABELS, draw, fill, plan

from gansegctl.errors import DatasetError, ExitStatus, GansegError
from gansegctl.io import atomic
from gansegctl.store import shard
from gansegctl.store.dataset import iter_shards
from gansegctl.store.manifest import Manifest, problems_of_dataset
from gansegctl.store.shard import read_shard, shard_path, write_shard


def run(script: str, *args: object) -> dict:
    """Run `script` in a fresh interpreter (single-threaded, so that it may fork) and return the object it prints."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    done = subprocess.run([sys.executable, "-c", head + script, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


KILLED_AT_STEP = """
import json, os, signal
from pathlib import Path
from helpers.datasets import LABELS, draw, fill, plan
from gansegctl.store.manifest import problems_of_dataset
from gansegctl.store.shard import read_shard, shard_done, write_shard
root, seen, old, new = Path(sys.argv[1]), [], plan(("0-1",), masks=False), plan(("0-1",))

def arm(step):
    left = [step]
    def deadly(module, name):
        real = getattr(module, name)
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        setattr(module, name, call)
    for name in ("fsync", "rename", "unlink", "fstat"):
        deadly(os, name)
    import gansegctl.io.atomic as atomic
    deadly(atomic.Path, "unlink")

for step in range(40):
    folder = root / str(step)
    fill(folder, old)                                     # images, which get masks: a shard that is replaced
    new.write(folder)
    child = os.fork()
    if not child:
        arm(step)
        write_shard(folder, 0, draw([0, 1]), LABELS, new.digest)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    done = shard_done(folder, 0, new.digest)
    old_done = shard_done(folder, 0, old.digest)
    bad = done and (read_shard(folder, 0).mask is None or bool(problems_of_dataset(folder)))
    bad = bad or (old_done and read_shard(folder, 0).mask is not None)
    fill(folder, new)
    left = sorted(p.name for p in folder.iterdir())
    seen.append([os.WIFSIGNALED(status), done, old_done, bad, problems_of_dataset(folder), left])
    if not os.WIFSIGNALED(status):
        break
print(json.dumps(seen))
"""


def test_killed_at_every_step(tmp_path):
    seen = run(KILLED_AT_STEP, tmp_path)
    assert len(seen) > 8 and seen[-1][:3] == [False, True, False]  # the last run met no more steps, and is done
    assert all(killed for killed, *_ in seen[:-1])
    for step, (_, done, old_done, bad, problems, left) in enumerate(seen):
        assert not bad and not (done and old_done), step
        assert problems == [], step
        assert left == ["manifest.json", "shard-00000.h5", "shard-00000.json"], step
    assert seen[0][2] and sum(done for _, done, *_ in seen) < len(seen) - 2


KILLED_AT_RANDOM = """
import json, os, random, signal, time
from pathlib import Path
from helpers.datasets import draw, fill, plan
from gansegctl.store.manifest import Manifest, problems_of_dataset
from gansegctl.store.shard import problem_of_shard
folder, chance, kills, bad = Path(sys.argv[1]), random.Random(0), 0, []
manifest = plan(tuple(f"{2 * i}-{2 * i + 1}" for i in range(60)))
while True:
    child = os.fork()
    if not child:
        fill(folder, manifest)
        os._exit(0)
    if kills < 6:
        time.sleep(chance.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        kills += 1
    status = os.waitpid(child, 0)[1]
    if (folder / "manifest.json").exists():
        bad += [p for i in manifest.done(folder) if (p := problem_of_shard(folder, i))]
    if not os.WIFSIGNALED(status) and kills == 6:
        break
print(json.dumps({"kills": kills, "bad": bad}))
"""


def test_killed_at_random(tmp_path):
    told = run(KILLED_AT_RANDOM, tmp_path / "d")
    assert told == {"kills": 6, "bad": []}
    assert problems_of_dataset(tmp_path / "d") == []
    seeds = [s for _, a in iter_shards(tmp_path / "d") for s in a.seed.tolist()]
    assert seeds == list(range(120))
    last = read_shard(tmp_path / "d", 59)
    assert np.array_equal(last.image, draw([118, 119]).image)
    assert not list((tmp_path / "d").glob("*.part.*"))


FULL = """
import json, resource
from pathlib import Path
from helpers.datasets import LABELS, draw, plan
from gansegctl.errors import GansegError
from gansegctl.store.shard import write_shard
folder = Path(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
told = []
for size in (16, 128):
    try:
        write_shard(folder, 0, draw([0, 1], size=size), LABELS, "d")
    except GansegError as e:
        told.append([int(e.status), str(e), sorted(p.name for p in folder.iterdir())])
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
told.append(write_shard(folder, 0, draw([0, 1], size=128), LABELS, "d").count)
print(json.dumps(told))
"""


def test_a_file_too_large_for_the_disk(tmp_path):
    (status, text, left), count = run(FULL, tmp_path)
    assert status == ExitStatus.FAILED and "are free on the disk" in text and "finished shards are kept" in text
    needed = int(text.split("wanted: ")[1].split(" bytes")[0].replace(",", ""))
    assert needed > 2 * 128 * 128 * 3 and left == ["shard-00000.h5", "shard-00000.json"]  # the old one is still whole
    assert count == 2 and len(read_shard(tmp_path, 0)) == 2  # the process lives and goes on


@pytest.mark.parametrize(("code", "words"), [(28, "bytes; "), (122, "quota"), (30, "permissions"), (13, "permissions")])
def test_what_the_disk_says_is_told_and_nothing_half_named_stays(tmp_path, monkeypatch, code, words):
    def refuse(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    with pytest.raises(GansegError, match=words) as e:
        write_shard(tmp_path, 0, draw([0]), LABELS)
    assert e.value.status == ExitStatus.FAILED and os.strerror(code) in str(e.value)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing_half_named(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(tmp_path / "x", b"abc")
    assert not list(tmp_path.iterdir())


def test_the_json_is_written_last_and_goes_before_the_file_it_vouches_for(tmp_path, monkeypatch):
    write_shard(tmp_path, 0, draw([0]), LABELS, "old")
    steps, rename = [], os.rename

    def watch(source, target):
        steps.append((Path(target).suffix, (tmp_path / "shard-00000.json").exists()))
        rename(source, target)

    monkeypatch.setattr(atomic.os, "rename", watch)
    write_shard(tmp_path, 0, draw([1]), LABELS, "new")
    assert steps == [(".h5", False), (".json", False)]


def intruding(monkeypatch, folder: Path, other) -> None:
    """Another process writes the same shard between our file and our json."""
    real = shard.write_bytes

    def write(path, data, retire=None):
        inode = real(path, data, retire)
        if path.suffix == ".h5":
            monkeypatch.setattr(shard, "write_bytes", real)
            write_shard(folder, 0, other, LABELS, "d")
        return inode

    monkeypatch.setattr(shard, "write_bytes", write)


def test_two_writers_of_one_shard_are_told(tmp_path, monkeypatch):
    intruding(monkeypatch, tmp_path, draw([0, 2]))
    with pytest.raises(GansegError, match=r"replaced with other content[\s\S]*--task i/n"):
        write_shard(tmp_path, 0, draw([0, 1]), LABELS, "d")
    assert not shard.shard_done(tmp_path, 0, "d") and shard_path(tmp_path, 0).exists()


def test_two_writers_of_the_same_content_do_no_harm(tmp_path, monkeypatch):
    intruding(monkeypatch, tmp_path, draw([0, 1]))
    record = write_shard(tmp_path, 0, draw([0, 1]), LABELS, "d")
    assert shard.shard_record(tmp_path, 0) == record and shard.problem_of_shard(tmp_path, 0) is None


def test_a_shard_with_a_name_and_no_json_is_made_again(dataset):
    (dataset / "shard-00001.json").unlink()
    shard_path(dataset, 1).write_bytes(b"half")
    with pytest.raises(DatasetError):
        Manifest.read(dataset).require_whole(dataset)
    assert fill(dataset, plan()) == [1]
    assert problems_of_dataset(dataset) == []


def test_a_full_disk_is_explained_before_its_folder_is_there(tmp_path):
    told = atomic.explained(OSError(errno.ENOSPC, "No space left on device"), tmp_path / "a" / "b" / "c.png", 12)
    assert "12 bytes" in str(told) and "are free on the disk" in str(told)
