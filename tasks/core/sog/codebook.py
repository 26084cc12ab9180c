"""Optimal codebooks of 256 numbers.

Least-squares quantisation of sorted numbers is a shortest path over cut positions whose best cuts are monotone, so
divide and conquer over them is exact: Wu, "Optimal quantization by matrix searching", J. Algorithms 12 (1991),
https://doi.org/10.1016/0196-6774(91)90039-2.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tasks.core.gaussians import Float32
from tasks.core.sog.layout import CODEBOOK_ENTRIES
from tasks.core.transforms import Float64

_CUTS = 4096  # candidate cut positions; with fewer distinct numbers than that the result is the exact optimum

# A cell that holds few numbers counts as if it held this share of an even distribution. Without it a handful of
# outliers share one entry that is far from each of them; with it the worst error shrinks and the mean hardly grows.
_TAIL_WEIGHT = 0.05


@njit(cache=True, nogil=True)
def _best_cuts(w0: Float64, w1: Float64, w2: Float64, segments: int) -> NDArray[np.int64]:
    """Cut n weighted cells into `segments` runs of least squared error; returns their bounds [segments + 1].

    w0, w1, w2: [n + 1] running sums of weight, weight·value and weight·value². segments <= n.
    """
    n = len(w0) - 1
    previous = np.full(n + 1, np.inf)
    previous[0] = 0.0
    current = np.empty(n + 1)
    source = np.zeros((segments + 1, n + 1), np.int32)
    top = 1
    while top <= n:
        top *= 2
    for segment in range(1, segments + 1):
        current[:] = np.inf
        best = source[segment]
        step = top
        while step >= 1:
            for j in range(step, n + 1, 2 * step):
                if j < segment:
                    continue
                low = max(best[j - step], segment - 1)
                high = best[j + step] if j + step <= n else n
                high = min(high, j - 1)
                least, least_at = np.inf, low
                for i in range(low, high + 1):
                    weight = w0[j] - w0[i]
                    first = w1[j] - w1[i]
                    error = previous[i] + (w2[j] - w2[i]) - (first * first / weight if weight > 0 else 0.0)
                    if error < least:
                        least, least_at = error, i
                current[j] = least
                best[j] = least_at
            step //= 2
        previous, current = current, previous
    bounds = np.empty(segments + 1, np.int64)
    bounds[segments] = n
    for segment in range(segments, 0, -1):
        bounds[segment - 1] = source[segment, bounds[segment]]
    return bounds


def make_codebook(values: Float32, weights: Float64 | None = None) -> Float32:
    """The 256 ascending numbers that stand best for `values` [M] (least squared error, tails slightly favoured).

    weights: [M] how often each value counts. Fewer than 256 distinct values are kept exactly.
    """
    order = np.argsort(values, kind="stable")
    ascending = values[order].astype(np.float64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ascending)) + 1])
    if len(starts) > _CUTS:  # candidates even in rank serve the bulk, candidates even in value serve the tails
        by_rank = np.linspace(0, len(starts) - 1, _CUTS // 2).astype(np.intp)
        levels = np.linspace(ascending[0], ascending[-1], _CUTS // 2)
        by_value = np.minimum(np.searchsorted(ascending[starts], levels), len(starts) - 1)
        starts = starts[np.union1d(by_rank, by_value)]
    counts = np.ones(len(ascending)) if weights is None else weights[order]
    w0 = np.add.reduceat(counts, starts)
    centre = ascending.mean()  # sums of squares around the mean keep their digits
    w1 = np.add.reduceat(counts * (ascending - centre), starts)
    w2 = np.add.reduceat(counts * (ascending - centre) ** 2, starts)
    if len(starts) <= CODEBOOK_ENTRIES:
        entries = ascending[starts]
    else:
        lift = np.maximum(1.0, _TAIL_WEIGHT * w0.sum() / len(w0) / w0)
        sums = [np.concatenate([[0.0], np.cumsum(w * lift)]) for w in (w0, w1, w2)]
        bounds = _best_cuts(sums[0], sums[1], sums[2], CODEBOOK_ENTRIES)[:-1]
        entries = centre + np.add.reduceat(w1 * lift, bounds) / np.add.reduceat(w0 * lift, bounds)
    padded = np.concatenate([entries, np.full(CODEBOOK_ENTRIES - len(entries), entries[-1])])
    return padded.astype(np.float32)


@njit(cache=True, nogil=True)
def nearest_entries(values: Float32, codebook: Float32) -> NDArray[np.uint8]:
    """Index of the nearest entry of an ascending codebook [256] for each value [M]; the lower one of two equals."""
    indices = np.empty(len(values), np.uint8)
    for i in range(len(values)):
        value = values[i]
        low, high = 0, len(codebook) - 1  # the first entry not below value, or the last one
        while low < high:
            middle = (low + high) // 2
            if codebook[middle] < value:
                low = middle + 1
            else:
                high = middle
        if low > 0 and value - codebook[low - 1] <= codebook[low] - value:
            low -= 1
        indices[i] = low
    return indices
