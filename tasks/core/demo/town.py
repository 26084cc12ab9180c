"""A generated town of any extent, ready for the ray caster."""

import numpy as np

from tasks.core.demo import place
from tasks.core.demo.scenery import CELL_M, World, object_grid
from tasks.core.demo.shapes import columns
from tasks.core.demo.town_blocks import build_blocks
from tasks.core.demo.town_ground import land_height, sow, town_ground
from tasks.core.demo.town_parts import TownParts
from tasks.core.demo.town_plan import plan_town
from tasks.core.demo.town_streets import build_river_banks, build_streets


def town_world(extent_m: int, seed: int) -> World:
    """The town of an extent and a seed, with MARGIN_M of land around it."""
    town = plan_town(extent_m, seed)
    crops = sow(town)
    parts = TownParts(town, lambda x, y: float(land_height(town, np.array(x), np.array(y))[0]))
    build_blocks(parts, crops)
    build_streets(parts)
    build_river_banks(parts)
    kinds, materials, shapes = columns(parts.primitives)
    reach = town.size_m / 2 - 3.0  # what is beyond the grid cannot be found
    inside = (np.abs(shapes[:, :2]) + 1.2 * np.hypot(shapes[:, 5], shapes[:, 6])[:, None] < reach).all(axis=1)
    kinds, materials, shapes = kinds[inside], materials[inside], shapes[inside]
    starts, items, tops = object_grid(kinds, shapes, round(town.size_m / CELL_M))
    sun = np.array(place.SUN)
    return World(
        ground=town_ground(town, crops, parts.works, shapes),
        fields=crops.fields,
        kinds=kinds,
        materials=materials,
        shapes=shapes,
        cell_starts=starts,
        cell_items=items,
        cell_tops=tops,
        sun=sun / np.linalg.norm(sun),
    )
