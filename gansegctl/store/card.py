"""card.md: where a dataset comes from, under which licence, what its classes are and how often they occur."""

from __future__ import annotations

from pathlib import Path

from gansegctl.io.atomic import write_bytes
from gansegctl.store.manifest import Manifest
from gansegctl.store.shard import shard_record


def write_card(folder: Path, contact_sheet: str | None = None) -> Path:
    """Write the card of a dataset from its manifest and the records of its finished shards.

    contact_sheet: file name of an image in the same folder.
    """
    manifest = Manifest.read(folder)
    records = [r for r in (shard_record(folder, i) for i in manifest.done(folder)) if r]
    missing = len(manifest.shards) - len(records)
    unfinished = f" **Unfinished: {missing} more are planned.**" if missing else ""
    g = manifest.generator
    lines = [
        f"# {folder.resolve().name}",
        "",
        f"{sum(r.count for r in records):,} generated images{' with masks' if manifest.labels else ''}, "
        f"{g.get('resolution')} px, in {len(records)} shards.{unfinished}",
        "",
        "| | |",
        "|---|---|",
        f"| generator | {g.get('name')} ({g.get('family')}), sha256 `{g.get('sha256')}` |",
        f"| licence | {manifest.licence or 'not stated: ask whoever made the generator'} |",
        f"| settings | digest `{manifest.digest}`, in full in manifest.json |",
    ]
    choice = manifest.facts.get("choice")
    if choice:
        lines.append(f"| chosen | {choice['kept']:,} of {choice['candidates']:,} samples: {_rule(manifest)} |")
    if manifest.segmenter:
        s = manifest.segmenter
        shots = "" if s.get("shots") is None else f", {s['shots']} exemplar(s)"
        lines.append(f"| masks by | {s.get('method')}{shots}, sha256 `{s.get('sha256')}` |")
    if manifest.labels:
        totals = [sum(r.class_histogram[k] for r in records if r.class_histogram) for k in range(len(manifest.labels))]
        whole = max(1, sum(totals))
        lines += ["", "| id | class | share of pixels |", "|---|---|---|"]
        lines += [
            f"| {k} | {_cell(n)} | {100 * totals[k] / whole:.2f} % |" for k, n in enumerate(manifest.labels.names)
        ]
        lines += ["", "Masks are predictions. 255 marks pixels to ignore."]
    if contact_sheet:
        lines += ["", f"![contact sheet]({contact_sheet})"]
    path = folder / "card.md"
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def _cell(text: str) -> str:
    """Text in a table of Markdown, where a bar would begin another column."""
    return text.replace("|", "\\|")


def _rule(manifest: Manifest) -> str:
    settings = manifest.settings["generate"]
    below = [f"score below {settings['keep_below']:g}"] if "keep_below" in settings else []
    return ", ".join(below + [f"until {n:,} show {name}" for name, n in settings.get("until", {}).items()])
