"""Positions as 16 bits an axis."""

import numpy as np

from tasks.core.gaussians import Gaussians
from tasks.core.sog import attributes
from tasks.core.sog.threads import in_chunks
from tasks.core.transforms import Float64

_STEPS = 65535
_COARSEST = 256  # of them in one: then the low byte says nothing


def encode_positions(gaussians: Gaussians, share: float | None) -> tuple[attributes.UInt16, Float64, Float64]:
    """16 bits an axis [N, 3] of log positions, rounded to nearest, and the bounds [3], [3] they are relative to.

    share: as `Precision.position_share`; then only multiples of the greatest power of two that keeps to it are used.
    """
    n = len(gaussians)
    t, quantised = np.empty((n, 3)), np.empty((n, 3), np.uint16)
    bounds = in_chunks(n, lambda rows: attributes.fill_log_positions(gaussians.means[rows], t[rows]))
    mins, maxs = np.min([low for low, _ in bounds], axis=0), np.max([high for _, high in bounds], axis=0)
    step = 1 if share is None else _coarsest_step(gaussians, t, (maxs - mins).max() / _STEPS, share)
    in_chunks(n, lambda rows: attributes.quantise_positions(t[rows], mins, maxs, step, quantised[rows]))
    return quantised, mins, maxs


def _coarsest_step(gaussians: Gaussians, t: Float64, unit: float, share: float) -> int:
    """The greatest power of two whose rounding moves half of the Gaussians by less than `share` of their size.

    Size is the middle one of the three scales. dx = (1 + |x|) dt = e^|t| dt, and rounding moves by half a step at most.
    """
    every = max(1, len(t) // 100_000)
    size = np.exp(np.median(gaussians.log_scales[::every].astype(np.float64), axis=1))
    moved = 0.5 * unit * np.exp(np.abs(t[::every]).max(axis=1))
    wanted = share / max(float(np.median(moved / size)), 1e-12)
    return int(2 ** np.clip(np.floor(np.log2(max(wanted, 1.0))), 0, np.log2(_COARSEST)))
