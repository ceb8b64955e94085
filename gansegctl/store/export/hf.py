"""Hugging Face imagefolder: images and masks beside a metadata.jsonl a split, and a card with front matter."""

from __future__ import annotations

import json
import re
from typing import Any

from gansegctl.store.export.base import (
    About,
    Encoded,
    Encoding,
    Index,
    Rows,
    Sample,
    id_table,
    image_png,
    lines,
    pretty,
)

PALETTE, PACKED = False, False
LICENCES = re.compile(
    r"apache-2\.0|mit|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.0|bsd-[23]-clause|[al]?gpl-3\.0|openrail|pddl|odbl|unlicense"
)
"""Licence ids that the hub's front matter takes; any other goes there as `other` with its name."""
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)


def encode(sample: Sample, encoding: Encoding) -> Encoded:
    """SPLIT/images/STEM.png and SPLIT/masks/STEM.png."""
    return Encoded(
        (
            (f"{sample.split}/images/{sample.stem}.png", image_png(sample.image)),
            (f"{sample.split}/masks/{sample.stem}.png", encoding.mask_png(sample.mask)),
        )
    )


def index(rows: Rows, about: About) -> Index:
    """metadata.jsonl in each split's folder, which makes the columns `image` and `annotation`; id2label.json."""
    for split in about.splits:
        if about.counts[split]:
            yield f"{split}/metadata.jsonl", lines(json.dumps(_line(row)) for row in rows(split))
    yield "id2label.json", pretty(id_table(about.labels))


def _line(row: dict[str, Any]) -> dict[str, Any]:
    files = {"image_file_name": f"images/{row['stem']}.png", "annotation_file_name": f"masks/{row['stem']}.png"}
    return files | {"seed": row["seed"], "score": row["score"]}


def front_matter(about: About) -> list[str]:
    """The YAML at the head of the card."""
    total = sum(about.counts.values())
    known = about.licence.strip().lower()
    licence = (
        ["license: " + known]
        if LICENCES.fullmatch(known)
        else ["license: other", f"license_name: {_yaml(about.licence)}"]
    )
    parts = [
        line
        for split in about.splits
        if about.counts[split]
        for line in (f"  - split: {split}", f'    path: "{split}/**"')
    ]
    return [
        "---",
        *licence,
        "task_categories:",
        "- image-segmentation",
        "annotations_creators:",
        "- machine-generated",
        "size_categories:",
        "- " + next((name for limit, name in SIZES if total < limit), "1B<n<10B"),
        "tags:",
        "- synthetic",
        f"pretty_name: {_yaml(about.name)}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *parts,
        "---",
        "",
    ]


def _yaml(text: str) -> str:
    return json.dumps(text)  # a JSON string is a YAML string


def notes(about: About) -> list[str]:
    """How to open it."""
    return [
        '`datasets.load_dataset("FOLDER")` gives the columns `image`, `annotation` (pixel value = class id), `seed`, '
        "`score`; the names of the ids are in `id2label.json`."
    ]
