"""stylemix: one annotation contract without exemplars, variants of the very image, votes, and parts that recolour."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.methods.recoloured import SEEDS, Recoloured, made
from helpers.methods.tiny_generator import SIDE, TinyGenerator

from gansegctl import methods
from gansegctl.contracts import FeatureTap, GeneratorSpec, Segmenter
from gansegctl.errors import UsageError
from gansegctl.methods.stylemix import clustering, variants
from gansegctl.methods.stylemix import method as stylemix
from gansegctl.methods.stylemix.clustering import cluster, faiss_options
from gansegctl.methods.stylemix.method import StyleMix
from gansegctl.methods.stylemix.settings import PROFILES, StyleMixSettings
from gansegctl.methods.stylemix.variants import Original, crossover_slots, make_variants

QUICK = StyleMixSettings(variants=6, repeats=5, k=3, iterations=5)


def test_annotation_of_the_contract():
    generator = TinyGenerator()
    for settings, classes in ((QUICK, 2), (replace(QUICK, output="segments"), 3)):
        segmenter = StyleMix().fit(generator, settings=settings)
        assert isinstance(segmenter, Segmenter) and segmenter.method == "stylemix" and len(segmenter.labels) == classes
        a = segmenter.predict(generator, made(generator), probabilities=True)
        assert a.labels.dtype == a.confidence.dtype == torch.uint8 and a.score.dtype == torch.float32
        assert a.labels.shape == a.confidence.shape == (3, SIDE, SIDE) and a.score.shape == (3,)
        assert a.probabilities.dtype == torch.float16 and a.probabilities.shape == (3, classes, SIDE, SIDE)
        assert int(a.labels.max()) < classes and 0 <= float(a.score.min()) <= float(a.score.max()) <= 1
        top = a.probabilities.float().amax(1)
        assert float((top * 255 - a.confidence.float()).abs().max()) < 0.8
        assert segmenter.predict(generator, made(generator)).probabilities is None


def test_saved_and_loaded_it_says_the_same(tmp_path):
    generator = TinyGenerator()
    segmenter = StyleMix().fit(generator, settings=QUICK, seed=4)
    segmenter.save(tmp_path / "s.safetensors")
    loaded = methods.load(tmp_path / "s.safetensors")
    assert type(loaded) is type(segmenter) and loaded.settings == segmenter.settings and loaded.facts["seed"] == 4
    before, after = (s.predict(generator, made(generator), True) for s in (segmenter, loaded))
    for field in ("labels", "confidence", "score", "probabilities"):
        assert torch.equal(getattr(before, field), getattr(after, field)), field


def test_a_sample_is_labelled_the_same_in_any_batch_and_the_process_is_left_alone():
    generator = TinyGenerator()
    segmenter = StyleMix().fit(generator, settings=QUICK, seed=1)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    together = segmenter.predict(generator, made(generator), True).probabilities
    apart = torch.cat([segmenter.predict(generator, made(generator, (s,)), True).probabilities for s in SEEDS])
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(apart, together, atol=2e-3, rtol=0)
    other = StyleMix().fit(generator, settings=QUICK, seed=2).predict(generator, made(generator), True).probabilities
    assert not torch.equal(other, together)


@pytest.mark.parametrize("profile", ["fixed", "release"])
def test_finds_what_recolours_together(profile):
    generator = Recoloured()
    settings = StyleMixSettings(profile=profile, k=2, variants=8, repeats=3, crossover_by="depth")
    segmenter = StyleMix().fit(generator, settings=settings)
    synthesis = made(generator, range(20))
    labels, truth = segmenter.predict(generator, synthesis).labels, generator.truth(synthesis.ws)
    assert float((labels == truth).float().mean()) > 0.98
    assert 0.1 < float(truth.float().mean()) < 0.4


def test_the_variants_are_of_this_very_image():
    generator = TinyGenerator()
    synthesis = made(generator, noise="seed")
    asked, plain = [], generator.synthesize

    def watched(ws, noise="const", taps=None, seeds=None):
        asked.append((ws, noise, seeds))
        return plain(ws, noise, taps, seeds)

    generator.synthesize = watched
    settings = replace(QUICK, crossover_low=0.5, crossover_high=0.5, passes=2).resolved()
    original = Original(synthesis.image[1:2], synthesis.ws[1:2], "seed", SEEDS[1])
    found = make_variants(generator, original, settings, torch.Generator().manual_seed(0))
    assert torch.equal(found[0], synthesis.image[1]) and found.shape == (6, 3, SIDE, SIDE)
    assert [len(ws) for ws, _, _ in asked] == [2, 2, 1]
    for ws, noise, seeds in asked:
        assert noise == "seed" and set(seeds) == {SEEDS[1]}
        assert torch.equal(ws[:, :2], synthesis.ws[1:2, :2].expand(len(ws), -1, -1))  # 0.5 of 3 slots: the first two
        assert not bool((ws[:, 2] == synthesis.ws[1, 2]).any())
    assert not torch.equal(found[1], found[2])


def test_large_images_are_made_a_few_at_a_time(monkeypatch):
    sizes, plain = [], TinyGenerator.synthesize
    monkeypatch.setattr(
        TinyGenerator, "synthesize", lambda self, ws, **o: sizes.append(len(ws)) or plain(self, ws, **o)
    )
    masks = []
    for pixels in (1 << 18, 3 * SIDE * SIDE, 1):
        monkeypatch.setattr(variants, "AT_ONCE", pixels)
        g = TinyGenerator()
        segmenter = StyleMix().fit(g, settings=replace(QUICK, variants=12))
        ws = g.latents([4])
        made = plain(g, ws)
        sizes.clear()
        masks.append(segmenter.predict(g, replace(made, ws=ws, noise="const", seeds=(4,))).labels)
        assert sizes == {1 << 18: [8, 3], 3 * SIDE * SIDE: [3, 3, 3, 2], 1: [1] * 11}[pixels]
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])


def test_release_draws_anew_and_counts_its_passes():
    generator = Recoloured()
    synthesis = made(generator, (1,))
    generator.passes, generator.asked = 0, []
    settings = StyleMixSettings(profile="release", variants=5, repeats=3, iterations=3)
    StyleMix().fit(generator, settings=settings).predict(generator, synthesis)
    assert generator.passes == 15
    seeds = [s for _, some in generator.asked for s in some]
    assert {noise for noise, _ in generator.asked} == {"seed"} and len(set(seeds)) == 15
    generator.passes = 0
    StyleMix().fit(generator, settings=replace(settings, profile="fixed")).predict(generator, synthesis)
    assert generator.passes == 4  # the image itself is the first of the five, and serves all repeats
    values = PROFILES["release"]
    assert (values["variants"], values["k"], values["repeats"], values["rule"]) == (50, 3, 10, "least-central")


def test_the_crossover_follows_depth_or_resolution():
    def spec(side, layers, num_ws):
        taps = tuple(FeatureTap(f"b{i}", r, 2) for i, r in enumerate(layers))
        return GeneratorSpec("g", side, 3, 4, 4, 0, num_ws, taps)

    big = spec(1024, [4] + [r for r in (8, 16, 32, 64, 128, 256, 512, 1024) for _ in (0, 1)], 18)
    by_depth = StyleMixSettings(crossover_by="depth").resolved()
    by_size = StyleMixSettings(crossover_by="resolution").resolved()
    assert crossover_slots(big, by_depth) == (6, 9)  # as the community implementation has it
    assert crossover_slots(big, by_size) == (6, 9)  # the second convolution at 32 px, the first at 128
    small = spec(64, [4] + [r for r in (8, 16, 32, 64) for _ in (0, 1)], 10)
    assert crossover_slots(small, by_depth) == (3, 5)
    assert crossover_slots(small, by_size) == (6, 9)
    third = spec(64, [16, 16, 16, 32, 32, 64, 64, 64], 10)  # StyleGAN3: a slot before the first layer
    assert crossover_slots(third, by_size) == (5, 9)
    assert crossover_slots(spec(32, [4, 8, 8, 16, 16, 32, 32], 8), by_size) == (6, 7)
    assert crossover_slots(spec(16, [4, 8, 8, 16, 16], 6), by_size) == (5, 5)  # nothing of 32 px: the last slot
    assert crossover_slots(big, replace(by_size, crossover_low=64, crossover_high=64)) == (8, 8)
    assert crossover_slots(big, replace(by_size, crossover_low=40)) == (7, 9)  # the first of the next larger size
    assert crossover_slots(big, replace(by_size, crossover_low=0)) == (1, 9)
    assert crossover_slots(small, replace(by_depth, crossover_low=0.0, crossover_high=1.0)) == (1, 9)


def test_segments_run_from_the_rim_to_the_middle_and_keep_their_numbers():
    generator = Recoloured()
    settings = StyleMixSettings(k=2, variants=8, repeats=4, output="segments")
    segmenter = StyleMix().fit(generator, settings=settings)
    synthesis = made(generator, range(6))
    a = segmenter.predict(generator, synthesis)
    assert segmenter.labels.names == ("segment-0", "segment-1")
    assert float((a.labels == generator.truth(synthesis.ws)).float().mean()) > 0.98
    assert float(a.confidence.float().mean()) > 240  # the repeats mean the same by a number


def test_half_of_the_votes_are_foreground(monkeypatch):
    generator = TinyGenerator()
    rules = iter([torch.tensor([False, True, True]), torch.tensor([False, False, True])] * 3)
    monkeypatch.setattr(stylemix, "foreground_clusters", lambda *a: next(rules))
    labels = torch.arange(SIDE * SIDE) % 3
    monkeypatch.setattr(clustering, "parallel_kmeans", lambda *a, **o: labels.expand(2, -1))
    segmenter = StyleMix().fit(generator, settings=replace(QUICK, repeats=2))
    a = segmenter.predict(generator, made(generator, (1,)))
    assert a.labels[0].flatten()[:3].tolist() == [0, 1, 1]
    assert a.confidence[0].flatten()[:3].tolist() == [255, 128, 255]


def test_classes_of_a_conditional_generator():
    generator = Recoloured(classes=3)
    seen, plain = [], generator.map
    generator.map = lambda z, c=None, *a, **o: seen.append(c) or plain(z, c, *a, **o)
    synthesis = made(generator, (1, 2))
    seen.clear()
    StyleMix().fit(generator, settings=replace(QUICK, class_index=2)).predict(generator, synthesis)
    assert all(c[:, 2].all() and float(c.sum()) == len(c) for c in seen)
    seen.clear()
    StyleMix().fit(generator, settings=QUICK).predict(generator, synthesis)
    assert len(torch.cat(seen).argmax(dim=1).unique()) > 1
    with pytest.raises(UsageError, match="class_index 3"):
        StyleMix().fit(generator, settings=replace(QUICK, class_index=3))


def test_faiss_clusters_as_torch_does_or_is_refused(monkeypatch):
    if importlib.util.find_spec("faiss"):
        generator = Recoloured()
        segmenter = StyleMix().fit(generator, settings=StyleMixSettings(k=2, variants=6, repeats=2, clusterer="faiss"))
        synthesis = made(generator, range(4))
        labels = segmenter.predict(generator, synthesis).labels
        assert float((labels == generator.truth(synthesis.ws)).float().mean()) > 0.98
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match="not installed"):
        StyleMixSettings(clusterer="faiss")


def test_faiss_works_where_the_images_are_or_leaves_them_to_torch(monkeypatch):
    seen = []

    class Kmeans:
        def __init__(self, width, k, **options):
            seen.append((k, options.get("gpu", False)))
            self.index = SimpleNamespace(search=lambda x, n: (None, np.arange(len(x))[:, None] % k))

        def train(self, x):
            pass

    fake = SimpleNamespace(Kmeans=Kmeans, get_num_gpus=lambda: 2)
    monkeypatch.setitem(sys.modules, "faiss", fake)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert faiss_options(cpu) == {} and faiss_options(gpu) == {"gpu": True}
    x, columns = torch.rand(9, 6), torch.ones(2, 6, dtype=torch.bool)
    how = (3, 5, 0, "faiss", torch.Generator())  # clusters, iterations, all pixels
    assert cluster(x, columns, *how).tolist() == [[0, 1, 2] * 3] * 2
    monkeypatch.setattr(clustering, "faiss_options", lambda device: {"gpu": True})
    cluster(x[:2], columns, *how)  # two pixels: two clusters
    assert seen == [(3, False)] * 2 + [(2, True)] * 2
    for without in (SimpleNamespace(get_num_gpus=lambda: 0), SimpleNamespace()):
        monkeypatch.setitem(sys.modules, "faiss", without)
        assert faiss_options(gpu) is None and faiss_options(cpu) == {}
    monkeypatch.setattr(clustering, "faiss_options", lambda device: None)
    assert cluster(x, columns, *how).shape == (2, 9) and len(seen) == 4


def test_refusals():
    generator = TinyGenerator()
    with pytest.raises(UsageError, match="--shots 0"):
        StyleMix().fit(generator, [object()])
    segmenter = StyleMix().fit(generator, settings=QUICK)
    bare = generator.synthesize(generator.latents(SEEDS), "const", ())
    with pytest.raises(UsageError, match="without their latents"):
        segmenter.predict(generator, bare)
    other = TinyGenerator(seed=1)
    with pytest.raises(UsageError, match="fit again"):
        segmenter.predict(other, made(other))
    wrongs = ({"variants": 1}, {"rule": "x"}, {"sides": "q"}, {"crossover_low": 0.6, "crossover_high": 0.2}, {"k": 1})
    for wrong in wrongs:
        with pytest.raises(UsageError, match=next(iter(wrong)) if len(wrong) == 1 else "crossover_high"):
            StyleMixSettings(**wrong)


def test_any_random_state_gives_the_same_masks():
    generator, found = TinyGenerator(), []
    for state in (1, 2):
        torch.manual_seed(state)
        np.random.seed(state)
        found.append(StyleMix().fit(generator, settings=QUICK).predict(generator, made(generator)).labels)
    assert torch.equal(*found)
