"""From a name or file of any family to images, facts and a preset's weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.checkpoints.foreign import images, like_rosinality, tiny, weights, write_tensorflow, write_torch
from safetensors.torch import save, save_file

from gansegctl import presets
from gansegctl.contracts import result_of
from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.opening import open_checkpoint
from gansegctl.generators.weights import read_header, save_generator
from gansegctl.pipeline.convert import convert, facts_of
from gansegctl.pipeline.inputs.generators import check_class, generator_path, latents_of_seeds, open_generator
from gansegctl.pipeline.inspect import inspect
from gansegctl.pipeline.run import read_plan, run
from gansegctl.store.manifest import Manifest


@pytest.fixture(scope="module")
def original():
    return tiny()


@pytest.fixture
def foreign(original, tmp_path):
    value = {"g_ema": like_rosinality(original), "latent_avg": weights(original)["mapping.w_avg"], "args": {"size": 16}}
    return write_torch(value, tmp_path / "g.pt")


def test_open_generator_reads_other_projects(foreign, original):
    generator = open_generator(str(foreign))
    assert (images(generator) - images(original)).abs().max() < 1e-5
    ws = latents_of_seeds(generator, [0, 1], truncation=0.5, cutoff=3)
    assert torch.equal(ws[:, 3], ws[:, 5])
    assert not torch.equal(ws[:, 0], ws[:, 3])


def test_classes_of_a_foreign_generator(tmp_path):
    save_file(weights(tiny(c_dim=3)), tmp_path / "c.safetensors")
    generator = open_generator(str(tmp_path / "c.safetensors"))
    check_class(generator, 2)
    for wrong in (None, 3):
        with pytest.raises(UsageError, match="--class 0 to 2"):
            check_class(generator, wrong)
    a, b = (latents_of_seeds(generator, [0], class_index=i) for i in (0, 2))
    assert not torch.allclose(a, b)


def test_inspect_tells_what_the_file_says_and_what_it_does_not(foreign, original):
    facts = inspect(foreign)
    assert facts["family"] == "rosinality/stylegan2-pytorch"
    assert facts["container"] == "torch-zip"
    assert (facts["resolution"], facts["z_dim"], facts["w_dim"], facts["c_dim"], facts["num_ws"]) == (16, 8, 8, 0, 6)
    assert facts["skipped"] == ["args"]
    assert facts["taps"][0] == ["b4.conv1", 4, 12, 0]
    assert [t[1] for t in facts["taps"]] == [4, 8, 8, 16, 16]
    channels = sum(t[2] for t in facts["taps"])
    assert facts["hypercolumn_bytes_avoided"] == channels * 16 * 16 * 4
    assert facts["conv_clamp"] is None
    assert facts["filter_taps"]
    assert facts["sha256"] == open_generator(str(foreign)).sha256
    assert facts["assumed"]
    json.dumps(facts)


def test_inspect_native_sizes_include_the_margin(shared):
    facts = inspect(shared / "parity" / "sg3t.pkl")
    assert facts["network"].startswith("stylegan3")
    assert facts["taps"][0][1:] == [36, facts["taps"][0][2], 10]
    assert facts["taps"][-1][1] == 64
    assert facts["taps"][-1][3] == 0
    assert set(facts["source_text_sha256"]) >= {"Generator", "SynthesisLayer"}
    assert all(len(v) == 64 for v in facts["source_text_sha256"].values())


def test_inspect_a_preset_whose_weights_are_elsewhere():
    facts = inspect(Path("ffhq-256"))
    assert facts["preset"] == "ffhq-256"
    assert "not here" in facts["weights"]
    assert facts["file"] == "stylegan2-ffhq-256x256.pkl"


def test_convert_is_lossless_and_keeps_where_it_came_from(foreign, tmp_path):
    out = tmp_path / "new" / "g.safetensors"
    result = convert(foreign, out)
    before, report = open_checkpoint(foreign)
    after = open_generator(str(out))
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in after.state_dict().items())
    assert torch.equal(images(after), images(open_generator(str(foreign))))
    assert after.spec == before.spec
    header = read_header(out)
    assert header["facts"]["source_sha256"] == report.file_sha256 == result["source_sha256"]
    assert header["facts"]["source_family"] == "rosinality/stylegan2-pytorch"
    assert header["facts"]["assumed"] == report.assumed != []
    assert after.sha256 == result["sha256"] != result["source_sha256"]
    assert inspect(out)["assumed"] == report.assumed
    assert sorted(p.name for p in out.parent.iterdir()) == ["g.safetensors"]
    assert convert(foreign, tmp_path / "again.safetensors")["sha256"] == result["sha256"]


def test_converting_twice_keeps_the_first_source(foreign, tmp_path):
    first = convert(foreign, tmp_path / "a.safetensors")
    second = convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert second["sha256"] == first["sha256"]
    _, report = open_checkpoint(tmp_path / "b.safetensors")
    assert facts_of(report)["source_sha256"] == first["source_sha256"]


def test_convert_refuses_names_and_files_that_are_there(foreign, tmp_path):
    with pytest.raises(UsageError, match=r"ending in \.safetensors"):
        convert(foreign, tmp_path / "g.pt2")
    (tmp_path / "mine.safetensors").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        convert(foreign, tmp_path / "mine.safetensors")
    assert (tmp_path / "mine.safetensors").read_text() == "mine"
    (tmp_path / "bad.pt").write_bytes(foreign.read_bytes()[:2000])
    with pytest.raises(UsageError):
        convert(tmp_path / "bad.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("changes", [{"architecture": "resnet"}, {"c_dim": 2}], ids=str)
def test_convert_keeps_architectures_and_classes(changes, tmp_path):
    original = tiny(**changes)
    convert(write_tensorflow(original, tmp_path / "g.pkl"), tmp_path / "g.safetensors")
    generator = open_generator(str(tmp_path / "g.safetensors"))
    c = 1 if "c_dim" in changes else None
    assert (images(generator, c=c) - images(original, c=c)).abs().max() < 1e-5


def test_a_preset_without_its_weights_says_where_they_are(tmp_path, monkeypatch, foreign):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as stopped:
        generator_path("ffhq-256")
    for word in ("stylegan2-ffhq-256x256.pkl", "NGC", "NVIDIA Source Code License", "--generator FILE"):
        assert word in str(stopped.value)
    with pytest.raises(UsageError, match=r"no weights are published(.|\n)*gansegctl train"):
        generator_path("baggage")
    (tmp_path / "stylegan2-ffhq-256x256.pkl").write_bytes(foreign.read_bytes())
    assert open_generator("ffhq-256").spec.resolution == 16


def test_a_preset_runs_on_the_file_that_is_passed(foreign, tmp_path):
    plan = read_plan("ffhq-256").with_generator(str(foreign))
    assert plan.preset == "ffhq-256"
    small = {"seeds": "0-3", "batch_size": 2}
    plan = replace(plan, generate=replace(plan.generate, **small))
    result = result_of(run(plan, tmp_path / "out", "cpu"))
    manifest = Manifest.read(tmp_path / "out" / "dataset")
    assert manifest.licence == presets.load("ffhq-256")["generator"]["licence"]
    assert manifest.settings["generate"]["truncation"] == 0.7
    labels = json.loads((tmp_path / "out" / "dataset" / "exemplars" / "labels.json").read_text())
    assert [row["name"] for row in labels] == presets.load("ffhq-256")["exemplars"]["classes"]
    assert "paint the masks" in result["next"]


def test_a_segmenter_is_no_generator(tmp_path):
    text = json.dumps({"kind": "gansegctl.segmenter", "method": "repurpose"})
    (tmp_path / "s.safetensors").write_bytes(save({"a": torch.zeros(1)}, {"gansegctl": text}))
    with pytest.raises(UsageError, match="a segmenter, not a generator"):
        open_generator(str(tmp_path / "s.safetensors"))


def test_weights_of_ours_open_as_before(original, tmp_path):
    save_generator(original, tmp_path / "g.safetensors")
    generator = open_generator(str(tmp_path / "g.safetensors"))
    assert (images(generator) - images(original)).abs().max() < 1e-5
    assert all(torch.equal(v, original.state_dict()[k]) for k, v in generator.state_dict().items())
