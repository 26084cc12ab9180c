# mypy: ignore-errors
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
    for y in range(TILE):
        row = transmittance[y]
        for x in range(TILE):
            left += row[x]
    return left == ZERO


@njit(inline="always")
def pixels():
    """One number for each pixel of a tile [16, 16]."""
    return np.empty((TILE, TILE), np.float32)


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def blend(splats, tile_splats, tile_starts, tiles_x, tiles_y, background, workers, image):
    """Write every pixel of image [H, W, 3]."""
    height, width = image.shape[0], image.shape[1]
    for worker in prange(workers):
        transmittance, red, green, blue = pixels(), pixels(), pixels(), pixels()
        final = pixels()  # transmittance at which a finished pixel stopped
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
                    # Views of one row: with indices that are plainly not negative, the loop becomes vector code
                    t_row, f_row, r_row, g_row, b_row = transmittance[y], final[y], red[y], green[y], blue[y]
                    dy = row[1] - (top + np.float32(y) + HALF)
                    cdy, bdy = HALF * c * dy * dy, b * dy
                    for x in range(TILE):
                        dx = row[0] - (left + np.float32(x) + HALF)
                        sigma = (HALF * a * dx + bdy) * dx + cdy
                        alpha = min(opacity * exp_of_minus(min(max(sigma, ZERO), MAX_SIGMA)), MAX_ALPHA)
                        alpha = alpha if alpha >= MIN_ALPHA else ZERO
                        before = t_row[x]
                        after = before - before * alpha
                        keep = after > MIN_TRANSMITTANCE
                        weight = before * alpha if keep else ZERO
                        f_row[x] += ZERO if keep else before
                        t_row[x] = after if keep else ZERO
                        r_row[x] += weight * splat_red
                        g_row[x] += weight * splat_green
                        b_row[x] += weight * splat_blue
            for y in range(min(TILE, height - int(top))):
                for x in range(min(TILE, width - int(left))):
                    through = transmittance[y, x] + final[y, x]
                    pixel = image[int(top) + y, int(left) + x]
                    pixel[0] = red[y, x] + through * background[0]
                    pixel[1] = green[y, x] + through * background[1]
                    pixel[2] = blue[y, x] + through * background[2]


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def blend_backward(splats, tile_splats, tile_starts, tiles_x, tiles_y, image, d_image, workers, pair_gradients):
    """Write the gradient of every pair of tile and splat into pair_gradients [pairs, 9].

    With T the transmittance before splat i and v the pixel's gradient, dL/dalpha_i = T c_i·v - rest_i / (1 - alpha_i),
    where rest_i, what all splats behind i and the background add to image·v, is image·v minus what was passed so far.
    """
    height, width = image.shape[0], image.shape[1]
    for worker in prange(workers):
        transmittance, rest, d_red, d_green, d_blue = pixels(), pixels(), pixels(), pixels(), pixels()
        for tile in range(worker, tiles_x * tiles_y, workers):
            left, top = np.float32(tile % tiles_x * TILE), np.float32(tile // tiles_x * TILE)
            transmittance[:], rest[:], d_red[:], d_green[:], d_blue[:] = ZERO, ZERO, ZERO, ZERO, ZERO
            for y in range(min(TILE, height - int(top))):
                for x in range(min(TILE, width - int(left))):
                    color, v = image[int(top) + y, int(left) + x], d_image[int(top) + y, int(left) + x]
                    transmittance[y, x] = ONE
                    d_red[y, x], d_green[y, x], d_blue[y, x] = v[0], v[1], v[2]
                    rest[y, x] = color[0] * v[0] + color[1] * v[1] + color[2] * v[2]
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
                    t_row, rest_row = transmittance[y], rest[y]
                    r_row, g_row, b_row = d_red[y], d_green[y], d_blue[y]
                    dy = row[1] - (top + np.float32(y) + HALF)
                    cdy, bdy = HALF * c * dy * dy, b * dy
                    row_1, row_x, row_xx = ZERO, ZERO, ZERO
                    for x in range(TILE):
                        dx = row[0] - (left + np.float32(x) + HALF)
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
                        # alpha = opacity exp(-sigma), so d alpha / d sigma = -alpha; none where alpha is clamped
                        d_sigma = -alpha * d_alpha if keep and free <= MAX_ALPHA else ZERO
                        sum_red += weight * r_row[x]
                        sum_green += weight * g_row[x]
                        sum_blue += weight * b_row[x]
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
