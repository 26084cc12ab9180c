# mypy: ignore-errors
"""Front-to-back alpha blending of a tile's splats, and its gradient.

Both loops visit a tile's splats from the nearest to the farthest and keep the remaining transmittance of each pixel. A
finished pixel counts as opaque from then on, so nothing branches and a row of 16 pixels is one vector.

One array holds everything that a tile's pixels need. With several arrays, the compiler would not know that their rows
cannot overlap, and would test it before every row: that took as long as the arithmetic.
"""

import math

import numpy as np

from tasks.core.kernel_cache import njit, prange
from tasks.core.render.kernels.constants import (
    BLUE,
    CONIC_A,
    CONIC_B,
    CONIC_C,
    D_BLUE,
    D_CONIC_A,
    D_CONIC_B,
    D_CONIC_C,
    D_GREEN,
    D_MEAN_X,
    D_MEAN_Y,
    D_OPACITY,
    D_RED,
    FASTMATH,
    GRADIENT_FIELDS,
    GREEN,
    HALF,
    HALF_HEIGHT,
    LIMIT,
    MAX_ALPHA,
    MEAN_X,
    MEAN_Y,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    ONE,
    OPACITY,
    PULL_X,
    PULL_Y,
    RED,
    TILE,
    ZERO,
)

SLACK = np.float32(0.01)  # px, for the rounding of a splat's extent
CHECK_EVERY = 16  # splats between two checks of whether every pixel of the tile is finished

# exp(-s) = p(-s/8)^8 with p the least-squares polynomial of exp on [-0.7, 0]: relative error below 2e-6 in float32 in
# the range that matters, 0 <= s <= ln 255. math.exp would keep the loop over pixels from being vectorised.
E0, E1, E2, E3, E4, E5 = (np.float32(c) for c in (0.99999999, 0.99999456, 0.49989492, 0.16599976, 0.0397896, 0.0058462))
MAX_SIGMA = np.float32(5.6)  # a little above ln 255 = 5.5413
MINUS_EIGHTH = np.float32(-1 / 8)


@njit(inline="always")
def exp_of_minus(sigma):
    """exp(-sigma) for 0 <= sigma <= MAX_SIGMA."""
    y = sigma * MINUS_EIGHTH
    p = E0 + y * (E1 + y * (E2 + y * (E3 + y * (E4 + y * E5))))
    p = p * p
    p = p * p
    return p * p


@njit(inline="always")
def rows_in_tile(
    row,  # [SPLAT_FIELDS]
    left,
    top,
):
    """First and one past the last row of the tile's pixels, counted from its top, where the splat can be seen.

    Between the tile's outer columns, the extreme y of the ellipse alpha = MIN_ALPHA is at the column nearest to the
    whole ellipse's extreme; see `binning.tile_span`.
    """
    a, b, c, limit = row[CONIC_A], row[CONIC_B], row[CONIC_C], row[LIMIT]
    low, high = left + HALF - row[MEAN_X], left + np.float32(TILE) - HALF - row[MEAN_X]
    peak = -b / a * row[HALF_HEIGHT]  # dx where dy is greatest; -peak where it is least
    dx = min(max(peak, low), high)
    down = (-b * dx + math.sqrt(max(b * b * dx * dx - c * (a * dx * dx - limit), ZERO))) / c
    dx = min(max(-peak, low), high)
    up = (-b * dx - math.sqrt(max(b * b * dx * dx - c * (a * dx * dx - limit), ZERO))) / c
    center = row[MEAN_Y] - top - HALF
    first = int(max(center + up - SLACK + ONE, ZERO))  # rounded up, as one past the last is
    return first, min(int(max(center + down + SLACK + ONE, ZERO)), TILE)


@njit(inline="always")
def finished(
    pixels,  # [4 or 5, TILE, TILE], transmittance first
):
    """Whether all pixels of the tile are finished: none lets light through any more."""
    left = ZERO
    transmittance = pixels[0].reshape(TILE * TILE)
    for k in range(TILE * TILE):
        left += max(transmittance[k], ZERO)
    return left == ZERO


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def blend(
    splats,  # [N, SPLAT_FIELDS]
    tile_splats,  # [pairs] int64, nearest first in each tile
    tile_starts,  # [tiles + 1] int64
    tiles_x,
    tiles_y,
    background,  # [3] RGB
    workers,
    image,  # [H, W, 3], written
):
    """Write every pixel of the image."""
    height, width = image.shape[0], image.shape[1]
    for worker in prange(workers):
        # Transmittance, negative where the pixel is finished, red, green and blue
        pixels = np.empty((4, TILE, TILE), np.float32)
        for tile in range(worker, tiles_x * tiles_y, workers):
            left, top = np.float32(tile % tiles_x * TILE), np.float32(tile // tiles_x * TILE)
            pixels[0], pixels[1:] = ONE, ZERO
            for place in range(tile_starts[tile], tile_starts[tile + 1]):
                if (place - tile_starts[tile]) % CHECK_EVERY == CHECK_EVERY - 1 and finished(pixels):
                    break
                row = splats[tile_splats[place]]
                a, b, c, opacity = HALF * row[CONIC_A], row[CONIC_B], HALF * row[CONIC_C], row[OPACITY]
                splat_red, splat_green, splat_blue = row[RED], row[GREEN], row[BLUE]
                mean_x, mean_y = row[MEAN_X] - left - HALF, row[MEAN_Y] - top - HALF
                first, last = rows_in_tile(row, left, top)
                for y in range(first, last):
                    t_row, r_row, g_row, b_row = pixels[0, y], pixels[1, y], pixels[2, y], pixels[3, y]
                    dy = mean_y - np.float32(y)
                    cdy, bdy = c * dy * dy, b * dy
                    for x in range(TILE):
                        dx = mean_x - np.float32(x)
                        sigma = (a * dx + bdy) * dx + cdy
                        alpha = min(opacity * exp_of_minus(min(max(sigma, ZERO), MAX_SIGMA)), MAX_ALPHA)
                        alpha = alpha if alpha >= MIN_ALPHA else ZERO
                        before = max(t_row[x], ZERO)
                        after = before - before * alpha
                        keep = after > MIN_TRANSMITTANCE
                        weight = before * alpha if keep else ZERO
                        t_row[x] = after if keep else -abs(t_row[x])
                        r_row[x] += weight * splat_red
                        g_row[x] += weight * splat_green
                        b_row[x] += weight * splat_blue
            for y in range(min(TILE, height - int(top))):
                for x in range(min(TILE, width - int(left))):
                    through = abs(pixels[0, y, x])
                    pixel = image[int(top) + y, int(left) + x]
                    pixel[0] = pixels[1, y, x] + through * background[0]
                    pixel[1] = pixels[2, y, x] + through * background[1]
                    pixel[2] = pixels[3, y, x] + through * background[2]


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def blend_backward(
    splats,  # [N, SPLAT_FIELDS]
    tile_splats,  # [pairs] int64, nearest first in each tile
    tile_starts,  # [tiles + 1] int64
    tiles_x,
    tiles_y,
    image,  # [H, W, 3]
    d_image,  # [H, W, 3]
    workers,
    pair_gradients,  # [pairs, GRADIENT_FIELDS], written
):
    """Write the gradient of every pair of tile and splat.

    With T the transmittance before splat i and v the pixel's gradient, dL/dalpha_i = T c_i·v - rest_i / (1 - alpha_i),
    where rest_i, the contribution of the background and of all splats behind i to image·v, is image·v minus the
    contributions so far.
    """
    height, width = image.shape[0], image.shape[1]
    for worker in prange(workers):
        # Transmittance, zero where the pixel is finished, rest, and the pixel's gradient by red, green, blue
        pixels = np.empty((5, TILE, TILE), np.float32)
        columns = np.empty((6, TILE), np.float32)
        for tile in range(worker, tiles_x * tiles_y, workers):
            left, top = np.float32(tile % tiles_x * TILE), np.float32(tile // tiles_x * TILE)
            pixels[:] = ZERO
            for y in range(min(TILE, height - int(top))):
                for x in range(min(TILE, width - int(left))):
                    color, v = image[int(top) + y, int(left) + x], d_image[int(top) + y, int(left) + x]
                    pixels[0, y, x] = ONE
                    pixels[1, y, x] = color[0] * v[0] + color[1] * v[1] + color[2] * v[2]
                    pixels[2, y, x], pixels[3, y, x], pixels[4, y, x] = v[0], v[1], v[2]
            end = tile_starts[tile + 1]
            for place in range(tile_starts[tile], tile_starts[tile + 1]):
                if (place - tile_starts[tile]) % CHECK_EVERY == CHECK_EVERY - 1 and finished(pixels):
                    end = place
                    break
                row = splats[tile_splats[place]]
                a, b, c, opacity = row[CONIC_A], row[CONIC_B], row[CONIC_C], row[OPACITY]
                splat_red, splat_green, splat_blue = row[RED], row[GREEN], row[BLUE]
                mean_x, mean_y = row[MEAN_X] - left - HALF, row[MEAN_Y] - top - HALF
                # Sums over each column's pixels of d = dL/dsigma times 1, dy, dy², and of weight * v. dx is constant
                # along a column, and adding vectors is cheaper than summing across one
                columns[:] = ZERO
                first, last = rows_in_tile(row, left, top)
                for y in range(first, last):
                    t_row, rest_row = pixels[0, y], pixels[1, y]
                    r_row, g_row, b_row = pixels[2, y], pixels[3, y], pixels[4, y]
                    dy = mean_y - np.float32(y)
                    cdy, bdy = HALF * c * dy * dy, b * dy
                    for x in range(TILE):
                        dx = mean_x - np.float32(x)
                        sigma = (HALF * a * dx + bdy) * dx + cdy
                        free = opacity * exp_of_minus(min(max(sigma, ZERO), MAX_SIGMA))
                        alpha = min(free, MAX_ALPHA)
                        alpha = alpha if alpha >= MIN_ALPHA else ZERO
                        before = t_row[x]
                        after = before - before * alpha
                        keep = after > MIN_TRANSMITTANCE
                        weight = before * alpha if keep else ZERO
                        t_row[x] = after if keep else ZERO
                        seen = splat_red * r_row[x] + splat_green * g_row[x] + splat_blue * b_row[x]
                        behind = rest_row[x] - weight * seen
                        rest_row[x] = behind
                        d_alpha = before * seen - behind / (ONE - alpha)
                        # alpha = opacity exp(-sigma), so d alpha / d sigma = -alpha; zero where alpha is clamped
                        d_sigma = -alpha * d_alpha if keep and free <= MAX_ALPHA else ZERO
                        columns[0, x] += d_sigma
                        columns[1, x] += d_sigma * dy
                        columns[2, x] += d_sigma * dy * dy
                        columns[3, x] += weight * r_row[x]
                        columns[4, x] += weight * g_row[x]
                        columns[5, x] += weight * b_row[x]
                sum_red, sum_green, sum_blue = ZERO, ZERO, ZERO
                pull_x, pull_y = ZERO, ZERO
                sum_1, sum_x, sum_y, sum_xx, sum_xy, sum_yy = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
                for x in range(TILE):
                    dx = mean_x - np.float32(x)
                    sum_1 += columns[0, x]
                    sum_x += columns[0, x] * dx
                    sum_xx += columns[0, x] * dx * dx
                    sum_y += columns[1, x]
                    sum_xy += columns[1, x] * dx
                    sum_yy += columns[2, x]
                    pull_x += abs(a * columns[0, x] * dx + b * columns[1, x])
                    pull_y += abs(b * columns[0, x] * dx + c * columns[1, x])
                    sum_red += columns[3, x]
                    sum_green += columns[4, x]
                    sum_blue += columns[5, x]
                gradient = pair_gradients[place]
                gradient[D_MEAN_X], gradient[D_MEAN_Y] = a * sum_x + b * sum_y, b * sum_x + c * sum_y
                gradient[D_CONIC_A], gradient[D_CONIC_B], gradient[D_CONIC_C] = HALF * sum_xx, sum_xy, HALF * sum_yy
                gradient[D_OPACITY] = -sum_1 / opacity
                gradient[D_RED], gradient[D_GREEN], gradient[D_BLUE] = sum_red, sum_green, sum_blue
                gradient[PULL_X], gradient[PULL_Y] = pull_x, pull_y
            for place in range(end, tile_starts[tile + 1]):
                for field in range(GRADIENT_FIELDS):
                    pair_gradients[place, field] = ZERO
