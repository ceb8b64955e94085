"""README.md of an export: licence, provenance, classes, how to open it."""

from __future__ import annotations

from types import ModuleType

from gansegctl.store.export.base import About

SHEET = "contact.png"


def readme(module: ModuleType, about: About) -> str:
    """The card as Markdown; with front matter where the format has some."""
    g, s, chosen = about.manifest.generator, about.manifest.segmenter or {}, about.settings
    parts = ", ".join(f"{n:,} in {split}" for split, n in about.counts.items())
    shots = "" if s.get("shots") is None else f", {s['shots']} exemplar(s)"
    kept = [t for t in (chosen.where, *(f"at least {m} pixels" for m in chosen.min_class)) if t]
    lines = [
        *(module.front_matter(about) if hasattr(module, "front_matter") else ()),
        f"# {about.name}",
        "",
        f"{sum(about.counts.values()):,} generated images of {g.get('resolution')} px with masks ({parts}), in the "
        f"layout of {chosen.format}.",
        "",
        "| | |",
        "|---|---|",
        f"| licence | {_cell(about.licence)} |",
        f"| generator | {_cell(g.get('name'))} ({g.get('family')}), sha256 `{g.get('sha256')}` |",
        f"| masks by | {s.get('method')}{shots}, sha256 `{s.get('sha256')}` |",
        f"| dataset | settings digest `{about.manifest.digest}` |",
        f"| kept | {_cell('; '.join(kept)) if kept else 'every sample'} |",
        f"| split | {chosen.split}, seed {chosen.split_seed} |",
        "",
        "| id | class | share of pixels |",
        "|---|---|---|",
    ]
    whole = max(1, sum(about.class_pixels))
    lines += [
        f"| {k} | {_cell(n)} | {100 * about.class_pixels[k] / whole:.2f} % |" for k, n in enumerate(about.labels.names)
    ]
    lines += ["", "Images and masks are machine-made; masks are predictions. 255 marks pixels to ignore.", ""]
    lines += module.notes(about)
    if sum(about.counts.values()):
        lines += ["", f"![contact sheet]({SHEET})"]
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
