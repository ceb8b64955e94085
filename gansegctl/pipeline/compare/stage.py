"""The stage `compare`: methods x shots x exemplars x seeds on one generator and one truth, resumable run by run.

A method that fails is named in its row, and the others are measured all the same.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansegctl import methods
from gansegctl.contracts import Method, Progress, Stage
from gansegctl.errors import GansegError
from gansegctl.io.atomic import write_bytes, write_text
from gansegctl.io.image import save_png
from gansegctl.io.run_folder import read_record, require_same
from gansegctl.pipeline.compare.measure import SHOWN, CompareSettings, Comparison, SettingsChanged, parse_method
from gansegctl.pipeline.compare.table import measured, summary
from gansegctl.pipeline.generate.batch_size import is_out_of_memory
from gansegctl.visualize.sheets import overlay, panel_sheet

ROWS, SHEET = "rows.json", "sheet.png"
LONGEST = 600  # characters of an error that are kept

Run = tuple[str, int, int, int]
"""Method, shots, draw, seed: what names a row."""
Row = dict[str, Any]


def compare(settings: CompareSettings, out: Path, device: str = "cpu", retry: bool = False) -> Stage[list[Row]]:
    """Measure the runs that OUT/rows.json lacks; each row is kept as soon as it is measured. OUT/sheet.png at the end.

    Returns all rows of OUT, also those of other commands.

    A run that fails, or that memory is too small for, becomes a row {method, shots, draw, seed, failed}, and the next
    one follows. retry: runs that failed before are made again. Errors: UsageError when OUT was begun with another
    generator, truth, samples or truncation, or a method's finished rows were fitted with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(settings, device)
    head = {
        "generator": comparison.generator.sha256,
        "against": comparison.truth_digest,
        "samples": [settings.first_sample, settings.num],
        "first_exemplar": settings.first_exemplar,
        "truncation": settings.truncation,
    }
    rows = {_key(r): r for r in read_rows(out, head)}
    done = {run for run, row in rows.items() if not (retry and "failed" in row)}
    runs = runs_of(settings)
    for i, run in enumerate(runs):
        if run not in done:
            rows[run], masks = _measure(comparison, run, list(rows.values()))
            if masks is not None and run[2] == run[3] == 0:  # before its row, which says that all of it is there
                stream = io.BytesIO()
                np.savez_compressed(stream, masks=masks)
                write_bytes(out / _sheet_name(*run[:2]), stream.getvalue())
            write_text(out / ROWS, json.dumps(head | {"rows": list(rows.values())}, indent=1) + "\n")
        facts = {k: v for k, v in rows[run].items() if k in ("method", "shots", "miou")}
        if "failed" in rows[run]:
            facts["note"] = "failed: " + rows[run]["failed"].split("\n")[0]
        yield Progress("compare", i + 1, len(runs), "runs", facts)
    _write_sheet(comparison, out, list(rows.values()))
    return list(rows.values())


def runs_of(settings: CompareSettings) -> list[Run]:
    """All runs that the settings ask for, each once, in the order they are made."""
    runs = [
        (text, shots, draw, seed)
        for shots in settings.shots
        for draw in range(settings.draws)
        for seed in range(settings.seeds)
        for text in settings.methods
        if fits(methods.get(parse_method(text)[0]), shots)
    ]
    return list(dict.fromkeys(runs))


def failed_runs(settings: CompareSettings, rows: Sequence[Row]) -> list[Row]:
    """Of the rows that the settings ask for, those without scores."""
    asked = set(runs_of(settings))
    return [r for r in rows if "failed" in r and _key(r) in asked]


def _measure(comparison: Comparison, run: Run, rows: Sequence[Row]) -> tuple[Row, np.ndarray | None]:
    """A row of scores and the masks to show, or one that says why there are none."""
    known = (r["settings_digest"] for r in measured(rows) if _key(r)[:2] == run[:2])
    try:
        return comparison.run(*run, known=next(filter(None, known), None))
    except Exception as e:
        if isinstance(e, SettingsChanged) or not (isinstance(e, GansegError) or is_out_of_memory(e)):
            raise
        text = str(e) if isinstance(e, GansegError) else f"{type(e).__name__}: {e}"
        return dict(zip(("method", "shots", "draw", "seed"), run, strict=True)) | {"failed": text[:LONGEST]}, None


def read_rows(out: Path, head: dict[str, Any] | None = None) -> list[Row]:
    """The rows measured before. head: what they must have been measured on, else UsageError; None for anything."""
    path = out / ROWS
    if not path.exists():
        return []
    before = read_record(path)
    rows = before.pop("rows", [])
    if head is not None:
        require_same(before, head, path, remedy="choose another -o, or delete it")
    return rows


def fits(method: Method, shots: int) -> bool:
    """Whether a method can be run with that many exemplars."""
    return shots > 0 if "exemplars" in method.needs else shots == 0 or "exemplars" in method.takes


def _key(row: Row) -> Run:
    return row["method"], row["shots"], row["draw"], row["seed"]


def _sheet_name(text: str, shots: int) -> str:
    plain = "".join(c if c.isalnum() else "-" for c in text)
    return f"masks-{plain}-{shots}.npz"


def _write_sheet(comparison: Comparison, out: Path, measurements: Sequence[Row]) -> None:
    """One row a method and number of shots in the order of `summary`, one column a sample; the truth first.

    Shown is the first run of each, with whatever command it was made.
    """
    labels, shown = comparison.reference.labels, comparison.images[:SHOWN]
    rows = [("truth", comparison.masks[:SHOWN])]
    first = {_key(r)[:2] for r in measured(measurements) if r["draw"] == r["seed"] == 0}
    for entry in summary(measurements):
        text, shots = entry["method"], entry["shots"]
        path = out / _sheet_name(text, shots)
        if (text, shots) in first and path.exists():
            with np.load(path) as stored:
                rows.append((f"{text}, {shots} shots", stored["masks"]))
    panels = [[overlay(image, mask, labels) for image, mask in zip(shown, masks, strict=False)] for _, masks in rows]
    headings = [f"seed {s}" for s in comparison.samples[: len(shown)]]
    legend = list(zip(labels.names, labels.colours, strict=True))
    save_png(out / SHEET, panel_sheet([list(shown), *panels], headings, ["images", *(n for n, _ in rows)], legend))
