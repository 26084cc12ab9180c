"""The ground of a town as the map that the ray caster reads: land and river, streets, tracks, yards and fields."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo.scenery import (
    DRY,
    FIELD,
    FIELD_NUMBER,
    HEIGHT,
    LANE,
    LUSH,
    MAP_STEP,
    OPENNESS,
    PAVED,
    SLOPE_X,
    SLOPE_Y,
    WATER,
    YARD,
    map_axis,
    openness,
    patches,
    segment_distance,
)
from tasks.core.demo.town_plan import BEND_M, MAIN_HALF_WIDTH_M, SIDE_HALF_WIDTH_M, TownPlan, Use
from tasks.core.transforms import Float64

FAR_M = 60.0  # stands for "nowhere near" in maps of distances
RIVER_LEVEL_M = -0.9
_STRIP = 200  # rows of the map that are computed at a time, which bounds memory
_PATCH_SAMPLES = 1024  # patches of lush and dry grass repeat after so many samples


@dataclass
class GroundWorks:
    """What objects add to the ground: gravel and asphalt around buildings."""

    drives: list[tuple[float, float, float, float, float]] = field(default_factory=list)  # from, to, half width
    squares: list[tuple[float, float, float, float, float]] = field(default_factory=list)  # x, y, yaw, half sizes


@dataclass(frozen=True)
class Crops:
    """Fields, numbered in the order of their blocks: strips along one side of a block."""

    first: NDArray[np.int64]  # [R - 1, C - 1] number of a block's first strip, -1 for blocks that are no field
    strips: NDArray[np.int64]  # [R - 1, C - 1]
    fields: Float64  # [F, 4] as in `World`


def land_height(town: TownPlan, x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """Height of the surface (ground or water) in metres, and the depth of the water below it (negative on land).

    Slopes stay below 0.22, which the ray caster relies on.
    """
    turn = float(town.seed % 97)
    hills = 2.4 * np.sin(x / 47 + turn) * np.cos(y / 53 + 0.4) + 1.7 * np.sin((x + 1.7 * y) / 89 + 2.0 + turn)
    hills = hills + 0.3 * np.sin(x / 16 - y / 21) + 0.9
    shore = town.river.shore_distance(x, y)
    hills = hills * np.clip(shore / 90, 0.0, 1.0)
    blend = 1 / (1 + np.exp(-(shore - 4.5) / 1.3))
    bank = RIVER_LEVEL_M + np.clip(0.13 * shore, -1.2, 0.8)
    land = blend * hills + (1 - blend) * bank
    surface = np.maximum(land, np.where(shore < 0, RIVER_LEVEL_M, -np.inf))
    return surface, np.where(shore < 6, RIVER_LEVEL_M - land, -1.0)


def sow(town: TownPlan) -> Crops:
    """Divide the fields into one to three strips, and choose their crops."""
    generator = np.random.default_rng((town.seed, 11))
    first, strips = np.full(town.uses.shape, -1, np.int64), np.ones(town.uses.shape, np.int64)
    fields: list[tuple[float, float, float, int]] = []
    for r, c in np.argwhere(town.uses == Use.FIELD):
        first[r, c], strips[r, c] = len(fields), generator.integers(1, 4)
        x, _ = town.point(float(town.columns[c] + 30), float(town.rows[r] + 30))
        yaw = math.radians(town.yaw_of_row_deg(x))
        crops = generator.permutation([0, 1, 2, 3, 3, 4])
        for number in range(strips[r, c]):
            crop = int(crops[number])
            spacing = (1.5, 1.3, 0.9, 1.0, 0.8)[crop] * generator.uniform(0.9, 1.15)
            fields.append((math.cos(yaw), math.sin(yaw), spacing, crop))
    return Crops(first, strips, np.array(fields or [(1.0, 0.0, 1.0, 3)]))


@dataclass(frozen=True)
class _Sides:
    """The block of each sample and its distances to the block's four sides, in metres."""

    r: NDArray[np.int64]
    c: NDArray[np.int64]
    west: Float64
    east: Float64
    south: Float64
    north: Float64

    def to_marked(self, columns: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Float64:
        """Distance to the nearest marked piece of a column [R - 1, C] or row [R, C - 1] around the block."""
        distance = np.full(self.west.shape, FAR_M)
        touched = np.zeros((len(rows), columns.shape[1]), bool)  # crossings that a marked piece reaches
        touched[:-1] |= columns
        touched[1:] |= columns
        touched[:, :-1] |= rows
        touched[:, 1:] |= rows
        for side, marked in (
            (self.west, columns[self.r, self.c]),
            (self.east, columns[self.r, self.c + 1]),
            (self.south, rows[self.r, self.c]),
            (self.north, rows[self.r + 1, self.c]),
        ):
            distance = np.minimum(distance, np.where(marked, side, FAR_M))
        for dx, dr, dc in (
            (np.hypot(self.west, self.south), 0, 0),
            (np.hypot(self.east, self.south), 0, 1),
            (np.hypot(self.west, self.north), 1, 0),
            (np.hypot(self.east, self.north), 1, 1),
        ):
            distance = np.minimum(distance, np.where(touched[self.r + dr, self.c + dc], dx, FAR_M))
        return distance


def _sides(town: TownPlan, x: Float64, y: Float64) -> tuple[_Sides, Float64, Float64]:
    """The blocks of samples, and how far each is across its block, 0..1, eastward and northward."""
    u, v = town.bent(x, y)
    (length_u, phase_u), (length_v, phase_v) = town.bends
    steep_u = np.hypot(1, BEND_M / length_u * np.cos(y / length_u + phase_u))
    steep_v = np.hypot(1, BEND_M / length_v * np.cos(x / length_v + phase_v))
    c = np.clip(np.searchsorted(town.columns, u) - 1, 0, len(town.columns) - 2)
    r = np.clip(np.searchsorted(town.rows, v) - 1, 0, len(town.rows) - 2)
    west, east = (u - town.columns[c]) / steep_u, (town.columns[c + 1] - u) / steep_u
    south, north = (v - town.rows[r]) / steep_v, (town.rows[r + 1] - v) / steep_v
    return _Sides(r, c, west, east, south, north), west / (west + east), south / (south + north)


def _fill_strip(out: NDArray[np.float32], town: TownPlan, crops: Crops, x: Float64, y: Float64) -> None:
    """All channels that depend on the plan, for some rows of the map."""
    sides, _, northward = _sides(town, x, y)
    out[..., HEIGHT], out[..., WATER] = land_height(town, x, y)
    main_columns = town.paved_columns & town.main_columns[None]
    main_rows = town.paved_rows & town.main_rows[:, None]
    asphalt = np.minimum(
        sides.to_marked(main_columns, main_rows) - MAIN_HALF_WIDTH_M,
        sides.to_marked(town.paved_columns, town.paved_rows) - SIDE_HALF_WIDTH_M,
    )
    out[..., PAVED] = asphalt
    out[..., LANE] = sides.to_marked(town.track_columns, town.track_rows)
    first, strips = crops.first[sides.r, sides.c], crops.strips[sides.r, sides.c]
    strip = np.minimum((northward * strips).astype(np.int64), strips - 1)
    seam = np.abs(northward * strips - np.round(northward * strips)) / strips * (sides.south + sides.north)
    inner = (strips > 1) & (np.round(northward * strips) > 0) & (np.round(northward * strips) < strips)
    border = 3.0 - np.minimum(np.minimum(sides.west, sides.east), np.minimum(sides.south, sides.north))
    edge = np.maximum(np.maximum(border, 3.0 - asphalt), 7.0 - town.river.shore_distance(x, y))
    edge = np.maximum(edge, np.where(inner, 0.5 - seam, -FAR_M))
    out[..., FIELD] = np.where(first >= 0, edge, FAR_M)
    out[..., FIELD_NUMBER] = np.where(first >= 0, first + strip, 0)


def _window(axis: Float64, low: float, high: float) -> slice:
    first, last = np.searchsorted(axis, [low, high])
    return slice(int(first), int(last))


def _add_works(ground: NDArray[np.float32], axis: Float64, works: GroundWorks) -> None:
    """Gravel drives and paved squares, each in its own window of the map."""
    reach = 3.0  # metres beyond which the edge of gravel or asphalt has no effect
    for ax, ay, bx, by, half in works.drives:
        column = _window(axis, min(ax, bx) - half - reach, max(ax, bx) + half + reach)
        row = _window(axis, min(ay, by) - half - reach, max(ay, by) + half + reach)
        near = segment_distance(axis[None, column], axis[row, None], ax, ay, bx, by) - half
        ground[row, column, YARD] = np.minimum(ground[row, column, YARD], near)
    for x, y, yaw, half_length, half_width in works.squares:
        cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        size = math.hypot(half_length, half_width) + reach
        column, row = _window(axis, x - size, x + size), _window(axis, y - size, y + size)
        dx, dy = axis[None, column] - x, axis[row, None] - y
        near = np.maximum(np.abs(cos * dx + sin * dy) - half_length, np.abs(cos * dy - sin * dx) - half_width)
        ground[row, column, PAVED] = np.minimum(ground[row, column, PAVED], near)


def town_ground(town: TownPlan, crops: Crops, works: GroundWorks, shapes: Float64) -> NDArray[np.float32]:
    """The ground map [S, S, channels] of a town."""
    axis = map_axis(town.size_m)
    ground = np.empty((len(axis), len(axis), PAVED + 1), np.float32)
    for start in range(0, len(axis), _STRIP):
        rows = slice(start, start + _STRIP)
        x, y = np.meshgrid(axis, axis[rows])
        _fill_strip(ground[rows], town, crops, x, y)
    ground[..., YARD] = FAR_M
    _add_works(ground, axis, works)
    ground[..., SLOPE_Y], ground[..., SLOPE_X] = np.gradient(ground[..., HEIGHT], MAP_STEP)
    ground[..., OPENNESS] = openness(axis, shapes)
    around = np.arange(len(axis)) % _PATCH_SAMPLES
    for channel, wavelength_m, seed in ((LUSH, 22.0, 1), (DRY, 9.0, 2)):
        ground[..., channel] = patches(_PATCH_SAMPLES, wavelength_m, seed)[around[:, None], around[None]]
    return ground
