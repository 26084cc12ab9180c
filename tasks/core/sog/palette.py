"""A palette of view-dependent colours: seeded k-means in two levels.

Plain k-means costs Gaussians × entries. Here a coarse k-means divides the space into cells. Each cell gets entries by
its share of the distortion, and Lloyd's algorithm runs inside the cells. Finally every Gaussian searches the few
nearest cells. The same input gives the same bytes: sums are taken in a fixed order for any number of threads.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Float32
from tasks.core.kernel_cache import njit
from tasks.core.sog.attributes import THREADS, in_chunks
from tasks.core.transforms import Float64

_ENTRIES_PER_CELL = 256
_COARSE_SAMPLE = 64  # points per cell to fit the coarse level to
_COARSE_ROUNDS = 8
_CELL_ROUNDS = 6
_NEAR_CELLS = 4  # cells that a Gaussian searches for its entry

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Palette:
    """`entries` [P, D], the most used first, and `labels` [N], the entry that each of N rows uses."""

    entries: Float32
    labels: Labels
    rms: float  # of the rows' differences from their entries


@njit(cache=True, nogil=True, fastmath={"contract"})
def _nearest_in_block(point: Float32, block: Float32, half_norms: Float32, scores: Float32) -> tuple[int, float]:
    """The nearest of k entries, as (index, ½|entry|² − point·entry).

    block: [D, k], transposed, so that the inner loop runs over entries and vectorises without changing the order of
    sums. scores: [k], scratch.
    """
    k = len(half_norms)
    for e in range(k):
        scores[e] = half_norms[e]
    for d in range(len(point)):
        value = point[d]
        for e in range(k):
            scores[e] -= value * block[d, e]
    best, least = 0, scores[0]
    for e in range(1, k):
        if scores[e] < least:
            best, least = e, scores[e]
    return best, least


@njit(cache=True, nogil=True)
def _half_norms(entries: Float32) -> Float32:
    """½|entry|² of entries [k, D]."""
    result = np.empty(len(entries), np.float32)
    for e in range(len(entries)):
        total = 0.0
        for d in range(entries.shape[1]):
            total += entries[e, d] * entries[e, d]
        result[e] = 0.5 * total
    return result


@njit(cache=True, nogil=True)
def _nearest(points: Float32, entries: Float32, labels: Labels, distances: Float32) -> None:
    """Fill in the nearest of entries [k, D] for each of points [n, D], and its squared distance."""
    block = np.ascontiguousarray(entries.T)
    half_norms = _half_norms(entries)
    point_norms = _half_norms(points)
    scores = np.empty(len(entries), np.float32)
    for i in range(len(points)):
        best, least = _nearest_in_block(points[i], block, half_norms, scores)
        labels[i] = best
        distances[i] = max(0.0, 2 * (point_norms[i] + least))


@njit(cache=True, nogil=True)
def _move_to_means(points: Float32, weights: Float32, labels: Labels, distances: Float32, entries: Float32) -> None:
    """Lloyd's step in place; an unused entry moves to the point with the greatest error that is still free."""
    k, width = entries.shape
    sums = np.zeros((k, width))
    counts = np.zeros(k)
    for i in range(len(points)):
        counts[labels[i]] += weights[i]
        for d in range(width):
            sums[labels[i], d] += weights[i] * points[i, d]
    empty = k - np.count_nonzero(counts)
    worst = np.argsort(-distances)[:empty] if empty else np.zeros(0, np.int64)
    taken = 0
    for e in range(k):
        if counts[e] > 0:
            for d in range(width):
                entries[e, d] = sums[e, d] / counts[e]
        elif taken < len(worst):
            entries[e] = points[worst[taken]]
            taken += 1


@njit(cache=True, nogil=True)
def _lloyd(points: Float32, weights: Float32, k: int, rounds: int, seed: int) -> tuple[Float32, float]:
    """k-means of points [n, D] from k <= n distinct rows; returns entries [k, D] and the last round's distortion."""
    np.random.seed(seed)  # noqa: NPY002 - numba's own generator, one for each thread
    entries = points[np.sort(np.random.permutation(len(points))[:k])].copy()  # noqa: NPY002
    labels = np.empty(len(points), np.int32)
    distances = np.empty(len(points), np.float32)
    for _ in range(rounds):
        _nearest(points, entries, labels, distances)
        _move_to_means(points, weights, labels, distances, entries)
    return entries, float(distances.sum())


@njit(cache=True, nogil=True)
def _nearest_in_cells(
    points: Float32, near: Labels, blocks: Float32, half_norms: Float32, offsets: NDArray[np.int64], labels: Labels
) -> None:
    """Fill in the nearest entry for each of points [n, D] among the cells that `near` [n, m] lists.

    blocks: the transposed entries of all cells one after another, cell c from offsets[c] · D on.
    """
    width = points.shape[1]
    scores = np.empty(np.max(np.diff(offsets)), np.float32)
    for i in range(len(points)):
        least = np.inf
        for cell in near[i]:
            first, last = offsets[cell], offsets[cell + 1]
            if last == first:
                continue
            block = blocks[first * width : last * width].reshape(width, last - first)
            best, score = _nearest_in_block(points[i], block, half_norms[first:last], scores[: last - first])
            if score < least:
                least = score
                labels[i] = first + best


@njit(cache=True, nogil=True)
def _nearest_cells(points: Float32, centres: Float32, near: Labels) -> None:
    """Fill in the indices of the nearest m cells for each point. near: [n, m], nearest first, m <= cells."""
    block = np.ascontiguousarray(centres.T)
    half_norms = _half_norms(centres)
    scores = np.empty(len(centres), np.float32)
    for i in range(len(points)):
        _nearest_in_block(points[i], block, half_norms, scores)
        for rank in range(near.shape[1]):
            cell = np.argmin(scores)
            near[i, rank] = cell
            scores[cell] = np.inf


def _share_entries(total: int, distortions: Float64, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide `total` entries among the cells by root distortion: at least one each, at most as many as its points."""
    wanted = np.sqrt(distortions * sizes) + 1e-30
    share = np.minimum(sizes, 1)
    for _ in range(64):
        left = total - int(share.sum())
        open_cells = share < sizes
        if left <= 0 or not open_cells.any():
            break
        weights = np.where(open_cells, wanted, 0.0)
        add = np.floor(left * weights / weights.sum()).astype(np.int64)
        if not add.any():  # fewer entries are left than cells: one each for the cells that need them most
            add[np.argsort(-weights, kind="stable")[:left]] = 1
        share = np.minimum(sizes, share + add)
    return share


def make_palette(
    points: Float32, weights: Float32, entries: int, on_share: Callable[[float], None], seed: int = 0
) -> Palette:
    """At most `entries` rows that represent points [N, D] with little squared error, weighted by weights [N] > 0.

    With at most `entries` distinct points the palette is exact. on_share receives the finished share, 0 to 1.
    """
    distinct, inverse = np.unique(points, axis=0, return_inverse=True) if len(points) <= entries else (points, None)
    if inverse is not None:
        return _by_use(distinct, inverse.reshape(-1).astype(np.int32), 0.0)
    n, width = points.shape
    cells = max(1, entries // _ENTRIES_PER_CELL)
    every = max(1, n // (cells * _COARSE_SAMPLE))
    sample = np.ascontiguousarray(points[::every]), np.ascontiguousarray(weights[::every])
    centres, _ = _lloyd(*sample, cells, _COARSE_ROUNDS, seed)
    near = np.empty((n, min(_NEAR_CELLS, cells)), np.int32)
    in_chunks(n, lambda rows: _nearest_cells(points[rows], centres, near[rows]))
    on_share(0.1)

    order = np.argsort(near[:, 0], kind="stable")
    sizes = np.bincount(near[:, 0], minlength=cells)
    members = np.split(order, np.cumsum(sizes)[:-1])
    distortions = np.array(
        [(weights[rows, None] * (points[rows] - centres[c]) ** 2).sum() for c, rows in enumerate(members)]
    )
    share = _share_entries(entries, distortions, sizes)
    offsets = np.concatenate([[0], np.cumsum(share)]).astype(np.int64)
    flat = np.empty((int(offsets[-1]), width), np.float32)

    def fit_cell(cell: int) -> None:
        if share[cell]:
            rows = members[cell]
            fitted, _ = _lloyd(points[rows], weights[rows], int(share[cell]), _CELL_ROUNDS, seed + 1 + cell)
            flat[offsets[cell] : offsets[cell + 1]] = fitted

    with ThreadPoolExecutor(THREADS) as pool:
        for done, _ in enumerate(pool.map(fit_cell, range(cells)), start=1):
            on_share(0.1 + 0.6 * done / cells)

    labels = np.zeros(n, np.int32)

    def choose_entries() -> None:
        blocks = np.concatenate([flat[first:last].T.ravel() for first, last in itertools.pairwise(offsets)])
        norms = _half_norms(flat)
        in_chunks(n, lambda rows: _nearest_in_cells(points[rows], near[rows], blocks, norms, offsets, labels[rows]))

    choose_entries()
    on_share(0.85)
    _move_to_means(points, weights, labels, np.zeros(n, np.float32), flat)
    choose_entries()
    on_share(1.0)
    squares = in_chunks(n, lambda rows: float(((points[rows] - flat[labels[rows]]) ** 2).sum(dtype=np.float64)), 64)
    return _by_use(flat, labels, float(np.sqrt(sum(squares) / points.size)))


def _by_use(entries: Float32, labels: Labels, rms: float) -> Palette:
    """Drop unused entries and put the most used first: small labels compress better."""
    counts = np.bincount(labels, minlength=len(entries))
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    rank = np.empty(len(entries), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Palette(np.ascontiguousarray(entries[order]), rank[labels], rms)
