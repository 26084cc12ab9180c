# mypy: allow-untyped-defs, allow-untyped-calls
"""Adam (Kingma & Ba 2015, arXiv:1412.6980) on the Gaussians that the last image showed, and on no others.

Moments of a Gaussian that no camera sees stay as they are, and its bias correction counts its own updates.
"""

import math

import numpy as np
from numba import njit, prange

from tasks.core.render.kernels.constants import FASTMATH, ONE

BETA1, BETA2 = np.float32(0.9), np.float32(0.999)
EPSILON = np.float32(1e-15)


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def count_visible(visible, d_means2d, workers, updates, scores, seen):
    """Note for every visible Gaussian that it is updated, and how strongly the image pulls at its place."""
    total = visible.shape[0]
    for worker in prange(workers):
        for k in range(worker * total // workers, (worker + 1) * total // workers):
            i = visible[k]
            updates[i] += 1
            seen[i] += ONE
            scores[i] += math.sqrt(d_means2d[i, 0] * d_means2d[i, 0] + d_means2d[i, 1] * d_means2d[i, 1])


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def adam(parameters, gradients, first, second, visible, updates, bias_corrections, rate, columns, workers):
    """One step on the first `columns` columns of the visible rows.

    parameters, gradients, first, second [N, D] float32; updates [N] counts this step already; bias_corrections [L]
    holds sqrt(1 - BETA2^t) / (1 - BETA1^t) at t, and its last entry for all later t.
    """
    total = visible.shape[0]
    last = bias_corrections.shape[0] - 1
    for worker in prange(workers):
        for k in range(worker * total // workers, (worker + 1) * total // workers):
            i = visible[k]
            step = rate * bias_corrections[min(updates[i], last)]
            p, g, m, v = parameters[i], gradients[i], first[i], second[i]
            for j in range(columns):
                m[j] = BETA1 * m[j] + (ONE - BETA1) * g[j]
                v[j] = BETA2 * v[j] + (ONE - BETA2) * g[j] * g[j]
                p[j] -= step * m[j] / (math.sqrt(v[j]) + EPSILON)


def bias_corrections() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The factor by number of updates, until it is within 1e-4 of 1 [L]."""
    updates = np.arange(1, 10_000)
    factors = np.sqrt(1 - float(BETA2) ** updates) / (1 - float(BETA1) ** updates)
    return np.concatenate([[1.0], factors]).astype(np.float32)
