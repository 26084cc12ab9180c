"""Divide many photos into parts that can be mapped by themselves: cuts of the graph of photos that agree.

A part is cut in two where photos share few points (normalised cut, Shi and Malik, 2000), until each is small enough.
Then it gets the photos of each adjacent part that share most with it, so that parts can be laid over one another.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.sfm.view_graph import ViewGraph
from tasks.core.transforms import Float64

RING = 12  # photos of each adjacent part, which the two then have in common twice
LEAST_SHARED = 50  # points that a photo shares with a part, to be worth a place in its ring
FEWEST_PHOTOS = 3  # of a part: pycolmap starts with two and needs a third
ITERATIONS, CHANGE = 4000, 1e-7  # of the search for a cut


@dataclass(frozen=True)
class Part:
    """Photos that are mapped together, by their place in the list of all."""

    own: tuple[int, ...]  # in no other part's
    photos: tuple[int, ...]  # with the ring around them, sorted


def divide(graph: ViewGraph, most: int) -> list[Part]:
    """Cut the photos into parts with at most `most` photos of their own, the largest connected ones first.

    Photos that agree with no other, or in too small a group, are in no part.
    """
    neighbours = graph.neighbours()
    groups = _connected(graph)
    cut: list[list[int]] = []
    while groups:
        group = groups.pop(0)
        if len(group) <= most:
            cut.append(group)
        else:
            parts = -(-len(group) // most)
            groups[:0] = _cut(group, neighbours, len(group) * (parts // 2) // parts)
    owner = {photo: number for number, group in enumerate(cut) for photo in group}
    return [Part(tuple(group), tuple(sorted([*group, *_ring(group, neighbours, owner)]))) for group in cut]


def _connected(graph: ViewGraph) -> list[list[int]]:
    part = graph.parts()
    groups = [np.flatnonzero(part == number).tolist() for number in range(int(part.max(initial=-1)) + 1)]
    return [group for group in groups if len(group) >= FEWEST_PHOTOS]


def _cut(group: list[int], neighbours: list[dict[int, int]], count: int) -> tuple[list[int], list[int]]:
    """Cut a group of photos where few points are shared, with `count` of them on one side."""
    row = {photo: i for i, photo in enumerate(group)}
    edges = [
        (i, row[other], count)
        for i, photo in enumerate(group)
        for other, count in neighbours[photo].items()
        if other in row and i < row[other]
    ]
    first, second, weight = np.array(edges, np.int64).reshape(-1, 3).T
    order = np.argsort(_slowest_change(len(group), first, second, weight.astype(np.float64)), kind="stable")
    one, other = np.sort(order[:count]), np.sort(order[count:])
    return [group[i] for i in one], [group[i] for i in other]


def _slowest_change(count: int, first: NDArray[np.int64], second: NDArray[np.int64], weight: Float64) -> Float64:
    """Values [N] that differ as little as possible between photos that share much: the Fiedler vector."""
    degree = np.bincount(first, weight, count) + np.bincount(second, weight, count)
    root = np.sqrt(np.maximum(degree, 1e-12))
    constant = root / np.linalg.norm(root)
    scaled = weight / (root[first] * root[second])
    values = np.random.default_rng(0).normal(size=count)
    for _ in range(ITERATIONS):
        values -= (values @ constant) * constant
        values /= max(float(np.linalg.norm(values)), 1e-300)
        moved = np.bincount(first, scaled * values[second], count) + np.bincount(second, scaled * values[first], count)
        following = (moved + values) / 2
        following /= max(float(np.linalg.norm(following)), 1e-300)
        change = float(np.abs(following - values).max())
        values = following
        if change < CHANGE:
            break
    return np.asarray(values / root)


def _ring(group: list[int], neighbours: list[dict[int, int]], owner: dict[int, int]) -> list[int]:
    """The photos of each adjacent part that share most points with this group."""
    shared: defaultdict[int, int] = defaultdict(int)
    for photo in group:
        for other, count in neighbours[photo].items():
            if other in owner and owner[other] != owner[photo]:
                shared[other] += count
    beside: defaultdict[int, list[int]] = defaultdict(list)
    for other in sorted(shared, key=lambda other: (-shared[other], other)):
        if shared[other] >= LEAST_SHARED:
            beside[owner[other]].append(other)
    return sorted(other for of_part in beside.values() for other in of_part[:RING])
