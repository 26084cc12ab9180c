"""Fit a model to GPS: the similarity to metres east, north and up, with what the photos know of up.

Horizontal and vertical errors are apart, because barometers wander, some cameras write altitudes of zero, and flights
have steps between them. The parameters minimise a robust sum (Cauchy's) of

    (s R c + t - g) east and north / sigma_h        of each photo with GPS
    (s R c + t - g - drift . g) up / sigma_v        of each that has an altitude
    rows (R' z) - targets                           of each cue of the hypothesis of up (`tasks.core.sfm.up`)
    drift * extent / drift_m                        so that a slope of the altitudes is not taken for a tilt

with scale s, rotation R, camera centres c, positions g, and `drift` in metres up for each metre east and north. Two
photos tell scale and heading once up is known. So a flight on one line is enough, and RANSAC over pairs finds the
photos whose GPS agrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.sfm.up import Cue, Uprightness, strongest, undecided
from tasks.core.transforms import Float64, rotation_between

INLIER_M = 10.0  # consumer GPS errs by 2 to 5 m
DRIFTS_M = (0.3, 3.0)  # of altitudes over a flight, as a standard deviation; a consumer GPS has the second
DRIFT_TO_NOISE = 1.0  # a receiver whose altitudes scatter little also drifts little
BELIEVED_RISE_M = 9.0  # of the altitudes against the scene over the flight, beyond which it is not the scene's tilt
LEAST_SIGMA_M = (0.1, 0.2)  # horizontal and vertical: an RTK receiver's
FIRST_SIGMA_M = (3.0, 6.0)  # a consumer GPS's
LEAST_PLACES = 3
FEW_PLACES = 8  # below it, the scatter of the residuals says little of the error, which is at least:
FEW_SIGMA_M = (1.5, 3.0)
MOST_PAIRS = 4000
ZENITH = np.array([0.0, 0.0, 1.0])
ROUNDS = 3  # of fitting and estimating the errors


@dataclass(frozen=True)
class Fit:
    """A similarity from the model to metres, and how well the photos' positions fit."""

    scale: float
    rotation: Float64  # [3, 3]
    translation: Float64  # [3]
    offsets_m: Float64  # [N, 3] camera minus GPS; NaN up where there is no altitude
    sigma_m: tuple[float, float]  # horizontal and vertical errors of GPS
    slope: Float64  # [2] of the altitudes against the scene: metres up for each metre east and north
    slopes_believed: bool  # False where the altitudes' slope is taken for their own error
    scale_error: float  # standard deviation of the scale, as a share of it
    cost: float  # robust sum of squared residuals, with what makes the hypothesis of up unlikely
    basis: tuple[str, ...]  # what up rests on
    undecided: str = ""  # a sentence on what the photos are taken for, where neither GPS nor angles say it

    @property
    def horizontal_m(self) -> Float64:
        """Distances [N] on the ground."""
        return np.asarray(np.linalg.norm(self.offsets_m[:, :2], axis=1))

    @property
    def vertical_m(self) -> Float64:
        """Signed differences of height [N], NaN where there is no altitude."""
        return self.offsets_m[:, 2]


def fit_to_places(centers: Float64, places_m: Float64, uprights: Sequence[Uprightness], random_seed: int) -> Fit | None:
    """Return the best fit over all hypotheses of up; None where no two photos agree.

    Args:
        centers: [N, 3] of the cameras, in the model's axes.
        places_m: [N, 3] their GPS positions east, north and up; up is NaN where there is no altitude.
        uprights: hypotheses of up in the model's axes.
        random_seed: for the choice of pairs where there are many.
    """
    tried = [(_fit(centers, places_m, upright, random_seed), upright) for upright in uprights]
    fits = [(fit, upright) for fit, upright in tried if fit is not None]
    if not fits:
        return None
    # With errors of its own, a fit to noise would look better than the truth.
    sigma_m = max(fit.sigma_m[0] for fit, _ in fits), max(fit.sigma_m[1] for fit, _ in fits)
    costs = [_with_errors(centers, places_m, upright, fit, sigma_m).cost for fit, upright in fits]
    said = [(cost, upright.takes_for, fit.rotation[2]) for cost, (fit, upright) in zip(costs, fits, strict=True)]
    return replace(fits[int(np.argmin(costs))][0], undecided=undecided(said))


def fits_mirrored(centers: Float64, places_m: Float64, up: Float64, random_seed: int) -> bool:
    """Whether most places fit once east and west are exchanged, as they are when a hemisphere's letter is missing."""
    planar = centers @ rotation_between(up, ZENITH).T
    plain = _agreeing_pair(planar, places_m, random_seed)
    swapped = _agreeing_pair(planar, places_m * [-1, 1, 1], random_seed)
    return swapped is not None and swapped[1].sum() > (0 if plain is None else plain[1].sum()) + len(centers) / 4


def _fit(centers: Float64, places_m: Float64, upright: Uprightness, random_seed: int) -> Fit | None:
    vertical = rotation_between(upright.up, ZENITH)
    planar = centers @ vertical.T
    agreeing = _agreeing_pair(planar, places_m, random_seed)
    if agreeing is None:
        return None
    (scale, heading), inliers = agreeing
    cosine, sine = np.cos(heading), np.sin(heading)
    first = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) @ vertical
    moved = scale * centers @ first.T
    shifts = (places_m - moved)[inliers]
    height = shifts[np.isfinite(shifts[:, 2]), 2]
    level = float(np.median(height)) if len(height) else -float(np.median(moved[:, 2]))
    translation = np.array([*np.median(shifts[:, :2], axis=0), level])
    fit = _refine(centers, places_m, inliers, upright, (scale, first, translation), FIRST_SIGMA_M, believed=True)
    for _ in range(ROUNDS):
        inliers = fit.horizontal_m <= INLIER_M
        if inliers.sum() < LEAST_PLACES:
            return None
        fit = _with_errors(centers, places_m, upright, fit, _errors_m(fit.offsets_m[inliers]))
        if float(np.linalg.norm(_extents_m(places_m[inliers]) @ fit.slope)) > BELIEVED_RISE_M:
            fit = replace(fit, slopes_believed=False)
    return fit


def _with_errors(
    centers: Float64, places_m: Float64, upright: Uprightness, fit: Fit, sigma_m: tuple[float, float]
) -> Fit:
    """Fit on from `fit`, to the photos that it fits, with these errors."""
    inliers = fit.horizontal_m <= INLIER_M
    start = (fit.scale, fit.rotation, fit.translation)
    return _refine(centers, places_m, inliers, upright, start, sigma_m, believed=fit.slopes_believed)


def _refine(
    centers: Float64,
    places_m: Float64,
    inliers: NDArray[np.bool_],
    upright: Uprightness,
    start: tuple[float, Float64, Float64],
    sigma_m: tuple[float, float],
    *,
    believed: bool,
) -> Fit:
    """Minimise over the inliers, from `start` with these errors.

    Without `believed`, any slope of the altitudes costs nothing.
    """
    # Here, since they take 0.4 CPU-s, which photos without GPS need not pay.
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    scale, first, translation = start
    ours, theirs = centers[inliers], places_m[inliers]
    middle = ours.mean(axis=0)
    around = theirs[:, :2].mean(axis=0)
    high = np.isfinite(theirs[:, 2])
    tie = _extents_m(theirs) / _drift_m(sigma_m) * (1.0 if believed else 1e-3)  # [2, 2]
    rows = np.concatenate([cue.rows for cue in upright.cues])
    targets = np.concatenate([cue.targets for cue in upright.cues])

    def unpacked(x: Float64) -> tuple[float, Float64, Float64, Float64]:
        rotation = Rotation.from_rotvec(x[:3]).as_matrix() @ first
        factor = scale * float(np.exp(x[3]))
        shift = x[4:7] + translation + scale * first @ middle - factor * rotation @ middle
        return factor, rotation, shift, x[7:9]

    def residuals(x: Float64) -> Float64:
        factor, rotation, shift, slope = unpacked(x)
        offsets = factor * ours @ rotation.T + shift - theirs
        drift = (theirs[:, :2] - around) @ slope
        horizontal = offsets[:, :2] / sigma_m[0]
        vertical = (offsets[:, 2] + drift)[high] / sigma_m[1]
        return np.concatenate([horizontal.ravel(), vertical, rows @ rotation[2] - targets, tie @ slope])

    solved = least_squares(residuals, np.zeros(9), loss="cauchy", x_scale="jac", method="trf")
    factor, rotation, shift, slope = unpacked(solved.x)
    outside = 2 * (len(centers) - len(ours)) * np.log1p(np.square(INLIER_M / sigma_m[0]))
    return Fit(
        scale=factor,
        rotation=rotation,
        translation=shift,
        offsets_m=factor * centers @ rotation.T + shift - places_m,
        sigma_m=sigma_m,
        slope=slope,
        slopes_believed=believed,
        scale_error=_error_of(np.asarray(solved.jac), 3),
        cost=float(2 * solved.cost + outside) + upright.unlikely,
        basis=strongest([*upright.cues, *_gps_cue(theirs, sigma_m, rotation, believed=believed)], rotation[2]),
    )


def _error_of(jacobian: Float64, parameter: int) -> float:
    """Standard deviation of a parameter, from the Jacobian of residuals that have a standard deviation of one."""
    return float(np.sqrt(np.linalg.pinv(jacobian.T @ jacobian)[parameter, parameter]))


def _gps_cue(places_m: Float64, sigma_m: tuple[float, float], rotation: Float64, *, believed: bool) -> list[Cue]:
    """What altitudes say of the tilt: their error over the extent in each direction, and their common drift."""
    high = np.isfinite(places_m[:, 2])
    if not believed or high.sum() < 3:
        return []
    level = places_m[high, :2] - places_m[high, :2].mean(axis=0)
    drift = np.square(_drift_m(sigma_m)) * np.linalg.inv(np.linalg.matrix_power(_extents_m(places_m), 2))
    noise = np.linalg.inv(level.T @ level / sigma_m[1] ** 2 + 1e-9 * np.eye(2))
    root = np.linalg.cholesky(np.linalg.inv(drift + noise)).T  # [2, 2]
    return [Cue("the GPS altitudes", root @ rotation[:2], np.zeros(2))]


def _agreeing_pair(
    planar: Float64, places_m: Float64, random_seed: int
) -> tuple[tuple[float, float], NDArray[np.bool_]] | None:
    """Scale and heading (radians) by the pair whose similarity in the plane most photos fit, and those photos [N]."""
    ours = planar[:, 0] + 1j * planar[:, 1]
    theirs = places_m[:, 0] + 1j * places_m[:, 1]
    first, second = np.triu_indices(len(ours), 1)
    if len(first) > MOST_PAIRS:
        chosen = np.random.default_rng(random_seed).choice(len(first), MOST_PAIRS, replace=False)
        first, second = first[np.sort(chosen)], second[np.sort(chosen)]
    apart = ours[second] - ours[first]
    usable = np.abs(apart) > 1e-9 * max(float(np.abs(ours - ours.mean()).max()), 1e-12)
    first, second, apart = first[usable], second[usable], apart[usable]
    if not len(first):
        return None
    factors = (theirs[second] - theirs[first]) / apart
    centers = 0.5 * (theirs[first] + theirs[second]) - factors * 0.5 * (ours[first] + ours[second])
    best, fewest = None, (1, 0.0)
    for factor, shift in zip(factors, centers, strict=True):
        if factor == 0:
            continue
        errors = np.abs(factor * ours + shift - theirs)
        inliers = errors <= INLIER_M
        rank = (int(inliers.sum()), -float(errors[inliers].sum()))
        if rank > fewest:
            best, fewest = ((float(np.abs(factor)), float(np.angle(factor))), inliers), rank
    return best


def _errors_m(offsets_m: Float64) -> tuple[float, float]:
    """Robust standard deviations of the inliers' offsets [N, 3]: horizontal (of each axis) and vertical."""
    sides = np.abs(offsets_m[:, :2]).ravel()
    heights = np.abs(offsets_m[np.isfinite(offsets_m[:, 2]), 2])
    least = FEW_SIGMA_M if len(offsets_m) < FEW_PLACES else LEAST_SIGMA_M
    vertical = 1.4826 * float(np.median(heights)) if len(heights) else FIRST_SIGMA_M[1]
    return max(1.4826 * float(np.median(sides)), least[0]), max(vertical, least[1])


def _extents_m(places_m: Float64) -> Float64:
    """A symmetric matrix [2, 2] that scales a direction on the ground by how far most of a flight is wide along it."""
    level = places_m[:, :2] - np.median(places_m[:, :2], axis=0)
    near = level[np.linalg.norm(level, axis=1) <= 3 * np.median(np.linalg.norm(level, axis=1)) + 1e-6]
    values, axes = np.linalg.eigh(near.T @ near / len(near))
    return np.asarray(axes @ np.diag(2 * np.sqrt(np.maximum(values, 1e-6))) @ axes.T)


def _drift_m(sigma_m: tuple[float, float]) -> float:
    return float(np.clip(DRIFT_TO_NOISE * sigma_m[1], *DRIFTS_M))
