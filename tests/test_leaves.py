"""The leaves: settings, labels, errors, presets."""

from __future__ import annotations

import pytest

from gansegctl import choices, methods, presets
from gansegctl.config import AnnotateSettings, DistillSettings, EvalSettings, GenerateSettings, from_dict, to_dict
from gansegctl.errors import DatasetError, DeviceError, ExitStatus, GansegError, UsageError, did_you_mean
from gansegctl.generators.stylegan2 import HALVES
from gansegctl.kernels import backend
from gansegctl.labels import LabelMap, default_palette
from gansegctl.methods.base.heads import HEADS
from gansegctl.pipeline.predict import FILES
from gansegctl.pipeline.run import read_plan
from gansegctl.store.export import get_format
from gansegctl.students.augment import PRESETS
from gansegctl.students.student import ARCHITECTURES


def test_settings_round_trip_and_refuse_what_they_do_not_know():
    for cls in (GenerateSettings, AnnotateSettings, DistillSettings, EvalSettings):
        assert from_dict(cls, to_dict(cls())) == cls()
    with pytest.raises(UsageError, match=r"run\.generate\.batchsize(.|\n)*did you mean 'batch_size'"):
        from_dict(GenerateSettings, {"batchsize": 3}, "run.generate")
    for bad in ({"batch_size": "3"}, {"batch_size": True}, {"batch_size": 0}, {"noise": "free"}, {"shard_size": -1}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            from_dict(GenerateSettings, bad)
    with pytest.raises(UsageError, match="a table"):
        from_dict(GenerateSettings, 3)
    assert from_dict(GenerateSettings, {"truncation": 1}).truncation == 1


def test_what_can_be_chosen_is_what_there_is():
    assert set(choices.METHODS) == set(methods.METHODS)
    assert set(choices.HEADS) == set(HEADS)
    assert set(choices.BACKENDS) == set(backend.BACKENDS)
    assert set(choices.PRECISIONS) == set(HALVES)
    assert set(choices.ARCHITECTURES) == set(ARCHITECTURES)
    assert set(choices.VARIATIONS) == set(PRESETS)
    assert set(choices.OUTPUTS) == set(FILES)
    assert all(get_format(name).encode for name in choices.FORMATS)


def test_labels_go_by_name():
    labels = LabelMap(("a", "b", "c"))
    assert labels.index("c") == 2
    assert LabelMap.from_json(labels.to_json()[::-1]) == labels
    assert len(labels.flat_palette()) == 768
    assert len(set(default_palette(20))) == 20
    with pytest.raises(UsageError, match="did you mean 'nose'"):
        LabelMap(("nose", "ear")).index("nosee")
    for names, colours in ((("a", "a"), ()), ((), ()), (("a", ""), ()), (("a",), ((0, 0, 0), (1, 1, 1)))):
        with pytest.raises(UsageError):
            LabelMap(names, colours)
    with pytest.raises(UsageError, match="256 classes"):
        LabelMap(tuple(map(str, range(256))))


def test_errors_say_got_wanted_remedy_and_their_status():
    error = GansegError("got 3", wanted="4", remedy="add one")
    assert str(error) == "got 3\n  wanted: 4\n  remedy: add one"
    assert [e("x").status for e in (GansegError, UsageError, DeviceError, DatasetError)] == [1, 2, 3, 4]
    assert (ExitStatus.INTERRUPTED, ExitStatus.TERMINATED) == (130, 143)
    assert did_you_mean("xyzzy", ["a", "b"]) == "known: a, b"


def test_every_preset_is_whole():
    assert "demo" in presets.names()
    for name in presets.names():
        plan = read_plan(name)
        tables = presets.load(name)
        assert plan.generate.generator == name
        for table in ("generator", "reference_segmenter"):
            if "weights" in tables.get(table, {}):
                assert presets.resource(tables[table]["weights"]).stat().st_size > 1000
        for seed in tables.get("exemplars", {}).get("seeds", []):
            assert presets.resource(f"{name}-exemplar-{seed:08d}.mask.png").is_file()
    with pytest.raises(UsageError, match="did you mean 'demo'"):
        presets.load("demmo")
    with pytest.raises(UsageError, match="reinstall"):
        presets.resource("none.bin")
