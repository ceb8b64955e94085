"""Sizes, architecture and gains inferred from bare tensors, and the values that have to be filled in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.checkpoints.foreign import tensorflow_variables, tiny, weights

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.families import tensorflow
from gansegctl.generators.checkpoints.families.layout import (
    Assumptions,
    as_float,
    check_sizes,
    fill_in,
    is_state_dict,
    stylegan2_record,
    without_prefix,
)


@pytest.fixture
def tensors():
    return weights(tiny(c_dim=3, mapping_layers=3))


def test_sizes_are_inferred(tensors):
    record = stylegan2_record(tensors, 256.0)
    wanted = {"z_dim": 8, "w_dim": 8, "c_dim": 3, "img_resolution": 16, "img_channels": 3, "num_ws": 6}
    assert wanted.items() <= record.attributes.items()
    assert record.children["mapping"].attributes["num_layers"] == 3
    state = record.state_dict()
    assert set(state) == set(tensors)
    assert all(torch.equal(state[k], v) for k, v in tensors.items())


def test_gains_are_those_of_equalised_layers(tensors):
    record = stylegan2_record(tensors, None, lr_multiplier=0.02)
    dense = record.children["mapping"].children["fc1"].attributes
    assert dense["weight_gain"] == pytest.approx(0.02 / math.sqrt(8))
    assert dense["bias_gain"] == 0.02
    rgb = record.children["synthesis"].children["b16"].children["torgb"]
    assert rgb.attributes["weight_gain"] == pytest.approx(1 / math.sqrt(8))
    assert rgb.children["affine"].attributes["bias_gain"] == 1.0


@pytest.mark.parametrize("clamp", [None, 256.0])
def test_the_clamp_reaches_every_layer(clamp, tensors):
    record = stylegan2_record(tensors, clamp)
    layers = [r for _, r in record.walk() if r.class_name in ("SynthesisLayer", "ToRGBLayer")]
    assert len(layers) == 8
    assert {r.attributes["conv_clamp"] for r in layers} == {clamp}


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_architecture_by_what_there_is(architecture):
    record = stylegan2_record(weights(tiny(architecture=architecture)), None)
    blocks = record.children["synthesis"].children
    assert {b.attributes["architecture"] for b in blocks.values()} == {architecture}
    assert ["torgb" in b.children for b in blocks.values()] == [architecture == "skip"] * 2 + [True]


def test_gaps_and_other_constants_are_refused(tensors):
    assert check_sizes(tensors) == [4, 8, 16]
    with pytest.raises(UsageError, match=r"blocks at \[4, 16\]"):
        check_sizes({k: v for k, v in tensors.items() if ".b8." not in k})
    with pytest.raises(UsageError, match=r"constant of \[4, 8\]"):
        check_sizes(tensors | {"synthesis.b4.const": torch.zeros(12, 4, 8)})
    with pytest.raises(UsageError, match=r"b8.conv1.noise_const of \[16, 16\]"):
        stylegan2_record(tensors | {"synthesis.b8.conv1.noise_const": torch.zeros(16, 16)}, None)


def test_filling_in_notes_each_thing_once(tensors):
    missing = ("mapping.w_avg", "noise_const", "resample_filter")
    bare = {k: v for k, v in tensors.items() if not k.endswith(missing)}
    assumed = Assumptions()
    filled = fill_in(bare, assumed)
    assert set(filled) == set(tensors)
    assert [line.split(":")[0] for line in assumed.lines] == ["w_avg", "noise maps", "resample filter"]
    assert filled["synthesis.b16.conv0.noise_const"].shape == (16, 16)
    nothing = Assumptions()
    assert fill_in(tensors, nothing).keys() == tensors.keys()
    assert nothing.lines == []


def test_values_are_widened_and_never_narrowed():
    assert as_float(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert as_float(np.float32(0.5)).shape == ()
    assert as_float(np.ones(2)).dtype == torch.float64


def test_state_dicts_and_prefixes():
    assert is_state_dict({"a": torch.zeros(1), "version": 3})
    assert not any(map(is_state_dict, ({}, {"a": 1}, {1: torch.zeros(1)}, [torch.zeros(1)], None)))
    assert list(without_prefix({"g.a": torch.zeros(1), "d.a": torch.zeros(1), "g.n": 3}, "g.")) == ["a"]


def test_tensorflow_variables_without_components():
    """Some re-saved pickles hold every variable at the top, under the name of its scope."""
    g = tiny()
    own, mapping, synthesis = tensorflow_variables(g)
    variables = own + [(f"G_mapping/{n}", a) for n, a in mapping] + [(f"G_synthesis/{n}", a) for n, a in synthesis]
    state = {"version": 4, "name": "Gs", "static_kwargs": {}, "variables": variables}
    assert tensorflow.matches(state)
    record, report = tensorflow.read((state, state, state))
    assert all(torch.equal(v, weights(g)[k]) for k, v in record.state_dict().items() if not k.endswith("filter"))
    assert report.skipped == ["G", "D"]
    with pytest.raises(UsageError, match="no place for: 8x8/Attention/weight"):
        tensorflow.read(state | {"variables": [*variables, ("8x8/Attention/weight", np.zeros((1, 1, 2, 2)))]})
    with pytest.raises(UsageError, match="configs A-D"):
        tensorflow.read(state | {"variables": [*variables, ("ToRGB_lod2/weight", np.zeros((1, 1, 2, 3)))]})
    with pytest.raises(UsageError, match="before ADA"):
        tensorflow.read(state | {"variables": [*variables, ("LabelConcat/weight", np.zeros((3, 8)))]})
