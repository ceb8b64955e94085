"""Kill, fill the disk, flip bytes, crowd: `make torture` at length, a slice of it in the tests.

    python tests/helpers/torture.py [--seed 0] [generate=200] [annotate=50] [distill=20] [export=50] [full=30]
                                    [flips=500] [crowd=20]

Every trial ends in files equal to those of an unbroken run, and a student in weights equal within 1e-6; the first that
does not ends the program with status 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load

from gansegctl.cli import main

USUAL = {"generate": 200, "annotate": 50, "distill": 20, "export": 50, "full": 30, "flips": 500, "crowd": 20}
STATUS_FULL = 1
TOLERANCE = 1e-6  # of a student's weights
KILLS = 3  # of one run, before it is left in peace


class Lost(Exception):
    """Something was lost, doubled, or silently wrong."""


said_to = os.devnull
"""Where the words of commands go; the child of a trial may change it for itself."""


def command(*words: object) -> int:
    """A command line in this process → its exit status; what it prints goes to `said_to`."""
    with open(said_to, "w") as to, contextlib.redirect_stdout(to), contextlib.redirect_stderr(to):
        try:
            main([str(w) for w in words])
        except SystemExit as e:
            return int(e.code or 0)
    return 0


def child(work: Callable[[], int]) -> int:
    """Fork, run, return the process number."""
    pid = os.fork()
    if not pid:
        status = 70
        try:
            status = work()
        finally:
            os._exit(status)
    return pid


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same_weights(name: str, got: bytes | None, right: bytes | None) -> bool:
    """Whether two students of the same name have the same weights, within TOLERANCE, and the same header."""
    if name != "student.safetensors" or got is None or right is None:
        return False
    one, two = load(got), load(right)
    headers = [json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"] for data in (got, right)]
    facts = [json.loads(h["gansegctl"]) for h in headers]
    for f in facts:
        f["facts"].pop("loss")
    close = all(torch.allclose(one[k].double(), two[k].double(), atol=TOLERANCE) for k in one if k in two)
    return one.keys() == two.keys() and close and facts[0] == facts[1]


class Torture:
    """A small generator, a dataset without and with masks, made once unbroken; trials against them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.chance = root, random.Random(seed)
        self.generator = root / "generator.safetensors"
        self.make_generator()
        self.plain, self.pairs, self.exported = root / "plain", root / "pairs", root / "exported"
        self.seconds = {"generate": self.timed(self.generate, self.plain)}
        self.masks = root / "masks"
        self.paint()
        self.seconds["annotate"] = self.timed(self.annotate, self.pairs, self.plain)
        self.seconds["export"] = self.timed(self.export, self.exported)
        self.student = root / "student"
        self.seconds["distill"] = self.timed(self.distill, self.student)

    def make_generator(self) -> None:
        """A random StyleGAN2 of 16 px."""
        from gansegctl.generators.stylegan2 import StyleGAN2, StyleGAN2Config
        from gansegctl.generators.weights import save_generator

        torch.manual_seed(0)
        sizes = {"z_dim": 8, "w_dim": 8, "channel_base": 256, "channel_max": 16, "mapping_layers": 2}
        save_generator(StyleGAN2(StyleGAN2Config(resolution=16, **sizes)), self.generator)

    def paint(self) -> None:
        """One exemplar mask."""
        self.masks.mkdir()
        painted = np.zeros((16, 16), np.uint8)
        painted[4:12, 4:12] = 1
        Image.fromarray(painted).save(self.masks / "exemplar-00000003.mask.png")
        rows = [{"id": i, "name": n, "colour": [90 * i] * 3} for i, n in enumerate(("ground", "figure"))]
        (self.masks / "labels.json").write_text(json.dumps(rows))

    def timed(self, work: Callable[[Path], int], out: Path, start: Path | None = None) -> float:
        """Run unbroken, twice, each time from `start`; seconds of the second, which imports nothing any more."""
        for _ in range(2):
            shutil.rmtree(out, ignore_errors=True)
            if start is not None:
                shutil.copytree(start, out)
            began = time.monotonic()
            if work(out) != 0:
                raise Lost(f"{work.__name__} fails when nothing is done to it")
            seconds = time.monotonic() - began
        return seconds

    def generate(self, out: Path, *more: object) -> int:
        return command(
            "generate", "--generator", self.generator, "-n", 24, "--shard-size", 3, "--batch-size", 2, "-o", out, *more
        )

    def annotate(self, out: Path) -> int:
        chosen = ("--masks", self.masks, "--exemplars", 3, "--set", "steps=3")
        return command("annotate", out, "--shots", 1, *chosen)

    def export(self, out: Path) -> int:
        chosen = ("--format", "coco", "--split", "train=0.7,val=0.3", "--licence", "CC0-1.0")
        return command("export", self.pairs, *chosen, "-o", out)

    def distill(self, out: Path) -> int:
        chosen = ("--steps", 60, "--batch-size", 4, "--device", "cpu", "--limit", 12)
        return command("distill", self.pairs, "-o", out / "student.safetensors", *chosen)

    def killed(self, name: str, work: Callable[[Path], int], wanted: Path, start: Path | None = None) -> int:
        """SIGKILL at random moments, up to KILLS times, until a run comes through. Returns the kills, one or more."""
        kills = 0
        while not kills:  # a run that is through before it is hit does not count
            out = self.fresh(start)
            while True:
                pid = child(lambda out=out: work(out))
                if kills < KILLS:
                    time.sleep(self.chance.uniform(0, self.seconds[name]))
                    os.kill(pid, signal.SIGKILL)
                status = os.waitpid(pid, 0)[1]
                if not os.WIFSIGNALED(status):
                    break
                kills += 1
            if status:
                raise Lost(f"{name} ends with status {os.waitstatus_to_exitcode(status)} when it is resumed")
            self.compare(out, wanted, name)
        return kills

    def fresh(self, start: Path | None) -> Path:
        """A folder for a trial: none yet, or a copy of `start`."""
        out = self.root / "trials" / (start or self.exported).name  # the name of a dataset stands in its card
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        if start is not None:
            shutil.copytree(start, out)
        return out

    def compare(self, out: Path, wanted: Path, what: str) -> None:
        """The same files with the same bytes."""
        got, right = files_of(out), files_of(wanted)
        skipped = {"card.md"} if out.name != wanted.name else set()  # a card bears the name of its folder
        for name in sorted((got.keys() | right.keys()) - skipped):
            if got.get(name) != right.get(name) and not same_weights(name, got.get(name), right.get(name)):
                state = "is missing" if name not in got else "is too many" if name not in right else "differs"
                raise Lost(f"{what}: {name} {state}")

    def trial_generate(self) -> int:
        return self.killed("generate", self.generate, self.plain)

    def trial_annotate(self) -> int:
        return self.killed("annotate", self.annotate, self.pairs, self.plain)

    def trial_distill(self) -> int:
        return self.killed("distill", self.distill, self.student)

    def trial_export(self) -> int:
        return self.killed("export", self.export, self.exported)

    def trial_full(self) -> None:
        """A disk that takes no file longer than so much: status 1, nothing half-named; then room, and all is well."""
        name, work, wanted, start = self.chance.choice(
            [
                ("generate", self.generate, self.plain, None),
                ("annotate", self.annotate, self.pairs, self.plain),
                ("export", self.export, self.exported, None),
            ]
        )
        largest = max(len(data) for data in files_of(wanted).values())
        limit = self.chance.randrange(1, largest)
        out = self.fresh(start)
        hear, speak = os.pipe()  # its words to no file: that would be limited too

        def limited() -> int:
            global said_to
            said_to = f"/dev/fd/{speak}"
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return work(out)

        pid = child(limited)
        os.close(speak)
        with open(hear) as said:
            words = said.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if "are free on the disk" not in words:
            raise Lost(f"{name} with files of at most {limit} bytes says {words!r}")
        left = [n for n in files_of(out) if ".part" in n or n.endswith(".claim")] if out.exists() else []
        if status != STATUS_FULL or left:
            raise Lost(f"{name} with files of at most {limit} bytes: status {status}, left {left}")
        if work(out) != 0:
            raise Lost(f"{name} does not go on when there is room again")
        self.compare(out, wanted, f"{name} after a full disk")

    def trial_flips(self) -> None:
        """One byte of a shard or of its json: found, and made good."""
        out = self.root / "flipped" / self.pairs.name
        if not out.exists():
            shutil.copytree(self.pairs, out)
        path = self.chance.choice(sorted([*out.glob("shard-*.h5"), *out.glob("shard-*.json")]))
        whole = path.read_bytes()
        data, place = bytearray(whole), self.chance.randrange(len(whole))
        data[place] ^= 1 << self.chance.randrange(8)
        path.write_bytes(data)
        from gansegctl.store.manifest import bad_shards

        index = int(path.stem.removeprefix("shard-"))
        if list(bad_shards(out)) != [index]:
            raise Lost(f"byte {place} of {path.name} flipped, and bad are {list(bad_shards(out))}")
        if self.chance.random() < 0.04:
            if command("verify", out, "--repair") != 0:
                raise Lost(f"{path.name} is not repaired")
            self.compare(out, self.pairs, "repair")
        path.write_bytes(whole)

    def trial_crowd(self) -> None:
        """Eight tasks over one dataset at once, one of them twice; or two processes that know nothing of each other."""
        out = self.fresh(None)
        tasks = [("--task", f"{i}/8") for i in (*range(8), self.chance.randrange(8))]
        crowd = self.chance.choice([tasks, [(), ()]])
        pids = [child(lambda words=words: self.generate(out, *words)) for words in crowd]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        if any(statuses):
            raise Lost(f"{len(crowd)} processes end with {statuses}")
        self.compare(out, self.plain, f"{len(crowd)} processes on one dataset")


def torture(root: Path, seed: int, trials: dict[str, int], say: Callable[[str], None] = print) -> None:
    """Run so many trials of each kind. Lost for the first that goes wrong."""
    scene = Torture(root, seed)
    for kind, count in trials.items():
        began, kills = time.monotonic(), 0
        for i in range(count):
            try:
                kills += getattr(scene, f"trial_{kind}")() or 0
            except Lost as e:
                raise Lost(f"seed {seed}, {kind} {i + 1} of {count}: {e}") from e
        killed = f", {kills} kills" if kills else ""
        say(f"{kind}: {count} trials{killed}, {time.monotonic() - began:.0f} s, nothing lost")


if __name__ == "__main__":
    torch.set_num_threads(1)
    words = sys.argv[1:]
    seed = int(words.pop(words.index("--seed") + 1)) if "--seed" in words else 0
    chosen = {k: int(v) for k, _, v in (w.partition("=") for w in words if w != "--seed")} or USUAL
    with tempfile.TemporaryDirectory() as folder:
        try:
            torture(Path(folder), seed, chosen)
        except Lost as lost:
            sys.exit(f"LOST {lost}")
