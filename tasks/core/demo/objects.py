"""Houses, trees and fences taken apart into primitives: boxes, gables, ellipsoids, cylinders, crowns and conifers."""

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo import place
from tasks.core.demo.place import Block, House, Tree
from tasks.core.transforms import Float64

Ground = Callable[[float, float], float]
Primitive = tuple[int, int, tuple[float, ...]]


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
    top = center[2] + half_sizes[2] * (1.06 if kind == place.CROWN else 1.0)  # leaves reach out of their ellipsoid
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
    foot = 1.2  # walls go below the floor: the land slopes
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
        house.wall,  # the gable's triangle is wall
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
    # A round tree: one great crown and smaller ones leaning out of it.
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
    """The woods and single trees of the country around."""
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
    """Shapes, materials and numbers of all primitives: kinds [P], materials [P], shapes [P, 11] as `World` says."""
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
