"""The recipe, with every number of it, as functions of progress, which is 0 at the first step and 1 at the last."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REFINEMENTS = 40  # density control, evenly spaced between these two
REFINE_FROM, REFINE_UNTIL = 0.03, 0.75
SORTED_EVERY = 4  # refinements: rows are put into an order in which neighbours are neighbours in memory
GROWN_AT = 0.6  # the number of Gaussians reaches its limit
ANNEAL_FROM = 0.85  # from here on everything settles: rates fall to ANNEAL_TO of what they were
ANNEAL_TO = 0.1

# When quality has been measured, the held-out photos join for this share of the whole training, with the rates that
# training has at JOINED_FROM, falling to those of its end.
JOINED_SHARE = 0.08
JOINED_FROM = 0.9

# Held-out quality is measured at these shares of progress, and at the end. Nothing is chosen by it: whether training
# ends early is decided by the losses of its steps between these moments. `is_flat` counts on those from 0.3 on.
EVALUATE_AT = (0.05, 0.1, 0.2, *(thousandths / 1000 for thousandths in range(300, 1000, 25)))
CURVE_VIEWS = 12  # at most, evenly chosen; the end is measured on all held-out views

# Training ends early when the mean loss between FLAT_EVALUATIONS evaluations, which are a tenth of training, is not
# lower by FLAT_SHARE than between as many before them. The share is about 0.05 dB of PSNR.
FLAT_SHARE = 0.006
FLAT_EVALUATIONS = 4
FLAT_FROM = 0.5  # photos have been at full size for two such tenths

FEWEST_GAUSSIANS = 5000  # that the pixels of its photos may limit a scene to

# Dropout: all of it for a Gaussian whose place this few photos show, none from this many on.
FULL_DROPOUT_UNTIL, NO_DROPOUT_FROM = 2, 5
# Few photos know little of a place's fine detail: Gaussians there are split less often, by this factor.
GROWTH_BY_PHOTOS = (0.2, 0.3, 0.6)  # shown by none, one and two photos; 1 for more
# They also stay round there: their longest axis is at most this many times their second. What one photo has drawn out
# along its line of sight would be needles from other places.
MOST_ELONGATED = 2.0
# With up to this many photos, the change of a place's color with the direction is unknown: its harmonics stay 0.
# Otherwise differences between the photos (moving shadows, exposure, errors of matching) become spots that other
# directions show.
FLAT_COLORS_UNTIL = 4
# With more photos, harmonics shrink a little at every update, in units of their learning rate: what the photos do not
# need disappears, instead of showing in directions without a photo.
HARMONICS_DECAY = 1.0
# No axis is shorter than this many pixels of the photo that shows the place from nearest. Rasterizers widen splats by
# half a pixel of theirs, so thinner ones look alike in training, and are needles in a window that shows more pixels.
# The idea is that of the 3D filter of Mip-Splatting (Yu et al. 2024, arXiv:2311.16493).
LEAST_PIXELS = 0.5

# Photos have 1/8, 1/4 and 1/2 of their sides until these moments, as far as they keep KEPT_DETAIL of their variance and
# are not smaller than SMALLEST_SIDE_PX.
SMALLER_UNTIL = (0.30, 0.08, 0.04)
MAX_HALVINGS = len(SMALLER_UNTIL)
KEPT_DETAIL = 0.8
SMALLEST_SIDE_PX = 96
DEPTH_EVERY = 4  # steps: depths of sparse points count in every fourth step only, and four times as much there
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
# Those rates are for short trainings. Longer ones take smaller steps, by the square root of their length, and end
# higher: 31.7 instead of 31.4 dB at 6000 steps on the fox.
RATES_MADE_FOR_STEPS = 1500
SMALLEST_RATE_SHARE = 0.5
PACE_KNOWN_FROM = 0.01  # the share of a time budget after which its number of steps is estimated
HALVED_PACE = 1.7  # times as many steps fit into a second when the photos' sides are halved, roughly
MEANS_RATE_END = 0.02  # share of the initial rate, reached geometrically


@dataclass(frozen=True)
class StepSettings:
    """The schedule of one step."""

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
    """The settings of a step; `rate_share` is that of `rate_share_for`."""
    anneal = ANNEAL_TO ** (max(0.0, progress - ANNEAL_FROM) / (1 - ANNEAL_FROM))
    rates = {name: rate * anneal * rate_share for name, rate in RATES.items()}
    rates["means"] = RATES["means"] * rate_share * scene_radius * MEANS_RATE_END**progress
    degree = sum(progress >= start for start in SH_DEGREE_FROM[1:])
    return StepSettings(min(degree, sh_degree), rates, ssim_weight, depth_weight)


def rate_share_for(steps: float) -> float:
    """The factor of learning rates in a training of this many steps."""
    return min(1.0, max(SMALLEST_RATE_SHARE, math.sqrt(RATES_MADE_FOR_STEPS / steps)))


def share_of_steps_at(progress: float) -> float:
    """The share of a time budget's steps that is done at this share of its time: the first ones are quick."""
    return _steps_by(progress) / _steps_by(1.0)


def _steps_by(progress: float) -> float:
    """Steps that are done by then, in units of the steps of a budget at full size."""
    done, since = 0.0, 0.0
    for halvings in range(MAX_HALVINGS, -1, -1):
        until = SMALLER_UNTIL[halvings - 1] if halvings else 1.0
        done += HALVED_PACE**halvings * max(0.0, min(progress, until) - since)
        since = until
    return done


def halvings_at(progress: float) -> int:
    """The number of halvings of photos at this moment, where their size and detail allow it."""
    return sum(progress < until for until in SMALLER_UNTIL)


def refinement_at(progress: float) -> int:
    """The number of refinements that are due by this moment."""
    share = (progress - REFINE_FROM) / (REFINE_UNTIL - REFINE_FROM)
    return 0 if share < 0 else min(int(share * REFINEMENTS) + 1, REFINEMENTS)


def count_at(progress: float, initial: int, limit: int) -> int:
    """The number of Gaussians aimed at: quickly more at first, `limit` at GROWN_AT."""
    share = min(max(progress - REFINE_FROM, 0) / (GROWN_AT - REFINE_FROM), 1)
    return min(limit, round(initial + max(limit - initial, 0) * (1 - (1 - share) ** 2)))


def most_gaussians(pixels: float, shown_by: float, asked: int, pixels_per_gaussian: float) -> int:
    """The limit for a scene: `asked`, or one Gaussian for `pixels_per_gaussian` pixels of surface if that is fewer.

    Args:
        pixels: of all photos that are trained on, at training size.
        shown_by: the number of those photos that show a typical place.
        asked: the option.
        pixels_per_gaussian: 0 means no limit by pixels.
    """
    if not pixels_per_gaussian:
        return asked
    return min(asked, max(round(pixels / max(shown_by, 1) / pixels_per_gaussian), FEWEST_GAUSSIANS))


def is_flat(progress: float, losses: NDArray[np.float64]) -> bool:
    """Return whether training has nothing more to learn.

    Compares each photo's mean loss with that in the tenth of training before. Means over the photos that happened to be
    drawn would differ by more than that. So the answer is False where a photo is missing in one of the two.

    Args:
        progress: of the training.
        losses: [evaluations that were due so far, photos, 2], the sum and the number of each photo's losses since the
            evaluation before.
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

    `ended_at` is the share at which it was ended early, 0 when it was not. The closing phase that follows has the same
    share of the whole as in a training that was planned to be as short.
    """
    return ANNEAL_FROM * share / ended_at if ended_at else share
