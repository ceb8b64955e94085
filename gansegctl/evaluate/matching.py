"""Clusters against named classes: who is who, for scores only. Nothing here changes what a dataset holds."""

from __future__ import annotations

import numpy as np

from gansegctl.errors import UsageError
from gansegctl.labels import LabelMap, is_cluster


def are_segments(labels: LabelMap) -> bool:
    """Whether these classes are clusters that nobody has named: segment-0, segment-1, …"""
    return all(is_cluster(name) for name in labels.names)


def assignment(gain: np.ndarray) -> np.ndarray:
    """The one-to-one pairing of rows and columns with the largest total gain [R,C]: a row's column, −1 for none.

    min(R,C) pairs. The Hungarian method by shortest augmenting paths, O(R²C) (Kuhn 1955; Jonker & Volgenant 1987).
    Written here because scipy, whose linear_sum_assignment does the same, would be a new dependency for this one call.
    Error: UsageError for a gain that is not a finite matrix.
    """
    gain = np.asarray(gain, dtype=np.float64)
    if gain.ndim != 2 or not gain.size or not np.isfinite(gain).all():
        raise UsageError(f"got gains of shape {gain.shape}", wanted="a matrix [R, C] of finite numbers")
    if gain.shape[0] > gain.shape[1]:
        of_column = assignment(gain.T)  # the row of each column
        rows = np.full(gain.shape[0], -1)
        rows[of_column] = np.arange(len(of_column))
        return rows
    cost = gain.max() - gain
    count, columns = cost.shape
    row_price, column_price = np.zeros(count), np.zeros(columns)
    row_of = np.full(columns, -1)
    for start in range(count):
        # Dijkstra on reduced costs from the new row to the nearest column without one
        distance, came_from, done = np.full(columns, np.inf), np.full(columns, -1), np.zeros(columns, bool)
        row, last, reached, visited = start, -1, 0.0, []
        while True:
            step = reached + cost[row] - row_price[row] - column_price
            nearer = ~done & (step < distance)
            distance[nearer], came_from[nearer] = step[nearer], last
            last = int(np.where(done, np.inf, distance).argmin())
            reached = distance[last]
            done[last] = True
            if row_of[last] < 0:
                break
            row = int(row_of[last])
            visited.append((row, last))
        row_price[start] += reached
        for row, column in visited:
            row_price[row] += reached - distance[column]
            column_price[column] -= reached - distance[column]
        while last >= 0:  # shift every pair on the path by one
            before = int(came_from[last])
            row_of[last] = start if before < 0 else row_of[before]
            last = before
    found = np.full(count, -1)
    found[row_of[row_of >= 0]] = np.flatnonzero(row_of >= 0)
    return found


def match_segments(overlap: np.ndarray) -> np.ndarray:
    """The class of every cluster, int64 [k], from overlap [k,K]: pixels that a cluster and a class have in common.

    First the one-to-one assignment with the largest sum of IoUs; clusters beyond the K classes then join the class that
    most of their pixels have. The truth decides here, so such a score says how well the clusters could be named.
    """
    overlap = np.asarray(overlap, dtype=np.float64)
    union = overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap
    mapping = assignment(overlap / np.maximum(union, 1))
    return np.where(mapping < 0, overlap.argmax(1), mapping)


def overlap_of(predicted: np.ndarray, truth: np.ndarray, clusters: int, classes: int) -> np.ndarray:
    """Common pixels int64 [k,K] of clusters uint8 [N,H,W] and classes uint8 [N,H,W]; other values count nowhere."""
    counted = (predicted < clusters) & (truth < classes)
    cells = predicted[counted].astype(np.int64) * classes + truth[counted]
    return np.bincount(cells, minlength=clusters * classes).reshape(clusters, classes)
