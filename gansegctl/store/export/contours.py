"""Regions → polygons along pixel borders, exact, one a connected part, holes joined to the outside by a slit.

Corners of a rectilinear region pair up: in every row of the corner lattice the 1st and 2nd are joined by a horizontal
border, the 3rd and 4th, …, and likewise in every column. Following the pairs in turn gives all borders in time linear
in the corners. Where two pixels touch at a corner only, the corner counts twice, once for each: parts are 4-connected.

Why a slit: neither YOLO nor COCO polygons can say "hole". It runs inside the region along a pixel row, so that it adds
and removes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Point = tuple[float, float]


def polygons(region: np.ndarray, inset: float = 0.0) -> list[list[Point]]:
    """bool [H,W] → closed polygons [(x, y), …] in pixels, (0, 0) the top left corner of the top left pixel.

    inset: pixels by which borders are drawn inwards. With 0 the polygon is the region's outline, as COCO's tools take
    it; with a little (0.05) its corners, cut to integers, are the outermost pixels, as those take it who fill including
    the border (OpenCV's fillPoly, which YOLO trainers call).
    """
    region = np.asarray(region, bool)
    rings = [_Ring(r, hole) for r, hole in _borders(region)]
    holes = sorted((r for r in rings if r.hole), key=lambda r: -r.left)
    rising: dict[int, list[tuple[int, int, _Ring, int]]] = {}
    for ring in rings if holes else ():
        for i, (x, top, bottom) in ring.rising():
            rising.setdefault(x, []).append((top, bottom, ring, i))
    for hole in holes:  # from the right: what is joined to a hole is in it before it is joined itself
        outside = np.flatnonzero(~region[hole.top, : hole.left])
        x = int(outside[-1]) + 1 if len(outside) else 0
        ring, edge = next((r, i) for top, bottom, r, i in rising[x] if top <= hole.top < bottom)
        y = hole.top + 0.5
        start: Point = (x + inset, y)
        ring.joined.setdefault(edge, []).append((y, [start, *hole.path(inset, (hole.left - inset, y)), start]))
    return [ring.path(inset) for ring in rings if not ring.hole]


class _Ring:
    """One border, region on the right hand; corners [(x, y)]."""

    def __init__(self, corners: list[tuple[int, int]], hole: bool) -> None:
        self.corners, self.hole = corners, hole
        self.joined: dict[int, list[tuple[float, list[Point]]]] = {}
        if hole:  # where it is joined: the highest of its leftmost borders, found by its upper end
            n = len(corners)
            self.left = min(x for x, _ in corners)
            falling = [(min(corners[i][1], corners[(i + 1) % n][1]), i) for i in range(n) if self._at(i)]
            self.top, self.opening = min(falling)

    def _at(self, i: int) -> bool:
        return self.corners[i][0] == self.left == self.corners[(i + 1) % len(self.corners)][0]

    def rising(self) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """(i, (x, top, bottom)) of every border from corner i upwards: the region lies to its right."""
        n = len(self.corners)
        for i, (x, y) in enumerate(self.corners):
            x2, y2 = self.corners[(i + 1) % n]
            if x == x2 and y2 < y:
                yield i, (x, y2, y)

    def path(self, inset: float, opening: Point | None = None) -> list[Point]:
        """Its corners and what is joined to it; from `opening` back to `opening` where it is given."""
        n = len(self.corners)
        first = 0 if opening is None else self.opening + 1
        points: list[Point] = [] if opening is None else [opening]
        for step in range(n):
            i = (first + step) % n
            points.append(self._corner(i, inset))
            for _, slit in sorted(self.joined.get(i, ()), key=lambda j: -j[0]):  # upwards, as the border runs
                points += slit
        return points if opening is None else [*points, opening]

    def _corner(self, i: int, inset: float) -> Point:
        (xa, ya), (x, y), (xb, yb) = (self.corners[j % len(self.corners)] for j in (i - 1, i, i + 1))
        if not inset:
            return (x, y)
        across = _sign(x - xa) + _sign(xb - x)  # one of the two borders is horizontal, the other vertical
        along = _sign(y - ya) + _sign(yb - y)
        return (x - inset * along, y + inset * across)


def _sign(v: int) -> int:
    return (v > 0) - (v < 0)


def _borders(region: np.ndarray) -> list[tuple[list[tuple[int, int]], bool]]:
    """Every border as its corners, and whether it is that of a hole."""
    padded = np.pad(region, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    odd = nw ^ ne ^ sw ^ se
    falling, rising = nw & se & ~ne & ~sw, ne & sw & ~nw & ~se
    parts = []  # y, x, which comes first in its row, which in its column
    for where, in_row, in_column in ((odd, 0, 0), (falling, 0, 0), (falling, 1, 1), (rising, 1, 0), (rising, 0, 1)):
        y, x = np.nonzero(where)
        parts.append(np.stack([y, x, np.full_like(y, in_row), np.full_like(y, in_column)]))
    ys, xs, in_row, in_column = np.concatenate(parts, axis=1)
    rows, columns = np.lexsort((in_row, xs, ys)), np.lexsort((in_column, ys, xs))
    beside, above = np.empty_like(rows), np.empty_like(rows)
    for partner, order in ((beside, rows), (above, columns)):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    solid = se[ys, xs].tolist()
    x, y, beside, above = xs.tolist(), ys.tolist(), beside.tolist(), above.tolist()
    seen, found = bytearray(len(x)), []
    for first in rows.tolist():
        if seen[first]:
            continue
        hole = not solid[first]  # its topmost, leftmost corner: what lies below and to the right is it or not
        ring, at, level = [], first, not hole
        while not seen[at]:
            seen[at] = 1
            ring.append((x[at], y[at]))
            at = (beside if level else above)[at]
            level = not level
        found.append((ring, hole))
    return found


def components(region: np.ndarray) -> Iterator[np.ndarray]:
    """bool [H,W] → its 4-connected parts, one after another, each bool [H,W], in the order of their first pixels."""
    region = np.asarray(region, bool)
    height, width = region.shape
    edges = np.diff(np.pad(region, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    ys, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    root = list(range(len(ys)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    first = np.searchsorted(ys, np.arange(height + 1)).tolist()
    a, b = starts.tolist(), ends.tolist()
    for y in range(1, height):
        i, j = first[y - 1], first[y]
        while i < first[y] and j < first[y + 1]:
            if a[i] < b[j] and a[j] < b[i]:
                p, q = sorted((find(i), find(j)))
                root[q] = p
            if b[i] < b[j]:
                i += 1
            else:
                j += 1
    runs: dict[int, list[int]] = {}
    for k in range(len(root)):
        runs.setdefault(find(k), []).append(k)
    for first_run in sorted(runs):
        mask = np.zeros((height, width), bool)
        for k in runs[first_run]:
            mask[ys[k], a[k] : b[k]] = True
        yield mask
