"""Every preset parses, names its source and licence, and holds only settings that exist."""

from __future__ import annotations

import re

import pytest

from gansegctl import methods, presets
from gansegctl.config import AnnotateSettings, from_dict
from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate.exemplars import known_labels, masks_folder
from gansegctl.pipeline.annotate.stage import check_method
from gansegctl.pipeline.run import read_plan

NAMES = presets.names()
UPSTREAM = [n for n in NAMES if "file" in presets.load(n)["generator"]]
WANTED = {
    "ffhq": 3,
    "celebahq": 1,
    "metfaces": 1,
    "lsun-car": 1,
    "lsun-cat": 1,
    "lsun-horse": 1,
    "lsun-church": 1,
    "afhq-": 3,
    "brecahad": 1,
    "stylegan3-t-": 2,
    "stylegan3-r-": 2,
    "baggage": 1,
}


def test_the_generators_that_people_use_are_there():
    for part, count in WANTED.items():
        assert sum(part in n for n in NAMES) >= count, part
    assert len(NAMES) == len(UPSTREAM) + 2  # the demo brings its weights, baggage has none


@pytest.mark.parametrize("name", NAMES)
def test_its_tables_are_known_settings(name):
    plan, tables = read_plan(name), presets.load(name)
    assert plan.generate.generator == name
    assert plan.annotate is not None
    check_method(plan.annotate)
    method = methods.get(plan.annotate.method)
    from_dict(method.settings_type, plan.annotate.options)
    assert 0 < plan.generate.truncation <= 1
    labels = LabelMap(tuple(tables["exemplars"]["classes"]), tuple(map(tuple, tables["exemplars"]["colours"])))
    assert labels.names[0] == "background"
    assert len(set(labels.colours)) == len(labels)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_would_be_found(name):
    options = presets.load(name)["annotate"].get("options", {}) | {"min_resolutoin": 8}
    with pytest.raises(UsageError, match="min_resolution"):
        check_method(from_dict(AnnotateSettings, presets.load(name)["annotate"] | {"options": options}))


@pytest.mark.parametrize("name", UPSTREAM)
def test_its_source_is_stated_in_words(name):
    brought = presets.load(name)["generator"]
    assert {"file", "published", "licence", "family", "resolution"} <= set(brought)
    assert brought["file"].endswith(".pkl")
    assert brought["family"] in ("stylegan2", "stylegan3")
    assert ("stylegan3" in brought["file"]) == (brought["family"] == "stylegan3") == name.startswith("stylegan3")
    assert "NVIDIA" in brought["published"]
    assert "non-commercial" in brought["licence"]
    size = re.search(r"(\d+)x\d+", brought["file"])
    assert size is None or int(size[1]) == brought["resolution"]
    assert brought["resolution"] in (256, 512, 1024)
    assert "://" not in (presets.folder() / f"{name}.toml").read_text()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "demo"])
def test_it_names_classes_and_brings_no_masks(name, tmp_path):
    """The classes are offered, the masks are the user's: asking for a preset's says so."""
    assert known_labels(None, tmp_path, None, name).names == tuple(presets.load(name)["exemplars"]["classes"])
    with pytest.raises(UsageError, match="a preset that brings its own"):
        masks_folder(name, tmp_path)


def test_large_images_are_made_in_smaller_batches():
    sizes = {presets.load(n)["generator"]["resolution"]: read_plan(n).generate.batch_size for n in UPSTREAM}
    assert sizes[256] > sizes[512] > sizes[1024] >= 1
