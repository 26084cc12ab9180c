"""The simulated camera: a pinhole, exposed and developed into 8-bit sRGB, with depth and identity for tests.

The light along a ray depends on the normal of the surface that it hits, on the sun with its cast shadows, and on the
sky. All surfaces are matt, so a spot has one colour in all photos, as later stages assume; only sharpness depends on
the viewer.

First each pixel is sampled at its centre. Where something visible changes between neighbours (object, face, shadow,
leaves in front of leaves), the pixel is sampled five times more and its value is the mean of the light. Elsewhere the
textures' own filtering keeps it smooth.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo import place
from tasks.core.demo.noise import kernel, ramp
from tasks.core.demo.rays import FAR, GROUND, foliage_depth, ground_at, in_shadow, trace
from tasks.core.demo.scenery import OPENNESS, SLOPE_X, SLOPE_Y, WATER, World
from tasks.core.demo.surfaces import (
    Rgb,
    ground_albedo,
    leaf_albedo,
    mix,
    plain_albedo,
    roof_albedo,
    scaled,
    wall_albedo,
)
from tasks.core.kernel_cache import njit
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid_inverse

EXPOSURE = 0.62
_FOOT_M = 1.2  # depth of a house's walls below its floor, see world.py

_SAMPLES = 5


@kernel
def _object_surface(
    world: World, index: int, x: float, y: float, z: float, pixel: float
) -> tuple[Rgb, Rgb, float, int]:
    """Albedo, unit normal, openness to the sky and face number of a primitive at a point of the world."""
    shapes, kind, material = world.shapes, world.kinds[index], world.materials[index]
    cos, sin, a, b, c, style = (
        shapes[index, 3],
        shapes[index, 4],
        shapes[index, 5],
        shapes[index, 6],
        shapes[index, 7],
        shapes[index, 8],
    )
    wx, wy, lz = x - shapes[index, 0], y - shapes[index, 1], z - shapes[index, 2]
    lx, ly = cos * wx + sin * wy, cos * wy - sin * wx
    nx, ny, nz, face = 0.0, 0.0, 1.0, 0
    openness = 0.55 + 0.45 * ramp(-0.2, 2.5, lz + c)
    if kind == place.BOX:
        px, py, pz = abs(lx) / a, abs(ly) / b, abs(lz) / c
        is_wall = (material == place.PLASTER or material == place.PLANKS) and c > 1.2
        if pz >= px and pz >= py:
            nz, face = (1.0 if lz > 0 else -1.0), 1
            albedo = plain_albedo(material, lx, ly, lz, style, True, pixel)
        elif py >= px:
            nz, ny, face = 0.0, (1.0 if ly > 0 else -1.0), 2 + (ly > 0)
            if is_wall:
                albedo = wall_albedo(material, lx, lz + c - _FOOT_M, 2 * a, 2 * c - _FOOT_M, style, face - 2, pixel)
            else:
                albedo = plain_albedo(material, lx, lz, ly, style, False, pixel)
        else:
            nz, nx, face = 0.0, (1.0 if lx > 0 else -1.0), 4 + (lx > 0)
            if is_wall:
                albedo = wall_albedo(material, ly, lz + c - _FOOT_M, 2 * b, 2 * c - _FOOT_M, style, face - 2, pixel)
            else:
                albedo = plain_albedo(material, ly, lz, lx, style, False, pixel)
    elif kind == place.GABLE:
        on_slope = (lz + c) / (2 * c) + abs(ly) / b
        if abs(lx) / a > on_slope - 1e-9 and abs(lx) > a - 1e-3:
            nz, nx, face = 0.0, (1.0 if lx > 0 else -1.0), 4 + (lx > 0)
            albedo = plain_albedo(int(shapes[index, 9]), ly, lz + c + 1.0, lx, style, False, pixel)
            if int(shapes[index, 9]) == place.PLASTER:
                albedo = wall_albedo(place.PLASTER, ly, lz + c + 1.0, 1.0, 1.0, style, 0, pixel)
            albedo = mix(albedo, (0.30, 0.22, 0.15), ramp(0.93, 0.97, on_slope))  # verge board
        else:
            rise = 2 * c / b
            length = math.sqrt(1 + rise * rise)
            nz, ny, face = 1 / length, (1.0 if ly > 0 else -1.0) * rise / length, 2 + (ly > 0)
            albedo = roof_albedo(material, lx, (b - abs(ly)) * length, 2 * a, ly < 0, pixel)
            albedo = mix(albedo, scaled(albedo, 1.5), ramp(0.16, 0.08, abs(ly)))  # ridge
            openness = 1.0
    elif kind == place.CYLINDER:
        if abs(lz) > c - 1e-3 and lx * lx + ly * ly < a * a * 0.9999:
            face, openness = 1, 1.0
            albedo = plain_albedo(material, lx, ly, lz, style, True, pixel)
        else:
            nx, ny, nz = lx / a, ly / a, 0.0
            albedo = plain_albedo(material, a * math.atan2(ly, lx), lz, 0.0, style, False, pixel)
    elif kind == place.ELLIPSOID:
        nx, ny, nz = lx / (a * a), ly / (b * b), lz / (c * c)
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        nx, ny, nz = nx / length, ny / length, nz / length
        albedo = plain_albedo(material, lx, ly, lz, style, False, pixel)
    else:
        # Leaves face in all directions: the hull's normal, bent by the clumps.
        e = 0.07
        here = foliage_depth(kind, shapes, index, lx, ly, lz, True)
        gx = (foliage_depth(kind, shapes, index, lx + e, ly, lz, True) - here) / e
        gy = (foliage_depth(kind, shapes, index, lx, ly + e, lz, True) - here) / e
        gz = (foliage_depth(kind, shapes, index, lx, ly, lz + e, True) - here) / e
        if kind == place.CROWN:
            nx, ny, nz = lx / (a * a), ly / (b * b), lz / (c * c)
            out = math.sqrt((lx / a) ** 2 + (ly / b) ** 2 + (lz / c) ** 2)
            deep = ramp(0.70, 1.02, out)
        else:
            rho = math.sqrt(lx * lx + ly * ly) + 1e-6
            nx, ny, nz = lx / rho, ly / rho, 0.5 * a / c + 0.25
            below_tip = 0.5 - 0.5 * lz / c
            deep = ramp(0.50, 1.0, rho / (a * below_tip + 1e-6))
        hull = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
        bent = math.sqrt(gx * gx + gy * gy + gz * gz) + 1e-9
        nx, ny, nz = nx / hull + 0.8 * gx / bent, ny / hull + 0.8 * gy / bent, nz / hull + 0.8 * gz / bent
        length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
        nx, ny, nz = nx / length, ny / length, nz / length
        albedo = leaf_albedo(material, lx, ly, lz, style, deep, pixel)
        openness = (0.35 + 0.65 * deep) * (0.70 + 0.30 * ramp(-1.0, 0.4, lz / c))
        face = 7
    return albedo, (cos * nx - sin * ny, sin * nx + cos * ny, nz), openness, face


@kernel
def see(
    world: World, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, pixel_per_m: float
) -> tuple[Rgb, float, int, int]:
    """Light along a camera ray: linear RGB, distance in metres, primitive, and a key that changes at visible edges.

    pixel_per_m: width of a pixel one metre away.
    """
    t, index = trace(world, ox, oy, oz, dx, dy, dz)
    if t >= 0.5 * FAR:
        return (0.55, 0.68, 0.85), FAR, GROUND, -1
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    if index == GROUND:
        sx, sy = -ground_at(world.ground, x, y, SLOPE_X), -ground_at(world.ground, x, y, SLOPE_Y)
        length = math.sqrt(sx * sx + sy * sy + 1)
        normal = (sx / length, sy / length, 1 / length)
        # Seen at a grazing angle, a pixel covers a long strip: take a size between its width and its length.
        pixel = t * pixel_per_m / math.sqrt(max(-dz, 0.05))
        albedo = ground_albedo(world, x, y, pixel)
        openness, face = ground_at(world.ground, x, y, OPENNESS), 0
        wet = ramp(0.0, 0.3, ground_at(world.ground, x, y, WATER))
    else:
        pixel = t * pixel_per_m * 1.2
        albedo, normal, openness, face = _object_surface(world, index, x, y, z, pixel)
        wet = 0.0
    facing = normal[0] * world.sun[0] + normal[1] * world.sun[1] + normal[2] * world.sun[2]
    leafy = face == 7
    if leafy:
        facing = 0.22 + 0.78 * facing  # light that comes through
    shaded = facing <= 0 or in_shadow(
        world, x + 0.02 * normal[0], y + 0.02 * normal[1], z + 0.02 * normal[2], index if leafy else -2
    )
    sun = 0.0 if shaded else 2.1 * facing * (0.55 + 0.45 * openness if leafy else 1.0)
    up = 0.5 + 0.5 * normal[2]
    sky, bounce = 0.62 * up * openness, 0.26 * (1 - up)
    light = (sun + 0.78 * sky + bounce, 0.94 * sun + 0.93 * sky + bounce, 0.80 * sun + 1.18 * sky + 0.7 * bounce)
    color = (
        EXPOSURE * albedo[0] * light[0] + 0.035 * wet,
        EXPOSURE * albedo[1] * light[1] + 0.050 * wet,
        EXPOSURE * albedo[2] * light[2] + 0.070 * wet,
    )
    return color, t, index, (index + 1) * 16 + face * 2 + shaded


@dataclass(frozen=True)
class Exposure:
    """The result of one exposure."""

    rgb: NDArray[np.uint8]  # [height, width, 3] sRGB
    distance_m: NDArray[np.float32]  # [height, width] along the ray through the pixel's centre
    objects: NDArray[np.int32]  # [height, width] primitive, GROUND = -1


@kernel
def _srgb(linear: float) -> int:
    """8-bit sRGB with a soft shoulder, so that white walls keep their texture."""
    if linear > 0.6:
        linear = 0.6 + 0.4 * (1 - math.exp(-(linear - 0.6) / 0.4))
    value = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return int(min(max(value, 0.0), 1.0) * 255 + 0.5)


@kernel
def _is_edge(keys: NDArray[np.int32], distance: NDArray[np.float32], row: int, column: int, pixel: float) -> bool:
    """Whether something visible changes between a pixel and one of its four neighbours. pixel: its width at 1 m."""
    height, width = keys.shape
    for neighbour in range(4):
        r, c = row + (neighbour == 0) - (neighbour == 1), column + (neighbour == 2) - (neighbour == 3)
        if r < 0 or c < 0 or r >= height or c >= width:
            continue
        if keys[row, column] != keys[r, c]:
            return True
        leaves = (keys[row, column] & 15) >> 1 == 7
        if leaves and abs(distance[row, column] - distance[r, c]) > 7 * pixel * distance[row, column]:
            return True
    return False


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _expose(
    world: World, pose: Float64, lens: Float64, light: NDArray[np.float32], distance: NDArray[np.float32],
    objects: NDArray[np.int32], keys: NDArray[np.int32], rgb: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Run both passes over an image; pose [3, 4] is world_from_cam, lens fx fy cx cy."""
    height, width = keys.shape
    for samples in (1, _SAMPLES):  # one call of `see`: it is long, and compiled at each call site
        for row in range(height):
            for column in range(width):
                if samples > 1 and not _is_edge(keys, distance, row, column, 1 / lens[0]):
                    continue
                red, green, blue = 0.0, 0.0, 0.0
                for sample in range(samples):  # a rank-1 lattice: five different rows and columns
                    x = (column + (sample + 0.5) / samples - lens[2]) / lens[0]
                    y = (row + (sample * 2 % samples + 0.5) / samples - lens[3]) / lens[1]
                    length = math.sqrt(x * x + y * y + 1)
                    dx = (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2]) / length
                    dy = (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2]) / length
                    dz = (pose[2, 0] * x + pose[2, 1] * y + pose[2, 2]) / length
                    pixel = 1 / (lens[0] * length)
                    seen, t, index, key = see(world, pose[0, 3], pose[1, 3], pose[2, 3], dx, dy, dz, pixel)
                    red, green, blue = red + seen[0], green + seen[1], blue + seen[2]
                    if samples == 1:
                        distance[row, column], objects[row, column], keys[row, column] = t, index, key
                light[row, column, 0] = red / samples
                light[row, column, 1] = green / samples
                light[row, column, 2] = blue / samples
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                rgb[row, column, channel] = _srgb(light[row, column, channel])


def expose(world: World, camera: Camera) -> Exposure:
    """Photograph the place. The same camera gives the same bytes for any number of threads."""
    height, width = camera.height, camera.width
    pose = np.ascontiguousarray(rigid_inverse(camera.cam_from_world)[:3])
    lens = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    light = np.empty((height, width, 3), np.float32)
    distance = np.empty((height, width), np.float32)
    objects, keys = np.full((height, width), GROUND, np.int32), np.empty((height, width), np.int32)
    rgb = np.empty((height, width, 3), np.uint8)
    _expose(world, pose, lens, light, distance, objects, keys, rgb)
    return Exposure(rgb, distance, objects)
