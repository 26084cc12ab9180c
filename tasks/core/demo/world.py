"""The place as arrays that compiled kernels read: a map of the ground, primitives, and a grid that finds them.

Houses, trees and fences are split into primitives: boxes, gables, ellipsoids, cylinders, crowns and conifers.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo import place
from tasks.core.demo.place import Block, House, Tree
from tasks.core.transforms import Float64

Ground = Callable[[float, float], float]
Primitive = tuple[int, int, tuple[float, ...]]

# The ground map: a square of MAP_SIZE samples around the origin, MAP_STEP metres apart, channels below.
MAP_STEP, MAP_SIZE = 0.5, 720
HEIGHT, SLOPE_X, SLOPE_Y, LANE, YARD, WATER, OPENNESS, FIELD, FIELD_NUMBER, LUSH, DRY = range(11)
CELL_M, CELLS = 2.0, 180  # the grid over the same square that finds primitives
NOTHING = -1e9  # the top of an empty cell: finite, for kernels compiled with fast maths


def _primitive(
    kind: int,
    material: int,
    center: tuple[float, float, float],
    yaw_deg: float,
    half_sizes: tuple[float, float, float],
    style: float,
    seed: int,
) -> Primitive:
    yaw = math.radians(yaw_deg)
    top = center[2] + half_sizes[2] * (1.06 if kind == place.CROWN else 1.0)  # leaves extend beyond their ellipsoid
    return kind, material, (*center, math.cos(yaw), math.sin(yaw), *half_sizes, style, float(seed), top)


def _block(block: Block, ground: Ground, seed: int, kind: int = place.BOX) -> Primitive:
    center = (block.x, block.y, ground(block.x, block.y) + block.bottom + block.height / 2)
    return _primitive(
        kind,
        block.material,
        center,
        block.yaw_deg,
        (block.half_length, block.half_width, block.height / 2),
        block.style,
        seed,
    )


def _house(house: House, ground: Ground, seed: int) -> Iterable[Primitive]:
    floor = ground(house.x, house.y)
    foot = 1.2  # walls continue below the floor, because the land slopes
    yaw = math.radians(house.yaw_deg)
    half = (house.length / 2, house.width / 2)
    wall = floor + (house.wall_height - foot) / 2
    yield _primitive(
        place.BOX,
        house.wall,
        (house.x, house.y, wall),
        house.yaw_deg,
        (*half, (house.wall_height + foot) / 2),
        house.style,
        seed,
    )
    eaves = 0.55
    rise = house.roof_height * (1 + eaves / half[1])
    base = floor + house.wall_height - house.roof_height * eaves / half[1]
    yield _primitive(
        place.GABLE,
        house.roof,
        (house.x, house.y, base + rise / 2),
        house.yaw_deg,
        (half[0] + 0.45, half[1] + eaves, rise / 2),
        house.style,
        house.wall,  # the gable's triangle belongs to the wall
    )
    if house.chimney:
        along, across = house.length * 0.27, house.width * 0.14
        x = house.x + math.cos(yaw) * along - math.sin(yaw) * across
        y = house.y + math.sin(yaw) * along + math.cos(yaw) * across
        top = floor + house.wall_height + house.roof_height + 0.7
        yield _primitive(place.BOX, place.BRICK, (x, y, top - 1.2), house.yaw_deg, (0.5, 0.4, 1.2), 0.5, seed)


def _tree(tree: Tree, ground: Ground, seed: int) -> Iterable[Primitive]:
    x, y, foot = tree.x, tree.y, ground(tree.x, tree.y)
    generator = np.random.default_rng(seed)
    if tree.kind == 1:
        yield _primitive(
            place.CONIFER,
            place.NEEDLES,
            (x, y, foot + 0.5 + tree.height / 2),
            0.0,
            (tree.radius, tree.radius, tree.height / 2),
            tree.tint,
            seed,
        )
        yield _primitive(place.CYLINDER, place.BARK, (x, y, foot + 0.4), 0.0, (0.22, 0.22, 0.8), 0.5, seed)
        return
    if tree.kind == 4:
        half = (tree.radius, tree.radius, tree.height / 2)
        yield _primitive(place.CROWN, place.LEAVES, (x, y, foot + tree.height * 0.42), 0.0, half, tree.tint, seed)
        return
    trunk = 0.06 * tree.radius + 0.12
    yield _primitive(
        place.CYLINDER,
        place.BARK,
        (x, y, foot + tree.height * 0.25 - 0.3),
        0.0,
        (trunk, trunk, tree.height * 0.25 + 0.3),
        0.5,
        seed,
    )
    if tree.kind in (2, 3):
        crown = tree.height * (0.46 if tree.kind == 2 else 0.36)
        half = (tree.radius, tree.radius, crown)
        yield _primitive(place.CROWN, place.LEAVES, (x, y, foot + tree.height - crown), 0.0, half, tree.tint, seed)
        return
    # A round tree: one large crown, and smaller ones that stick out of it.
    half = (tree.radius * 0.78, tree.radius * 0.78, tree.height * 0.33)
    yield _primitive(place.CROWN, place.LEAVES, (x, y, foot + tree.height * 0.67), 0.0, half, tree.tint, seed)
    turn = generator.uniform(0, 360)
    for part in range(5):
        angle = math.radians(turn + 72 * part + generator.uniform(-14, 14))
        out = tree.radius * generator.uniform(0.46, 0.56)
        size = tree.radius * generator.uniform(0.44, 0.56)
        up = foot + tree.height * generator.uniform(0.46, 0.64)
        yield _primitive(
            place.CROWN,
            place.LEAVES,
            (x + out * math.cos(angle), y + out * math.sin(angle), up),
            0.0,
            (size, size, size * 0.85),
            tree.tint + generator.uniform(-0.06, 0.06),
            seed + part,
        )


def _along(corners: tuple[tuple[float, float], ...], step: float) -> Iterable[tuple[float, float, float, float]]:
    """Pieces of a polyline of about `step` metres: centre x, y, yaw in degrees, length."""
    for (ax, ay), (bx, by) in itertools.pairwise(corners):
        length = math.hypot(bx - ax, by - ay)
        pieces = max(1, round(length / step))
        for piece in range(pieces):
            share = (piece + 0.5) / pieces
            yaw = math.degrees(math.atan2(by - ay, bx - ax))
            yield ax + share * (bx - ax), ay + share * (by - ay), yaw, length / pieces


def _lines(ground: Ground) -> Iterable[Primitive]:
    for corners in place.FENCES:
        for x, y, yaw, length in _along(corners, 2.2):
            post = Block(x, y, -0.3, 0.09, 0.09, 1.5, yaw, place.FENCE_WOOD, 0.3)
            yield _block(post, ground, 7)
            for bottom in (0.35, 0.8):
                yield _block(Block(x, y, bottom, length / 2 + 0.05, 0.05, 0.16, yaw, place.FENCE_WOOD, 0.7), ground, 8)
    for corners in place.STONE_WALLS:
        for x, y, yaw, length in _along(corners, 2.5):
            yield _block(Block(x, y, -0.4, length / 2 + 0.05, 0.32, 1.25, yaw, place.STONE), ground, 9)
    for corners in place.HEDGES:
        for number, (x, y, _, length) in enumerate(_along(corners, 1.3)):
            yield from _tree(Tree(x, y, 1.9, length * 0.72, 4, 0.3), ground, 500 + number)


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
            yield from _tree(tree, ground, 1000 + 10 * number)


def primitives(ground: Ground) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64]:
    """All primitives: kinds [P], materials [P], shapes [P, 11], as described in `World`."""
    found: list[Primitive] = []
    for number, house in enumerate(place.HOUSES):
        found.extend(_house(house, ground, number))
    found.extend(_block(block, ground, number) for number, block in enumerate(place.BLOCKS))
    for x, y in place.BALES:
        bale = Block(x, y, 0.0, 0.85, 0.85, 1.25, 0.0, place.STRAW)
        found.append(_block(bale, ground, 3, place.CYLINDER))
    for number, (x, y, radius) in enumerate(place.ROCKS):
        half = (radius * 1.2, radius, radius * 0.75)
        found.append(
            _primitive(place.ELLIPSOID, place.ROCK, (x, y, ground(x, y)), 37.0 * number, half, 0.5, 40 + number)
        )
    for number, tree in enumerate(place.TREES):
        found.extend(_tree(tree, ground, 100 + 10 * number))
    found.extend(_lines(ground))
    found.extend(_strewn(ground))
    kinds, materials, shapes = zip(*found, strict=True)
    return np.array(kinds, np.int64), np.array(materials, np.int64), np.array(shapes, np.float64)


class World(NamedTuple):
    """Everything that a ray can hit."""

    ground: NDArray[np.float32]  # [MAP_SIZE, MAP_SIZE, channels], row = y, column = x
    fields: Float64  # [F, 4] cos, sin of the rows' direction, row spacing, crop
    kinds: NDArray[np.int64]  # [P] shape
    materials: NDArray[np.int64]  # [P]
    shapes: Float64  # [P, 11] x, y, z, cos, sin of yaw, three half sizes, style, seed, top z
    cell_starts: NDArray[np.int64]  # [CELLS² + 1] into cell_items, row = y
    cell_items: NDArray[np.int64]
    cell_tops: Float64  # [CELLS²] greatest height of the objects in the cell
    sun: Float64  # [3] unit vector


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


def _segment_distance(x: Float64, y: Float64, ax: float, ay: float, bx: float, by: float) -> Float64:
    along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
    return np.asarray(np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))


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
    axis = (np.arange(MAP_SIZE) - (MAP_SIZE - 1) / 2) * MAP_STEP
    x, y = np.meshgrid(axis, axis)
    height, water = _height(x, y)
    slope_y, slope_x = np.gradient(height, MAP_STEP)
    swing = place.LANE_Y + place.LANE_SWING * np.sin(x / place.LANE_LENGTH)
    steepness = place.LANE_SWING / place.LANE_LENGTH * np.cos(x / place.LANE_LENGTH)
    lane = np.abs(y - swing) / np.hypot(1, steepness)  # distance to the centre line
    yard = np.min(
        [_segment_distance(x, y, *drive[:4]) - drive[4] for drive in place.DRIVES]
        + [np.hypot(x - yx, y - yy) - radius for yx, yy, radius in place.YARDS],
        axis=0,
    )
    channels = [height, slope_x, slope_y, lane, yard, water, _openness(x, y, shapes)]
    outside = []  # distance to each field
    for field in place.FIELDS:
        cos, sin = math.cos(math.radians(field.yaw_deg)), math.sin(math.radians(field.yaw_deg))
        along, across = cos * (x - field.x) + sin * (y - field.y), cos * (y - field.y) - sin * (x - field.x)
        outside.append(np.maximum(np.abs(along) - field.length / 2, np.abs(across) - field.width / 2))
    channels += [np.min(outside, axis=0), np.argmin(outside, axis=0), _patches(22.0, 1), _patches(9.0, 2)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _patches(wavelength_m: float, seed: int) -> Float64:
    """A random field about 0 with standard deviation 1/3: waves up to `wavelength_m`; shorter ones are fainter."""
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal((MAP_SIZE, MAP_SIZE)))
    rows, columns = np.fft.fftfreq(MAP_SIZE, MAP_STEP)[:, None], np.fft.rfftfreq(MAP_SIZE, MAP_STEP)[None]
    field = np.fft.irfft2(white / (wavelength_m**-2 + rows**2 + columns**2) ** 0.8, (MAP_SIZE, MAP_SIZE))
    return np.asarray((field - field.mean()) / (3 * field.std()))


def _openness(x: Float64, y: Float64, shapes: Float64) -> Float64:
    """Share of the sky that the ground sees, 0..1: every primitive hides some of it from the ground around it."""
    hidden = np.zeros_like(x)
    for px, py, _, cos, sin, a, b, c, *_ in shapes:
        reach = 0.5 + 0.6 * c
        column = slice(*np.searchsorted(x[0], [px - a - b - 2 * reach, px + a + b + 2 * reach]))
        row = slice(*np.searchsorted(y[:, 0], [py - a - b - 2 * reach, py + a + b + 2 * reach]))
        dx, dy = x[row, column] - px, y[row, column] - py
        outside = np.hypot(
            np.maximum(np.abs(cos * dx + sin * dy) - a, 0), np.maximum(np.abs(cos * dy - sin * dx) - b, 0)
        )
        hidden[row, column] += 0.55 * min(c, 1.0) * np.exp(-((outside / reach) ** 2) * 2)
    return np.asarray(1 / (1 + hidden))


def _grid(kinds: NDArray[np.int64], shapes: Float64) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64]:
    """Lists of the primitives that touch each cell, [CELLS² + 1] starts and the items, and the cells' tops."""
    cells: list[list[int]] = [[] for _ in range(CELLS * CELLS)]
    tops = np.full(CELLS * CELLS, NOTHING)
    for index, (x, y, _, cos, sin, a, b, _, _, _, top) in enumerate(shapes):
        hull = 1.1 if kinds[index] in (place.CROWN, place.CONIFER) else 1.0  # leaves extend beyond their half sizes
        reach_x, reach_y = hull * (abs(cos) * a + abs(sin) * b), hull * (abs(sin) * a + abs(cos) * b)
        first_column, last_column = (int((v + CELLS * CELL_M / 2) // CELL_M) for v in (x - reach_x, x + reach_x))
        first_row, last_row = (int((v + CELLS * CELL_M / 2) // CELL_M) for v in (y - reach_y, y + reach_y))
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                cells[row * CELLS + column].append(index)
                tops[row * CELLS + column] = max(tops[row * CELLS + column], top)
    starts = np.concatenate([[0], np.cumsum([len(items) for items in cells])])
    return starts.astype(np.int64), np.array([item for items in cells for item in items], np.int64), tops


@cache
def build_world() -> World:
    """The place, ready for the ray caster."""
    kinds, materials, shapes = primitives(ground_height)
    starts, items, tops = _grid(kinds, shapes)
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
