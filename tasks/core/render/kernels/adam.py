# mypy: ignore-errors
"""Adam (Kingma & Ba 2015, arXiv:1412.6980) on the Gaussians that the last image showed, and on no others.

The moments of a Gaussian that the camera does not see stay unchanged, and its bias correction counts its own updates.
"""

import math

import numpy as np

from tasks.core.kernel_cache import njit, prange
from tasks.core.render.kernels.constants import FASTMATH, ONE

BETA1, BETA2 = np.float32(0.9), np.float32(0.999)
EPSILON = np.float32(1e-15)


@njit(inline="always")
def adam_row(
    p,  # [D] parameters of one Gaussian, updated
    g,  # [D] gradient
    m,  # [D] first moments, updated
    v,  # [D] second moments, updated
    columns,
    step,
):
    """One step on the first `columns` parameters; `step` is the rate times the bias correction."""
    for j in range(columns):
        m[j] = BETA1 * m[j] + (ONE - BETA1) * g[j]
        v[j] = BETA2 * v[j] + (ONE - BETA2) * g[j] * g[j]
        p[j] -= step * m[j] / (math.sqrt(v[j]) + EPSILON)


@njit(parallel=True, fastmath=FASTMATH, cache=True)
def adam(
    parameters,  # six arrays [N, D], updated
    gradients,  # six arrays [N, D]
    first,  # six arrays [N, D], moments, updated
    second,  # six arrays [N, D], moments, updated
    columns,  # [6] int64, the number of entries of a row to update
    rates,  # [6]
    visible,  # [V] int64, the rows to update
    pulls,  # [N, 2]
    updates,  # [N] int64, of Population, updated
    scores,  # [N] of Population, updated
    seen,  # [N] of Population, updated
    shown_by,  # [N] of Population
    flat_until,
    decay,
    corrections,  # [L] of `bias_corrections`; the last entry serves all later updates
    workers,
):
    """One step on the visible rows of six parameters, and the notes of density control.

    The last of the six are harmonics. Rows with shown_by of at most flat_until keep theirs. In other rows they shrink
    by the share rate times decay (AdamW, Loshchilov & Hutter 2019, arXiv:1711.05101).

    All parameters share one parallel region: entering one costs more than the arithmetic of a small parameter.
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
    """sqrt(1 - BETA2^t) / (1 - BETA1^t) by number of updates t, until it is within 1e-4 of 1 [L]."""
    updates = np.arange(1, 10_000)
    factors = np.sqrt(1 - float(BETA2) ** updates) / (1 - float(BETA1) ** updates)
    return np.concatenate([[1.0], factors]).astype(np.float32)
