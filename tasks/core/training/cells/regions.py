"""Divide space into regions by planes, where the fewest photos see both sides.

A region is what remains of space between some planes: it is convex and without end outwards, so every place, the sky
too, belongs to exactly one. Planes are chosen one after the other. Each divides the work in proportion to the cells on
its two sides, and of all directions and positions that do, it is the one that splits the fewest photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.transforms import Float64

Owners = NDArray[np.int16]

DIRECTIONS = 12  # horizontal ones that are tried, evenly spread over half a circle
POSITIONS = 21  # of the plane in each direction
MOST_UNEVEN = 0.1  # by which the share of the work on one side may differ from the wanted one
UNEVEN_COSTS = 1.5  # of a share of the work on the wrong side, where a share that two cells need costs 1


@dataclass(frozen=True)
class Plane:
    """Divides a node of the tree. Places with `normal @ place < offset` belong to `below`.

    `below` and `above` are the numbers of planes, or -1 - cell.
    """

    normal: tuple[float, float, float]
    offset: float
    below: int
    above: int


@dataclass(frozen=True)
class Regions:
    """A tree of planes, the root first; without planes, all of space is cell 0."""

    planes: tuple[Plane, ...]

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.planes) + 1

    def owner(self, places: Float64) -> Owners:
        """The cell [P] of each place [P, 3]. Places that are not finite belong to any cell."""
        owners = np.zeros(len(places), np.int16)
        if self.planes:
            self._assign(0, places, np.arange(len(places)), owners)
        return owners

    def _assign(self, node: int, places: Float64, rows: NDArray[np.intp], owners: Owners) -> None:
        plane = self.planes[node]
        is_below = places[rows] @ np.array(plane.normal) < plane.offset
        for child, side in ((plane.below, rows[is_below]), (plane.above, rows[~is_below])):
            if child < 0:
                owners[side] = -1 - child
            else:
                self._assign(child, places, side, owners)

    def outside_by(self, cell: int, places: Float64) -> Float64:
        """How far [P] each place lies beyond the plane of the cell that it is farthest beyond; 0 inside.

        That is the distance to the cell, except beyond an edge where two planes meet: there it is less.
        """
        beyond = np.zeros(len(places))
        for plane, sign in self._walls(cell):
            beyond = np.maximum(beyond, sign * (places @ np.array(plane.normal) - plane.offset))
        return beyond

    def _walls(self, cell: int, node: int = 0) -> list[tuple[Plane, float]]:
        """The planes around a cell, with 1 where it is below and -1 where it is above; none if it is not under node."""
        if not self.planes:
            return []
        plane = self.planes[node]
        for child, sign in ((plane.below, 1.0), (plane.above, -1.0)):
            if child == -1 - cell:
                return [(plane, sign)]
            if child >= 0 and (walls := self._walls(cell, child)):
                return [(plane, sign), *walls]
        return []


def divide_space(places: Float64, cameras: NDArray[np.integer], count: int, up: Float64) -> Regions:
    """Regions in which photos have about equal work.

    Args:
        places: [S, 3] what parts of equal size of all photos show.
        cameras: [S] numbers of the photos.
        count: of regions, at least 1.
        up: [3] unit vector that points to the sky. Planes are upright.
    """
    planes: list[Plane | None] = []
    next_cell = iter(range(count))
    directions = _upright_directions(up)

    def node(rows: NDArray[np.intp], cells: int) -> int:
        """Divide the places at `rows` among so many cells; returns the number of the plane, or -1 - cell."""
        if cells == 1:
            return -1 - next(next_cell)
        here = len(planes)
        planes.append(None)  # its children come after it
        few = cells // 2
        normal, offset = _best_plane(places[rows], cameras[rows], few / cells, directions)
        is_below = places[rows] @ normal < offset
        below, above = node(rows[is_below], few), node(rows[~is_below], cells - few)
        planes[here] = Plane((float(normal[0]), float(normal[1]), float(normal[2])), float(offset), below, above)
        return here

    node(np.arange(len(places)), count)
    return Regions(tuple(plane for plane in planes if plane is not None))


def _upright_directions(up: Float64) -> Float64:
    """Horizontal unit vectors [DIRECTIONS, 3]."""
    first = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    first /= np.linalg.norm(first)
    angles = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    return np.asarray(np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * np.cross(up, first))


def _best_plane(
    places: Float64, cameras: NDArray[np.integer], wanted: float, directions: Float64
) -> tuple[Float64, float]:
    """The plane with about the wanted share of the places [S, 3] below it that splits the fewest photos [S]."""
    shares = np.linspace(max(wanted - MOST_UNEVEN, 0.02), min(wanted + MOST_UNEVEN, 0.98), POSITIONS)
    numbers = np.unique(cameras, return_inverse=True)[1]
    photos = int(numbers.max(initial=-1)) + 1
    best: tuple[float, Float64, float] | None = None
    for direction in directions:
        along = places @ direction
        offsets = np.quantile(along, shares)
        slots = np.searchsorted(offsets, along, side="right")  # the first position at whose plane a place is below
        counts = np.bincount(numbers * (POSITIONS + 1) + slots, minlength=photos * (POSITIONS + 1))
        below = counts.reshape(photos, POSITIONS + 1).cumsum(axis=1)  # [photos, POSITIONS + 1]
        split = np.minimum(below[:, :-1], below[:, -1:] - below[:, :-1]).sum(axis=0) / max(len(along), 1)
        costs = split + UNEVEN_COSTS * np.abs(shares - wanted)
        position = int(np.argmin(costs))
        if best is None or costs[position] < best[0]:
            best = float(costs[position]), direction, float(offsets[position])
    assert best is not None
    return best[1], best[2]


def as_lists(regions: Regions) -> list[list[float]]:
    """The planes as numbers for JSON: normal, offset, below, above."""
    return [[*plane.normal, plane.offset, plane.below, plane.above] for plane in regions.planes]


def from_lists(rows: Sequence[Sequence[float]]) -> Regions:
    """Read what `as_lists` returned."""
    return Regions(tuple(Plane((x, y, z), offset, int(below), int(above)) for x, y, z, offset, below, above in rows))
