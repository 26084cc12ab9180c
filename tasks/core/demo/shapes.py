"""Primitives of the things in a place: houses, trees, fences and all that is a box.

A primitive is a box, gable, ellipsoid, cylinder, crown or conifer, as described in `World`.
"""

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


def primitive(
    kind: int,
    material: int,
    center: tuple[float, float, float],
    yaw_deg: float,
    half_sizes: tuple[float, float, float],
    style: float,
    seed: int,
) -> Primitive:
    """One primitive: its kind, its material, and the numbers of `World.shapes`."""
    yaw = math.radians(yaw_deg)
    top = center[2] + half_sizes[2] * (1.06 if kind == place.CROWN else 1.0)  # leaves extend beyond their ellipsoid
    return kind, material, (*center, math.cos(yaw), math.sin(yaw), *half_sizes, style, float(seed), top)


def block_part(block: Block, ground: Ground, seed: int, kind: int = place.BOX) -> Primitive:
    """A box, or a cylinder, that stands on the ground."""
    center = (block.x, block.y, ground(block.x, block.y) + block.bottom + block.height / 2)
    return primitive(
        kind,
        block.material,
        center,
        block.yaw_deg,
        (block.half_length, block.half_width, block.height / 2),
        block.style,
        seed,
    )


def house_parts(house: House, ground: Ground, seed: int) -> Iterable[Primitive]:
    """Walls, a roof and perhaps a chimney."""
    floor = ground(house.x, house.y)
    foot = 1.2  # walls continue below the floor, because the land slopes
    yaw = math.radians(house.yaw_deg)
    half = (house.length / 2, house.width / 2)
    wall = floor + (house.wall_height - foot) / 2
    yield primitive(
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
    yield primitive(
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
        yield primitive(place.BOX, place.BRICK, (x, y, top - 1.2), house.yaw_deg, (0.5, 0.4, 1.2), 0.5, seed)


def tree_parts(tree: Tree, ground: Ground, seed: int) -> Iterable[Primitive]:
    """A trunk and crowns."""
    x, y, foot = tree.x, tree.y, ground(tree.x, tree.y)
    generator = np.random.default_rng(seed)
    if tree.kind == 1:
        yield primitive(
            place.CONIFER,
            place.NEEDLES,
            (x, y, foot + 0.5 + tree.height / 2),
            0.0,
            (tree.radius, tree.radius, tree.height / 2),
            tree.tint,
            seed,
        )
        yield primitive(place.CYLINDER, place.BARK, (x, y, foot + 0.4), 0.0, (0.22, 0.22, 0.8), 0.5, seed)
        return
    if tree.kind == 4:
        half = (tree.radius, tree.radius, tree.height / 2)
        yield primitive(place.CROWN, place.LEAVES, (x, y, foot + tree.height * 0.42), 0.0, half, tree.tint, seed)
        return
    trunk = 0.06 * tree.radius + 0.12
    yield primitive(
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
        yield primitive(place.CROWN, place.LEAVES, (x, y, foot + tree.height - crown), 0.0, half, tree.tint, seed)
        return
    # A round tree: one large crown, and smaller ones that stick out of it.
    half = (tree.radius * 0.78, tree.radius * 0.78, tree.height * 0.33)
    yield primitive(place.CROWN, place.LEAVES, (x, y, foot + tree.height * 0.67), 0.0, half, tree.tint, seed)
    turn = generator.uniform(0, 360)
    for part in range(5):
        angle = math.radians(turn + 72 * part + generator.uniform(-14, 14))
        out = tree.radius * generator.uniform(0.46, 0.56)
        size = tree.radius * generator.uniform(0.44, 0.56)
        up = foot + tree.height * generator.uniform(0.46, 0.64)
        yield primitive(
            place.CROWN,
            place.LEAVES,
            (x + out * math.cos(angle), y + out * math.sin(angle), up),
            0.0,
            (size, size, size * 0.85),
            tree.tint + generator.uniform(-0.06, 0.06),
            seed + part,
        )


def along(corners: tuple[tuple[float, float], ...], step: float) -> Iterable[tuple[float, float, float, float]]:
    """Pieces of a polyline of about `step` metres: centre x, y, yaw in degrees, length."""
    for (ax, ay), (bx, by) in itertools.pairwise(corners):
        length = math.hypot(bx - ax, by - ay)
        pieces = max(1, round(length / step))
        for piece in range(pieces):
            share = (piece + 0.5) / pieces
            yaw = math.degrees(math.atan2(by - ay, bx - ax))
            yield ax + share * (bx - ax), ay + share * (by - ay), yaw, length / pieces


def columns(found: Iterable[Primitive]) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64]:
    """Kinds [P], materials [P] and shapes [P, 11] of primitives."""
    kinds, materials, shapes = zip(*found, strict=True)
    return np.array(kinds, np.int64), np.array(materials, np.int64), np.array(shapes, np.float64)
