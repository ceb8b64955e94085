"""The measurements of `make study` beside `compare`, and the tables of docs/methods.md made of them all.

`shares`: whether the demo generator draws what it was shown: class shares of its samples and of renderings, kept in
benchmarks/compare/shares.json. The samples' masks are the reference segmenter's, the renderings' exact.
`report`: the tables of docs/methods.md, from that, from the rows of `compare` in benchmarks/compare and its folders
`variants` (methods with other settings, paired with the main rows) and `ablation` (of oneshot, on the exemplars that
its settings were chosen on), and from benchmarks/compare/students.json, which benchmarks/study/students.py writes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

import numpy as np
import torch

from benchmarks.page_blocks import fill
from benchmarks.study import students
from gansegctl import presets
from gansegctl.demo.scenes import LABELS, class_shares, render
from gansegctl.io.atomic import write_text
from gansegctl.pipeline.compare.table import failures, markdown, measured, paired, sign_flip_p, summary
from gansegctl.pipeline.inputs.generators import grouped, latents_of_seeds, open_generator
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.students.student import Student, predict_masks

SHARES = Path(__file__).parents[1] / "compare" / "shares.json"
CONTROLS = "contrastive:projection="
"""How the methods begin that are `contrastive` but for its learned projection."""
BESIDE = ("variants", "ablation")
RANKED = {"mIoU": "miou", "wIoU": "wiou_tritrong", "fg/bg mIoU": "foreground_miou"}
FIRST_SAMPLE, FIRST_RENDERING = 5_000_000, 20_000_000


def shares(count: int) -> dict:
    """Shares of each class in `count` samples and renderings, and their total variation."""
    generator = open_generator("demo")
    reference = Student.load(presets.resource(presets.load("demo")["reference_segmenter"]["weights"]))
    masks = []
    for seeds in grouped(range(FIRST_SAMPLE, FIRST_SAMPLE + count), 50):
        image, _ = image_and_mask(generator, latents_of_seeds(generator, seeds), seeds, "const", None)
        masks.append(predict_masks(reference, image))
    generated = class_shares(torch.from_numpy(np.concatenate(masks)))
    rendered = torch.zeros(len(LABELS), dtype=torch.float64)
    for seeds in grouped(range(FIRST_RENDERING, FIRST_RENDERING + count), 250):
        rendered += class_shares(render(seeds, generator.spec.resolution)[1]) * len(seeds) / count
    table = {n: [float(a), float(b)] for n, a, b in zip(LABELS.names, generated, rendered, strict=True)}
    return {"samples": count, "total_variation": float((generated - rendered).abs().sum() / 2), "shares": table}


def report(rows: list[dict], drawn: dict, page: Path, beside: dict | None = None, taught: list | None = None) -> None:
    """Fill the tables of the page. rows: those of `compare`. drawn: what `shares` says. beside: rows of its folders by
    name. taught: those of the students."""
    for name, more in (beside or {}).items():
        fill(page, name, against_plain(more, rows if name == "variants" else more))
    if taught:
        fill(page, "students", students.table(taught))
    fill(page, "methods", markdown(summary(rows), failures(rows)).strip("\n"))
    fill(page, "lead", lead(rows))
    fill(page, "contrastive", lead(of_contrastive(rows), "contrastive"))
    fill(page, "ranks", ranks(rows))
    fill(page, "shots", by_shots(rows))
    told = (
        f"Class shares of {drawn['samples']:,} samples differ from those of as many renderings by a total variation\n"
        f"of {drawn['total_variation']:.4f}."
    )
    fill(page, "shares", told)


def lead(rows: list[dict], ours: str = "oneshot") -> str:
    """By how many points of mIoU a method leads at one shot, over runs, and over means of the sets of exemplars."""
    lines = ["| against | runs | points | p | sets of exemplars | p |", "|---|---|---|---|---|---|"]
    rows = measured(rows)
    mine = [r for r in rows if r["method"] == ours and r["shots"] == 1]
    for entry in summary([r for r in rows if r["shots"] == 1]):
        if (other := entry["method"]) == ours:
            continue
        theirs = [r for r in rows if r["method"] == other and r["shots"] == 1]
        runs = paired(mine, theirs)
        by_draw: dict[int, list[float]] = {}
        for a in mine:
            pair = paired([a], theirs)
            by_draw.setdefault(a["draw"], []).extend(pair)
        draws = [statistics.mean(d) for d in by_draw.values() if d]
        if runs:
            points, p = 100 * statistics.mean(runs), sign_flip_p(runs)
            cells = (f"`{other}`", len(runs), f"{points:+.1f}", f"{p:.4f}", len(draws), f"{sign_flip_p(draws):.4f}")
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def against_plain(rows: list[dict], plain: list[dict]) -> str:
    """Methods with settings of their own, paired with their plain form among the rows `plain`."""
    lines = [
        "| method | shots | runs | mIoU | wIoU | against its plain form, points | p | gain at 90 %, points |",
        "|---" * 8 + "|",
    ]
    for e in sorted(summary(rows), key=lambda e: (e["method"].partition(":")[0], e["method"], e["shots"])):
        of = [r for r in measured(rows) if (r["method"], r["shots"]) == (e["method"], e["shots"])]
        name = plain_form(e["method"], {r["method"] for r in plain})
        pairs = paired(of, [r for r in plain if (r["method"], r["shots"]) == (name, e["shots"])])
        p = sign_flip_p(pairs)
        cells = [f"`{e['method']}`", e["shots"], e["runs"], f"{e['miou'][0]:.3f}", f"{e['wiou_tritrong'][0]:.3f}"]
        cells += [f"{100 * statistics.mean(pairs):+.1f}" if pairs else "-", "-" if math.isnan(p) else f"{p:.4f}"]
        cells += ["-" if e["gain_10"] is None else f"{e['gain_10']:+.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def plain_form(method: str, among: set[str]) -> str | None:
    """The same method with the most of the first settings: `repurpose:head=mlp` of `repurpose:head=mlp,centre=true`."""
    name, _, settings = method.partition(":")
    shorter = [f"{name}:{','.join(settings.split(',')[:n])}" for n in range(settings.count(","), 0, -1)] + [name]
    return next((form for form in shorter if form in among and form != method), None)


def of_contrastive(rows: list[dict]) -> list[dict]:
    """The rows of `contrastive` and of its controls."""
    return [r for r in rows if r["method"] == "contrastive" or r["method"].startswith(CONTROLS)]


def ranks(rows: list[dict]) -> str:
    """The methods at one shot in the order of each metric, with the means over their runs."""
    entries = summary([r for r in rows if r["shots"] == 1])
    lines = ["| metric | methods at one shot, best first |", "|---|---|"]
    for title, name in RANKED.items():
        order = sorted(entries, key=lambda e: -e[name][0])
        lines.append(f"| {title} | " + (", ".join(f"`{e['method']}` {e[name][0]:.3f}" for e in order) or "-") + " |")
    return "\n".join(lines)


def by_shots(rows: list[dict]) -> str:
    """mIoU and wIoU of each method that was run with several numbers of shots."""
    rows = measured(rows)
    counts = sorted({r["shots"] for r in rows if r["shots"]})
    head = [f"{n} shot{'s' * (n > 1)}" for n in counts]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(counts) + 1) + "|"]
    names = dict.fromkeys(r["method"] for r in rows if r["shots"])
    for name in sorted(names, key=lambda n: -max(_scores(rows, n, counts[0]) or [0.0])):
        cells = []
        for n in counts:
            found = _scores(rows, name, n), _scores(rows, name, n, "wiou_tritrong")
            spread = f" ± {statistics.stdev(found[0]):.3f}" if len(found[0]) > 1 else ""
            mean = f"{statistics.mean(found[0]):.3f}{spread} / {statistics.mean(found[1]):.3f}" if found[0] else "-"
            cells.append(f"{mean} ({len(found[0])})" if found[0] else mean)
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _scores(rows: list[dict], method: str, shots: int, name: str = "miou") -> list[float]:
    return [r[name] for r in rows if r["method"] == method and r["shots"] == shots]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["shares", "report"])
    parser.add_argument("-n", "--num", type=int, default=5000, help="samples, and renderings")
    a = parser.parse_args(arguments)
    if a.what == "shares":
        write_text(SHARES, json.dumps(shares(a.num), indent=1) + "\n")
        return
    folder = SHARES.parent
    found = {name: folder / name / "rows.json" for name in ("", *BESIDE)}
    rows = {name: json.loads(path.read_text())["rows"] for name, path in found.items() if path.exists()}
    taught = folder / students.ROWS.name
    taught = json.loads(taught.read_text())["rows"] if taught.exists() else None
    report(rows.pop(""), json.loads(SHARES.read_text()), folder.parent / "methods.md", rows, taught)


if __name__ == "__main__":
    main()
