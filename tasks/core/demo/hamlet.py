"""The hamlet of `place.py`: its land, its pond, and its houses, trees and fences as primitives."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo import place
from tasks.core.demo.place import Block, Tree
from tasks.core.demo.scenery import (
    CELL_M,
    MAP_STEP,
    World,
    map_axis,
    object_grid,
    openness,
    patches,
    segment_distance,
)
from tasks.core.demo.shapes import Ground, Primitive, along, block_part, columns, house_parts, primitive, tree_parts
from tasks.core.transforms import Float64

SIZE_M = 360.0  # of the map and the grid
UNPAVED_M = 1e3  # distance to the nearest asphalt: there is none


def _lines(ground: Ground) -> Iterable[Primitive]:
    for corners in place.FENCES:
        for x, y, yaw, length in along(corners, 2.2):
            post = Block(x, y, -0.3, 0.09, 0.09, 1.5, yaw, place.FENCE_WOOD, 0.3)
            yield block_part(post, ground, 7)
            for bottom in (0.35, 0.8):
                rail = Block(x, y, bottom, length / 2 + 0.05, 0.05, 0.16, yaw, place.FENCE_WOOD, 0.7)
                yield block_part(rail, ground, 8)
    for corners in place.STONE_WALLS:
        for x, y, yaw, length in along(corners, 2.5):
            yield block_part(Block(x, y, -0.4, length / 2 + 0.05, 0.32, 1.25, yaw, place.STONE), ground, 9)
    for corners in place.HEDGES:
        for number, (x, y, _, length) in enumerate(along(corners, 1.3)):
            yield from tree_parts(Tree(x, y, 1.9, length * 0.72, 4, 0.3), ground, 500 + number)


def _strewn(ground: Ground) -> Iterable[Primitive]:
    """The woods and single trees of the surroundings."""
    generator = np.random.default_rng(2)
    inner, outer = place.STREWN_FROM_RADIUS, place.STREWN_TO_RADIUS
    for number in range(place.STREWN_TREES):
        radius = math.sqrt(generator.uniform(inner**2, outer**2))
        angle = generator.uniform(0, 2 * math.pi)
        x, y = radius * math.cos(angle), radius * math.sin(angle)
        size, tint, conifer = generator.uniform(0.7, 1.2), generator.uniform(0.1, 0.9), generator.uniform() < 0.35
        lane = place.LANE_Y + place.LANE_SWING * math.sin(x / place.LANE_LENGTH)
        if abs(y - lane) > 5:
            tree = Tree(x, y, 10 * size, 2.5 * size, 1, tint) if conifer else Tree(x, y, 8 * size, 3.3 * size, 0, tint)
            yield from tree_parts(tree, ground, 1000 + 10 * number)


def _primitives(ground: Ground) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64]:
    """All primitives: kinds [P], materials [P], shapes [P, 11], as described in `World`."""
    found: list[Primitive] = []
    for number, house in enumerate(place.HOUSES):
        found.extend(house_parts(house, ground, number))
    found.extend(block_part(block, ground, number) for number, block in enumerate(place.BLOCKS))
    for x, y in place.BALES:
        bale = Block(x, y, 0.0, 0.85, 0.85, 1.25, 0.0, place.STRAW)
        found.append(block_part(bale, ground, 3, place.CYLINDER))
    for number, (x, y, radius) in enumerate(place.ROCKS):
        half = (radius * 1.2, radius, radius * 0.75)
        found.append(
            primitive(place.ELLIPSOID, place.ROCK, (x, y, ground(x, y)), 37.0 * number, half, 0.5, 40 + number)
        )
    for number, tree in enumerate(place.TREES):
        found.extend(tree_parts(tree, ground, 100 + 10 * number))
    found.extend(_lines(ground))
    found.extend(_strewn(ground))
    return columns(found)


def _hills(x: Float64, y: Float64) -> Float64:
    """Height of the land in metres; slopes stay below 0.2, which the ray caster relies on."""
    near = 0.9 * np.sin(x / 19 + 0.6) * np.cos(y / 23) + 0.5 * np.sin((x + 1.7 * y) / 31) + 0.25 * np.sin(x / 8 - y / 9)
    far = np.clip(np.hypot(x, y) / 60 - 0.7, 0, 2) * (1.6 * np.sin(x / 27 + 2) + 1.8 * np.cos(y / 29 + 0.4) + 1.5)
    return np.asarray(near + far)


def _pond_distance(x: Float64, y: Float64) -> Float64:
    """Signed distance to the shore, roughly in metres, negative in the water."""
    px, py, a, b = place.POND
    angle = np.arctan2((y - py) / b, (x - px) / a)
    shore = 1 + 0.10 * np.sin(3 * angle + 0.7) + 0.06 * np.sin(5 * angle)
    return np.asarray((np.hypot((x - px) / a, (y - py) / b) - shore) * min(a, b))


def _height(x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """Height of the surface (ground or water), and the depth of the water below it (negative on land)."""
    px, py, *_ = place.POND
    shore = _pond_distance(x, y)
    level = float(_hills(np.array(px), np.array(py))) - place.POND_LEVEL_BELOW
    blend = 1 / (1 + np.exp(-(shore - 4.5) / 1.3))
    bank = level + np.clip(0.18 * shore, -1.2, 0.8)
    land = blend * _hills(x, y) + (1 - blend) * bank
    return np.maximum(land, np.where(shore < 0, level, -np.inf)), np.where(shore < 6, level - land, -1.0)


def ground_height(x: float, y: float) -> float:
    """Height of the surface at one place, metres."""
    return float(_height(np.array(x), np.array(y))[0])


def _ground_map(shapes: Float64) -> NDArray[np.float32]:
    axis = map_axis(SIZE_M)
    x, y = np.meshgrid(axis, axis)
    height, water = _height(x, y)
    slope_y, slope_x = np.gradient(height, MAP_STEP)
    swing = place.LANE_Y + place.LANE_SWING * np.sin(x / place.LANE_LENGTH)
    steepness = place.LANE_SWING / place.LANE_LENGTH * np.cos(x / place.LANE_LENGTH)
    lane = np.abs(y - swing) / np.hypot(1, steepness)  # distance to the centre line
    yard = np.min(
        [segment_distance(x, y, *drive[:4]) - drive[4] for drive in place.DRIVES]
        + [np.hypot(x - yx, y - yy) - radius for yx, yy, radius in place.YARDS],
        axis=0,
    )
    channels = [height, slope_x, slope_y, lane, yard, water, openness(axis, shapes)]
    outside = []  # distance to each field
    for field in place.FIELDS:
        cos, sin = math.cos(math.radians(field.yaw_deg)), math.sin(math.radians(field.yaw_deg))
        lengthwise, across = cos * (x - field.x) + sin * (y - field.y), cos * (y - field.y) - sin * (x - field.x)
        outside.append(np.maximum(np.abs(lengthwise) - field.length / 2, np.abs(across) - field.width / 2))
    channels += [np.min(outside, axis=0), np.argmin(outside, axis=0)]
    channels += [patches(len(axis), 22.0, 1), patches(len(axis), 9.0, 2), np.full_like(height, UNPAVED_M)]
    return np.stack(channels, axis=-1).astype(np.float32)


def hamlet() -> World:
    """The place, ready for the ray caster."""
    kinds, materials, shapes = _primitives(ground_height)
    starts, items, tops = object_grid(kinds, shapes, round(SIZE_M / CELL_M))
    sun = np.array(place.SUN)
    return World(
        ground=_ground_map(shapes),
        fields=np.array(
            [
                [math.cos(math.radians(f.yaw_deg)), math.sin(math.radians(f.yaw_deg)), f.row_spacing, f.crop]
                for f in place.FIELDS
            ]
        ),
        kinds=kinds,
        materials=materials,
        shapes=shapes,
        cell_starts=starts,
        cell_items=items,
        cell_tops=tops,
        sun=sun / np.linalg.norm(sun),
    )
