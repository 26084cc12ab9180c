# mypy: ignore-errors
"""L1 and structural dissimilarity between a rendered image and a photo, together with their gradient.

loss = (1 - w) mean|x - y| + w (1 - mean SSIM(x, y)), the loss of 3D Gaussian Splatting. SSIM uses
`metrics.gaussian_window`, but over all pixels with zeros outside the image, so that borders are trained too.

With E the windowed means, SSIM is a function of E[x], E[x²] and E[xy]. D_x, D_xx and D_xy are its derivatives by these
three. The window is symmetric, so dSSIM/dx = E[D_x] + 2 x E[D_xx] + y E[D_xy].

Rows keep their channels interleaved: a neighbour in x is three floats away.
"""

import numpy as np

from tasks.core.kernel_cache import njit, prange
from tasks.core.render.kernels.constants import FASTMATH, ONE, TWO, ZERO
from tasks.core.render.metrics import SSIM_C1, SSIM_C2, SSIM_WINDOW, gaussian_window

RADIUS = SSIM_WINDOW // 2
MARGIN = 3 * RADIUS  # floats on either side of a row
C1, C2 = np.float32(SSIM_C1), np.float32(SSIM_C2)
W0, W1, W2, W3, W4, W5 = (np.float32(weight) for weight in gaussian_window()[RADIUS:])
UNIT = np.float32(1 / 255)


@njit(inline="always")
def window_row(
    padded,  # [3 W + 2 MARGIN]
    out,  # [3 W], written
):
    """Windowed sums along an interleaved row."""
    for j in range(out.shape[0]):
        out[j] = (
            W0 * padded[j + 15]
            + W1 * (padded[j + 12] + padded[j + 18])
            + W2 * (padded[j + 9] + padded[j + 21])
            + W3 * (padded[j + 6] + padded[j + 24])
            + W4 * (padded[j + 3] + padded[j + 27])
            + W5 * (padded[j] + padded[j + 30])
        )


@njit(inline="always")
def window_column(
    rows,  # [H, 3 W]
    y,
    out,  # [3 W], written
):
    """Windowed sums across the rows around row y."""
    height = rows.shape[0]
    for j in range(out.shape[0]):
        out[j] = ZERO
    for offset in range(-RADIUS, RADIUS + 1):
        if 0 <= y + offset < height:
            distance = abs(offset)
            weight = W0
            if distance == 1:
                weight = W1
            elif distance == 2:
                weight = W2
            elif distance == 3:
                weight = W3
            elif distance == 4:
                weight = W4
            elif distance == 5:
                weight = W5
            row = rows[y + offset]
            for j in range(out.shape[0]):
                out[j] += weight * row[j]


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def l1_ssim(
    image,  # [H, 3 W]
    target,  # [H, 3 W] uint8, 255 is 1
    ssim_weight,
    workers,
    scratch,  # [8, H, 3 W], overwritten
    d_image,  # [H, 3 W], written
):
    """Write the gradient and return the loss."""
    height, width = image.shape
    scale = np.float32(1.0 / (height * width))
    l1_sums, ssim_sums = np.zeros(workers, np.float64), np.zeros(workers, np.float64)
    for worker in prange(workers):
        px, py = np.zeros(width + 2 * MARGIN, np.float32), np.zeros(width + 2 * MARGIN, np.float32)
        pxx, pyy, pxy = np.zeros_like(px), np.zeros_like(px), np.zeros_like(px)
        for row in range(worker * height // workers, (worker + 1) * height // workers):
            x_row, y_row = image[row], target[row]
            for j in range(width):
                x, y = x_row[j], np.float32(y_row[j]) * UNIT
                px[j + MARGIN], py[j + MARGIN] = x, y
                pxx[j + MARGIN], pyy[j + MARGIN], pxy[j + MARGIN] = x * x, y * y, x * y
            window_row(px, scratch[0, row])
            window_row(py, scratch[1, row])
            window_row(pxx, scratch[2, row])
            window_row(pyy, scratch[3, row])
            window_row(pxy, scratch[4, row])
    for worker in prange(workers):
        ex, ey = np.empty(width, np.float32), np.empty(width, np.float32)
        exx, eyy, exy = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
        by_x = np.zeros(width + 2 * MARGIN, np.float32)
        by_xx, by_xy = np.zeros_like(by_x), np.zeros_like(by_x)
        l1_sum, ssim_sum = 0.0, 0.0
        for row in range(worker * height // workers, (worker + 1) * height // workers):
            window_column(scratch[0], row, ex)
            window_column(scratch[1], row, ey)
            window_column(scratch[2], row, exx)
            window_column(scratch[3], row, eyy)
            window_column(scratch[4], row, exy)
            x_row, y_row = image[row], target[row]
            row_l1, row_ssim = ZERO, ZERO
            for j in range(width):
                a, b = ex[j], ey[j]
                a1, a2 = TWO * a * b + C1, TWO * (exy[j] - a * b) + C2
                b1, b2 = a * a + b * b + C1, exx[j] - a * a + eyy[j] - b * b + C2
                inverse = ONE / (b1 * b2)
                similarity = a1 * a2 * inverse
                row_ssim += similarity
                row_l1 += abs(x_row[j] - np.float32(y_row[j]) * UNIT)
                by_x[j + MARGIN] = TWO * (b * (a2 - a1) * inverse + a * similarity * (b1 - b2) * inverse)
                by_xx[j + MARGIN] = -similarity * b1 * inverse
                by_xy[j + MARGIN] = TWO * a1 * inverse
            l1_sum += row_l1
            ssim_sum += row_ssim
            window_row(by_x, scratch[5, row])
            window_row(by_xx, scratch[6, row])
            window_row(by_xy, scratch[7, row])
        l1_sums[worker], ssim_sums[worker] = l1_sum, ssim_sum
    for worker in prange(workers):
        by_x, by_xx, by_xy = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
        for row in range(worker * height // workers, (worker + 1) * height // workers):
            window_column(scratch[5], row, by_x)
            window_column(scratch[6], row, by_xx)
            window_column(scratch[7], row, by_xy)
            x_row, y_row, d_row = image[row], target[row], d_image[row]
            for j in range(width):
                x, y = x_row[j], np.float32(y_row[j]) * UNIT
                sign = ONE if x > y else (-ONE if x < y else ZERO)
                d_ssim = by_x[j] + TWO * x * by_xx[j] + y * by_xy[j]
                d_row[j] = scale * ((ONE - ssim_weight) * sign - ssim_weight * d_ssim)
    count = float(height * width)
    return (1.0 - ssim_weight) * l1_sums.sum() / count + ssim_weight * (1.0 - ssim_sums.sum() / count)
