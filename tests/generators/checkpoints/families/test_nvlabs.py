"""Snapshots of NVlabs' trainers as module records: everything of G_ema, nothing of the rest, and clear refusals."""

from __future__ import annotations

import hashlib
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import authoring
from helpers.checkpoints.authoring import EasyDict, Persistent, dumps, snapshot
from torch import nn

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.containers.reading import Loaded, read, unknown_under
from gansegctl.generators.checkpoints.containers.torch_files import nested_storage
from gansegctl.generators.checkpoints.families.nvlabs import generator_record, is_snapshot
from gansegctl.generators.checkpoints.unpickle import known_globals, opcodes
from gansegctl.generators.checkpoints.unpickle.limits import Limits
from gansegctl.generators.checkpoints.unpickle.machine import Reader
from gansegctl.generators.checkpoints.unpickle.session import Session


@pytest.fixture
def record_of(tmp_path):
    def run(value, protocol=4):
        path = tmp_path / "network.pkl"
        path.write_bytes(dumps(value, protocol))
        return generator_record(read(path))

    return run


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_every_tensor_and_argument_comes_out(record_of, protocol):
    generator = authoring.stylegan2(c=3)
    record, report = record_of(snapshot(generator), protocol)
    wanted = generator.state_dict()
    assert set(record.state_dict()) == set(wanted)
    for name, tensor in record.state_dict().items():
        assert torch.equal(tensor, wanted[name]) and tensor.dtype == wanted[name].dtype, name
    assert record.class_name == "Generator" and record.attributes["c_dim"] == 3
    assert record.init_kwargs == generator._init_kwargs and type(record.init_kwargs["mapping_kwargs"]) is dict
    conv = record.children["synthesis"].children["b16"].children["conv0"]
    assert conv.attributes["up"] == 2 and conv.attributes["conv_clamp"] == 256 and conv.init_args == (8, 8)
    assert type(conv.attributes["act_gain"]) is float
    assert record.children["synthesis"].children["b16"].attributes["use_fp16"] is True  # stored as a numpy bool
    assert not [n for _, r in record.walk() for n in r.attributes if n.startswith("_")]
    assert report.family == "stylegan2-ada" and report.container == "pickle" and report.skipped == []


def test_the_report_names_what_was_read(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(dumps(snapshot()))
    _, report = generator_record(read(path))
    assert report.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    source = hashlib.sha256(authoring.SOURCE.encode()).hexdigest()
    assert report.source_sha256["SynthesisLayer"] == source and len(report.source_sha256) == 7
    assert report.facts == {"use_labels": False, "xflip": True, "resolution": 16, "not used": ["G", "D"]}
    assert "secret" not in repr(report) and "trainer" not in repr(report)


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (authoring.stylegan2, "stylegan2-ada"),
        (authoring.stylegan3, "stylegan3-t"),
        (lambda: authoring.stylegan3(1), "stylegan3-r"),
        (authoring.stylegan_xl, "stylegan-xl"),
    ],
)
def test_families_are_told_apart(record_of, make, family):
    record, report = record_of(snapshot(make(), whole=False))
    assert report.family == family and set(record.children) == {"mapping", "synthesis"}


def test_the_stylegan3_repository_writes_stylegan2_with_flat_arguments(record_of):
    generator = authoring.stylegan2()
    generator._init_kwargs = EasyDict(z_dim=6, channel_base=128, fused_modconv_default="inference_only")
    assert record_of(snapshot(generator))[1].family == "stylegan2"


def test_filters_that_are_none_are_kept_as_none(record_of):
    record, _ = record_of(snapshot(authoring.stylegan3(), whole=False))
    layers = record.children["synthesis"].children
    assert layers["L2_16_3"].tensors["up_filter"] is None and layers["L0_36_4"].tensors["up_filter"].shape == (12,)
    assert "synthesis.L2_16_3.up_filter" not in record.state_dict()
    assert layers["L0_36_4"].attributes["in_size"] == [36, 36]  # a numpy array in the file
    assert layers["input"].attributes["sampling_rate"] == 16.0
    assert record.children["synthesis"].attributes["layer_names"] == ["L0_36_4", "L1_36_4", "L2_16_3"]
    assert torch.equal(layers["input"].tensors["transform"], torch.eye(3))


def test_plain_torch_modules_inside_are_records(record_of):
    generator = authoring.stylegan_xl()
    generator.mapping.extra = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    record, report = record_of(snapshot(generator, whole=False))
    embed = record.children["mapping"].children["embed"]
    assert embed.class_name == "Embedding" and embed.tensors["weight"].shape == (7, 3)
    assert embed.attributes["num_embeddings"] == 7 and embed.source_sha256 == ""
    assert record.state_dict()["mapping.extra.0.weight"].shape == (3, 2)
    assert report.family == "stylegan-xl" and "Embedding" not in report.source_sha256


@pytest.mark.parametrize("form", ["G_ema in a dict", "G_ema with None", "network alone"])
def test_files_with_the_averaged_generator_alone(record_of, form):
    generator = authoring.stylegan2()
    value = {
        "G_ema in a dict": {"G_ema": generator},
        "G_ema with None": {"G": None, "D": None, "G_ema": generator},
        "network alone": generator,
    }[form]
    record, _ = record_of(value)
    assert torch.equal(record.state_dict()["synthesis.b4.const"], generator.synthesis.b4.const)


def test_the_average_is_taken_and_not_the_raw_generator(record_of):
    raw, averaged = authoring.stylegan2(), authoring.stylegan2()
    assert not torch.equal(raw.synthesis.b4.const, averaged.synthesis.b4.const)
    record, _ = record_of(snapshot(averaged, G=raw))
    assert torch.equal(record.state_dict()["synthesis.b4.const"], averaged.synthesis.b4.const)


class Stranger:
    """Stands for the classes of other packages that discriminators contain."""

    def __init__(self):
        self.value = 1


def test_unknown_names_elsewhere_are_listed_with_their_place(record_of):
    network = authoring.discriminator()
    network.b4.backbone = Stranger()
    _, report = record_of(snapshot(D=network, augment_pipe=Stranger()))
    name = f"{Stranger.__module__}.Stranger"
    assert report.skipped == [f"{name} at D.b4.backbone", f"{name} at augment_pipe"]


@pytest.mark.parametrize("place", ["attribute", "list", "init", "class"])
def test_unknown_names_within_the_generator_are_refused(record_of, place):
    generator = authoring.stylegan2()
    layer = generator.synthesis.b8.conv0
    if place == "attribute":
        layer.thing = Stranger()
    elif place == "list":
        layer.things = [{"deep": (Stranger(),)}]
    elif place == "init":
        layer._init_kwargs = {"x": Stranger()}
    else:
        layer.thing = Stranger
    with pytest.raises(UsageError, match=r"G_ema.*Stranger") as caught:
        record_of(snapshot(generator))
    assert caught.value.remedy


def _network(name: str, **children) -> Persistent:
    top = Persistent(name, _init_args=(), _init_kwargs={})
    for key, child in children.items():
        setattr(top, key, child)
    return top


def _part() -> Persistent:
    return authoring.fully_connected(2, 2)


OTHERS = {
    "discriminator in a snapshot": (lambda: {"D": authoring.discriminator()}, "a discriminator alone"),
    "discriminator alone": (authoring.discriminator, r"a discriminator alone \(Discriminator\)"),
    "discriminator as G_ema": (lambda: {"G_ema": authoring.discriminator()}, "a discriminator alone"),
    "raw generator": (lambda: {"G": authoring.stylegan2(), "D": None}, "raw training generator.*no G_ema"),
    "training networks": (
        lambda: {"G": authoring.stylegan2(), "D": authoring.discriminator()},
        r"\(G, D\) and no G_ema",
    ),
    "EG3D": (
        lambda: {"G_ema": _network("TriPlaneGenerator", renderer=_part(), backbone=_part(), decoder=_part())},
        "an EG3D generator",
    ),
    "EG3D under another name": (lambda: {"G_ema": _network("Generator", backbone=_part())}, "an EG3D generator"),
    "StyleGAN1": (lambda: {"G_ema": _network("StyleGAN1Generator", g_mapping=_part())}, "StyleGAN1"),
    "another class": (lambda: {"G_ema": _network("FastGAN", feat_8=_part())}, "class FastGAN with the parts feat_8"),
    "another network of that class": (lambda: {"G_ema": _network("Generator", init=_part())}, "class Generator"),
    "other parts": (
        lambda: {
            "G_ema": _network("Generator", mapping=_part(), synthesis=_network("S", init=_part(), feat_8=_part()))
        },
        "synthesis has the parts init, feat_8",
    ),
    "class of another package": (lambda: {"G_ema": Stranger()}, "Stranger"),
    "state dict": (lambda: {"g_ema": {"a": 1}}, "a snapshot with g_ema and no G_ema"),
    "list": (lambda: [1, 2], "holds a list"),
}


@pytest.mark.parametrize(("make", "why"), OTHERS.values(), ids=OTHERS)
def test_other_networks_are_refused_by_name(record_of, make, why):
    with pytest.raises(UsageError, match=why) as caught:
        record_of(make())
    assert caught.value.wanted and caught.value.remedy


def _doubled() -> Persistent:
    """30 levels, each holding the next twice: 2**30 modules when followed."""
    below = _part()
    for _ in range(30):
        level = _network("Level")
        level._modules["a"] = level._modules["b"] = below
        below = level
    return below


def _doubled_list() -> list:
    below: list = []
    for _ in range(30):
        below = [below, below]
    return below


def test_modules_that_multiply_are_refused(record_of):
    generator = authoring.stylegan2()
    generator.synthesis.more = _doubled()
    with pytest.raises(UsageError, match="damaged or abusive"):
        record_of(snapshot(generator, whole=False))
    generator = authoring.stylegan2()
    generator.synthesis.more = _doubled_list()
    with pytest.raises(UsageError, match="damaged or abusive"):
        record_of(snapshot(generator, whole=False))


def test_a_module_that_contains_itself_is_refused(record_of):
    record_of(snapshot(authoring.stylegan2()))
    generator = authoring.stylegan2()
    around: list = []
    around.append(around)
    generator.around = around
    with pytest.raises(UsageError, match="levels"):
        record_of(snapshot(generator, whole=False))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("_parameters", "weight", "text"),
        ("_parameters", "a.b", torch.ones(1)),
        ("_parameters", "\x1b[31m", torch.ones(1)),
        ("_parameters", 3, torch.ones(1)),
        ("_modules", "conv9", 3),
        ("_modules", "a.b", None),
        ("_modules", "weight", authoring.fully_connected(1, 1)),
    ],
)
def test_states_that_torch_would_not_write_are_refused(record_of, part, key, value):
    generator = authoring.stylegan2()
    getattr(generator.synthesis.b8.conv0, part)[key] = value
    with pytest.raises(UsageError, match="damaged or abusive"):
        record_of(snapshot(generator, whole=False))


def test_what_a_snapshot_is(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(dumps(snapshot()))
    loaded = read(path)
    assert is_snapshot(loaded.value) and is_snapshot(loaded.value["G_ema"]) and is_snapshot({"D": loaded.value["D"]})
    assert not is_snapshot({"g_ema": {"a": torch.ones(1)}}) and not is_snapshot((1, 2, 3)) and not is_snapshot({})
    assert unknown_under(loaded.value) == []


class Network:
    """Pickles as `dnnlib.tflib.network.Network`, the class of TensorFlow snapshots."""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensorflow_networks_come_out_as_records(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(Network, "__module__", "dnnlib.tflib.network")
    module = types.ModuleType("dnnlib.tflib.network")
    module.Network = Network
    for name in ("dnnlib", "dnnlib.tflib"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "dnnlib.tflib.network", module)
    weights = np.random.RandomState(0).randn(40, 40).astype(np.float32)
    network = Network()
    network.__dict__.update(version=4, name="Gs", static_kwargs={"resolution": 16}, variables=[("w", weights)])
    network.build_module_src = "raise RuntimeError"
    path = tmp_path / "tf.pkl"
    path.write_bytes(pickle.dumps((network, network, network), protocol))
    loaded = read(path)
    found = loaded.value[2]
    assert loaded.unknown == [] and found.class_name == "Network" and found.state["version"] == 4
    np.testing.assert_array_equal(found.state["variables"][0][1], weights)
    assert "build_module_src" not in found.state
    assert found.source_sha256 == hashlib.sha256(b"raise RuntimeError").hexdigest()
    with pytest.raises(UsageError, match="holds a tuple"):
        generator_record(loaded)


def test_unknown_names_are_those_of_the_part_that_is_asked(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(dumps({"good": {"a": [1]}, "bad": {"b": (Stranger(),)}}))
    loaded = read(path)
    assert unknown_under(loaded.value["good"]) == [] and len(unknown_under(loaded.value["bad"])) == 1
    assert loaded.unknown == [f"{Stranger.__module__}.Stranger at bad.b.0"]
    assert isinstance(loaded, Loaded)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_fixtures_that_were_written_once_still_read_the_same(protocol):
    """The committed files, by another version of torch perhaps, against the same networks written now."""
    names = {0: "stylegan2-ada-protocol0", 2: "stylegan2-ada-conditional-protocol2", 3: "stylegan3-r", 5: "stylegan3-t"}
    path = Path(__file__).parents[1] / "fixtures" / f"{names.get(protocol, 'stylegan2-ada')}.pkl"
    with torch.random.fork_rng():
        fresh = dict(authoring.fixtures())[path.name]
    raw = Session(Limits.for_file(len(fresh)), known_globals.find, nested=nested_storage)
    now, _ = generator_record(Loaded(opcodes.read(Reader(fresh, raw)), "pickle", ""))
    record, report = generator_record(read(path))
    assert record.init_kwargs == now.init_kwargs and set(record.state_dict()) == set(now.state_dict())
    for name, tensor in record.state_dict().items():
        assert torch.equal(tensor, now.state_dict()[name]), name
    assert report.skipped == [] and path.stat().st_size < 100_000


@pytest.mark.parametrize(
    ("name", "family", "count", "kwargs"),
    [
        ("sg2ada_uncond.pkl", "stylegan2-ada", 106, {"z_dim": 64, "w_dim": 48, "mapping_kwargs": {"num_layers": 8}}),
        ("sg3t.pkl", "stylegan3-t", 114, {"z_dim": 64, "w_dim": 48, "channel_base": 2048, "channel_max": 64}),
    ],
)
def test_official_files(shared, name, family, count, kwargs):
    loaded = read(shared / "parity" / name)
    record, report = generator_record(loaded)
    tensors = record.state_dict()
    assert report.family == family and len(tensors) == count and loaded.unknown == []
    assert {k: record.init_kwargs[k] for k in kwargs} == kwargs
    assert tensors["mapping.w_avg"].shape == (48,)
    if family == "stylegan2-ada":
        assert tensors["synthesis.b4.const"].shape == (64, 4, 4)
        assert tensors["synthesis.b64.conv0.weight"].shape == (32, 64, 3, 3)
        assert record.children["synthesis"].attributes["block_resolutions"] == [4, 8, 16, 32, 64]
    else:
        names = record.children["synthesis"].attributes["layer_names"]
        assert len(names) == 15 and names[0] == "L0_36_64" and names[-1] == "L14_64_3"
        assert tensors["synthesis.L0_36_64.weight"].shape == (64, 64, 3, 3)
        assert record.children["synthesis"].children["L14_64_3"].tensors["up_filter"] is None
