"""The plan of a town: a bent grid of streets and tracks, the use of each block between them, and a river.

Streets are lines of constant u (columns, northward) or v (rows, eastward). u and v are x and y in metres, bent by a few
metres, so that no street is straight. The same extent and seed give the same plan.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.core.transforms import Float64

MARGIN_M = 200.0  # of land around the extent: oblique photos look that far beyond the drone
BEND_M = 6.5  # by which streets leave the straight line
MAIN_HALF_WIDTH_M, SIDE_HALF_WIDTH_M = 3.4, 2.7  # of the asphalt
BANK_M = 9.0  # nothing is built nearer to the river


class Use(IntEnum):
    """The use of a block."""

    HOUSES, FLATS, CHURCH, PARK, FIELD, ORCHARD, WOOD, MEADOW = range(8)


BUILT = (Use.HOUSES, Use.FLATS, Use.CHURCH, Use.PARK)
# Shares of uses (in the order of `Use`) in the middle of the town, at its edge, and outside.
SHARES = (
    (0.76, 0.10, 0.0, 0.10, 0.04, 0.0, 0.0, 0.0),
    (0.52, 0.04, 0.0, 0.05, 0.22, 0.07, 0.06, 0.04),
    (0.0, 0.0, 0.0, 0.0, 0.66, 0.06, 0.13, 0.15),
)


@dataclass(frozen=True)
class River:
    """A bent band of water across the land."""

    heading: float  # radians
    offset_m: float  # of its middle line from the origin
    swings: tuple[tuple[float, float, float], ...]  # metres, wavelength / 2 pi, phase
    half_width_m: float

    def shore_distance(self, x: Float64, y: Float64) -> Float64:
        """Distance of points to the shore, roughly in metres, negative in the water."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        along, across = cos * x + sin * y, cos * y - sin * x - self.offset_m
        slope = np.zeros_like(along)
        for swing, length, phase in self.swings:
            across = across - swing * np.sin(along / length + phase)
            slope = slope + swing / length * np.cos(along / length + phase)
        return np.asarray(np.abs(across) / np.hypot(1, slope) - self.half_width_m)


@dataclass(frozen=True)
class TownPlan:
    """Streets, blocks and river. Block [r, c] is between rows r, r + 1 and columns c, c + 1."""

    size_m: float  # width of the whole land
    seed: int
    bends: tuple[tuple[float, float], tuple[float, float]]  # wavelength / 2 pi and phase, of columns and of rows
    columns: Float64  # [C] u, increasing
    rows: Float64  # [R] v, increasing
    uses: NDArray[np.int64]  # [R - 1, C - 1] of `Use`
    paved_columns: NDArray[np.bool_]  # [R - 1, C] whether the piece of the column beside block row r is a street
    paved_rows: NDArray[np.bool_]  # [R, C - 1]
    track_columns: NDArray[np.bool_]  # [R - 1, C] the same for gravel tracks
    track_rows: NDArray[np.bool_]  # [R, C - 1]
    main_columns: NDArray[np.bool_]  # [C] wide streets that continue to the end of the land
    main_rows: NDArray[np.bool_]  # [R]
    river: River

    def bent(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        """U and v of points."""
        (length_u, phase_u), (length_v, phase_v) = self.bends
        return x + BEND_M * np.sin(y / length_u + phase_u), y + BEND_M * np.sin(x / length_v + phase_v)

    def point(self, u: float, v: float) -> tuple[float, float]:
        """X and y of a point of the plan, to a millimetre."""
        (length_u, phase_u), (length_v, phase_v) = self.bends
        x, y = u, v
        for _ in range(6):  # the bends' slopes are below 0.2, so that each round gains more than a digit
            x = u - BEND_M * math.sin(y / length_u + phase_u)
            y = v - BEND_M * math.sin(x / length_v + phase_v)
        return x, y

    def yaw_of_row_deg(self, x: float) -> float:
        """Direction of the rows at a place."""
        length, phase = self.bends[1]
        return -math.degrees(math.atan(BEND_M / length * math.cos(x / length + phase)))

    def yaw_of_column_deg(self, y: float) -> float:
        """Direction of the columns at a place."""
        length, phase = self.bends[0]
        return 90.0 + math.degrees(math.atan(BEND_M / length * math.cos(y / length + phase)))

    def is_dry(self, x: float, y: float, radius_m: float) -> bool:
        """Whether there is room for a thing beside the river."""
        return float(self.river.shore_distance(np.array(x), np.array(y))) > BANK_M + radius_m


def _lines(reach_m: float, generator: np.random.Generator) -> Float64:
    """Streets from -reach to reach, 54 to 70 m apart."""
    lines = [-reach_m - 70.0]
    while lines[-1] < reach_m + 70.0:
        lines.append(lines[-1] + float(generator.uniform(54, 70)))
    return np.array(lines)


def _main(lines: Float64, extent_m: float) -> NDArray[np.bool_]:
    """The street nearest to the middle, and in a large town every fourth one of the others."""
    middle = int(np.argmin(np.abs(lines)))
    inside = np.abs(lines) < extent_m / 2
    return np.asarray(inside & ((np.arange(len(lines)) - middle) % 4 == 0))


def _uses(columns: Float64, rows: Float64, extent_m: float, generator: np.random.Generator) -> NDArray[np.int64]:
    u, v = np.meshgrid((columns[1:] + columns[:-1]) / 2, (rows[1:] + rows[:-1]) / 2)
    away = np.maximum(np.abs(u), np.abs(v)) / (extent_m / 2) + generator.uniform(-0.1, 0.1, u.shape)
    zones = np.searchsorted([0.55, 1.12], away)
    chosen = generator.uniform(size=u.shape)
    uses = np.array([[np.searchsorted(np.cumsum(SHARES[z]), c) for z, c in zip(*pair, strict=True)]
                     for pair in zip(zones, chosen, strict=True)], np.int64)  # fmt: skip
    return np.minimum(uses, Use.MEADOW)


@lru_cache(maxsize=4)
def plan_town(extent_m: int, seed: int) -> TownPlan:
    """Draw the plan of a town that is about `extent_m` metres wide."""
    generator = np.random.default_rng((seed, extent_m))
    size = float(extent_m + 2 * MARGIN_M)
    bends = tuple((float(generator.uniform(38, 52)), float(generator.uniform(0, 2 * math.pi))) for _ in range(2))
    columns, rows = _lines(size / 2, generator), _lines(size / 2, generator)
    uses = _uses(columns, rows, extent_m, generator)
    main_columns, main_rows = _main(columns, extent_m), _main(rows, extent_m)
    river = River(
        heading=float(generator.choice([-1, 1]) * generator.uniform(0.35, 0.65)),
        offset_m=float(generator.choice([-1, 1]) * generator.uniform(0.20, 0.27) * extent_m),
        swings=((9.0, 31.0, float(generator.uniform(0, 6))), (3.5, 16.0, float(generator.uniform(0, 6)))),
        half_width_m=float(min(5.0 + extent_m / 300, 8.0)),
    )
    town = TownPlan(
        size, seed, (bends[0], bends[1]), columns, rows, uses,
        np.zeros((len(rows) - 1, len(columns)), bool), np.zeros((len(rows), len(columns) - 1), bool),
        np.zeros((len(rows) - 1, len(columns)), bool), np.zeros((len(rows), len(columns) - 1), bool),
        main_columns, main_rows, river,
    )  # fmt: skip
    _place_church(town)
    _lay_streets(town, generator)
    return town


def _place_church(town: TownPlan) -> None:
    """The dry block that is nearest to the middle."""
    best = math.inf
    chosen = (0, 0)
    for r in range(len(town.rows) - 1):
        for c in range(len(town.columns) - 1):
            u, v = (town.columns[c] + town.columns[c + 1]) / 2, (town.rows[r] + town.rows[r + 1]) / 2
            if town.is_dry(*town.point(u, v), 25.0) and math.hypot(u, v) < best:
                best, chosen = math.hypot(u, v), (r, c)
    town.uses[chosen] = Use.CHURCH


def _lay_streets(town: TownPlan, generator: np.random.Generator) -> None:
    """Fill in streets, which surround built blocks and avoid the river, and tracks between fields."""
    built = np.pad(np.isin(town.uses, BUILT), 1)
    for paved, tracks, is_main, is_column in (
        (town.paved_columns, town.track_columns, town.main_columns[None], True),
        (town.paved_rows, town.track_rows, town.main_rows[:, None], False),
    ):
        beside = built[1:-1, :-1] | built[1:-1, 1:] if is_column else built[:-1, 1:-1] | built[1:, 1:-1]
        dry = np.array([[_is_dry_piece(town, r, c, is_column) for c in range(paved.shape[1])]
                        for r in range(paved.shape[0])])  # fmt: skip
        paved[:] = np.broadcast_to(is_main, paved.shape) | (beside & dry)
        tracks[:] = ~paved & dry & (generator.uniform(size=paved.shape) < 0.4)


def _is_dry_piece(town: TownPlan, r: int, c: int, is_column: bool) -> bool:
    """Whether a piece between two crossings stays away from the river."""
    lines, at = (town.rows, town.columns[c]) if is_column else (town.columns, town.rows[r])
    first = r if is_column else c
    for share in np.linspace(0, 1, 12):
        along = float(lines[first] + share * (lines[first + 1] - lines[first]))
        x, y = town.point(float(at), along) if is_column else town.point(along, float(at))
        if float(town.river.shore_distance(np.array(x), np.array(y))) < 5.0:
            return False
    return True
