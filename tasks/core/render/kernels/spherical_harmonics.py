# mypy: ignore-errors
"""Real spherical harmonics up to degree 3, in the order and with the signs of 3D Gaussian Splatting.

The constants are those of https://en.wikipedia.org/wiki/Table_of_spherical_harmonics#Real_spherical_harmonics with the
Condon-Shortley phase.
"""

import numpy as np

from tasks.core.kernel_cache import njit

F = np.float32
C1 = F(0.4886025119029199)
C2A, C2B, C2C = F(1.0925484305920792), F(0.31539156525252005), F(0.5462742152960396)
C3A, C3B, C3C = F(0.5900435899266435), F(2.890611442640554), F(0.4570457994644658)
C3D, C3E = F(0.3731763325901154), F(1.445305721320277)
TWO, THREE, FOUR, SIX, EIGHT = F(2), F(3), F(4), F(6), F(8)


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
    """Gradient with respect to the direction x, y, z of sum_k d[k] * basis[k](x, y, z), the three taken as free."""
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
