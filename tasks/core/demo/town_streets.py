"""Build the streets of a town and the banks of its river: centre lines, cars, trees and bridges."""

import math

import numpy as np

from tasks.core.demo import place
from tasks.core.demo.town_ground import RIVER_LEVEL_M
from tasks.core.demo.town_parts import TownParts, moved
from tasks.core.demo.town_plan import MAIN_HALF_WIDTH_M, SIDE_HALF_WIDTH_M


def build_streets(parts: TownParts) -> None:
    """Centre lines and trees of the main streets, parked cars, and bridges."""
    town = parts.town
    for is_column, paved, is_main in (
        (True, town.paved_columns, town.main_columns),
        (False, town.paved_rows, town.main_rows),
    ):
        for r, c in np.argwhere(paved):
            _street_piece(parts, int(r), int(c), is_column, bool(is_main[c if is_column else r]))


def _street_piece(parts: TownParts, r: int, c: int, is_column: bool, main: bool) -> None:
    town = parts.town
    lines, at = (town.rows, float(town.columns[c])) if is_column else (town.columns, float(town.rows[r]))
    first = r if is_column else c
    low, high = float(lines[first]), float(lines[first + 1])
    half = MAIN_HALF_WIDTH_M if main else SIDE_HALF_WIDTH_M
    wet = []
    for along in np.arange(low + 7.0, high - 6.0, 2.0):
        x, y = town.point(at, float(along)) if is_column else town.point(float(along), at)
        yaw = town.yaw_of_column_deg(y) if is_column else town.yaw_of_row_deg(x)
        if not town.is_dry(x, y, -6.0):
            wet.append((x, y, yaw))
            continue
        step = round((along - low - 7.0) / 2.0)
        if main and step % 3 == 0:
            parts.box(x, y, yaw, -0.25, (0.9, 0.09, 0.28), place.ROAD_PAINT)
        if main and step % 6 == 1:
            for side in (-1, 1):
                parts.tree(*moved(x, y, yaw, 0.0, side * (half + 2.6)), kind=3, size=1.15)
        if step % 4 == 2 and parts.random.uniform() < 0.16:
            lane = float(parts.random.choice([-1, 1]))
            parts.car(*moved(x, y, yaw, 0.0, lane * (half - 1.0)), yaw)
    if wet:
        _bridge(parts, wet, half)


def _bridge(parts: TownParts, wet: list[tuple[float, float, float]], half: float) -> None:
    """A level deck with parapets over the river."""
    (ax, ay, _), (bx, by, _) = wet[0], wet[-1]
    x, y = (ax + bx) / 2, (ay + by) / 2
    yaw = math.degrees(math.atan2(by - ay, bx - ax)) if len(wet) > 1 else wet[0][2]
    length = math.hypot(bx - ax, by - ay) / 2 + 3.0
    surface = parts.ground(x, y)
    deck = max(parts.ground(ax, ay), parts.ground(bx, by), RIVER_LEVEL_M + 0.8) + 0.1 - surface
    parts.box(x, y, yaw, deck - 0.7, (length, half + 1.6, 0.7), place.CONCRETE, seed=3)
    for side in (-1.0, 1.0):
        px, py = moved(x, y, yaw, 0.0, side * (half + 1.4))
        parts.box(px, py, yaw, deck - 0.7 + surface - parts.ground(px, py), (length, 0.25, 1.6), place.STONE)


def build_river_banks(parts: TownParts) -> None:
    """Willows and bushes along the water."""
    town, river = parts.town, parts.town.river
    cos, sin = math.cos(river.heading), math.sin(river.heading)
    for along in np.arange(-town.size_m, town.size_m, 8.0):
        swing = river.offset_m + sum(s * math.sin(along / length + phase) for s, length, phase in river.swings)
        for side in (-1, 1):
            across = swing + side * (river.half_width_m + float(parts.random.uniform(3.0, 7.0)))
            x, y = cos * along - sin * across, sin * along + cos * across
            inside = max(abs(x), abs(y)) < town.size_m / 2 - 8
            if inside and not _is_near_street(parts, x, y) and parts.random.uniform() < 0.45:
                parts.tree(x, y, kind=int(parts.random.choice([0, 4, 4, 3])))


def _is_near_street(parts: TownParts, x: float, y: float) -> bool:
    u, v = parts.town.bent(np.array(x), np.array(y))
    near_column = np.abs(parts.town.columns[parts.town.main_columns] - u) < 8
    near_row = np.abs(parts.town.rows[parts.town.main_rows] - v) < 8
    return bool(near_column.any() or near_row.any())
