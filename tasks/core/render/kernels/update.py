# mypy: ignore-errors
"""The chain rule from splats to Gaussians and the optimiser's step in one pass over the Gaussians.

Their gradients, 59 numbers each, never leave the cache of the core that makes and uses them.
"""

import numpy as np
from numba import njit, prange

from tasks.core.render.kernels.adam import adam_rows
from tasks.core.render.kernels.constants import FASTMATH
from tasks.core.render.kernels.projection_backward import gradient_rows

BLOCK = 64  # Gaussians at a time: 16 kB of gradients, half of a first-level cache


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def backward_and_adam(
    parameters, pose, intrinsics, center, width, height, sh_degree,
    visible, total, ranks, splats, pair_starts, pair_slots, pair_gradients, workers,
    first_moments, second_moments, columns, rates, updates, scores, seen, corrections,
):  # fmt: skip
    """`gradient_rows`, then `adam_rows`, for all visible Gaussians.

    parameters: means, quats, log_scales, raw_opacities, sh0 and shN as [N, D] float32 each.
    """
    means, quats, log_scales, _, _, shN = parameters
    for worker in prange(workers):
        d_means, d_quats = np.empty((BLOCK, 3), np.float32), np.empty((BLOCK, 4), np.float32)
        d_log_scales, d_raw_opacities = np.empty((BLOCK, 3), np.float32), np.empty((BLOCK, 1), np.float32)
        d_sh0, d_shN = np.empty((BLOCK, 3), np.float32), np.empty((BLOCK, shN.shape[1]), np.float32)
        d_means2d = np.empty((BLOCK, 2), np.float32)
        stop = (worker + 1) * total // workers
        for first in range(worker * total // workers, stop, BLOCK):
            last = min(first + BLOCK, stop)
            gradient_rows(
                means, quats, log_scales, shN, pose, intrinsics, center, width, height, sh_degree,
                visible, first, last, ranks, splats, pair_starts, pair_slots, pair_gradients,
                d_means, d_quats, d_log_scales, d_raw_opacities, d_sh0, d_shN, d_means2d,
            )  # fmt: skip
            adam_rows(
                parameters, (d_means, d_quats, d_log_scales, d_raw_opacities, d_sh0, d_shN), first_moments,
                second_moments, columns, rates, visible, first, last, d_means2d, updates, scores, seen, corrections,
            )  # fmt: skip
