"""The graph of photos that agree: its parts, and pairs that may join or strengthen them."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from tasks.core.sfm.appearance import Float32, top
from tasks.core.sfm.evidence import LEAST_MATCHES
from tasks.core.sfm.pairs import Pair

Labels = NDArray[np.intp]


@dataclass(frozen=True)
class ViewGraph:
    """Photos by their place in a list, and how many points the pairs of them that agree have in common."""

    photos: int
    shared: dict[Pair, int]  # (smaller, greater): points

    def neighbours(self) -> list[dict[int, int]]:
        """For each photo those it agrees with, and by how many points."""
        found: list[dict[int, int]] = [{} for _ in range(self.photos)]
        for (a, b), count in self.shared.items():
            found[a][b] = found[b][a] = count
        return found

    def parts(self) -> Labels:
        """The number of each photo's connected part [N]: 0 for the largest, then by size; ties by their first photo."""
        neighbours = self.neighbours()
        part = np.full(self.photos, -1, np.intp)
        sizes: list[int] = []
        for start in range(self.photos):
            if part[start] >= 0:
                continue
            part[start], waiting, size = len(sizes), [start], 0
            while waiting:
                size += 1
                for other in neighbours[waiting.pop()]:
                    if part[other] < 0:
                        part[other] = len(sizes)
                        waiting.append(other)
            sizes.append(size)
        rank = np.empty(len(sizes), np.intp)
        rank[np.argsort(-np.array(sizes), kind="stable")] = np.arange(len(sizes))
        return rank[part]


def read_view_graph(database: Path, names: Sequence[str]) -> ViewGraph:
    """Read the pairs that agree from a database that no process has open. `names`: of its photos."""
    place = {name: i for i, name in enumerate(names)}
    with pycolmap.Database.open(database) as known:
        photo = {int(image.image_id): place[image.name] for image in known.read_all_images()}
        pairs, counts = known.read_two_view_geometry_num_inliers()
    shared: dict[Pair, int] = {}
    for pair, count in zip(pairs, counts, strict=True):
        if count >= LEAST_MATCHES:
            a, b = sorted(photo[int(i)] for i in pycolmap.pair_id_to_image_pair(pair))
            shared[a, b] = int(count)
    return ViewGraph(len(names), dict(sorted(shared.items())))


def neighbours_of_neighbours(graph: ViewGraph, compared: Collection[Pair], most: int) -> list[Pair]:
    """For each photo up to `most` others that agree with the same photos, by how many points; not those compared."""
    neighbours = graph.neighbours()
    found: set[Pair] = set()
    for i, near in enumerate(neighbours):
        support: defaultdict[int, int] = defaultdict(int)
        for between, count in near.items():
            for j, further in neighbours[between].items():
                if j != i and (min(i, j), max(i, j)) not in compared:
                    support[j] += min(count, further)
        best = sorted(support, key=lambda j: (-support[j], j))[:most]
        found.update((min(i, j), max(i, j)) for j in best)
    return sorted(found)


def bridges(parts: Labels, vectors: Float32, compared: Collection[Pair], most: int) -> list[Pair]:
    """For each photo outside of the largest part, up to `most` photos of other parts that look most like it."""
    found: set[Pair] = set()
    described = vectors.any(axis=1)
    for i in np.flatnonzero((parts > 0) & described):
        likeness = vectors[i] @ vectors.T
        likeness[(parts == parts[i]) | ~described] = -np.inf
        near = ((min(int(i), j), max(int(i), j)) for j in top(likeness, 2 * most))
        found.update([pair for pair in near if pair not in compared][:most])
    return sorted(found)
