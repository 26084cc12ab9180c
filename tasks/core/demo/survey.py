"""A survey of a town as drones fly it: lines of photos straight down, then cross rows of oblique photos.

The drone follows the land at a constant height, which is chosen from the number of photos and the extent so that photos
overlap as surveys ask for (75 to 80 % along the line, 60 to 70 % to its side).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tasks.core.errors import OptionsError
from tasks.core.transforms import Float64

FORWARD_OVERLAP, SIDE_OVERLAP = 0.78, 0.66  # aimed at; drift and relief take a few per cent
LOWEST_M, HIGHEST_M = 30.0, 120.0  # above the land; the upper one is the limit of most countries' rules
INSET = 0.25  # of a photo, by which the outermost photos stay inside
OBLIQUE_SHARE = 0.3
OBLIQUE_DEG = 55.0  # below the horizon
FEWEST_FOR_OBLIQUE = 20  # photos of a flight
_ROW_SPACING = 2.2  # of oblique rows, in photo spacings

Aim = tuple[Float64, Float64, float]  # the camera's position, the place in the photo's middle, roll in degrees


@dataclass(frozen=True)
class SurveyPlan:
    """Numbers of a survey."""

    height_m: float
    across_m: float  # from the first line to the last one
    along_m: float  # length of a line
    line_counts: tuple[int, ...]  # photos of each line
    oblique_counts: tuple[int, ...]  # photos of each cross row


def _shared(total: int, parts: int) -> tuple[int, ...]:
    """Shares of a total that differ by one at most."""
    return tuple(total // parts + (part < total % parts) for part in range(parts))


def plan_survey(photos: int, extent_m: float, width_per_m: float, height_per_m: float) -> SurveyPlan:
    """Choose the lowest flight that covers a square of `extent_m` with the promised overlap.

    Args:
        photos: how many there shall be.
        extent_m: width of the square.
        width_per_m: metres of land across a photo straight down, for each metre of height.
        height_per_m: the same along the line of flight.

    Raises:
        OptionsError: there are too few photos for the extent.
    """
    found = _lowest(photos, extent_m, width_per_m, height_per_m)
    if found.height_m > HIGHEST_M:
        enough = photos
        while _lowest(enough, extent_m, width_per_m, height_per_m).height_m > HIGHEST_M:
            enough += 1
        small = extent_m * HIGHEST_M / found.height_m
        raise OptionsError(
            f"{photos} photos cannot cover {extent_m:g} m with {FORWARD_OVERLAP:.0%} overlap from at most "
            f"{HIGHEST_M:g} m above the ground: take {enough} photos, or an extent of {math.floor(small)} m."
        )
    return found


def _lowest(photos: int, extent_m: float, width_per_m: float, height_per_m: float) -> SurveyPlan:
    oblique = round(OBLIQUE_SHARE * photos) if photos >= FEWEST_FOR_OBLIQUE else 0
    down = photos - oblique
    best = SurveyPlan(math.inf, 0.0, 0.0, (), ())
    for lines in range(2, down // 2 + 1):
        steps = down // lines - 1
        height = max(
            extent_m / (width_per_m * ((lines - 1) * (1 - SIDE_OVERLAP) + 2 * INSET)),
            extent_m / (height_per_m * (steps * (1 - FORWARD_OVERLAP) + 2 * INSET)),
            LOWEST_M,
        )
        if height < best.height_m:
            across, along = (extent_m - 2 * INSET * size * height for size in (width_per_m, height_per_m))
            best = SurveyPlan(height, across, along, _shared(down, lines), ())
    rows = max(1, round(math.sqrt(oblique / _ROW_SPACING)))
    return replace(best, oblique_counts=_shared(oblique, rows) if oblique else ())


def _spread(count: int, span_m: float) -> Float64:
    return np.asarray(np.linspace(-span_m / 2, span_m / 2, count)) if count > 1 else np.zeros(count)


def survey_aims(plan: SurveyPlan, extent_m: float, ground: Callable[[float, float], float]) -> list[Aim]:
    """Aims in the order of the flight: northward lines and back, then eastward rows and back."""
    aims: list[Aim] = []
    for number, (x, count) in enumerate(
        zip(_spread(len(plan.line_counts), plan.across_m), plan.line_counts, strict=True)
    ):
        northward = number % 2 == 0
        for y in _spread(count, plan.along_m) * (1 if northward else -1):
            land = ground(x, y)
            aims.append((np.array([x, y, land + plan.height_m]), np.array([x, y, land]), 0.0 if northward else 180.0))
    back = plan.height_m / math.tan(math.radians(OBLIQUE_DEG))
    for number, (y, count) in enumerate(
        zip(_spread(len(plan.oblique_counts), extent_m), plan.oblique_counts, strict=True)
    ):
        eastward = 1 if number % 2 == 0 else -1
        for x in _spread(count, extent_m) * eastward:
            land = ground(x, y)
            aims.append((np.array([x - eastward * back, y, land + plan.height_m]), np.array([x, y, land]), 0.0))
    return aims
