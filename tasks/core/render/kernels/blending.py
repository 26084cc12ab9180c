# mypy: allow-untyped-defs, allow-untyped-calls
"""Front-to-back alpha blending of a tile's splats, and its gradient.

Both loops walk a tile's splats from the nearest on and keep, for each pixel, the transmittance that is left. A pixel
that is finished has transmittance zero from then on, so nothing branches and a row of 16 pixels is one vector.
"""

import math

import numpy as np
from numba import njit, prange

from tasks.core.render.kernels.constants import (
    FASTMATH,
    GRADIENT_FIELDS,
    HALF,
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    ONE,
    TILE,
    ZERO,
)

PIXELS = TILE * TILE
CHECK_EVERY = 16  # splats between two looks whether every pixel of the tile is finished

# exp(-s) = p(-s/8)^8 with p the least-squares polynomial of exp on [-0.7, 0]: relative error below 2e-6 in float32 for
# the s that matter, 0 <= s <= ln 255. math.exp would keep the loop over pixels from being vectorised.
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
def rows_in_tile(row, top):
    """First and one past the last row of the tile's pixels, counted from its top, that the splat's box touches."""
    first = int(max(math.floor(row[1] - row[10] - top), ZERO))
    return first, int(min(math.floor(row[1] + row[10] - top) + 1, np.float32(TILE)))


@njit(inline="always")
def finished(transmittance):
    """Whether no pixel of the tile lets light through any more."""
    left = ZERO
    for k in range(PIXELS):
        left += transmittance[k]
    return left == ZERO


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def blend(splats, tile_splats, tile_starts, tiles_x, tiles_y, background, workers, image):
    """Write every pixel of image [H, W, 3]."""
    height, width = image.shape[0], image.shape[1]
    for worker in prange(workers):
        transmittance = np.empty(PIXELS, np.float32)
        final = np.empty(PIXELS, np.float32)  # transmittance at which a finished pixel stopped
        red, green, blue = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
        for tile in range(worker, tiles_x * tiles_y, workers):
            left, top = np.float32(tile % tiles_x * TILE), np.float32(tile // tiles_x * TILE)
            transmittance[:] = ONE
            final[:], red[:], green[:], blue[:] = ZERO, ZERO, ZERO, ZERO
            for place in range(tile_starts[tile], tile_starts[tile + 1]):
                if (place - tile_starts[tile]) % CHECK_EVERY == CHECK_EVERY - 1 and finished(transmittance):
                    break
                row = splats[tile_splats[place]]
                a, b, c, opacity = row[2], row[3], row[4], row[5]
                splat_red, splat_green, splat_blue = row[6], row[7], row[8]
                first, last = rows_in_tile(row, top)
                for y in range(first, last):
                    dy = row[1] - (top + np.float32(y) + HALF)
                    cdy, bdy = HALF * c * dy * dy, b * dy
                    for x in range(TILE):
                        k = y * TILE + x
                        dx = row[0] - (left + np.float32(x) + HALF)
                        sigma = (HALF * a * dx + bdy) * dx + cdy
                        alpha = min(opacity * exp_of_minus(min(max(sigma, ZERO), MAX_SIGMA)), MAX_ALPHA)
                        alpha = alpha if alpha >= MIN_ALPHA else ZERO
                        before = transmittance[k]
                        after = before - before * alpha
                        keep = after > MIN_TRANSMITTANCE
                        weight = before * alpha if keep else ZERO
                        final[k] += ZERO if keep else before
                        transmittance[k] = after if keep else ZERO
                        red[k] += weight * splat_red
                        green[k] += weight * splat_green
                        blue[k] += weight * splat_blue
            for y in range(min(TILE, height - int(top))):
                for x in range(min(TILE, width - int(left))):
                    k = y * TILE + x
                    through = transmittance[k] + final[k]
                    image[int(top) + y, int(left) + x, 0] = red[k] + through * background[0]
                    image[int(top) + y, int(left) + x, 1] = green[k] + through * background[1]
                    image[int(top) + y, int(left) + x, 2] = blue[k] + through * background[2]


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def blend_backward(splats, tile_splats, tile_starts, tiles_x, tiles_y, image, d_image, workers, pair_gradients):
    """Write the gradient of every pair of tile and splat into pair_gradients [pairs, 9].

    With T the transmittance before splat i and v the pixel's gradient, dL/dalpha_i = T c_i·v - rest_i / (1 - alpha_i),
    where rest_i, what all splats behind i and the background add to image·v, is image·v minus what was passed so far.
    """
    height, width = image.shape[0], image.shape[1]
    for worker in prange(workers):
        transmittance = np.empty(PIXELS, np.float32)
        rest = np.empty(PIXELS, np.float32)
        d_red, d_green, d_blue = (
            np.empty(PIXELS, np.float32),
            np.empty(PIXELS, np.float32),
            np.empty(PIXELS, np.float32),
        )
        for tile in range(worker, tiles_x * tiles_y, workers):
            left, top = np.float32(tile % tiles_x * TILE), np.float32(tile // tiles_x * TILE)
            transmittance[:], rest[:], d_red[:], d_green[:], d_blue[:] = ZERO, ZERO, ZERO, ZERO, ZERO
            for y in range(min(TILE, height - int(top))):
                for x in range(min(TILE, width - int(left))):
                    k, py, px = y * TILE + x, int(top) + y, int(left) + x
                    transmittance[k] = ONE
                    d_red[k], d_green[k], d_blue[k] = d_image[py, px, 0], d_image[py, px, 1], d_image[py, px, 2]
                    rest[k] = image[py, px, 0] * d_red[k] + image[py, px, 1] * d_green[k] + image[py, px, 2] * d_blue[k]
            end = tile_starts[tile + 1]
            for place in range(tile_starts[tile], tile_starts[tile + 1]):
                if (place - tile_starts[tile]) % CHECK_EVERY == CHECK_EVERY - 1 and finished(transmittance):
                    end = place
                    break
                row = splats[tile_splats[place]]
                a, b, c, opacity = row[2], row[3], row[4], row[5]
                splat_red, splat_green, splat_blue = row[6], row[7], row[8]
                # Sums over pixels of weight * v, and of d = dL/dsigma times 1, dx, dy, dx², dx dy, dy²
                sum_red, sum_green, sum_blue = ZERO, ZERO, ZERO
                sum_1, sum_x, sum_y, sum_xx, sum_xy, sum_yy = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
                first, last = rows_in_tile(row, top)
                for y in range(first, last):
                    dy = row[1] - (top + np.float32(y) + HALF)
                    cdy, bdy = HALF * c * dy * dy, b * dy
                    row_1, row_x, row_xx = ZERO, ZERO, ZERO
                    for x in range(TILE):
                        k = y * TILE + x
                        dx = row[0] - (left + np.float32(x) + HALF)
                        sigma = (HALF * a * dx + bdy) * dx + cdy
                        free = opacity * exp_of_minus(min(max(sigma, ZERO), MAX_SIGMA))
                        alpha = min(free, MAX_ALPHA)
                        alpha = alpha if alpha >= MIN_ALPHA else ZERO
                        before = transmittance[k]
                        after = before - before * alpha
                        keep = after > MIN_TRANSMITTANCE
                        weight = before * alpha if keep else ZERO
                        transmittance[k] = after if keep else ZERO
                        seen = splat_red * d_red[k] + splat_green * d_green[k] + splat_blue * d_blue[k]
                        behind = rest[k] - weight * seen
                        rest[k] = behind
                        d_alpha = before * seen - behind / (ONE - alpha)
                        # alpha = opacity exp(-sigma), so d alpha / d sigma = -alpha; none where alpha is clamped
                        d_sigma = -alpha * d_alpha if keep and free <= MAX_ALPHA else ZERO
                        sum_red += weight * d_red[k]
                        sum_green += weight * d_green[k]
                        sum_blue += weight * d_blue[k]
                        row_1 += d_sigma
                        row_x += d_sigma * dx
                        row_xx += d_sigma * dx * dx
                    sum_1 += row_1
                    sum_x += row_x
                    sum_y += row_1 * dy
                    sum_xx += row_xx
                    sum_xy += row_x * dy
                    sum_yy += row_1 * dy * dy
                gradient = pair_gradients[place]
                gradient[0], gradient[1] = a * sum_x + b * sum_y, b * sum_x + c * sum_y
                gradient[2], gradient[3], gradient[4] = HALF * sum_xx, sum_xy, HALF * sum_yy
                gradient[5] = -sum_1 / opacity
                gradient[6], gradient[7], gradient[8] = sum_red, sum_green, sum_blue
            for place in range(end, tile_starts[tile + 1]):
                for field in range(GRADIENT_FIELDS):
                    pair_gradients[place, field] = ZERO
