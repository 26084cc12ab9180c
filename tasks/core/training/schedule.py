"""The recipe as functions of progress, from 0 at the first step to 1 at the last: every number of it stands here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

REFINEMENTS = 40  # density control, evenly spaced between these two
REFINE_FROM, REFINE_UNTIL = 0.03, 0.75
GROWN_AT = 0.6  # the number of Gaussians reaches its limit
ANNEAL_FROM = 0.85  # from here on everything settles: rates fall to ANNEAL_TO of what they were
ANNEAL_TO = 0.1

# Training ends early when two evaluations in a row have not brought this much more than the best before them, and all
# Gaussians are there.
FLAT_DB = 0.05
FLAT_EVALUATIONS = 2

FEWEST_GAUSSIANS = 5000  # that the number of sparse points may limit a scene to

MAX_HALVINGS = 2
HALF_SIZE_UNTIL, QUARTER_SIZE_UNTIL = 0.30, 0.08
EXPOSURE_FROM = 0.30  # the photos' gains stay 1 until their views are covered and shown at full size
SMALLEST_SIDE_PX = 96  # images are not made smaller than this for coarse-to-fine
SH_DEGREE_FROM = (0.0, 0.12, 0.25, 0.4)

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
PACE_KNOWN_FROM = 0.35  # a time budget's number of steps shows when photos have their full size
MEANS_RATE_END = 0.02  # share of the initial rate, reached geometrically


@dataclass(frozen=True)
class StepSettings:
    """What one step needs to know of the schedule."""

    sh_degree: int
    rates: dict[str, float]  # learning rate by parameter
    ssim_weight: float


def settings_at(
    progress: float, sh_degree: int, scene_radius: float, ssim_weight: float, rate_share: float = 1.0
) -> StepSettings:
    """The settings of a step; `rate_share` is that of `rate_share_for`."""
    anneal = ANNEAL_TO ** (max(0.0, progress - ANNEAL_FROM) / (1 - ANNEAL_FROM))
    rates = {name: rate * anneal * rate_share for name, rate in RATES.items()}
    rates["means"] = RATES["means"] * rate_share * scene_radius * MEANS_RATE_END**progress
    degree = sum(progress >= start for start in SH_DEGREE_FROM[1:])
    return StepSettings(min(degree, sh_degree), rates, ssim_weight)


def rate_share_for(steps: float) -> float:
    """What learning rates are multiplied by in a training of so many steps."""
    return min(1.0, max(SMALLEST_RATE_SHARE, math.sqrt(RATES_MADE_FOR_STEPS / steps)))


def halvings_at(progress: float, width: int, height: int) -> int:
    """How often images are halved at this moment: 2, 1, then 0, and never below SMALLEST_SIDE_PX."""
    wanted = MAX_HALVINGS if progress < QUARTER_SIZE_UNTIL else 1 if progress < HALF_SIZE_UNTIL else 0
    possible = int(math.log2(max(min(width, height) / SMALLEST_SIDE_PX, 1)))
    return min(wanted, possible)


def refinement_at(progress: float) -> int:
    """How many refinements should have been done at this moment."""
    share = (progress - REFINE_FROM) / (REFINE_UNTIL - REFINE_FROM)
    return 0 if share < 0 else min(int(share * REFINEMENTS) + 1, REFINEMENTS)


def count_at(progress: float, initial: int, limit: int) -> int:
    """The number of Gaussians aimed at: quickly more at first, `limit` at GROWN_AT."""
    share = min(max(progress - REFINE_FROM, 0) / (GROWN_AT - REFINE_FROM), 1)
    return min(limit, round(initial + max(limit - initial, 0) * (1 - (1 - share) ** 2)))


def most_gaussians(points: int, asked: int, per_point: float) -> int:
    """The limit for a scene with so many sparse points: what was asked for, or `per_point` for each point if fewer.

    Where photos are few, points are too, and more Gaussians only learn the training photos by heart. 0 means no limit
    by points.
    """
    return min(asked, max(round(points * per_point), FEWEST_GAUSSIANS)) if per_point else asked


def is_flat(progress: float, psnr_db: Sequence[float]) -> bool:
    """Whether held-out quality has stopped rising, given that of all evaluations so far, and nothing is to come."""
    if not GROWN_AT <= progress < ANNEAL_FROM or len(psnr_db) <= FLAT_EVALUATIONS:
        return False
    return max(psnr_db[-FLAT_EVALUATIONS:]) < max(psnr_db[:-FLAT_EVALUATIONS]) + FLAT_DB
