"""A generator as methods see it: activations at native size, clustered, and the choice of images to annotate."""

from __future__ import annotations

from gansegctl.features.kmeans import KMeansResult, kmeans
from gansegctl.features.pyramid import FeaturePyramid, fold_affine
from gansegctl.features.select import choose, descriptors, farthest_first, k_medoids, most_typical

__all__ = [
    "FeaturePyramid",
    "KMeansResult",
    "choose",
    "descriptors",
    "farthest_first",
    "fold_affine",
    "k_medoids",
    "kmeans",
    "most_typical",
]
