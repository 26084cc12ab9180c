"""Intersect rays with the place: exact intersections, ray marching for foliage, and a walk through the grid.

Kernels take and return plain numbers: tuples of floats stay in registers. FAR means no hit.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo.noise import kernel, noise3
from tasks.core.demo.place import BOX, CROWN, CYLINDER, ELLIPSOID, GABLE
from tasks.core.demo.scenery import CELL_M, HEIGHT, MAP_STEP, SLOPE_X, SLOPE_Y, World
from tasks.core.transforms import Float64

FAR = 1e30
GROUND = -1  # identity of the ground; primitives have 0, 1, …
_FOLIAGE_STEPS = 8


@kernel
def ground_at(ground: NDArray[np.float32], x: float, y: float, channel: int) -> float:
    """One channel of the ground map at a place, bilinear."""
    last = ground.shape[0] - 1
    u = min(max(x / MAP_STEP + last / 2, 0.0), last - 0.001)
    v = min(max(y / MAP_STEP + last / 2, 0.0), last - 0.001)
    i, j = int(u), int(v)
    u, v = u - i, v - j
    low = ground[j, i, channel] * (1 - u) + ground[j, i + 1, channel] * u
    high = ground[j + 1, i, channel] * (1 - u) + ground[j + 1, i + 1, channel] * u
    return float(low * (1 - v) + high * v)


@kernel
def ground_distance(world: World, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> float:
    """Distance along the ray to the ground, or FAR."""
    if dz >= -1e-3:
        return FAR
    t = max(0.0, (12.0 - oz) / dz)  # no land is higher than 12 m
    closing = -dz + 0.22 * math.sqrt(dx * dx + dy * dy)  # no land in the cameras' view is steeper
    for _ in range(24):
        above = oz + t * dz - ground_at(world.ground, ox + t * dx, oy + t * dy, HEIGHT)
        if above < 0.4:
            break
        t += above / closing
    for _ in range(2):  # Newton
        x, y = ox + t * dx, oy + t * dy
        slope = ground_at(world.ground, x, y, SLOPE_X) * dx + ground_at(world.ground, x, y, SLOPE_Y) * dy - dz
        t += (oz + t * dz - ground_at(world.ground, x, y, HEIGHT)) / max(slope, 0.1)
    return t


@kernel
def foliage_depth(kind: int, shapes: Float64, index: int, x: float, y: float, z: float, exact: bool) -> float:
    """Implicit surface of a crown in its local frame, negative inside. Clumps of leaves move it in and out.

    Unless `exact`, only the sign is right: noise that cannot change the sign is left out.
    """
    seed = int(shapes[index, 9])
    if kind == CROWN:
        frequency, clumped = 2.1, 0.40
        hull = math.sqrt((x / shapes[index, 5]) ** 2 + (y / shapes[index, 6]) ** 2 + (z / shapes[index, 7]) ** 2) - 0.66
    else:
        below_tip = 0.5 - 0.5 * z / shapes[index, 7]  # 0 at the tip, 1 at the foot
        tier = below_tip * (3.0 + 2.2 * shapes[index, 7])
        frequency, clumped = 3.0, 0.32 * below_tip
        hull = math.sqrt(x * x + y * y) / shapes[index, 5] - below_tip * (0.50 + 0.28 * (tier - math.floor(tier)))
    if not exact and (hull < 0 or hull > clumped):
        return hull
    hull -= clumped * 0.62 * noise3(x * frequency, y * frequency, z * frequency, seed)
    if not exact and (hull < 0 or hull > clumped * 0.38):
        return hull
    frequency *= 2.7
    return hull - clumped * 0.38 * noise3(x * frequency, y * frequency, z * frequency, seed + 17)


@kernel
def _march(
    kind: int, shapes: Float64, index: int, x: float, y: float, z: float, dx: float, dy: float, dz: float, near: float,
    far: float,
) -> float:  # fmt: skip
    """First crossing of a crown's surface between two distances."""
    if foliage_depth(kind, shapes, index, x + near * dx, y + near * dy, z + near * dz, False) < 0:
        return near
    step = (far - near) / _FOLIAGE_STEPS
    for number in range(1, _FOLIAGE_STEPS + 1):
        t = near + number * step
        if foliage_depth(kind, shapes, index, x + t * dx, y + t * dy, z + t * dz, False) < 0:
            outside, inside = t - step, t
            for _ in range(4):
                t = 0.5 * (outside + inside)
                if foliage_depth(kind, shapes, index, x + t * dx, y + t * dy, z + t * dz, False) < 0:
                    inside = t
                else:
                    outside = t
            return inside
    return FAR


@kernel
def _slab(o: float, d: float, half: float) -> tuple[float, float]:
    if abs(d) < 1e-12:
        return (-FAR, FAR) if abs(o) <= half else (FAR, -FAR)
    a, b = (-half - o) / d, (half - o) / d
    return (a, b) if a < b else (b, a)


@kernel
def _quadric(a: float, b: float, c: float) -> tuple[float, float]:
    """Interval in which a t² + 2 b t + c <= 0, a > 0."""
    discriminant = b * b - a * c
    if discriminant <= 0:
        return FAR, -FAR
    root = math.sqrt(discriminant)
    return (-b - root) / a, (-b + root) / a


@kernel
def primitive_distance(
    kind: int, shapes: Float64, index: int, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float
) -> float:
    """Distance along the ray to one primitive, or FAR; also FAR for a ray that starts inside it."""
    cos, sin, a, b, c = shapes[index, 3], shapes[index, 4], shapes[index, 5], shapes[index, 6], shapes[index, 7]
    wx, wy, z = ox - shapes[index, 0], oy - shapes[index, 1], oz - shapes[index, 2]
    x, y = cos * wx + sin * wy, cos * wy - sin * wx
    dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    if kind in (BOX, GABLE):
        near, far = _slab(x, dx, a)
        if near > far:
            return FAR
        if kind == BOX:
            low, high = _slab(y, dy, b)
            near, far = max(near, low), min(far, high)
            low, high = _slab(z, dz, c)
            near, far = max(near, low), min(far, high)
        else:
            for side in (-1.0, 1.0):  # z + c <= 2 c (1 - side y / b)
                outside = z - c + side * y * 2 * c / b
                leaving = dz + side * dy * 2 * c / b
                if abs(leaving) < 1e-12:
                    if outside > 0:
                        return FAR
                elif leaving < 0:
                    near = max(near, -outside / leaving)
                else:
                    far = min(far, -outside / leaving)
            if dz < 0:
                far = min(far, -(z + c) / dz)
            elif dz > 0:
                near = max(near, -(z + c) / dz)
        return near if 0 < near < far else FAR
    if kind == CYLINDER:
        near, far = _quadric(dx * dx + dy * dy + 1e-12, x * dx + y * dy, x * x + y * y - a * a)
        low, high = _slab(z, dz, c)
        near, far = max(near, low), min(far, high)
        return near if 0 < near < far else FAR
    if kind in (ELLIPSOID, CROWN):
        ex, ey, ez, fx, fy, fz = x / a, y / b, z / c, dx / a, dy / b, dz / c
        grown = 1.0 if kind == ELLIPSOID else 1.06 * 1.06
        near, far = _quadric(
            fx * fx + fy * fy + fz * fz, ex * fx + ey * fy + ez * fz, ex * ex + ey * ey + ez * ez - grown
        )
        if kind == ELLIPSOID or near > far or far < 0:
            return near if 0 < near < far else FAR
        low, _ = _quadric(
            fx * fx + fy * fy + fz * fz, ex * fx + ey * fy + ez * fz, ex * ex + ey * ey + ez * ez - 0.66 * 0.66
        )
        return _march(kind, shapes, index, x, y, z, dx, dy, dz, max(near, 1e-3), min(far, low))
    # A conifer's hull is a cone: rho <= 1.1 a (c - z) / 2 c.
    k = 1.1 * a / (2 * c)
    qa, qb = dx * dx + dy * dy - k * k * dz * dz, x * dx + y * dy + k * k * (c - z) * dz
    qc = x * x + y * y - k * k * (c - z) * (c - z)
    if qa <= 1e-9:  # steeper than the cone's side: a cylinder around the cone suffices as hull
        qa, qb, qc = dx * dx + dy * dy + 1e-12, x * dx + y * dy, x * x + y * y - 1.21 * a * a
    near, far = _quadric(qa, qb, qc)
    low, high = _slab(z, dz, c)
    near, far = max(near, low, 1e-3), min(far, high)
    return _march(kind, shapes, index, x, y, z, dx, dy, dz, near, far) if near < far else FAR


@kernel
def object_hit(
    world: World, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, start: float, limit: float,
    any_hit: bool, ignored: int,
) -> tuple[float, int]:  # fmt: skip
    """Distance and number of the nearest (or any) primitive between two distances; (`limit`, GROUND) if none."""
    kinds, shapes, tops, starts, items = (
        world.kinds, world.shapes, world.cell_tops, world.cell_starts, world.cell_items
    )  # fmt: skip
    cells = tops.shape[0]
    half = cells * CELL_M / 2
    column = math.floor((ox + start * dx + half) / CELL_M)
    row = math.floor((oy + start * dy + half) / CELL_M)
    step_column, step_row = (1 if dx > 0 else -1), (1 if dy > 0 else -1)
    per_column = CELL_M / abs(dx) if abs(dx) > 1e-12 else FAR
    per_row = CELL_M / abs(dy) if abs(dy) > 1e-12 else FAR
    next_column = ((column + (dx > 0)) * CELL_M - half - ox) / dx if abs(dx) > 1e-12 else FAR
    next_row = ((row + (dy > 0)) * CELL_M - half - oy) / dy if abs(dy) > 1e-12 else FAR
    best, found, entered = limit, GROUND, start
    tried, tried_before, tried_first = -3, -3, -3  # a primitive can be in several cells: remember the last three tried
    while entered < best and 0 <= column < cells and 0 <= row < cells:
        leaving = min(next_column, next_row)
        cell = row * cells + column
        lowest = oz + min(entered * dz, min(leaving, best) * dz)
        if lowest < tops[row, column]:
            for item in range(starts[cell], starts[cell + 1]):
                index = items[item]
                if index == ignored or lowest > shapes[index, 10]:
                    continue
                if index in (tried, tried_before, tried_first):
                    continue
                tried_first, tried_before, tried = tried_before, tried, index
                t = primitive_distance(kinds[index], shapes, index, ox, oy, oz, dx, dy, dz)
                if start < t < best:
                    best, found = t, index
                    if any_hit:
                        return best, found
        if next_column < next_row:
            column += step_column
            next_column += per_column
        else:
            row += step_row
            next_row += per_row
        entered = leaving
    return best, found


@kernel
def trace(world: World, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> tuple[float, int]:
    """The hit of a camera ray: distance in metres (FAR: sky) and the primitive's number or GROUND."""
    limit = ground_distance(world, ox, oy, oz, dx, dy, dz)
    start = max(0.0, (24.0 - oz) / dz) if dz < 0 else 0.0  # nothing is higher than 24 m
    return object_hit(world, ox, oy, oz, dx, dy, dz, start, limit, False, GROUND)


@kernel
def in_shadow(world: World, x: float, y: float, z: float, ignored: int) -> bool:
    """Whether something other than primitive `ignored` is between a point and the sun."""
    sx, sy, sz = world.sun[0], world.sun[1], world.sun[2]
    _, found = object_hit(world, x, y, z, sx, sy, sz, 0.02, max(0.0, 24.0 - z) / sz, True, ignored)
    return found != GROUND
