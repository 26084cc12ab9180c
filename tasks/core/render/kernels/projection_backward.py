# mypy: ignore-errors
"""Compute the gradient of Gaussians from the gradient of their splats: the chain rule through `project`."""

import math

import numpy as np

from tasks.core.kernel_cache import njit, prange
from tasks.core.render.kernels.constants import (
    BLUE,
    C0,
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
    ONE,
    OPACITY,
    PULL_X,
    PULL_Y,
    RED,
    TWO,
    ZERO,
)
from tasks.core.render.kernels.projection import jacobian_limits, rotation_entries, sh_basis, sh_direction_gradient


@njit(inline="always")
def covariance_gradient(a, b, c, d_a, d_b, d_c):
    """dL/dcov as the symmetric matrix -conic G conic, given the conic a, b, c; its entries xx, xy, yy."""
    h = HALF * d_b
    ga, gb, gc, gd = d_a * a + h * b, d_a * b + h * c, h * a + d_c * b, h * b + d_c * c  # G conic
    return -(a * ga + b * gc), -(a * gb + b * gd), -(b * gb + c * gd)


@njit(inline="always")
def quaternion_gradient(
    w,
    x,
    y,
    z,
    d,  # [9] dL/dR, row by row
):
    """dL/dw, dx, dy, dz of a unit quaternion, from the derivative of its rotation matrix."""
    return (
        TWO * (z * (d[3] - d[1]) + y * (d[2] - d[6]) + x * (d[7] - d[5])),
        TWO * (y * (d[1] + d[3]) + z * (d[2] + d[6]) + w * (d[7] - d[5]) - TWO * x * (d[4] + d[8])),
        TWO * (x * (d[1] + d[3]) + w * (d[2] - d[6]) + z * (d[5] + d[7]) - TWO * y * (d[0] + d[8])),
        TWO * (w * (d[3] - d[1]) + x * (d[2] + d[6]) + y * (d[5] + d[7]) - TWO * z * (d[0] + d[4])),
    )


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def project_backward(
    means,  # [N, 3]
    quats,  # [N, 4] wxyz
    log_scales,  # [N, 3]
    shN,  # [N, K-1, 3]
    pose,  # [3, 4] cam_from_world
    intrinsics,  # [4] fx, fy, cx, cy in px
    center,  # [3] of the camera, in the world
    width,  # float32, px
    height,  # float32, px
    sh_degree,
    visible,  # [total] int64, ascending
    total,
    ranks,  # [N] int64, a visible Gaussian's place in order of depth
    splats,  # [N, SPLAT_FIELDS]
    pair_starts,  # [total + 1] int64, by rank
    pair_slots,  # [pairs] int64
    pair_gradients,  # [pairs, GRADIENT_FIELDS]
    workers,
    d_means,  # [N, 3], written
    d_quats,  # [N, 4], written
    d_log_scales,  # [N, 3], written
    d_raw_opacities,  # [N], written
    d_sh0,  # [N, 1, 3], written
    d_shN,  # [N, K-1, 3], written: the coefficients of `sh_degree` only
    pulls,  # [N, 2], written
):
    """Write the gradient rows of all visible Gaussians; other rows stay unchanged.

    A pull is how strongly the image pulls at the projected mean, for density control: the sum of the absolute gradients
    of a tile's columns of pixels, in px.
    """
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    low_x, high_x, low_y, high_y = jacobian_limits(fx, fy, cx, cy, width, height)
    rest = (sh_degree + 1) * (sh_degree + 1) - 1
    for worker in prange(workers):
        basis, d_basis = np.empty(15, np.float32), np.empty(15, np.float32)  # [15] harmonics but the constant
        g, d_r = np.empty(GRADIENT_FIELDS, np.float32), np.empty(9, np.float32)  # of the splat; dL/dR row by row
        for k in range(worker * total // workers, (worker + 1) * total // workers):
            i = visible[k]  # ascending, so that rows are read and written in the order of memory
            g[:] = ZERO
            for pair in range(pair_starts[ranks[i]], pair_starts[ranks[i] + 1]):
                part = pair_gradients[pair_slots[pair]]
                for field in range(GRADIENT_FIELDS):
                    g[field] += part[field]
            row = splats[i]
            pulls[i, 0], pulls[i, 1] = g[PULL_X], g[PULL_Y]
            d_raw_opacities[i] = g[D_OPACITY] * row[OPACITY] * (ONE - row[OPACITY])

            # Colour; a channel that was clamped at 0 has no gradient
            mx, my, mz = means[i, 0], means[i, 1], means[i, 2]
            d_red = g[D_RED] if row[RED] > ZERO else ZERO
            d_green = g[D_GREEN] if row[GREEN] > ZERO else ZERO
            d_blue = g[D_BLUE] if row[BLUE] > ZERO else ZERO
            d_sh0[i, 0, 0], d_sh0[i, 0, 1], d_sh0[i, 0, 2] = C0 * d_red, C0 * d_green, C0 * d_blue
            d_mx, d_my, d_mz = ZERO, ZERO, ZERO
            if sh_degree > 0:
                dx, dy, dz = mx - center[0], my - center[1], mz - center[2]
                inverse = ONE / math.sqrt(dx * dx + dy * dy + dz * dz)
                dx, dy, dz = dx * inverse, dy * inverse, dz * inverse
                sh_basis(sh_degree, dx, dy, dz, basis)
                coefficients, d_coefficients = shN[i], d_shN[i]
                for j in range(rest):
                    d_basis[j] = d_red * coefficients[j, 0] + d_green * coefficients[j, 1] + d_blue * coefficients[j, 2]
                    d_coefficients[j, 0] = basis[j] * d_red
                    d_coefficients[j, 1] = basis[j] * d_green
                    d_coefficients[j, 2] = basis[j] * d_blue
                gx, gy, gz = sh_direction_gradient(sh_degree, dx, dy, dz, d_basis)
                along = gx * dx + gy * dy + gz * dz
                d_mx, d_my, d_mz = inverse * (gx - along * dx), inverse * (gy - along * dy), inverse * (gz - along * dz)

            # The forward pass's values again: cheaper to compute than to store
            x = pose[0, 0] * mx + pose[0, 1] * my + pose[0, 2] * mz + pose[0, 3]
            y = pose[1, 0] * mx + pose[1, 1] * my + pose[1, 2] * mz + pose[1, 3]
            rz = ONE / (pose[2, 0] * mx + pose[2, 1] * my + pose[2, 2] * mz + pose[2, 3])
            q = quats[i]
            norm = ONE / math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
            qw, qx, qy, qz = q[0] * norm, q[1] * norm, q[2] * norm, q[3] * norm
            r00, r01, r02, r10, r11, r12, r20, r21, r22 = rotation_entries(qw, qx, qy, qz)
            sx, sy, sz = math.exp(log_scales[i, 0]), math.exp(log_scales[i, 1]), math.exp(log_scales[i, 2])
            slope_x, slope_y = min(max(x * rz, low_x), high_x), min(max(y * rz, low_y), high_y)
            jx, jy = -fx * rz * slope_x, -fy * rz * slope_y
            u0 = fx * rz * pose[0, 0] + jx * pose[2, 0]
            u1 = fx * rz * pose[0, 1] + jx * pose[2, 1]
            u2 = fx * rz * pose[0, 2] + jx * pose[2, 2]
            v0 = fy * rz * pose[1, 0] + jy * pose[2, 0]
            v1 = fy * rz * pose[1, 1] + jy * pose[2, 1]
            v2 = fy * rz * pose[1, 2] + jy * pose[2, 2]
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

            # cov = P Pᵀ, so dP = 2 (dL/dcov) P
            m_xx, m_xy, m_yy = covariance_gradient(
                row[CONIC_A], row[CONIC_B], row[CONIC_C], g[D_CONIC_A], g[D_CONIC_B], g[D_CONIC_C]
            )
            dp0, dp1, dp2 = TWO * (m_xx * p0 + m_xy * q0), TWO * (m_xx * p1 + m_xy * q1), TWO * (m_xx * p2 + m_xy * q2)
            dq0, dq1, dq2 = TWO * (m_xy * p0 + m_yy * q0), TWO * (m_xy * p1 + m_yy * q1), TWO * (m_xy * p2 + m_yy * q2)
            d_log_scales[i, 0] = dp0 * p0 + dq0 * q0
            d_log_scales[i, 1] = dp1 * p1 + dq1 * q1
            d_log_scales[i, 2] = dp2 * p2 + dq2 * q2
            dp0, dp1, dp2, dq0, dq1, dq2 = dp0 * sx, dp1 * sy, dp2 * sz, dq0 * sx, dq1 * sy, dq2 * sz

            # (JW) R: to the rotation, then through the quaternion's normalisation
            d_r[0], d_r[1], d_r[2] = u0 * dp0 + v0 * dq0, u0 * dp1 + v0 * dq1, u0 * dp2 + v0 * dq2
            d_r[3], d_r[4], d_r[5] = u1 * dp0 + v1 * dq0, u1 * dp1 + v1 * dq1, u1 * dp2 + v1 * dq2
            d_r[6], d_r[7], d_r[8] = u2 * dp0 + v2 * dq0, u2 * dp1 + v2 * dq1, u2 * dp2 + v2 * dq2
            d_w, d_x, d_y, d_z = quaternion_gradient(qw, qx, qy, qz, d_r)
            along = d_w * qw + d_x * qx + d_y * qy + d_z * qz
            d_quats[i, 0], d_quats[i, 1] = norm * (d_w - along * qw), norm * (d_x - along * qx)
            d_quats[i, 2], d_quats[i, 3] = norm * (d_y - along * qy), norm * (d_z - along * qz)

            # (JW) R: to J W, whose rows are fx/z W0 + jx W2 and fy/z W1 + jy W2
            du0, du1, du2 = (
                dp0 * r00 + dp1 * r01 + dp2 * r02,
                dp0 * r10 + dp1 * r11 + dp2 * r12,
                dp0 * r20 + dp1 * r21 + dp2 * r22,
            )
            dv0, dv1, dv2 = (
                dq0 * r00 + dq1 * r01 + dq2 * r02,
                dq0 * r10 + dq1 * r11 + dq2 * r12,
                dq0 * r20 + dq1 * r21 + dq2 * r22,
            )
            d_ex = du0 * pose[0, 0] + du1 * pose[0, 1] + du2 * pose[0, 2]
            d_ey = dv0 * pose[1, 0] + dv1 * pose[1, 1] + dv2 * pose[1, 2]
            d_jx = du0 * pose[2, 0] + du1 * pose[2, 1] + du2 * pose[2, 2]
            d_jy = dv0 * pose[2, 0] + dv1 * pose[2, 1] + dv2 * pose[2, 2]
            fx_rz, fy_rz = fx * rz, fy * rz
            d_cam_x, d_cam_y = g[D_MEAN_X] * fx_rz, g[D_MEAN_Y] * fy_rz
            d_cam_z = -(g[D_MEAN_X] * fx_rz * x + g[D_MEAN_Y] * fy_rz * y) * rz
            d_cam_z += rz * (fx_rz * (slope_x * d_jx - d_ex) + fy_rz * (slope_y * d_jy - d_ey))
            if low_x < x * rz < high_x:
                d_cam_x -= fx_rz * d_jx * rz
                d_cam_z += fx_rz * d_jx * x * rz * rz
            if low_y < y * rz < high_y:
                d_cam_y -= fy_rz * d_jy * rz
                d_cam_z += fy_rz * d_jy * y * rz * rz
            d_means[i, 0] = d_mx + pose[0, 0] * d_cam_x + pose[1, 0] * d_cam_y + pose[2, 0] * d_cam_z
            d_means[i, 1] = d_my + pose[0, 1] * d_cam_x + pose[1, 1] * d_cam_y + pose[2, 1] * d_cam_z
            d_means[i, 2] = d_mz + pose[0, 2] * d_cam_x + pose[1, 2] * d_cam_y + pose[2, 2] * d_cam_z
