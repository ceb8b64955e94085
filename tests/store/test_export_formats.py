"""What the formats say of odd datasets, and of exports that were killed elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import draw, plan
from helpers.exports import files_of, make, put

from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.export import export
from gansegctl.store.export.base import ExportSettings
from gansegctl.store.shard import write_shard


def squares(folder: Path, labels: LabelMap) -> Path:
    """Four pairs with 35 pixels of class 1."""
    manifest = replace(plan(("0-3",)), labels=labels, licence="CC0-1.0")
    manifest.begin(folder)
    mask = np.zeros((4, 16, 16), np.uint8)
    mask[:, 4:9, 5:12] = 1
    write_shard(folder, 0, replace(draw(range(4)), mask=mask), labels, manifest.digest)
    return folder


@pytest.mark.parametrize("names", [("background", "one"), ("segment-0", "segment-1")])
def test_clusters_have_no_background_to_leave_out(tmp_path, names):
    dataset = squares(tmp_path / "d", LabelMap(names))
    left_out = int(names[0] == "background")
    coco = json.loads((put(dataset, tmp_path / "c", "coco") / "annotations/instances_train.json").read_text())
    assert [(c["id"], c["name"]) for c in coco["categories"]] == list(enumerate(names[left_out:], start=1))
    areas = {a["category_id"]: a["area"] for a in coco["annotations"]}
    assert areas == ({1: 35} if left_out else {1: 256 - 35, 2: 35})
    yolo = put(dataset, tmp_path / "y", "yolo")
    rows = next((yolo / "labels/train").iterdir()).read_text().splitlines()
    assert {int(r.split()[0]) for r in rows} == set(range(len(names) - left_out))
    assert f'0: "{names[left_out]}"' in (yolo / "data.yaml").read_text()


@pytest.mark.parametrize("name", ["two\nlines", "a\tb", "nul\0"])
def test_names_that_would_break_a_line_are_refused(name):
    with pytest.raises(UsageError, match="control characters"):
        LabelMap(("background", name))


def test_a_colon_in_a_name_ends_no_field_of_vocs_labelmap(tmp_path):
    dataset = squares(tmp_path / "d", LabelMap(("background", "tree: oak")))
    table = (put(dataset, tmp_path / "v", "voc") / "labelmap.txt").read_text()
    assert "tree_ oak:" in table and all(line.count(":") == 3 for line in table.splitlines()[1:])


def test_what_a_killed_process_of_another_host_left_is_not_in_the_export(tmp_path):
    dataset, out = make(tmp_path / "d"), tmp_path / "o"
    events = export(dataset, out, ExportSettings("png"))
    next(events)
    events.close()
    assert not (out / "export.json").exists()
    left = out / "images" / "00000000.png.part.other-node.77"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    assert files_of(put(dataset, out, "png")).keys() == files_of(put(dataset, tmp_path / "p", "png")).keys()
    assert not left.exists()
