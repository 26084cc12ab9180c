"""The same ellipsoid with its axes named so that its rotation is as small as can be.

An ellipsoid has 24 descriptions: its three axes can be permuted and turned round together with its scales. Of these the
one nearest to no rotation leaves the three stored components within ±0.39 and makes the fourth always w, which saves
log2(24) = 4.6 bits a Gaussian and changes no picture.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Float32, Gaussians
from tasks.core.kernel_cache import njit
from tasks.core.transforms import Float64


def _turns() -> tuple[Float64, NDArray[np.int64]]:
    """The 24 rotations of a cube: quaternions wxyz [24, 4], and for each which old axis the new axes are [24, 3]."""
    candidates = np.array(list(itertools.product((1, 0, -1), repeat=4)), float)
    squares = (candidates**2).sum(axis=1)
    first = candidates[np.arange(len(candidates)), np.abs(candidates).argmax(axis=1)]
    # one, two or four components of equal size; of q and -q the one whose first component is positive
    chosen = candidates[np.isin(squares, (1, 2, 4)) & (first > 0)]
    turns = chosen / np.linalg.norm(chosen, axis=1, keepdims=True)
    w, x, y, z = turns.T
    matrices = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return turns, np.abs(matrices).argmax(axis=0).T  # column j of a matrix is ± one old axis


@njit(cache=True, nogil=True)
def _turn_all(
    quats: Float32, scales: Float32, turns: Float64, axes: NDArray[np.int64], new_quats: Float32, new_scales: Float32
) -> None:
    for i in range(len(quats)):
        w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        best, greatest = 0, -1.0
        for turn in range(len(turns)):
            a, b, c, d = turns[turn]
            size = abs(w * a - x * b - y * c - z * d)  # |w| of the product
            if size > greatest + 1e-7:  # the first of equals
                best, greatest = turn, size
        a, b, c, d = turns[best]
        new_quats[i, 0] = w * a - x * b - y * c - z * d
        new_quats[i, 1] = w * b + x * a + y * d - z * c
        new_quats[i, 2] = w * c - x * d + y * a + z * b
        new_quats[i, 3] = w * d + x * c - y * b + z * a
        for axis in range(3):
            new_scales[i, axis] = scales[i, axes[best, axis]]


def with_least_rotation(gaussians: Gaussians) -> Gaussians:
    """The same ellipsoids with the smallest rotations."""
    turns, axes = _turns()
    quats, scales = np.empty_like(gaussians.quats), np.empty_like(gaussians.log_scales)
    _turn_all(gaussians.quats, gaussians.log_scales, turns, axes, quats, scales)
    return Gaussians(gaussians.means, quats, scales, gaussians.raw_opacities, gaussians.sh0, gaussians.shN)
