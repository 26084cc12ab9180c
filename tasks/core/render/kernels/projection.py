# mypy: ignore-errors
"""Project Gaussians in the world to splats in the image: EWA splatting, doi:10.1109/VISUAL.2001.964490.

`render/reference.py` has the mathematics, one formula a line. These kernels compute the same, one Gaussian at a time.

Spherical harmonics are real, up to degree 3, in the order and with the signs of 3D Gaussian Splatting. The constants
are those of https://en.wikipedia.org/wiki/Table_of_spherical_harmonics#Real_spherical_harmonics with the
Condon-Shortley phase.
"""

import math

import numpy as np

from tasks.core.kernel_cache import njit, prange
from tasks.core.render.kernels.constants import (
    BLUE,
    C0,
    CONIC_A,
    CONIC_B,
    CONIC_C,
    DEPTH,
    EPS2D,
    FASTMATH,
    FOV_MARGIN,
    GREEN,
    HALF,
    HALF_HEIGHT,
    HALF_WIDTH,
    LIMIT,
    MAX_DET,
    MEAN_X,
    MEAN_Y,
    MIN_ALPHA,
    NEAR_PLANE,
    ONE,
    OPACITY,
    RED,
    TWO,
    ZERO,
)

F = np.float32
C1 = F(0.4886025119029199)
C2A, C2B, C2C = F(1.0925484305920792), F(0.31539156525252005), F(0.5462742152960396)
C3A, C3B, C3C = F(0.5900435899266435), F(2.890611442640554), F(0.4570457994644658)
C3D, C3E = F(0.3731763325901154), F(1.445305721320277)
THREE, FOUR, SIX, EIGHT = F(3), F(4), F(6), F(8)


@njit(inline="always")
def sh_basis(degree, x, y, z, basis):
    """Write the basis functions 1..K-1 (all but the constant) at the unit direction x, y, z into basis [15]."""
    if degree >= 1:
        basis[0] = -C1 * y
        basis[1] = C1 * z
        basis[2] = -C1 * x
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        basis[3] = C2A * x * y
        basis[4] = -C2A * y * z
        basis[5] = C2B * (TWO * zz - xx - yy)
        basis[6] = -C2A * x * z
        basis[7] = C2C * (xx - yy)
        if degree >= 3:
            basis[8] = -C3A * y * (THREE * xx - yy)
            basis[9] = C3B * x * y * z
            basis[10] = -C3C * y * (FOUR * zz - xx - yy)
            basis[11] = C3D * z * (TWO * zz - THREE * xx - THREE * yy)
            basis[12] = -C3C * x * (FOUR * zz - xx - yy)
            basis[13] = C3E * z * (xx - yy)
            basis[14] = -C3A * x * (xx - THREE * yy)


@njit(inline="always")
def sh_direction_gradient(degree, x, y, z, d):
    """Gradient of sum_k d[k] * basis[k](x, y, z) with respect to x, y, z, as if the three were independent."""
    gx, gy, gz = -C1 * d[2], -C1 * d[0], C1 * d[1]
    if degree >= 2:
        gx += C2A * (y * d[3] - z * d[6]) + TWO * x * (C2C * d[7] - C2B * d[5])
        gy += C2A * (x * d[3] - z * d[4]) - TWO * y * (C2C * d[7] + C2B * d[5])
        gz += FOUR * C2B * z * d[5] - C2A * (y * d[4] + x * d[6])
        if degree >= 3:
            xx, yy, zz = x * x, y * y, z * z
            gx += (
                C3A * (THREE * (yy - xx) * d[14] - SIX * x * y * d[8])
                + C3B * y * z * d[9]
                + C3C * (TWO * x * y * d[10] - (FOUR * zz - THREE * xx - yy) * d[12])
                - SIX * C3D * x * z * d[11]
                + TWO * C3E * x * z * d[13]
            )
            gy += (
                C3A * (THREE * (yy - xx) * d[8] + SIX * x * y * d[14])
                + C3B * x * z * d[9]
                + C3C * (TWO * x * y * d[12] - (FOUR * zz - xx - THREE * yy) * d[10])
                - SIX * C3D * y * z * d[11]
                - TWO * C3E * y * z * d[13]
            )
            gz += (
                C3B * x * y * d[9]
                - EIGHT * C3C * z * (y * d[10] + x * d[12])
                + THREE * C3D * (TWO * zz - xx - yy) * d[11]
                + C3E * (xx - yy) * d[13]
            )
    return gx, gy, gz


@njit(inline="always")
def sigmoid(x):
    """The logistic function."""
    return ONE / (ONE + math.exp(-x))


@njit(inline="always")
def rotation_entries(w, x, y, z):
    """The nine entries, row by row, of the rotation matrix of a unit quaternion."""
    return (
        ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y),
        TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x),
        TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y),
    )  # fmt: skip


@njit(inline="always")
def jacobian_limits(fx, fy, cx, cy, width, height):
    """Bounds of x/z and y/z, low and high, at which the Jacobian of the projection is taken."""
    margin_x, margin_y = FOV_MARGIN * HALF * width / fx, FOV_MARGIN * HALF * height / fy
    return -cx / fx - margin_x, (width - cx) / fx + margin_x, -cy / fy - margin_y, (height - cy) / fy + margin_y


@njit(inline="always")
def image_covariance(p0, p1, p2, q0, q1, q2):
    """Covariance xx, xy, yy of a splat in px² and its determinant, from the two rows p, q of J W R S.

    The determinant is computed by Lagrange's identity |p|²|q|² - (p·q)² = |p x q|²: for a thin splat, the plain
    difference loses twice as many digits in float32.
    """
    pp, pq, qq = p0 * p0 + p1 * p1 + p2 * p2, p0 * q0 + p1 * q1 + p2 * q2, q0 * q0 + q1 * q1 + q2 * q2
    c0, c1, c2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
    return pp + EPS2D, pq, qq + EPS2D, c0 * c0 + c1 * c1 + c2 * c2 + EPS2D * (pp + qq + EPS2D)


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def project(
    means,  # [N, 3]
    quats,  # [N, 4] wxyz, of any length
    log_scales,  # [N, 3]
    raw_opacities,  # [N]
    sh0,  # [N, 1, 3]
    shN,  # [N, K-1, 3]
    pose,  # [3, 4] cam_from_world
    intrinsics,  # [4] fx, fy, cx, cy in px
    center,  # [3] of the camera, in the world
    width,  # float32, px
    height,  # float32, px
    sh_degree,
    workers,
    splats,  # [N, SPLAT_FIELDS], written in the rows of visible Gaussians
    visible,  # [N] int64, written
    counts,  # [workers] int64, written
):
    """Write the splats of the Gaussians that can touch the image, and list these Gaussians.

    Worker w writes the ascending indices of its visible Gaussians into `visible`, starting at the index of its first
    Gaussian, and their number into counts[w]; `compact` closes the gaps.
    """
    n = means.shape[0]
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    low_x, high_x, low_y, high_y = jacobian_limits(fx, fy, cx, cy, width, height)
    for worker in prange(workers):
        basis = np.empty(15, np.float32)
        first, last = worker * n // workers, (worker + 1) * n // workers
        found = first
        for i in range(first, last):
            mx, my, mz = means[i, 0], means[i, 1], means[i, 2]
            z = pose[2, 0] * mx + pose[2, 1] * my + pose[2, 2] * mz + pose[2, 3]
            if not z >= NEAR_PLANE:
                continue
            opacity = sigmoid(raw_opacities[i])
            if not opacity >= MIN_ALPHA:
                continue
            x = pose[0, 0] * mx + pose[0, 1] * my + pose[0, 2] * mz + pose[0, 3]
            y = pose[1, 0] * mx + pose[1, 1] * my + pose[1, 2] * mz + pose[1, 3]
            rz = ONE / z
            mean_x, mean_y = fx * x * rz + cx, fy * y * rz + cy

            norm = ONE / math.sqrt(
                quats[i, 0] * quats[i, 0]
                + quats[i, 1] * quats[i, 1]
                + quats[i, 2] * quats[i, 2]
                + quats[i, 3] * quats[i, 3]
            )
            r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation_entries(
                quats[i, 0] * norm, quats[i, 1] * norm, quats[i, 2] * norm, quats[i, 3] * norm
            )
            sx, sy, sz = math.exp(log_scales[i, 0]), math.exp(log_scales[i, 1]), math.exp(log_scales[i, 2])
            # Rows of J W, with the Jacobian J taken inside the widened image
            jx = -fx * rz * min(max(x * rz, low_x), high_x)
            jy = -fy * rz * min(max(y * rz, low_y), high_y)
            u0 = fx * rz * pose[0, 0] + jx * pose[2, 0]
            u1 = fx * rz * pose[0, 1] + jx * pose[2, 1]
            u2 = fx * rz * pose[0, 2] + jx * pose[2, 2]
            v0 = fy * rz * pose[1, 0] + jy * pose[2, 0]
            v1 = fy * rz * pose[1, 1] + jy * pose[2, 1]
            v2 = fy * rz * pose[1, 2] + jy * pose[2, 2]
            # J W R S: the covariance is this times its transpose
            p0, p1, p2 = (
                (u0 * r00 + u1 * r10 + u2 * r20) * sx,
                (u0 * r01 + u1 * r11 + u2 * r21) * sy,
                (u0 * r02 + u1 * r12 + u2 * r22) * sz,
            )
            q0, q1, q2 = (
                (v0 * r00 + v1 * r10 + v2 * r20) * sx,
                (v0 * r01 + v1 * r11 + v2 * r21) * sy,
                (v0 * r02 + v1 * r12 + v2 * r22) * sz,
            )
            cov_xx, cov_xy, cov_yy, det = image_covariance(p0, p1, p2, q0, q1, q2)
            if not det < MAX_DET:
                continue
            # Beyond this many standard deviations alpha is below MIN_ALPHA
            limit = TWO * max(math.log(opacity / MIN_ALPHA), ZERO)
            reach = math.sqrt(limit)
            half_width, half_height = reach * math.sqrt(cov_xx), reach * math.sqrt(cov_yy)
            if not (
                mean_x + half_width > ZERO
                and mean_x - half_width < width
                and mean_y + half_height > ZERO
                and mean_y - half_height < height
            ):
                continue

            dx, dy, dz = mx - center[0], my - center[1], mz - center[2]
            inverse = ONE / math.sqrt(dx * dx + dy * dy + dz * dz)
            sh_basis(sh_degree, dx * inverse, dy * inverse, dz * inverse, basis)
            red, green, blue = HALF + C0 * sh0[i, 0, 0], HALF + C0 * sh0[i, 0, 1], HALF + C0 * sh0[i, 0, 2]
            for k in range((sh_degree + 1) * (sh_degree + 1) - 1):
                red += basis[k] * shN[i, k, 0]
                green += basis[k] * shN[i, k, 1]
                blue += basis[k] * shN[i, k, 2]

            row = splats[i]
            row[MEAN_X], row[MEAN_Y] = mean_x, mean_y
            row[CONIC_A], row[CONIC_B], row[CONIC_C] = cov_yy / det, -cov_xy / det, cov_xx / det
            row[OPACITY] = opacity
            row[RED], row[GREEN], row[BLUE] = max(red, ZERO), max(green, ZERO), max(blue, ZERO)
            row[HALF_WIDTH], row[HALF_HEIGHT], row[DEPTH], row[LIMIT] = half_width, half_height, z, limit
            visible[found] = i
            found += 1
        counts[worker] = found - first


@njit(cache=True)
def compact(
    visible,  # [N] int64, the workers' lists; afterwards one list
    counts,  # [workers] int64
    n,
):
    """Move the workers' lists together; returns the number of visible Gaussians."""
    workers = counts.shape[0]
    total = counts[0]
    for worker in range(1, workers):
        first = worker * n // workers
        for k in range(counts[worker]):
            visible[total] = visible[first + k]
            total += 1
    return total
