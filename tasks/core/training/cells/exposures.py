"""Exposures of all photos at once, before training: from the colours in which photos show the same sparse points.

In one training a photo's gain follows the splat. Cells are trained apart, so each would settle on gains of its own, and
the splat would change its brightness at a seam. Here the logarithm of a colour in a photo is the photo's log gain plus
the log colour of the point, and both are found by least squares over all observations, with less weight for colours
that disagree (shine, shadow, wrong matches). The rules of `views.py` hold: small gains are left to the scene.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import spsolve

from tasks.core.training.views import DARKEST, FEWEST_PIXELS, IGNORED, MAX_LOG_GAIN
from tasks.core.transforms import Float64

ROUNDS = 6  # of weights and solutions
DISAGREEMENT = 0.1  # of logarithms: colours that differ by more count less, in inverse proportion
DRAWN_TO_ONE = 0.02  # so many of its observations, as a share, say that a photo's gain is 1
DECIMALS = 3  # a gain that changes by less, because a photo elsewhere does, changes nothing


def usable_logs(colors: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], Float64]:
    """Which colours [O, 3] of 0..255 are neither dark nor clipped [O], and the logarithms of all [O, 3]."""
    values = colors / 255.0
    usable = ((values > DARKEST) & (values < 1)).all(axis=1)
    return np.asarray(usable), np.log(np.maximum(values, DARKEST))


def solved_log_gains(
    logs: Float64,
    cameras: NDArray[np.integer],
    points: NDArray[np.integer],
    count: int,
    trained: NDArray[np.bool_],
) -> Float64:
    """Log gains [count, 3] of all photos.

    Args:
        logs: logarithms of observed colours [O, 3].
        cameras: [O] photo of each.
        points: [O] point of each.
        count: number of photos.
        trained: [count], which photos determine the points' colours. The gains of the others are found from these.
    """
    gains = np.zeros((count, 3))
    points = np.unique(points, return_inverse=True)[1]
    known = trained[cameras]
    for channel in range(3):
        gains[:, channel] = _solved(logs[known, channel], cameras[known], points[known], count)
        colors = _means(logs[known, channel] - gains[cameras[known], channel], points[known], len(points))
        left = ~known & np.isfinite(colors[points])
        residuals = logs[left, channel] - colors[points[left]]
        gains[:, channel] = np.where(trained, gains[:, channel], _medians(residuals, cameras[left], count))
    seen = np.bincount(cameras, minlength=count)
    gains[seen < FEWEST_PIXELS] = 0
    gains -= np.median(gains[trained], axis=0)
    gains = np.sign(gains) * np.maximum(np.abs(gains) - IGNORED, 0)
    return np.asarray(np.clip(gains, -MAX_LOG_GAIN, MAX_LOG_GAIN).round(DECIMALS))


def _solved(logs: Float64, cameras: NDArray[np.integer], points: NDArray[np.integer], count: int) -> Float64:
    """Log gains [count] for one channel, with the points' colours eliminated from the normal equations."""
    weights = np.ones(len(logs))
    gains = np.zeros(count)
    shape = int(points.max(initial=-1)) + 1, count
    for _ in range(ROUNDS):
        shown = csr_matrix((weights, (points, cameras)), shape=shape)
        per_point = np.maximum(np.asarray(shown.sum(axis=1)).ravel(), 1e-9)
        per_camera = np.asarray(shown.sum(axis=0)).ravel()
        of_points = np.bincount(points, weights * logs, minlength=shape[0]) / per_point
        right = np.bincount(cameras, weights * (logs - of_points[points]), minlength=count)
        share = diags(1 / per_point) @ shown
        matrix = diags(per_camera * (1 + DRAWN_TO_ONE) + 1e-6) - shown.T @ share
        gains = np.asarray(spsolve(matrix.tocsc(), right))
        colors = np.bincount(points, weights * (logs - gains[cameras]), minlength=shape[0]) / per_point
        residuals = np.abs(logs - gains[cameras] - colors[points])
        weights = 1 / np.maximum(residuals / DISAGREEMENT, 1)
    return gains


def _means(values: Float64, groups: NDArray[np.integer], count: int) -> Float64:
    """The mean of each group [count]; NaN for an empty one."""
    members = np.bincount(groups, minlength=count)
    sums = np.bincount(groups, values, minlength=count)
    return np.where(members > 0, sums / np.maximum(members, 1), np.nan)


def _medians(values: Float64, groups: NDArray[np.integer], count: int) -> Float64:
    """The median of each group [count]; 0 for an empty one."""
    medians = np.zeros(count)
    order = np.argsort(groups, kind="stable")
    for group, begin, size in zip(*np.unique(groups[order], return_index=True, return_counts=True), strict=True):
        medians[group] = np.median(values[order[begin : begin + size]])
    return medians
