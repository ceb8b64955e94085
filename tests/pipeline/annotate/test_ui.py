"""What stands behind the annotation page: parts of real activations, refits, advice with reasons, and the stage."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gansegctl.annotation.bundle import mask_path, saved_masks
from gansegctl.config import GenerateSettings
from gansegctl.errors import UsageError
from gansegctl.features.kmeans import kmeans
from gansegctl.labels import LabelMap
from gansegctl.pipeline.annotate import regions as parts
from gansegctl.pipeline.annotate import ui
from gansegctl.pipeline.annotate.exemplars import write_exemplars
from gansegctl.pipeline.annotate.selection import Choice
from gansegctl.pipeline.annotate.source import Source
from gansegctl.pipeline.generate.stage import plan_generate, synthesize

LABELS = LabelMap(("dark", "bright"))
STRIP = (3, 7)
CHOICE = Choice(STRIP, "chosen", ("stands for most", "stands for the rest"))


@pytest.fixture(scope="module")
def source(generator_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui") / "d"
    settings = GenerateSettings(generator=str(generator_file), seeds="0-11", batch_size=4)
    job, network, _ = plan_generate(settings, None, "cpu")
    list(synthesize(job, folder, network))
    return Source.open(folder)


@pytest.fixture
def bench(source):
    return ui.Workbench(source, LABELS, CHOICE)


@pytest.fixture(scope="module")
def features(source):
    return parts.part_features(source.generator, source.latents([3]), 3, "const")


def bright(source, seed):
    grey = source.images([seed])[0].mean(axis=2)
    return (grey > np.median(grey)).astype(np.uint8)


def never():
    return False


def test_every_level_of_the_part_features_weighs_the_same_but_the_place(features):
    weights = [float(x.square().mean(dim=(2, 3)).sum()) for x in features.levels]
    assert weights == pytest.approx([1.0] * (len(weights) - 1) + [0.25], rel=1e-4)
    assert min(x.shape[2] for x in features.levels) >= 4


def test_parts_are_the_exact_clusters_and_finer_from_level_to_level(features):
    counts = [len(np.unique(parts.find_parts(features, level, 16))) for level in range(3)]
    assert counts[0] <= 16 < counts[1] <= 48 < counts[2] <= 144
    found = parts.find_parts(features, 0, 16)
    assert sorted(np.unique(found)) == list(range(counts[0]))
    dense = features.dense()[0].flatten(1).T
    centroids = kmeans([features], 16, iterations=20).centroids
    nearest = torch.cdist(dense, centroids).argmin(dim=1).numpy().reshape(16, 16)
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), nearest.ravel(), strict=True)}
    assert len(pairs) == counts[0]  # one to one: the same partition
    np.testing.assert_array_equal(parts.find_parts(features, 0, 16), found)


def test_larger_images_get_magnified_parts(features):
    small = parts.find_parts(features, 0, 16)
    large = parts.find_parts(features, 0, 64)
    np.testing.assert_array_equal(large[::4, ::4], small)
    np.testing.assert_array_equal(large[3::4, 3::4], small)
    inside = large == large[0, 0]
    pieces = parts.split_part(features, inside)
    assert pieces.shape == (64, 64) and ((pieces >= 0) == inside).all()


def test_a_split_divides_a_part_and_only_it(features):
    inside = parts.find_parts(features, 0, 16) == 2
    pieces = parts.split_part(features, inside)
    assert ((pieces >= 0) == inside).all()
    assert 2 <= len(np.unique(pieces[inside])) <= parts.SPLIT
    x = features.dense()[0].permute(1, 2, 0)[torch.from_numpy(inside)]
    labels = torch.from_numpy(pieces[inside]).long()
    centres = torch.stack([x[labels == k].mean(dim=0) for k in range(int(labels.max()) + 1)])
    torch.testing.assert_close(torch.cdist(x, centres).argmin(dim=1), labels)  # Lloyd has settled
    single = np.zeros((16, 16), bool)
    single[4, 5] = True
    assert parts.split_part(features, single)[4, 5] == 0


def test_without_two_classes_there_is_advice_but_no_fit(bench, source):
    blank = np.full((16, 16), 255, np.uint8)
    found = bench.propose({3: blank, 7: blank}, never)
    assert (found.exemplars, found.samples, found.advice) == ((), (), ())
    one = blank.copy()
    one[:4] = 1
    found = bench.propose({3: one, 7: blank}, never)
    assert found.exemplars == ()
    assert [a.kind for a in found.advice] == ["different"]


def test_a_refit_learns_from_painted_pixels_and_looks_at_all_images(bench, source):
    truth = bright(source, 3)
    mask = truth.copy()
    mask[:, 12:] = 255  # not painted
    found = bench.propose({3: mask, 7: np.full((16, 16), 255, np.uint8)}, never)
    assert [p.image.seed for p in found.exemplars] == list(STRIP)
    assert (found.exemplars[0].labels == truth)[:, :12].mean() > 0.8
    assert len(found.samples) == ui.SHOWN
    assert not {p.image.seed for p in found.samples} & set(STRIP)
    for p in (*found.exemplars, *found.samples):
        np.testing.assert_array_equal(p.image.image, source.images([p.image.seed])[0])
        assert p.sure == pytest.approx(p.confidence.mean() / 255) and p.weakest in LABELS.names
    kinds = {a.kind: a for a in found.advice}
    assert set(kinds) == {"uncertain", "different"}
    assert "entropy" in kinds["uncertain"].why and "deviations" in kinds["different"].why
    assert all(a.seed != 3 for a in found.advice)
    assert 0 < found.fit_seconds <= found.seconds


def test_a_refit_takes_a_quarter_of_the_steps_for_whoever_waits(bench, source, monkeypatch):
    steps, linear = [], ui.methods.get("linear")
    plain = type(linear).fit

    def fit(self, generator, exemplars, labels, settings, seed):
        steps.append(settings.resolved(len(exemplars)).steps)
        return plain(self, generator, exemplars, labels, replace(settings, steps=2), seed)

    monkeypatch.setattr(type(linear), "fit", fit)
    bench.propose({3: bright(source, 3)}, never)
    bench.propose({3: bright(source, 3), 7: bright(source, 7)}, never)
    assert steps == [150, 212]
    assert steps[0] * 4 == linear.settings_type().resolved(1).steps


def test_the_different_one_is_the_farthest_from_all_painted(bench, source):
    mask = bright(source, 3)
    seeds = [*STRIP, *bench.pool]
    rows = torch.stack([bench._vector(s) for s in seeds]).double()
    rows = (rows - rows.mean(dim=0)) / rows.std(dim=0, correction=0).clamp(min=1e-8)
    expected = seeds[int((rows - rows[0]).norm(dim=1).argmax())]
    (advice,) = bench._different({3: mask})
    assert advice.seed == expected
    assert bench._different({3: mask}, [expected])[0].seed not in (3, expected)
    seeds = [a.seed for a in bench.propose({3: mask}, never).advice]
    assert len(set(seeds)) == 2  # two images, not one for two reasons


def test_an_overtaken_refit_stops_before_it_looks(bench, source, monkeypatch):
    monkeypatch.setattr(bench, "_look", None)
    assert bench.propose({3: bright(source, 3)}, lambda: True) is None


def test_every_image_says_why_it_is_here(source):
    chosen = ui.Workbench(source, LABELS, CHOICE)
    assert (chosen.why(3), chosen.image(7).why) == CHOICE.reasons
    assert "added" in chosen.why(0)
    assert ui.Workbench(source, LABELS, Choice(STRIP, "asked for")).why(7) == "asked for"


def test_without_the_extra_the_remedy_is_named(source, monkeypatch):
    monkeypatch.setattr(ui.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"gansegctl\[ui\]"):
        ui.paint(source, Path("nowhere"), CHOICE, LABELS, 0, print)


@pytest.fixture
def served(monkeypatch):
    """The server replaced by a hand that paints: what it leaves is what the stage takes on."""
    from gansegctl.annotation.ui.session import Session

    def hand(does):
        def serve(folder, backend, seeds, port, opened):
            session = Session(folder, backend, seeds)
            opened("http://127.0.0.1:1/?token=x")
            does(session)
            session.close()
            return session

        monkeypatch.setitem(sys.modules, "gansegctl.annotation.ui.serve", SimpleNamespace(serve=serve))

    pytest.importorskip("uvicorn", reason="needs uvicorn (extra `ui`)")
    return hand


def test_the_stage_hands_on_what_was_painted_and_added(source, served):
    def does(session):
        added = session.backend.offered[0]
        place = session.add(added)["exemplar"]
        for i, runs in ((0, [0, 100]), (place, [0, 50])):
            session.stroke({"kind": "paint", "id": f"a{i}", "exemplar": i, "class": 1, "runs": runs})
            session.stroke({"kind": "paint", "id": f"b{i}", "exemplar": i, "class": 0, "runs": [100, 100]})
        session.finish()

    served(does)
    urls = []
    choice = Choice((3, 7), "asked for")
    folder = write_exemplars(source, choice, LABELS)
    seeds = ui.paint(source, folder, choice, LABELS, 0, urls.append)
    assert (seeds, len(urls)) == ((3, 0), 1)  # 7 stayed blank
    masks = saved_masks(folder, seeds, 16, LABELS)
    assert masks[3].ravel()[99] == 1 and masks[0].ravel()[60] == 255
    assert (folder / "exemplar-00000000.png").exists() and "exemplar-00000000" in (
        folder / "exemplars.json"
    ).read_text()


def test_a_page_left_before_finish_says_that_nothing_is_lost(source, served):
    served(lambda session: None)
    choice = Choice((9,), "asked for")
    folder = write_exemplars(source, choice, LABELS)
    with pytest.raises(UsageError, match="every stroke is kept"):
        ui.paint(source, folder, choice, LABELS, 0, print)
    assert mask_path(folder, 9).exists()
