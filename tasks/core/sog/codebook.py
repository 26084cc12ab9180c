"""Optimal codebooks of 256 numbers.

Least-squares quantisation of sorted numbers is a shortest path over cut positions whose best cuts are monotone, so
divide and conquer over them is exact: Wu, "Optimal quantization by matrix searching", J. Algorithms 12 (1991),
https://doi.org/10.1016/0196-6774(91)90039-2.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Float32
from tasks.core.kernel_cache import njit
from tasks.core.sog.layout import CODEBOOK_ENTRIES
from tasks.core.transforms import Float64

_BINS = 1 << 15
_CUTS = 2048  # candidate cut positions; with fewer distinct numbers the result is the exact optimum

# A cell with few numbers counts as if it held this share of an even distribution. Otherwise a handful of outliers would
# share one entry that is far from each of them. The worst error shrinks by it, and the mean hardly grows.
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


def make_codebook(
    values: Float32, weights: Float64 | None = None, step: float | None = None, count: int = CODEBOOK_ENTRIES
) -> Float32:
    """The `count` ascending numbers that represent `values` [M] best (least squared error, tails slightly favoured).

    weights: [M] how often each value counts. Fewer than `count` distinct values are kept exactly.
    step: entries are multiples of it if `count` of them suffice. At a given error, even levels cost least after entropy
    coding, so they are used where fewer are enough (Gish and Pierce, IEEE Trans. Inf. Theory 14, 1968).
    """
    if step is not None:
        values = (np.rint(values / step) * step).astype(np.float32)
    centres, w0, w1, w2 = _cells(values, weights)
    if len(w0) > _CUTS:  # candidates evenly spaced in rank for the bulk, and evenly spaced in value for the tails
        ranks = np.cumsum(w0)
        by_rank = np.searchsorted(ranks, np.linspace(0, ranks[-1], _CUTS // 2))
        by_value = np.searchsorted(centres, np.linspace(centres[0], centres[-1], _CUTS // 2))
        starts = np.unique(np.minimum(np.concatenate([[0], by_rank, by_value]), len(w0) - 1))
        w0, w1, w2 = (np.add.reduceat(w, starts) for w in (w0, w1, w2))
    middle = w1.sum() / w0.sum()  # sums of squares around the mean keep their digits
    w1, w2 = w1 - middle * w0, w2 - 2 * middle * w1 + middle**2 * w0
    if len(w0) <= count:
        entries = middle + w1 / w0
    else:
        lift = np.maximum(1.0, _TAIL_WEIGHT * w0.sum() / len(w0) / w0)
        sums = [np.concatenate([[0.0], np.cumsum(w * lift)]) for w in (w0, w1, w2)]
        bounds = _best_cuts(sums[0], sums[1], sums[2], count)[:-1]
        entries = middle + np.add.reduceat(w1 * lift, bounds) / np.add.reduceat(w0 * lift, bounds)
    padded = np.concatenate([entries, np.full(count - len(entries), entries[-1])])
    return padded.astype(np.float32)


def _cells(values: Float32, weights: Float64 | None) -> tuple[Float64, Float64, Float64, Float64]:
    """Ascending cells of values: one value of each, and sums of weight, weight·value and weight·value².

    Many values are counted in even bins, which takes a tenth of the time of sorting them. Where outliers stretch the
    bins too far to tell values apart, and for few values, every distinct value is a cell.
    """
    if len(values) > _BINS and weights is None:
        low, high = float(values.min()), float(values.max())
        w0, w1, w2 = _histogram(values, low, (_BINS - 1) / max(high - low, 1e-30))
        filled = np.flatnonzero(w0)
        if len(filled) > _CUTS:
            return w1[filled] / w0[filled], w0[filled], w1[filled], w2[filled]
    distinct, inverse = np.unique(values.astype(np.float64), return_inverse=True)
    weight: Float64 = np.bincount(inverse, weights, len(distinct)).astype(np.float64)
    return distinct, weight, weight * distinct, weight * distinct**2


@njit(cache=True, nogil=True)
def _histogram(values: Float32, low: float, bins_per_unit: float) -> tuple[Float64, Float64, Float64]:
    """Count, sum and sum of squares of the values in each of even bins."""
    w0, w1, w2 = np.zeros(_BINS), np.zeros(_BINS), np.zeros(_BINS)
    for i in range(len(values)):
        value = np.float64(values[i])
        place = int((value - low) * bins_per_unit)
        w0[place] += 1
        w1[place] += value
        w2[place] += value * value
    return w0, w1, w2


_LOOK_UP_CELLS = 1 << 12


@njit(cache=True, nogil=True)
def _borders(codebook: Float32) -> tuple[NDArray[np.int64], Float64]:
    """The first index of each distinct number of an ascending codebook, and the midpoints between these numbers.

    The last border is infinite, so that a search for the first border not below a value always ends.
    """
    entries, borders = np.empty(len(codebook), np.int64), np.full(len(codebook), np.inf)
    count = 0
    for entry in range(len(codebook)):
        if entry == 0 or codebook[entry] > codebook[entry - 1]:
            entries[count] = entry
            if count:
                borders[count - 1] = (np.float64(codebook[entry]) + codebook[entry - 1]) / 2
            count += 1
    return entries[:count], borders[:count]


@njit(cache=True, nogil=True)
def _look_up(codebook: Float32, borders: Float64) -> tuple[NDArray[np.int64], float]:
    """Where to begin the search for values in each of even cells over the codebook's range, and cells per unit."""
    span = np.float64(codebook[-1]) - np.float64(codebook[0])
    per_unit = _LOOK_UP_CELLS / span if span > 0 else 0.0
    begin = np.empty(_LOOK_UP_CELLS + 1, np.int64)
    place = 0
    for cell in range(_LOOK_UP_CELLS + 1):
        # one cell early, because rounding may put a value into the cell after its own
        while per_unit > 0 and borders[place] < codebook[0] + (cell - 1) / per_unit:
            place += 1
        begin[cell] = place
    return begin, per_unit


@njit(cache=True, nogil=True)
def _place(value: float, least: float, borders: Float64, begin: NDArray[np.int64], per_unit: float) -> np.int64:
    """Count the borders below the value."""
    cell = int(min(max((value - least) * per_unit, 0.0), float(_LOOK_UP_CELLS)))
    place: np.int64 = begin[cell]
    while borders[place] < value:
        place += 1
    return place


@njit(cache=True, nogil=True)
def nearest_entries(values: Float32, codebook: Float32) -> NDArray[np.uint8]:
    """Index of the nearest entry of an ascending codebook [256] for each value [M]; the lower one of two equals."""
    entries, borders = _borders(codebook)
    begin, per_unit = _look_up(codebook, borders)
    indices = np.empty(len(values), np.uint8)
    for i in range(len(values)):
        indices[i] = entries[_place(np.float64(values[i]), np.float64(codebook[0]), borders, begin, per_unit)]
    return indices


@njit(cache=True, nogil=True)
def fill_nearest(values: Float32, order: NDArray[np.uint32], codebook: Float32, pixels: NDArray[np.uint8]) -> None:
    """Write `nearest_entries` of values [N, 3], in the given order, into the first channels of pixels [M, 4]."""
    entries, borders = _borders(codebook)
    begin, per_unit = _look_up(codebook, borders)
    least = np.float64(codebook[0])
    for i in range(len(order)):
        for axis in range(3):
            value = np.float64(values[order[i], axis])
            pixels[i, axis] = entries[_place(value, least, borders, begin, per_unit)]
