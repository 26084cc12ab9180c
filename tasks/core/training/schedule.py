"""The recipe with all its numbers, as functions of progress, which is 0 at the first step and 1 at the last."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REFINEMENTS = 40  # density control, evenly spaced between these two
REFINE_FROM, REFINE_UNTIL = 0.03, 0.75
SORTED_EVERY = 4  # refinements: rows are then sorted so that neighbours in space are neighbours in memory
GROWN_AT = 0.6  # the number of Gaussians has reached its limit
ANNEAL_FROM = 0.85  # the closing phase begins: rates fall to ANNEAL_TO of their values
ANNEAL_TO = 0.1

# After quality has been measured, the held-out photos join for this share of the whole training. Rates begin at their
# values at JOINED_FROM and fall to their values at the end.
JOINED_SHARE = 0.08
JOINED_FROM = 0.9
# When cells are put together, this share of all steps is on photos that show seams.
SEAM_SHARE = 0.04

# Held-out quality is measured at these shares of progress, and at the end. It decides nothing: training ends early by
# the losses of its steps between these moments. `is_flat` relies on the moments from 0.3 on.
EVALUATE_AT = (0.05, 0.1, 0.2, *(thousandths / 1000 for thousandths in range(300, 1000, 25)))
CURVE_VIEWS = 12  # at most, evenly chosen; the end is measured on all held-out views

# Training ends early when the mean loss over FLAT_EVALUATIONS evaluations, a tenth of training, is not lower by
# FLAT_SHARE than over as many before them. That share is about 0.05 dB of PSNR.
FLAT_SHARE = 0.006
FLAT_EVALUATIONS = 4
FLAT_FROM = 0.5  # photos have been at full size for two such tenths

# Photos that show a typical place, where three quarters of each are in the next and in the next line's. Brighton's are
# 4 of 15, the fox's 23 of 43, the demo's 20 of 31.
USUAL_OVERLAP = 16.0
FEWEST_GAUSSIANS = 5000  # the limit by pixels of the photos is never lower

# Full dropout for a Gaussian whose place at most so many photos show, and none from the second number on.
FULL_DROPOUT_UNTIL, NO_DROPOUT_FROM = 2, 5
# Few photos contain little about a place's fine detail, so Gaussians there are split less often, by this factor.
GROWTH_BY_PHOTOS = (0.2, 0.3, 0.6)  # shown by none, one and two photos; 1 for more
# Gaussians also stay round there: their longest axis is at most this many times their second. Gaussians that one photo
# stretches along its line of sight would be needles in other views.
MOST_ELONGATED = 2.0
# With up to this many photos, the change of a place's color with the direction is unknown, so its harmonics stay 0.
# Otherwise differences between the photos (moving shadows, exposure, errors of matching) become spots in other
# directions.
FLAT_COLORS_UNTIL = 4
# With more photos, harmonics shrink a little at every update, in units of their learning rate: a part that the photos
# do not need disappears, and cannot show in directions without a photo.
HARMONICS_DECAY = 1.0
# No axis is shorter than this many pixels of the photo that shows the place from the shortest distance. Rasterizers
# widen splats by half a pixel of the image. So thinner ones look alike in training, but are needles in a window with
# more pixels. The idea is the 3D filter of Mip-Splatting (Yu et al. 2024, arXiv:2311.16493).
LEAST_PIXELS = 0.5

# Photos have 1/2, 1/4 and 1/8 of their sides until these moments, if they then keep KEPT_DETAIL of their variance and
# are not smaller than SMALLEST_SIDE_PX.
SMALLER_UNTIL = (0.30, 0.08, 0.04)
MAX_HALVINGS = len(SMALLER_UNTIL)
KEPT_DETAIL = 0.8
SMALLEST_SIDE_PX = 96
DEPTH_EVERY = 4  # steps: depths of sparse points only count in every fourth step, and there four times as much
EXPOSURE_FROM = 0.30  # the photos' gains stay 1 until their views are covered and shown at full size
# All harmonics from the start: one degree after another, at 12, 25 and 40 %, ends 0.15 to 0.23 dB lower on the fox and
# the demo, and between 0.04 higher and 0.22 lower on brighton.
SH_DEGREE_FROM = (0.0, 0.0, 0.0, 0.0)

# Learning rates of Adam at the start, by parameter; that of the means is in units of the scene's radius.
RATES = {
    "means": 6e-3,
    "quats": 1.5e-2,
    "log_scales": 4e-2,
    "raw_opacities": 1.5e-1,
    "sh0": 3e-2,
    "shN": 2e-3,
}
# Those rates are for short trainings. Longer ones have lower rates, by the square root of their length, and reach a
# higher PSNR: 31.7 instead of 31.4 dB at 6000 steps on the fox.
RATES_MADE_FOR_STEPS = 1500
SMALLEST_RATE_SHARE = 0.5
PACE_KNOWN_FROM = 0.01  # the share of a time budget after which its number of steps can be estimated
HALVED_PACE = 1.7  # halving the photos' sides fits roughly so many times as many steps into a second
MEANS_RATE_END = 0.02  # share of the initial rate, reached geometrically


@dataclass(frozen=True)
class StepSettings:
    """The settings of one step."""

    sh_degree: int
    rates: dict[str, float]  # learning rate by parameter
    ssim_weight: float
    depth_weight: float  # of the error in depth, as a share of the depth, added to the photo's loss


def settings_at(
    progress: float,
    sh_degree: int,
    scene_radius: float,
    ssim_weight: float,
    rate_share: float = 1.0,
    depth_weight: float = 0.0,
) -> StepSettings:
    """The settings of a step; `rate_share` is from `rate_share_for`."""
    anneal = ANNEAL_TO ** (max(0.0, progress - ANNEAL_FROM) / (1 - ANNEAL_FROM))
    rates = {name: rate * anneal * rate_share for name, rate in RATES.items()}
    rates["means"] = RATES["means"] * rate_share * scene_radius * MEANS_RATE_END**progress
    degree = sum(progress >= start for start in SH_DEGREE_FROM[1:])
    return StepSettings(min(degree, sh_degree), rates, ssim_weight, depth_weight)


def rate_share_for(steps: float) -> float:
    """The factor of learning rates in a training of this many steps."""
    return min(1.0, max(SMALLEST_RATE_SHARE, math.sqrt(RATES_MADE_FOR_STEPS / steps)))


def share_of_steps_at(progress: float) -> float:
    """The share of a time budget's steps that is done at this share of its time. The first steps are quick."""
    return _steps_by(progress) / _steps_by(1.0)


def _steps_by(progress: float) -> float:
    """The steps done at this progress, in units of the steps of a whole budget at full size."""
    done, since = 0.0, 0.0
    for halvings in range(MAX_HALVINGS, -1, -1):
        until = SMALLER_UNTIL[halvings - 1] if halvings else 1.0
        done += HALVED_PACE**halvings * max(0.0, min(progress, until) - since)
        since = until
    return done


def halvings_at(progress: float) -> int:
    """The number of halvings of photos at this moment, if their size and detail allow it."""
    return sum(progress < until for until in SMALLER_UNTIL)


def refinement_at(progress: float) -> int:
    """The number of refinements that are due by this moment."""
    share = (progress - REFINE_FROM) / (REFINE_UNTIL - REFINE_FROM)
    return 0 if share < 0 else min(int(share * REFINEMENTS) + 1, REFINEMENTS)


def count_at(progress: float, initial: int, limit: int) -> int:
    """The wanted number of Gaussians: it grows quickly at first, and reaches `limit` at GROWN_AT."""
    share = min(max(progress - REFINE_FROM, 0) / (GROWN_AT - REFINE_FROM), 1)
    return min(limit, round(initial + max(limit - initial, 0) * (1 - (1 - share) ** 2)))


def most_gaussians(pixels: float, shown_by: float, asked: int, pixels_per_gaussian: float) -> int:
    """The limit for a scene: `asked`, or one Gaussian for `pixels_per_gaussian` pixels of surface if that is fewer.

    Args:
        pixels: of all training photos, at training size.
        shown_by: the number of those photos that show a typical place.
        asked: the option.
        pixels_per_gaussian: 0 means no limit by pixels.
    """
    if not pixels_per_gaussian:
        return asked
    return min(asked, max(round(pixels / max(shown_by, 1) / pixels_per_gaussian), FEWEST_GAUSSIANS))


def is_flat(progress: float, losses: NDArray[np.float64]) -> bool:
    """Return whether training no longer improves.

    Compares each photo's mean loss with its mean loss in the tenth of training before. Means over whichever photos were
    drawn would differ by more than the improvement. So the answer is False if a photo is missing in one of the two.

    Args:
        progress: of the training.
        losses: [evaluations due so far, photos, 2], the sum and the number of each photo's losses since the previous
            evaluation.
    """
    if len(losses) < 2 * FLAT_EVALUATIONS or not FLAT_FROM <= progress < ANNEAL_FROM:
        return False
    before, now = (
        rows.sum(axis=0) for rows in (losses[-2 * FLAT_EVALUATIONS : -FLAT_EVALUATIONS], losses[-FLAT_EVALUATIONS:])
    )
    if not (before[:, 1] * now[:, 1]).all():
        return False
    return bool((now[:, 0] / now[:, 1]).sum() > (before[:, 0] / before[:, 1]).sum() * (1 - FLAT_SHARE))


def progress_at(share: float, ended_at: float) -> float:
    """The progress of a training that has done `share` of its steps or time.

    `ended_at` is the share at which the closing phase began early, 0 when it did not. The closing phase has the same
    share of the whole as in a training that was planned to be as short.
    """
    return ANNEAL_FROM * share / ended_at if ended_at else share
