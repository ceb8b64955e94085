"""segment_in_style: the contract with exemplars, clusters without, names by hand, coordinates, folded centroids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.methods.contract import LABELS, MethodContract
from helpers.methods.tiny_generator import SIDE, TinyGenerator, exemplars_of

from gansegctl import methods
from gansegctl.errors import UsageError
from gansegctl.features.kmeans import kmeans
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.labels import LabelMap
from gansegctl.methods import segment_in_style
from gansegctl.methods.base import segmenter_file
from gansegctl.methods.base.fitting import feature_statistics
from gansegctl.methods.segment_in_style import SegmentInStyle, SegmentInStyleSettings

QUICK = SegmentInStyleSettings(k=7, images=4, iterations=6, statistics_samples=3)


class TestNamed(MethodContract):
    name, settings = "segment_in_style", QUICK

    def test_values_without_a_class_and_no_exemplars_are_refused(self):
        wrong = self.exemplars[0].mask.copy()
        wrong[2, 3] = 17
        with pytest.raises(UsageError, match=r"17.*seed 3"):
            self.fit([replace(self.exemplars[0], mask=wrong)])
        assert self.fit([]).labels.names[0] == "segment-0"  # it needs none


class TestReleaseWithCoordinates(TestNamed):
    settings = replace(
        QUICK, profile="release", images=4, coordinates="xy", naming="balanced", min_resolution=8, softness=0.0
    )


def sides(pyramid) -> np.ndarray:
    """A truth that only place decides: the left half and the right one."""
    mask = np.zeros((pyramid.batch, SIDE, SIDE), np.uint8)
    mask[:, :, SIDE // 2 :] = 1
    return mask


def accuracy(settings, truth, labels, seeds=range(30, 36)):
    generator = TinyGenerator()
    shown, fresh = exemplars_of(generator, (3,), truth), exemplars_of(generator, seeds, truth)
    segmenter = SegmentInStyle().fit(generator, shown, labels, settings)
    synthesis = generator.synthesize(torch.cat([e.ws for e in fresh]), taps=segmenter.taps)
    found = segmenter.predict(generator, synthesis).labels.numpy()
    return (found == np.stack([e.mask for e in fresh])).mean()


def test_clusters_named_by_one_image_hold_in_others():
    """The truth: two clusters of the finest level, found by k-means on other images."""
    generator = TinyGenerator()

    def truth(pyramid):
        fine = FeaturePyramid([pyramid.levels[-1]], pyramid.size)
        reference = generator.synthesize(generator.latents(range(5))).pyramid
        centroids = kmeans([FeaturePyramid([reference.levels[-1]], reference.size)], 2, seed=0).centroids
        return fine.assign(centroids).to(torch.uint8).numpy()

    settings = replace(QUICK, images=8, k=12, min_resolution=16, max_resolution=16, standardise=False)
    assert accuracy(settings, truth, LabelMap(("a", "b"))) > 0.9
    assert accuracy(replace(settings, k=2), truth, LabelMap(("a", "b"))) > 0.75


def test_coordinates_tell_left_from_right():
    labels = LabelMap(("left", "right"))
    with_x = replace(QUICK, coordinates="x", coordinate_weight=10.0, k=4)
    assert accuracy(with_x, sides, labels) > 0.95
    assert accuracy(replace(with_x, coordinates="none"), sides, labels) < 0.85


@pytest.mark.parametrize("coordinates", ["none", "x", "xy"])
def test_folded_centroids_find_the_nearest_standardised_cluster(monkeypatch, coordinates):
    kept = {}

    def statistics(*args):
        kept["mean"], kept["scale"] = feature_statistics(*args)
        return kept["mean"], kept["scale"]

    def clustering(*args, **options):
        kept["centroids"] = kmeans(*args, **options).centroids
        return kmeans(*args, **options)

    monkeypatch.setattr(segment_in_style, "feature_statistics", statistics)
    monkeypatch.setattr(segment_in_style, "kmeans", clustering)
    generator = TinyGenerator()
    segmenter = SegmentInStyle().fit(generator, settings=replace(QUICK, coordinates=coordinates, coordinate_weight=0.5))
    pyramid = generator.synthesize(generator.latents([5, 6]), taps=segmenter.taps).pyramid
    x = (pyramid.dense() - kept["mean"].view(1, -1, 1, 1)) * kept["scale"].view(1, -1, 1, 1)
    ramp = ((torch.arange(SIDE) + 0.5) / SIDE * 2 - 1).expand(SIDE, SIDE)
    extra = {"none": [], "x": [ramp], "xy": [ramp, ramp.T]}[coordinates]
    if extra:
        size = (3 * 0.5 * pyramid.channels / len(extra)) ** 0.5
        x = torch.cat([x, (torch.stack(extra) * size).expand(2, -1, -1, -1)], dim=1)
    wanted = torch.cdist(x.flatten(2).transpose(1, 2), kept["centroids"]).argmin(dim=2).view(2, SIDE, SIDE)
    assert float((segmenter.clusters(pyramid) == wanted).float().mean()) > 0.995
    assert segmenter.places.shape == (7, len(extra)) and len(wanted.unique()) > 3


def test_every_pixel_goes_to_its_nearest_centroid():
    generator = TinyGenerator()
    settings = replace(QUICK, standardise=False, iterations=40)
    segmenter = SegmentInStyle().fit(generator, settings=settings)
    pyramid = generator.synthesize(generator.latents([5]), taps=segmenter.taps).pyramid
    points = pyramid.dense()[0].flatten(1).T  # not standardised: the weights are the centroids
    wanted = torch.cdist(points, segmenter.weight).argmin(dim=1)
    assert float((segmenter.clusters(pyramid).flatten() == wanted).float().mean()) > 0.99


def test_without_exemplars_the_clusters_have_numbers():
    generator = TinyGenerator()
    segmenter = SegmentInStyle().fit(generator, settings=QUICK)
    assert segmenter.labels.names == tuple(f"segment-{i}" for i in range(7))
    synthesis = generator.synthesize(generator.latents([1, 2]), taps=segmenter.taps)
    a = segmenter.predict(generator, synthesis)
    assert torch.equal(a.labels.long(), segmenter.clusters(synthesis.pyramid))
    assert SegmentInStyle().fit(generator, settings=replace(QUICK, k=None)).settings["k"] == 9
    named = SegmentInStyle().fit(generator, exemplars_of(generator, (3,)), LABELS, replace(QUICK, k=None))
    assert named.settings["k"] == 18


def test_foreground_is_what_the_rule_says_of_all_images_together():
    generator = TinyGenerator()
    segmenter = SegmentInStyle().fit(generator, settings=replace(QUICK, output="foreground", rule="least-central"))
    assert segmenter.labels.names == ("background", "foreground")
    assert segmenter.table.shape == (7, 2) and segmenter.table[:, 0].sum() == 1  # one cluster is background
    synthesis = generator.synthesize(generator.latents([1, 2]), taps=segmenter.taps)
    labels = replace_table(segmenter).predict(generator, synthesis).labels
    background = int(segmenter.table[:, 0].argmax())
    assert torch.equal(labels == 0, segmenter.clusters(synthesis.pyramid) == background)


def replace_table(segmenter):
    """The same with hard clusters: which way a pixel between two goes is not the question."""
    segmenter.settings = segmenter.settings | {"softness": 0.0}
    return segmenter


def test_names_by_hand_in_a_table(tmp_path):
    generator = TinyGenerator()
    names = {"nose": [2, 5], "hair": [0]}
    segmenter = SegmentInStyle().fit(generator, settings=replace(QUICK, names=names, softness=0.0))
    assert segmenter.labels.names == ("background", "nose", "hair")
    synthesis = generator.synthesize(generator.latents([1]), taps=segmenter.taps)
    clusters, labels = segmenter.clusters(synthesis.pyramid), segmenter.predict(generator, synthesis).labels
    wanted = torch.tensor([2, 0, 1, 0, 0, 1, 0])[clusters]
    assert torch.equal(labels.long(), wanted)
    segmenter.save(tmp_path / "s")
    assert torch.equal(methods.load(tmp_path / "s").predict(generator, synthesis).labels, labels)
    for wrong, said in (({"a": [9]}, "cluster 9, of 7"), ({"a": [1], "b": [1]}, "cluster 1 twice")):
        with pytest.raises(UsageError, match=said):
            SegmentInStyle().fit(generator, settings=replace(QUICK, names=wrong))
    with pytest.raises(UsageError, match="names and exemplars"):
        SegmentInStyle().fit(generator, exemplars_of(generator, (3,)), LABELS, replace(QUICK, names=names))


def test_a_cluster_that_no_exemplar_shows_is_named_as_its_neighbour():
    generator = TinyGenerator()
    exemplar = exemplars_of(generator, (3,))[0]
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[:2, :2] = 2
    segmenter = SegmentInStyle().fit(generator, [replace(exemplar, mask=mask)], LABELS, QUICK)
    assert bool((segmenter.table[:, 2] == 1).all())


def test_balanced_naming_lets_a_small_class_have_a_cluster():
    generator = TinyGenerator()
    exemplar = exemplars_of(generator, (3,))[0]
    plain = SegmentInStyle().fit(generator, settings=QUICK)
    clusters = plain.clusters(generator.synthesize(exemplar.ws, taps=plain.taps).pyramid)[0].numpy()
    one = int(np.bincount(clusters.flatten()).argmax())
    mask = np.zeros((SIDE, SIDE), np.uint8)
    inside = np.argwhere(clusters == one)
    mask[tuple(inside[: max(1, len(inside) // 3)].T)] = 1  # a third of one cluster, and nothing else
    shares = {}
    for naming in ("majority", "balanced"):
        settings = replace(QUICK, naming=naming)
        table = SegmentInStyle().fit(generator, [replace(exemplar, mask=mask)], LabelMap(("a", "b")), settings).table
        shares[naming] = float(table[one, 1])
    assert shares["majority"] < 0.5 < shares["balanced"]


def test_images_are_kept_in_half_precision_when_standardised(monkeypatch):
    seen = []

    def watched(pyramids, *args, **options):
        seen.append({x.dtype for p in pyramids for x in p.levels})
        return kmeans(pyramids, *args, **options)

    monkeypatch.setattr("gansegctl.methods.segment_in_style.kmeans", watched)
    generator = TinyGenerator()
    SegmentInStyle().fit(generator, settings=QUICK)
    SegmentInStyle().fit(generator, settings=replace(QUICK, profile="release"))
    assert seen == [{torch.float16}, {torch.float32}]


def test_the_release_profile_reads_one_layer():
    generator = TinyGenerator()
    assert SegmentInStyle().fit(generator, settings=replace(QUICK, profile="release")).taps == ("b16.conv1",)
    assert SegmentInStyle().fit(generator, settings=QUICK).taps == ("b8.conv1", "b16.conv1")


def test_a_file_with_other_tensors_is_refused(tmp_path):
    generator = TinyGenerator()
    segmenter = SegmentInStyle().fit(generator, settings=QUICK)
    segmenter.save(tmp_path / "s")
    tensors = segmenter.tensors() | {"bias": torch.zeros(3)}
    segmenter_file.write(tmp_path / "wrong", methods.read_header(tmp_path / "s"), tensors)
    with pytest.raises(UsageError, match="other tensors"):
        methods.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    "wrong",
    [{"k": 1}, {"coordinates": "z"}, {"sides": "u"}, {"names": {"a": 3}}, {"output": "x"}, {"softness": -1.0}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SegmentInStyleSettings(**wrong)


def test_in_the_release_a_pixel_belongs_to_one_cluster():
    generator = TinyGenerator()
    segmenter = SegmentInStyle().fit(generator, settings=replace(QUICK, profile="release"))
    synthesis = generator.synthesize(generator.latents([1, 2]), taps=segmenter.taps)
    p = segmenter.predict(generator, synthesis, probabilities=True).probabilities
    assert float(p.amax(dim=1).min()) > 0.999


def test_the_release_upsamples_and_assigns_as_released():
    generator = TinyGenerator()
    fixed = SegmentInStyle().fit(generator, settings=QUICK)
    released = SegmentInStyle().fit(generator, settings=replace(QUICK, profile="release"))
    assert [s.settings[k] for s in (fixed, released) for k in ("mode", "softness")] == [
        "bilinear",
        0.3,
        "bilinear-corners",
        0.0,
    ]
