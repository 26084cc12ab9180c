# mypy: ignore-errors
"""Find the tiles that each splat touches, and list every tile's splats in order of depth.

Splats are sorted once by depth. Distributing them to tiles keeps the order, so the far more numerous pairs of tile and
splat are never sorted.
"""

import math

import numpy as np

from tasks.core.kernel_cache import njit, prange
from tasks.core.render.kernels.constants import (
    CONIC_A,
    CONIC_B,
    CONIC_C,
    DEPTH,
    FASTMATH,
    HALF_HEIGHT,
    HALF_WIDTH,
    LIMIT,
    MEAN_X,
    MEAN_Y,
    ONE,
    TILE,
    ZERO,
)

RADIX_BITS = 11


@njit(cache=True)
def sort_by_depth(
    splats,  # [N, SPLAT_FIELDS]
    visible,  # [total] int64
    total,
    keys,  # [total] uint32, overwritten
    order,  # [total] int64, overwritten
    spare_keys,  # [total] uint32, overwritten
    spare_order,  # [total] int64, overwritten
):
    """Indices [total] of the visible Gaussians, nearest first, in `order` or `spare_order`; equal depths by index.

    A radix sort of the bits of the depths: positive floats compare like integers. The depths of a scene are within a
    few octaves, so their common high bits are dropped, which saves a pass.
    """
    depths = np.empty(1, np.float32)
    bits = depths.view(np.uint32)
    low, high = np.uint32(0xFFFFFFFF), np.uint32(0)
    for k in range(total):
        depths[0] = splats[visible[k], DEPTH]
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
def tile_rows(
    row,  # [SPLAT_FIELDS]
    tiles_y,
):
    """First and one past the last row of tiles that the splat's box touches."""
    tile = np.float32(TILE)
    first = int(max((row[MEAN_Y] - row[HALF_HEIGHT]) / tile, ZERO))
    return first, min(int(max((row[MEAN_Y] + row[HALF_HEIGHT]) / tile + ONE, ZERO)), tiles_y)


@njit(inline="always")
def tile_span(
    row,  # [SPLAT_FIELDS]
    tile_y,
    tiles_x,
):
    """First and one past the last tile in a row of tiles that the ellipse of alpha = MIN_ALPHA touches.

    The ellipse a dx² + 2 b dx dy + c dy² = limit is convex, so within the strip its extreme x is at the y nearest to
    that of the whole ellipse's extreme (as gsplat's AccuTile and Speedy-Splat's SnugBox note).
    """
    tile = np.float32(TILE)
    a, b, c, limit = row[CONIC_A], row[CONIC_B], row[CONIC_C], row[LIMIT]
    low, high = tile_y * tile - row[MEAN_Y], (tile_y + 1) * tile - row[MEAN_Y]
    peak = -b / c * row[HALF_WIDTH]  # dy where dx is greatest; -peak where it is least
    dy = min(max(peak, low), high)
    right = (-b * dy + math.sqrt(max(b * b * dy * dy - a * (c * dy * dy - limit), ZERO))) / a
    dy = min(max(-peak, low), high)
    left = (-b * dy - math.sqrt(max(b * b * dy * dy - a * (c * dy * dy - limit), ZERO))) / a
    first = int(max((row[MEAN_X] + left) / tile, ZERO))
    return first, min(int(max((row[MEAN_X] + right) / tile + ONE, ZERO)), tiles_x)


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def count_tiles(
    splats,  # [N, SPLAT_FIELDS]
    order,  # [total] int64, nearest first
    total,
    tiles_x,
    tiles_y,
    workers,
    histograms,  # [workers, tiles] int64, written: pairs by worker and tile
    tiles_touched,  # [total] int64, written: pairs by place in `order`
    ranks,  # [N] int64, written: the place in `order` of every visible Gaussian
):
    """Count the pairs of tile and splat."""
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
def prefix_sums(
    histograms,  # [workers, tiles] int64, counts; afterwards first places
    tiles_touched,  # [total] int64
    total,
    tile_starts,  # [tiles + 1] int64, written
    pair_starts,  # [total + 1] int64, written
):
    """Turn counts into first places; returns the number of pairs."""
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
def fill_tiles(
    splats,  # [N, SPLAT_FIELDS]
    order,  # [total] int64, nearest first
    total,
    tiles_x,
    tiles_y,
    workers,
    histograms,  # [workers, tiles] int64, first places; advanced
    pair_starts,  # [total + 1] int64
    tile_splats,  # [pairs] int64, written: splats by tile, nearest first
    pair_slots,  # [pairs] int64, written: the place in `tile_splats` of every pair of a splat
):
    """Distribute the splats to the tiles."""
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
