"""Students by their pairs, for `make study`: filter, number of pairs, soft targets, another teacher, seeds.

Every student is trained and scored by the commands that are printed, on the demo generator and its own 1-shot masks;
scored on held-out renderings with exact masks. Rows are kept in benchmarks/compare/students.json, one at a time. A row
that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

from gansegctl import presets
from gansegctl.io.atomic import write_text
from gansegctl.io.digest import file_digest

ROWS = Path(__file__).parents[1] / "compare" / "students.json"
PAIRS, HELD_OUT, FIRST_HELD_OUT = 2000, 500, 20_000_000
FIRST_SAMPLE = 13_000_000
TEACHERS = ("oneshot", "linear")
STEPS = 300
VARIANTS: dict[str, tuple[str, tuple[str, ...], tuple[int, ...]]] = {
    "all pairs": ("oneshot", (), (0, 1, 2)),
    "without the least certain 10 %": ("oneshot", ("--drop-uncertain", "0.1"), (0, 1, 2)),
    "250 pairs": ("oneshot", ("--limit", "250"), (0,)),
    "500 pairs": ("oneshot", ("--limit", "500"), (0,)),
    "1,000 pairs": ("oneshot", ("--limit", "1000"), (0,)),
    "soft targets": ("oneshot", ("--soft",), (0,)),
    "soft targets, temperature 2": ("oneshot", ("--soft", "--temperature", "2"), (0,)),
    "of `linear` as teacher": ("linear", (), (0,)),
}
"""By name: the teacher, what `distill` is told besides, seeds."""


def command(*words: object) -> str:
    """Run one command of gansegctl and return what it prints. CalledProcessError where it fails."""
    print("gansegctl", *words, flush=True)
    line = [sys.executable, "-m", "gansegctl", *map(str, words)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def scores(subject: Path, against: object, out: Path, *more: object) -> dict[str, float]:
    """mIoU and wIoU of a subject."""
    told = json.loads(command("eval", subject, "--against", against, "-o", out, "--bootstrap", 0, "--json", *more))
    return {name: told["scores"][name]["score"] for name in ("miou", "wiou_tritrong")}


def study(
    out: Path, rows_file: Path, generator: str, pairs: int = PAIRS, held_out: int = HELD_OUT, steps: int = STEPS
) -> None:
    """Make what is missing of all rows. generator: the digest of the demo's; SystemExit for rows of another."""
    head = {"pairs": pairs, "held_out": held_out, "steps": steps, "generator": generator}
    before = json.loads(rows_file.read_text()) if rows_file.exists() else head | {"rows": []}
    rows = before["rows"]
    if {k: before.get(k) for k in head} != head:
        raise SystemExit(f"{rows_file} is of another generator, or other pairs or steps: delete it to start anew")

    def keep(key: dict, found: dict) -> None:
        rows.append(key | found)
        write_text(rows_file, json.dumps(head | {"rows": rows}, indent=1) + "\n")

    def missing(key: dict) -> bool:
        return not any(key.items() <= r.items() for r in rows)

    held = out / "held-out"
    command("demo", "scenes", "--seeds", f"{FIRST_HELD_OUT}-{FIRST_HELD_OUT + held_out - 1}", "-o", held)
    for teacher in TEACHERS:
        dataset = out / teacher
        command("generate", "--generator", "demo", "-n", pairs, "--batch-size", 32, "-o", dataset)
        command("annotate", dataset, "--shots", 1, "--method", teacher, "--masks", "demo", "--probabilities")
        key = {"variant": f"`{teacher}`, the teacher itself, on samples", "seed": 0}
        if missing(key):
            fresh = ("--generator", "demo", "--seeds", f"{FIRST_SAMPLE}-{FIRST_SAMPLE + 299}")
            keep(key, scores(dataset / "segmenter.safetensors", "demo", out / "eval", *fresh))
    for name, (teacher, more, seeds) in VARIANTS.items():
        for seed in seeds:
            key = {"variant": name, "seed": seed}
            if missing(key):
                student = out / f"{re.sub('[^a-z0-9]+', '-', name.lower())}-{seed}.safetensors"
                about = ("--steps", steps, "--seed", seed, *more)
                command("distill", out / teacher, "-o", student, *about)
                keep(key, scores(student, held, out / "eval"))


def table(rows: list[dict]) -> str:
    """Means over seeds, in the order they were first measured."""
    lines = ["| student of | runs | mIoU | wIoU |", "|---|---|---|---|"]
    for name in dict.fromkeys(r["variant"] for r in rows):
        found = [r for r in rows if r["variant"] == name]
        cells = [name, str(len(found))]
        for score in ("miou", "wiou_tritrong"):
            values = [r[score] for r in found]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("study-out"))
    study(parser.parse_args().out, ROWS, file_digest(presets.resource(presets.load("demo")["generator"]["weights"])))
