# mypy: ignore-errors
"""Adam (Kingma & Ba 2015, arXiv:1412.6980) on the Gaussians that the last image showed, and on no others.

Moments of a Gaussian that no camera sees stay as they are, and its bias correction counts its own updates.
"""

import math

import numpy as np

from tasks.core.kernel_cache import njit, prange
from tasks.core.render.kernels.constants import FASTMATH, ONE

BETA1, BETA2 = np.float32(0.9), np.float32(0.999)
EPSILON = np.float32(1e-15)


@njit(inline="always")
def adam_row(p, g, m, v, columns, step):
    """One step on the first `columns` parameters of one Gaussian; step is the rate times the bias correction."""
    for j in range(columns):
        m[j] = BETA1 * m[j] + (ONE - BETA1) * g[j]
        v[j] = BETA2 * v[j] + (ONE - BETA2) * g[j] * g[j]
        p[j] -= step * m[j] / (math.sqrt(v[j]) + EPSILON)


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def adam(
    parameters, gradients, first, second, columns, rates, visible, pulls, updates, scores, seen, shown_by,
    flat_until, decay, corrections, workers,
):  # fmt: skip
    """One step on the visible rows of six parameters, and the notes of density control.

    parameters, gradients, first, second: six arrays [N, D] float32 each; of a row the first columns[tensor] entries are
    updated, at the rate rates[tensor]. updates, scores and seen [N] are those of Population; corrections [L] holds
    sqrt(1 - BETA2^t) / (1 - BETA1^t) at t, its last entry serves all later t.

    The last of the six are harmonics. They stay as they are in rows whose shown_by [N] is at most flat_until, and
    shrink by the share rate times decay in the others (AdamW, Loshchilov & Hutter 2019, arXiv:1711.05101).

    One parallel region for all: entering one costs more than the arithmetic of a small parameter.
    """
    total = visible.shape[0]
    last = corrections.shape[0] - 1
    for worker in prange(workers):
        for k in range(worker * total // workers, (worker + 1) * total // workers):
            i = visible[k]
            updates[i] += 1
            seen[i] += ONE
            scores[i] += math.sqrt(pulls[i, 0] * pulls[i, 0] + pulls[i, 1] * pulls[i, 1])
            correction = corrections[min(updates[i], last)]
            told = shown_by[i] > flat_until
            if told:
                shrunk = ONE - rates[5] * decay
                for j in range(columns[5]):
                    parameters[5][i, j] *= shrunk
            for tensor in range(6 if told else 5):
                adam_row(
                    parameters[tensor][i], gradients[tensor][i], first[tensor][i], second[tensor][i],
                    columns[tensor], rates[tensor] * correction,
                )  # fmt: skip


def bias_corrections() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The factor by number of updates, until it is within 1e-4 of 1 [L]."""
    updates = np.arange(1, 10_000)
    factors = np.sqrt(1 - float(BETA2) ** updates) / (1 - float(BETA1) ** updates)
    return np.concatenate([[1.0], factors]).astype(np.float32)
