# mypy: ignore-errors
"""Which tiles a splat touches, and every tile's splats in order of depth.

Splats are sorted once by depth; dealing them out to tiles then keeps the order, so the (many more) pairs of tile and
splat are never sorted.
"""

import math

import numpy as np

from tasks.core.kernel_cache import njit, prange
from tasks.core.render.kernels.constants import FASTMATH, ONE, TILE, ZERO

RADIX_BITS = 11


@njit(cache=True)
def sort_by_depth(splats, visible, total, keys, order, spare_keys, spare_order):
    """Indices of the visible Gaussians, nearest first, into order [total]. Stable: equal depths keep index order.

    A radix sort of the bits of the depths: positive floats compare as integers do. Depths of a scene lie within a few
    octaves, so the common high bits are dropped and a pass less is needed.
    """
    depths = np.empty(1, np.float32)
    bits = depths.view(np.uint32)
    low, high = np.uint32(0xFFFFFFFF), np.uint32(0)
    for k in range(total):
        depths[0] = splats[visible[k], 11]
        keys[k] = bits[0]
        order[k] = visible[k]
        low, high = min(low, bits[0]), max(high, bits[0])
    for k in range(total):
        keys[k] -= low
    span = high - low if total else np.uint32(0)
    histogram = np.empty(1 << RADIX_BITS, np.int64)
    shift = 0
    while (span >> np.uint32(shift)) > 0:
        histogram[:] = 0
        for k in range(total):
            histogram[(keys[k] >> np.uint32(shift)) & np.uint32((1 << RADIX_BITS) - 1)] += 1
        start = 0
        for digit in range(1 << RADIX_BITS):
            start, histogram[digit] = start + histogram[digit], start
        for k in range(total):
            digit = (keys[k] >> np.uint32(shift)) & np.uint32((1 << RADIX_BITS) - 1)
            spare_keys[histogram[digit]] = keys[k]
            spare_order[histogram[digit]] = order[k]
            histogram[digit] += 1
        keys, spare_keys = spare_keys, keys
        order, spare_order = spare_order, order
        shift += RADIX_BITS
        if shift >= 32:
            break
    return order


@njit(inline="always")
def tile_rows(row, tiles_y):
    """First and one past the last row of tiles that the splat's box touches."""
    tile = np.float32(TILE)
    first = int(max((row[1] - row[10]) / tile, ZERO))
    return first, min(int(max((row[1] + row[10]) / tile + ONE, ZERO)), tiles_y)


@njit(inline="always")
def tile_span(row, tile_y, tiles_x):
    """First and one past the last tile in a row of tiles that the ellipse of alpha = MIN_ALPHA touches.

    The ellipse a dx² + 2 b dx dy + c dy² = limit reaches its extreme x on the strip at the strip's nearest y to that
    of the whole ellipse's extreme, because it is convex (as gsplat's AccuTile and Speedy-Splat's SnugBox note).
    """
    tile = np.float32(TILE)
    a, b, c, limit = row[2], row[3], row[4], row[12]
    low, high = tile_y * tile - row[1], (tile_y + 1) * tile - row[1]
    peak = -b / c * row[9]  # dy where dx is greatest; -peak where it is least
    dy = min(max(peak, low), high)
    right = (-b * dy + math.sqrt(max(b * b * dy * dy - a * (c * dy * dy - limit), ZERO))) / a
    dy = min(max(-peak, low), high)
    left = (-b * dy - math.sqrt(max(b * b * dy * dy - a * (c * dy * dy - limit), ZERO))) / a
    first = int(max((row[0] + left) / tile, ZERO))
    return first, min(int(max((row[0] + right) / tile + ONE, ZERO)), tiles_x)


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def count_tiles(splats, order, total, tiles_x, tiles_y, workers, histograms, tiles_touched, ranks):
    """Count pairs: by worker and tile in histograms [workers, tiles], by place in `order` in tiles_touched [total].

    Writes that place of every visible Gaussian into ranks [N], too.
    """
    for worker in prange(workers):
        histogram = histograms[worker]
        histogram[:] = 0
        for k in range(worker * total // workers, (worker + 1) * total // workers):
            ranks[order[k]] = k
            row = splats[order[k]]
            touched = 0
            first_row, last_row = tile_rows(row, tiles_y)
            for tile_y in range(first_row, last_row):
                first, last = tile_span(row, tile_y, tiles_x)
                for tile_x in range(first, last):
                    histogram[tile_y * tiles_x + tile_x] += 1
                touched += max(last - first, 0)
            tiles_touched[k] = touched


@njit(cache=True)
def prefix_sums(histograms, tiles_touched, total, tile_starts, pair_starts):
    """Turn counts into first places: tile_starts [tiles + 1], pair_starts [total + 1], histograms in place.

    Returns the number of pairs.
    """
    workers, tiles = histograms.shape
    start = 0
    for tile in range(tiles):
        tile_starts[tile] = start
        for worker in range(workers):
            start, histograms[worker, tile] = start + histograms[worker, tile], start
    tile_starts[tiles] = start
    pairs = 0
    for k in range(total):
        pair_starts[k] = pairs
        pairs += tiles_touched[k]
    pair_starts[total] = pairs
    return pairs


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def fill_tiles(splats, order, total, tiles_x, tiles_y, workers, histograms, pair_starts, tile_splats, pair_slots):
    """Deal the splats out: tile_splats [pairs] by tile, nearest first; pair_slots [pairs] says where each went."""
    for worker in prange(workers):
        places = histograms[worker]
        for k in range(worker * total // workers, (worker + 1) * total // workers):
            i = order[k]
            row = splats[i]
            pair = pair_starts[k]
            first_row, last_row = tile_rows(row, tiles_y)
            for tile_y in range(first_row, last_row):
                first, last = tile_span(row, tile_y, tiles_x)
                for tile_x in range(first, last):
                    tile = tile_y * tiles_x + tile_x
                    slot = places[tile]
                    places[tile] = slot + 1
                    tile_splats[slot] = i
                    pair_slots[pair] = slot
                    pair += 1
