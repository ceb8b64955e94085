"""Altered checkpoints: `python tests/helpers/checkpoints/fuzz.py --num 20000 --seed 0`.

Case i of a seed is a fixture with one to four mutations: flipped bits, truncation, spliced opcodes, absurd sizes,
deleted, doubled and moved slices; in archives also with all checksums made right again. A case passes if reading it
and asking for its generator ends in one of

- equal: the content is that of the fixture, value by value;
- harmless: it reads, but a number, a text or tensor values differ: the formats without checksums cannot tell such a
  change from what a trainer wrote. Every tensor of it can be read to its last element, and what came out consists of
  plain values, tensors and records alone;
- refused: a documented `GansegError` with a remedy;

and if, while it was read, nothing was imported, executed, written or started, it took at most 5 s, and no allocation
failed with address space for twice the file and 64 MiB left. Anything else stops the run and keeps the file.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import math
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script; under pytest it is there already

from helpers.checkpoints import authoring
from helpers.checkpoints.watching import watch

from gansegctl.errors import GansegError
from gansegctl.generators.checkpoints.containers.reading import read
from gansegctl.generators.checkpoints.families.nvlabs import generator_record, is_snapshot
from gansegctl.generators.checkpoints.unpickle.inert import Inert, Named

SECONDS = 5
SLACK = 64 << 20
SPLICES = (
    b".", b"0", b"1", b"2", b"(", b")", b"]", b"}", b"a", b"e", b"s", b"u", b"b", b"R", b"\x81", b"\x92", b"o",
    b"t", b"\x85", b"\x86", b"\x87", b"\x93", b"\x94", b"N", b"\x88", b"Q", b"P1\n", b"\x82\x01", b"\x97",
    b"\x98", b"\x8f", b"\x90", b"\x91", b"h\x00", b"h\x01", b"j\x00\x01\x00\x00", b"q\x00", b"K\x00",
    b"J\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f", b"cos\nsystem\n", b"cbuiltins\neval\n",
    b"cbuiltins\nexec\n(X\x08\x00\x00\x00import xtR", b"ctorch\nload\n",
    b"cposix\nsystem\n(X\x04\x00\x00\x00truetR", b"ios\nsystem\n", b"ccopyreg\n__newobj__\n",
    b"cnumpy\ndtype\n", b"ctorch.storage\n_load_from_bytes\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n)R", b"X\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8, b"\x95" + b"\xff" * 8,
    b"\x95" + b"\x00" * 8, b"]" * 300, b"(" * 300, b"\x94" * 300, b"2" * 300, b"}b", b"]b", b"I1\n", b"L9L\n",
    b"F1\n", b"S'a'\n", b"Va\n", b"p0\n", b"g0\n",
)  # fmt: skip
ABSURD = (0, 1, 127, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


class Hang(BaseException):
    """A case took too long; no handler of the product catches this."""


def flip(random_: random.Random, data: bytearray) -> None:
    for _ in range(random_.choice((1, 1, 2, 8))):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)


def truncate(random_: random.Random, data: bytearray) -> None:
    del data[random_.randrange(len(data)) :]


def splice(random_: random.Random, data: bytearray) -> None:
    at, snippet = random_.randrange(len(data)), random_.choice(SPLICES)
    data[at : at + random_.choice((0, len(snippet)))] = snippet


def enlarge(random_: random.Random, data: bytearray) -> None:
    layout = random_.choice(("<B", "<H", "<I", "<I", "<Q", ">I"))
    size = struct.calcsize(layout)
    at = random_.randrange(max(1, len(data) - size))
    data[at : at + size] = struct.pack(layout, random_.choice(ABSURD) & ((1 << 8 * size) - 1))


def delete(random_: random.Random, data: bytearray) -> None:
    at = random_.randrange(len(data))
    del data[at : at + random_.choice((1, 2, 4, 16, 200))]


def double(random_: random.Random, data: bytearray) -> None:
    at, size = random_.randrange(len(data)), random_.choice((1, 3, 10, 100, 2000))
    data[at:at] = bytes(data[at : at + size]) * random_.choice((1, 1, 5))


def move(random_: random.Random, data: bytearray) -> None:
    at, size = random_.randrange(len(data)), random_.choice((1, 5, 50))
    piece = bytes(data[at : at + size])
    to = random_.randrange(len(data))
    data[to : to + len(piece)] = piece


MUTATIONS = (flip, flip, truncate, splice, splice, enlarge, enlarge, delete, double, move)


def mutated(random_: random.Random, content: bytes) -> bytes:
    """The content with one to four mutations; half of those of an archive within an entry, checksums made right."""
    if content[:2] == b"PK" and random_.random() < 0.6:
        entries = {}
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                entries[name] = archive.read(name)
        chosen = random_.choice([n for n in entries if n.endswith("data.pkl")] * len(entries) + list(entries))
        entries[chosen] = _changed(random_, entries[chosen])
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, entry in entries.items():
                archive.writestr(zipfile.ZipInfo(name), entry)
        return out.getvalue()
    return _changed(random_, content)


def _changed(random_: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        if data:
            random_.choice(MUTATIONS)(random_, data)
    return bytes(data)


def equal(a: Any, b: Any, seen: set[tuple[int, int]] | None = None) -> bool:
    """Whether two values are the same in type, structure and every number; NaN equals NaN."""
    seen = set() if seen is None else seen
    if (id(a), id(b)) in seen:
        return True
    seen.add((id(a), id(b)))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
        return same and _bytes(a) == _bytes(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(map(str, a)) == list(map(str, b)) and all(
            equal(x, y, seen) for x, y in zip(a.values(), b.values(), strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y, seen) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Inert):
        ours = (a.name, a.kind, a.args, a.kwargs, a.state, a.items, a.entries, a.source_sha256)
        theirs = (b.name, b.kind, b.args, b.kwargs, b.state, b.items, b.entries, b.source_sha256)
        return equal(ours, theirs, seen)
    if isinstance(a, Named):
        return a.name == b.name
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


PLAIN = (str, int, float, bool, type(None), bytes, memoryview, complex, torch.dtype, np.dtype, Named)


def touch(value: Any) -> None:
    """Read every tensor to its end; TypeError for anything that is not data."""
    pending, seen = [value], set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            _bytes(part)
        elif isinstance(part, dict):
            pending += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            pending += part
        elif isinstance(part, Inert):
            pending += [part.args, part.kwargs, part.state, part.items, part.entries]
        elif isinstance(part, np.ndarray):
            part.tobytes()
        elif not isinstance(part, PLAIN) and type(part).__name__ != "Storage":
            raise TypeError(f"{type(part)} came out of a checkpoint")


def judge(path: Path, original: Any) -> str:
    """ "equal", "harmless" or "refused"; any other exception is a finding."""
    with watch() as seen:
        try:
            loaded = read(path)
            if is_snapshot(loaded.value):
                with contextlib.suppress(GansegError):
                    generator_record(loaded)
            touch(loaded.value)
            outcome = "equal" if equal(loaded.value, original) else "harmless"
        except GansegError as error:
            cause = error.__cause__
            if isinstance(cause, MemoryError | RecursionError) or "memory" in str(cause).lower():
                raise RuntimeError("memory or stack ran out before a limit did") from error
            if not error.remedy:
                raise RuntimeError("an error without a remedy") from error
            outcome = "refused"
    if seen:
        raise RuntimeError(f"reading did more than read: {seen[:3]}")
    return outcome


@contextlib.contextmanager
def bounded(memory: int) -> Iterator[None]:
    """At most `memory` more bytes of address space, and an alarm that raises `Hang`."""

    def ring(*_: Any) -> None:
        raise Hang

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    old_limit, old_handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, old_limit[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, old_limit)
        signal.signal(signal.SIGALRM, old_handler)


def run(
    num: int, seed: int, folder: Path, tell: Callable[[str], None] = lambda line: None, first: int = 0
) -> collections.Counter:
    """How many of cases `first` to `num` - 1 ended how; RuntimeError with the case and its file at a finding."""
    fixtures = list(authoring.fixtures(resolution=8))
    originals = []
    for name, content in fixtures:
        path = folder / name
        path.write_bytes(content)
        originals.append(read(path).value)
        judge_warmly(path, originals[-1])
    outcomes, slowest, path = collections.Counter(), 0.0, folder / "case"
    largest = max(len(content) for _, content in fixtures)
    with bounded(2 * largest + SLACK):
        for i in range(first, num):
            random_ = random.Random(f"{seed}-{i}")
            which = random_.randrange(len(fixtures))
            path.write_bytes(mutated(random_, fixtures[which][1]))
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            start = time.perf_counter()
            try:
                outcome = judge(path, originals[which])
            except BaseException as error:
                signal.setitimer(signal.ITIMER_REAL, 0)
                if isinstance(error, KeyboardInterrupt):
                    raise
                kept = path.with_name(f"finding-{seed}-{i}-{fixtures[which][0]}")
                path.rename(kept)
                raise RuntimeError(
                    f"case {i} of seed {seed}: {type(error).__name__}: {error}; kept as {kept}"
                ) from error
            signal.setitimer(signal.ITIMER_REAL, 0)
            slowest = max(slowest, time.perf_counter() - start)
            outcomes[outcome] += 1
            if (i + 1) % 1000 == 0:
                tell(f"{i + 1} cases: {dict(outcomes)}, slowest {slowest:.2f} s")
    return outcomes


def judge_warmly(path: Path, original: Any) -> None:
    """The fixture itself must be equal; the first uses of torch and numpy, which import, are then over."""
    with contextlib.suppress(RuntimeError):
        judge(path, original)
    if judge(path, original) != "equal":
        raise RuntimeError(f"{path.name} does not read equal twice")


def main() -> int:
    """Exit status 0 when every case passed."""
    parser = argparse.ArgumentParser(description="read altered checkpoints")
    parser.add_argument("--num", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the case to begin with, to see a finding again")
    parser.add_argument("--folder", type=Path, help="where findings are kept (default: a new temporary folder)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    try:
        outcomes = run(options.num, options.seed, folder, lambda line: print(line, flush=True), options.first)
    except RuntimeError:
        traceback.print_exc()
        return 1
    print(f"cases {options.first} to {options.num - 1} of seed {options.seed}: {dict(outcomes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
