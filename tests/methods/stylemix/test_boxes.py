"""stylemix with boxes: instances by file or by a callable, where boxes overlap, and boxes that are wrong."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.methods.recoloured import Recoloured, made
from helpers.methods.tiny_generator import SIDE, TinyGenerator

from gansegctl import methods
from gansegctl.contracts import Synthesis
from gansegctl.errors import UsageError
from gansegctl.methods.stylemix.boxes import of_instances
from gansegctl.methods.stylemix.method import StyleMix
from gansegctl.methods.stylemix.settings import StyleMixSettings

QUICK = StyleMixSettings(variants=6, repeats=5, k=3, iterations=5)


class TwoDiscs(Recoloured):
    """Two discs of colours of their own on a ground; the boxes about them are known."""

    def truth(self, ws):
        y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
        shift = ws[:, 0, 0].tanh().view(-1, 1, 1)
        left = (y - 7) ** 2 + (x - 6 - shift) ** 2 < 16
        right = (y - 15) ** 2 + (x - 17 - shift) ** 2 < 16
        return left.long() + 2 * right.long()

    def synthesize(self, ws, noise="const", taps=None, seeds=None):
        colours = torch.tanh(ws[:, -1, :6]).view(-1, 2, 3)
        colours = torch.cat([colours, -colours[:, :1] + 0.3], dim=1)  # [N, 3, 3]
        truth = self.truth(ws)
        image = torch.stack([colours[i][truth[i]] for i in range(len(ws))]).permute(0, 3, 1, 2)
        return Synthesis(image + 0.05 * torch.rand(24, 24, generator=torch.Generator().manual_seed(5)), None)


PAIR = [[0, 1, 13, 14], [11, 9, 24, 22]]
IN_BOXES = StyleMixSettings(k=2, variants=8, repeats=3)


def test_instances_come_from_the_boxes_of_a_file(tmp_path):
    generator = TwoDiscs()
    synthesis = made(generator, (1, 2, 3, 4))
    table = {"1": PAIR, "2": PAIR, "3": PAIR[1:], "4": []}
    (tmp_path / "boxes.json").write_text(json.dumps(table))
    segmenter = StyleMix().fit(generator, settings=replace(IN_BOXES, boxes=str(tmp_path / "boxes.json")))
    assert segmenter.labels.names == ("background", "instance-1", "instance-2") and segmenter.labels.has_background
    assert segmenter.settings["boxes"] == table and segmenter.settings["instances"] == 2
    truth = generator.truth(synthesis.ws)
    truth[2] = (truth[2] == 2).long()  # the third has a box about one of the two, which is its first instance
    truth[3] = 0
    (tmp_path / "boxes.json").unlink()  # what it said is kept
    segmenter.save(tmp_path / "s.safetensors")
    loaded = methods.load(tmp_path / "s.safetensors")
    a, b = (s.predict(generator, synthesis, probabilities=True) for s in (segmenter, loaded))
    for i in range(4):
        assert float((a.labels[i] == truth[i]).float().mean()) > 0.98, i
    assert a.probabilities.shape == (4, 3, 24, 24) and torch.equal(a.probabilities, b.probabilities)
    torch.testing.assert_close(a.probabilities.float().sum(1), torch.ones(4, 24, 24), atol=2e-3, rtol=0)
    assert loaded.settings == segmenter.settings


def test_an_instance_is_that_of_its_own_box_in_any_company():
    generator = TwoDiscs()
    synthesis, found = made(generator, (5,)), []
    for boxes in (PAIR, PAIR[::-1], PAIR[1:]):
        table = replace(IN_BOXES, boxes={"5": boxes}, profile="release", crossover_by="depth")
        found.append(StyleMix().fit(generator, settings=table).predict(generator, synthesis).labels)
    assert torch.equal(found[0] == 2, found[1] == 1) and torch.equal(found[0] == 1, found[1] == 2)
    box = np.s_[0, 14:22, 13:24]  # where the two do not overlap
    assert torch.equal(found[0][box] == 2, found[2][box] == 1) and bool((found[2] == 1).any())


def test_a_callable_finds_boxes_in_python_and_is_not_stored(tmp_path):
    generator = TwoDiscs()
    seen = []

    def detect(synthesis):
        seen.append(synthesis)
        return [np.array(PAIR) + 0.3 for _ in synthesis.image]

    synthesis = made(generator, (1, 2))
    segmenter = StyleMix().fit(generator, settings=replace(IN_BOXES, instances=4), boxes=detect)
    assert segmenter.labels.names[-1] == "instance-4"
    labels = segmenter.predict(generator, synthesis).labels
    assert seen == [synthesis]
    table = replace(IN_BOXES, boxes={"1": PAIR, "2": PAIR})
    assert torch.equal(labels, StyleMix().fit(generator, settings=table).predict(generator, synthesis).labels)
    segmenter.save(tmp_path / "s.safetensors")
    loaded = methods.load(tmp_path / "s.safetensors")
    with pytest.raises(UsageError, match="set its boxes_of"):
        loaded.predict(generator, synthesis)
    loaded.boxes_of = detect
    assert torch.equal(loaded.predict(generator, synthesis).labels, labels)
    loaded.boxes_of = lambda synthesis: [PAIR]
    with pytest.raises(UsageError, match="boxes of 1 images"):
        loaded.predict(generator, synthesis)
    loaded.boxes_of = lambda synthesis: [PAIR * 3] * 2
    with pytest.raises(UsageError, match="6 boxes for seed 1"):
        loaded.predict(generator, synthesis)


def test_where_boxes_overlap_the_surer_wins_and_of_equals_the_smaller():
    boxes = [(0, 0, 3, 1), (1, 0, 3, 1), (2, 0, 4, 1)]
    shares = [torch.tensor([1.0, 0.6, 0.9]), torch.tensor([0.6, 0.2]), torch.tensor([0.0, 0.0])]
    votes = of_instances(shares, boxes, torch.zeros(4, 1, 4))
    wanted = [[0.0, 0.4, 0.1, 1.0], [1.0, 0.0, 0.9, 0.0], [0.0, 0.6, 0.0, 0.0], [0.0] * 4]
    torch.testing.assert_close(votes[:, 0], torch.tensor(wanted))


@pytest.mark.parametrize("clusterer", ["torch", "faiss"])
def test_a_box_of_fewer_pixels_than_clusters_is_no_error(clusterer):
    if not importlib.util.find_spec("faiss") and clusterer == "faiss":
        pytest.skip("needs faiss")
    generator = TinyGenerator()
    table = replace(QUICK, clusterer=clusterer, boxes={"11": [[3, 4, 4, 5], [7, 7, 9, 8]]})
    labels = StyleMix().fit(generator, settings=table).predict(generator, made(generator, (11,))).labels[0]
    assert labels[4, 3] == 1 and set(labels[7, 7:9].tolist()) <= {0, 2}
    labels[4, 3] = labels[7, 7:9] = 0
    assert not bool(labels.any())


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({"11": [[0, 0, 4, SIDE + 1]]}, r"box \[0, 0, 4, 17\] for seed 11"),
        ({"11": [[-1, 0, 4, 4]]}, "seed 11"),
        ({"11": [[4, 0, 4, 4]]}, "left < right"),
        ({"11": [[0, 5, 4, 4]]}, "top < bottom"),
        ({"11": [[0, 0, 4]]}, "left, top"),
        ({"11": [[0, 0, 4, float("nan")]]}, "left, top"),
        ({"11": [[0, 0, 4, None]]}, "left, top"),
        ({"11": 3}, "left, top"),
        ({"cat": []}, "cat"),
        ({"11": []}, "without any box"),
        ({"11": [[0, 0, 2, 2]] * 255}, "255 boxes"),
        ("[]", "list"),
        ("{", "no JSON"),
        (None, "No such file"),
    ],
)
def test_wrong_boxes_are_refused(boxes, message, tmp_path):
    path = tmp_path / "b.json"
    if isinstance(boxes, str):
        path.write_text(boxes)
    with pytest.raises(UsageError, match=message):
        StyleMix().fit(TinyGenerator(), settings=replace(QUICK, boxes=boxes if isinstance(boxes, dict) else str(path)))


def test_boxes_that_do_not_fit_the_rest_are_refused():
    generator, one = TinyGenerator(), {"11": [[0, 0, 8, 8]]}
    segmenter = StyleMix().fit(generator, settings=replace(QUICK, boxes=one))
    with pytest.raises(UsageError, match="no boxes for seed 12"):
        segmenter.predict(generator, made(generator))
    with pytest.raises(UsageError, match="output segments"):
        replace(QUICK, output="segments", boxes=one)
    with pytest.raises(UsageError, match="one of the two"):
        StyleMix().fit(generator, settings=replace(QUICK, boxes=one), boxes=lambda s: [])
    with pytest.raises(UsageError, match="set instances"):
        StyleMix().fit(generator, settings=QUICK, boxes=lambda s: [])
    with pytest.raises(UsageError, match="set boxes to a file"):
        StyleMix().fit(generator, settings=replace(QUICK, instances=2))
    with pytest.raises(UsageError, match="2 boxes in one image"):
        StyleMix().fit(generator, settings=replace(QUICK, instances=1, boxes={"11": one["11"] * 2}))
    with pytest.raises(UsageError, match="instances 255"):
        replace(QUICK, instances=255)
